"""`paw imitate`: from an expert, from a run's trajectories, whole or not at all."""

import json
import signal
import time
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
import torch
import zstandard
from safetensors import safe_open

from .tiny_runs import Forked, ForkServer, flags

pytestmark = pytest.mark.timeout(300)

SMALL = {
    "imitate__demonstrations": 12,
    "imitate__steps": 4,
    "imitate__batch_episodes": 4,
    "rollout__max_turns": 12,
    "eval__episodes": 2,
    "eval__max_turns": 2,
}
NEW_MODEL = {
    "imitate__from_scratch": True,
    "imitate__hidden_size": 16,
    "imitate__num_layers": 1,
    "imitate__num_heads": 2,
    "imitate__num_kv_heads": 1,
}


def arguments(policy: Path | str, output: Path, **changed: object) -> list[str]:
    return ["imitate", *flags(policy, **{**SMALL, "imitate__output": output, **changed})]


@pytest.mark.parametrize(
    "changed",
    [
        {"rollout__context": "window", "rollout__response_format": "tags"},
        {"rollout__context": "append", "imitate__observation_weight": 0},
        {**NEW_MODEL, "rollout__context": "append", "imitate__eval_every": 2},
        {"model__lora_rank": 2},
        {"model__dtype": "bfloat16"},
    ],
)
def test_makes_a_policy(server: ForkServer, policy: Path, tmp_path: Path, changed: dict):
    output = tmp_path / "policy"
    finished = server.run(arguments(policy, output, **changed))
    assert finished.code == 0, finished.err
    assert finished.out.splitlines()[-1].startswith(f"policy  {output}")
    report = json.loads((output / "imitate.json").read_text())
    assert (report["steps"], report["finished"]) == (4, True)
    assert 0 < report["demonstrations"] <= 12
    steps = [row["step"] for row in report["evaluations"]]
    assert steps == ([2, 4] if "imitate__eval_every" in changed else [4])
    weights = (output / "model.safetensors").read_bytes()
    assert weights != (policy / "model.safetensors").read_bytes()
    card = (output / "paw.toml").read_text()
    assert f'context = "{changed.get("rollout__context", "window")}"' in card
    # The card alone tells `paw eval` how to prompt it.
    again = server.run(["eval", str(output), "--episodes", "1", "--eval.max_turns", "1"])
    assert again.code == 0, again.err


def test_two_runs_make_the_same_policy(server: ForkServer, policy: Path, tmp_path: Path):
    for name in ("a", "b"):
        assert server.run(arguments(policy, tmp_path / name)).code == 0
    files = [(tmp_path / n / "model.safetensors").read_bytes() for n in ("a", "b")]
    assert files[0] == files[1]


def test_learns_from_the_trajectories_of_a_run(server: ForkServer, policy: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert server.run(["train", *flags(policy, run, run__updates=1)]).code == 0
    file = run / "trajectories" / "update-000001.jsonl.zst"
    lost = arguments(policy, tmp_path / "x", imitate__trajectories=file)
    finished = server.run(lost)
    assert (finished.code, "no successful trajectory" in finished.err) == (2, True)
    with zstandard.open(file, "rb") as stream:
        rows = [msgspec.json.decode(line) for line in stream.read().splitlines()]

    def demonstrations(name: str, valid: bool) -> Path:
        """The same, as if an untrained policy could win."""
        for row in rows:
            row["success"] = True
            row["turns"] = [turn | {"valid": valid} for turn in row["turns"]]
        lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
        (tmp_path / name).write_bytes(zstandard.ZstdCompressor().compress(lines))
        return tmp_path / name

    useless = demonstrations("useless.jsonl.zst", valid=False)
    finished = server.run(arguments(policy, tmp_path / "y", imitate__trajectories=useless))
    assert (finished.code, "no demonstration has a valid turn" in finished.err) == (2, True)
    won, output = demonstrations("won.jsonl.zst", valid=True), tmp_path / "policy"
    finished = server.run(arguments(policy, output, imitate__trajectories=won))
    assert finished.code == 0, finished.err
    assert json.loads((output / "imitate.json").read_text())["demonstrations"] == len(rows)
    won.write_bytes(zstandard.ZstdCompressor().compress(b'{"question": "?"}\n'))
    finished = server.run(arguments(policy, tmp_path / "z", imitate__trajectories=won))
    assert (finished.code, "not a run's trajectory file" in finished.err) == (2, True)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"imitate__trajectories": "/nonexistent.jsonl.zst"}, "cannot read it"),
        ({"imitate__trajectories": __file__}, "cannot read it"),
        ({"imitate__expert": "{speed = 1}"}, "imitate.expert"),
        ({"imitate__expert": '{noise = "x"}'}, 'imitate.expert.noise = "x": must be a number'),
        ({"env__name": "tiny_envs:Sleepy"}, "has no expert; set imitate.trajectories"),
        ({"imitate__output": "/dev/null/x"}, "cannot write /dev/null/x"),
        ({"rollout__max_turns": 1}, "won none of its episodes"),
        ({"imitate__from_scratch": True, "model__device": "cuda"}, "no usable GPU"),
    ],
)
def test_mistakes(server: ForkServer, policy: Path, tmp_path: Path, changed: dict, part: str):
    finished = server.run(arguments(policy, tmp_path / "policy", **changed))
    assert finished.code == 2, finished.err
    assert part in finished.err.splitlines()[-1]
    assert "Traceback" not in finished.err
    assert list(tmp_path.iterdir()) == []


def test_existing_output_is_refused_before_any_work(
    server: ForkServer, policy: Path, tmp_path: Path
):
    (tmp_path / "policy").mkdir()
    start = time.monotonic()
    endless = arguments(policy, tmp_path / "policy", imitate__demonstrations=10**8)
    finished = server.run(endless)
    assert time.monotonic() - start < 20
    assert (finished.code, finished.err.count("\n")) == (2, 1)
    assert "exists already: choose another" in finished.err


def wait_for(condition: Callable[[], bool], seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def wait_for_word(process: Forked, word: str) -> None:
    """Until it is on stderr; "step 1/" is progress once a step is done."""
    wait_for(lambda: process.err.is_file() and word in process.err.read_text())


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_keeps_the_policy_as_reached(
    server: ForkServer, policy: Path, tmp_path: Path, number: signal.Signals
):
    output = tmp_path / "policy"
    process = server.start(arguments(policy, output, imitate__steps=10**6))
    wait_for_word(process, "step 1/")
    process.signal(number)
    finished = process.wait()
    assert finished.code == 130
    assert "Traceback" not in finished.err
    assert "finishing this step and saving" in finished.err
    report = json.loads((output / "imitate.json").read_text())
    assert (report["finished"], report["evaluations"]) == (False, [])
    assert finished.err.splitlines()[-1].startswith(
        f"paw: stopped; the same command goes on from step {report['steps']:,} of 1,000,000, in "
    )
    assert finished.err.splitlines()[-1].endswith(
        f"; {output} holds the policy of step {report['steps']:,}"
    )
    assert sorted(p.name for p in tmp_path.iterdir()) == ["policy", "policy.partial"]
    again = server.run(["eval", str(output), "--episodes", "1", "--eval.max_turns", "1"])
    assert again.code == 0, again.err


def test_interrupted_before_training_says_that_nothing_was_kept(
    server: ForkServer, policy: Path, tmp_path: Path
):
    process = server.start(arguments(policy, tmp_path / "p", imitate__demonstrations=10**8))
    wait_for_word(process, "demonstrations ")
    process.signal(signal.SIGINT)
    finished = process.wait()
    assert finished.code == 130
    assert finished.err.splitlines()[-1] == "paw: stopped; nothing was kept"
    assert list(tmp_path.iterdir()) == []


def test_killed_leaves_the_policy_of_the_last_evaluation(
    server: ForkServer, policy: Path, tmp_path: Path
):
    output = tmp_path / "policy"
    endless = arguments(policy, output, imitate__steps=10**6, imitate__eval_every=10**5)
    process = server.start(endless)
    wait_for_word(process, "step 1/")
    process.signal(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    assert [p.name for p in tmp_path.iterdir()] == ["policy.partial"]
    process = server.start(arguments(policy, output, imitate__steps=10**6, imitate__eval_every=2))
    wait_for((output / "imitate.json").is_file)
    process.signal(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    kept = output if output.is_dir() else tmp_path / "policy.old.tmp"  # between two renames
    report = json.loads((kept / "imitate.json").read_text())
    assert report["steps"] == report["evaluations"][-1]["step"] >= 2
    assert not report["finished"]


def test_a_disk_without_room_is_seen_before_training(
    server: ForkServer, policy: Path, tmp_path: Path
):
    """No file may grow beyond 1,000 bytes: the policy has some thousand weights of 4 bytes."""
    endless = arguments(policy, tmp_path / "policy", imitate__steps=10**6)
    finished = server.run(endless, file_bytes=1000)  # with the optimizer, 12 bytes each
    assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
    assert f"cannot write {tmp_path / 'policy'} (0." in finished.err
    assert "MB are wanted): File too large; make room" in finished.err
    assert list(tmp_path.iterdir()) == []


def test_a_policy_from_scratch_is_as_model_says(server: ForkServer, tmp_path: Path):
    made = tmp_path / "policy"
    keys = {**NEW_MODEL, "model__dtype": "float64"}
    assert server.run(arguments("household", made, **keys)).code == 0
    with safe_open(made / "model.safetensors", "pt") as file:
        assert {file.get_tensor(name).dtype for name in file.keys()} == {torch.float64}  # noqa: SIM118


def test_a_policy_from_scratch_trains_further(server: ForkServer, policy: Path, tmp_path: Path):
    """What imitation makes, training takes: card, tokenizer and weights fit."""
    made, run = tmp_path / "policy", tmp_path / "run"
    assert server.run(arguments("household", made, **NEW_MODEL)).code == 0
    finished = server.run(["train", *flags(made, run, run__updates=1)])
    assert finished.code == 0, finished.err
