"""`paw imitate --dry-run`: says what would be, refuses what `paw imitate` would, begins nothing."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import zstandard

from paw.cli import main
from paw.commands.estimate import memory_of
from paw.commands.imitate_dry_run import memory_of_imitation
from paw.config.read import resolve
from paw.model.memory import ModelShape
from paw.types import TrainingSample
from train.test_imitate import NEW_MODEL, SMALL
from train.tiny_runs import flags, make_policy

SHAPE = ModelShape(
    parameters=1000, backbone_parameters=900, lora_features=60, layers=2, hidden=8, query=8, key=4,
    intermediate=16, vocabulary=50,
)  # fmt: skip


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("model") / "policy")


def arguments(policy: Path | str, output: Path | str, **changed: object) -> list[str]:
    return flags(policy, **{**SMALL, "imitate__output": output, **changed})


def shown(capsys: pytest.CaptureFixture[str], words: list[str]) -> str:
    assert main(["imitate", "--dry-run", *words]) == 0
    return capsys.readouterr().out


def test_says_what_would_be_and_begins_nothing(policy: Path, tmp_path: Path, capsys):
    output = tmp_path / "folder" / "policy"
    out = shown(capsys, arguments(policy, output))
    assert f"{output} (new)" in out and list(tmp_path.iterdir()) == []
    assert "12 episodes of the expert (noise 0.7, junk 0.12); of 12 tried it won" in out
    assert "4 steps of 4 episodes, rate 1e-05" in out
    assert "at the end, on 2 episodes of the 200 tasks of valid" in out
    assert "M: 1 layers of 16" in out and "memory     about" in out and "warn" not in out
    assert re.search(r"time       about .* s a step, .* without evaluations", out)


def test_a_policy_from_scratch(tmp_path: Path, capsys):
    """The model has the sizes of [imitate], and as many tokens as the sample has words."""
    words = arguments("household", tmp_path / "policy", **NEW_MODEL)
    out = shown(capsys, [*words, "--imitate.max_positions", "16", "--imitate.eval_every", "2"])
    assert "from scratch" in out and "1 layers of 16" in out
    assert "every 2 steps and at the end" in out
    assert "is longer than imitate.max_positions = 16: raise it" in out


def test_the_trajectories_of_a_run(policy: Path, tmp_path: Path, capsys):
    turn = {"observation": "A room.", "next_observation": "A mug.", "response": "look"}
    row = {
        "task": {"id": "0", "kind": "look", "instruction": "Look."},
        "success": True,
        "turns": [{**turn, "valid": True}] * 3,
    }
    file = tmp_path / "file.jsonl.zst"

    def write(*rows: dict) -> None:
        lines = "".join(json.dumps(r) + "\n" for r in rows).encode()
        file.write_bytes(zstandard.ZstdCompressor().compress(lines))

    write(row, row | {"success": False}, row | {"turns": row["turns"][:1]})
    words = arguments(policy, tmp_path / "policy", imitate__trajectories=file)
    assert f"2 successful trajectories of 2.0 turns in {file}" in shown(capsys, words)
    write(row | {"turns": [{**turn, "valid": False}]})
    assert main(["imitate", "--dry-run", *words]) == 2
    assert "no demonstration has a valid turn" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"imitate__trajectories": "/nonexistent.jsonl.zst"}, "cannot read it"),
        ({"imitate__expert": "{speed = 1}"}, "imitate.expert"),
        ({"rollout__max_turns": 1}, "won none of its episodes"),
        ({"eval__split": "validation"}, "no split 'validation'"),
        ({"model__path": "/nonexistent/model"}, "no such directory"),
        ({"model__device": "tpu"}, "must be auto, cpu, cuda"),
    ],
)
def test_refuses_what_imitate_would(policy: Path, tmp_path: Path, capsys, changed: dict, part: str):
    assert main(["imitate", "--dry-run", *arguments(policy, tmp_path / "x", **changed)]) == 2
    err = capsys.readouterr().err
    assert part in err and err.count("\n") == 1


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"imitate__output": "."}, "exists already"),
        ({"imitate__output": "/dev/null/x"}, "cannot write /dev/null/x"),
        ({"model__device": "cuda:7"}, "no usable GPU"),
    ],
)
def test_what_the_machine_lacks_is_a_line(
    policy: Path, tmp_path: Path, capsys, changed: dict, part: str
):
    out = shown(capsys, arguments(policy, tmp_path / "x", **changed))
    (line,) = [x for x in out.splitlines() if x.startswith("warn ")]
    assert "paw imitate refuses this: " in line and part in line


def test_a_wrong_evaluation_split_shows_before_training(policy: Path, tmp_path: Path, capsys):
    words = arguments(policy, tmp_path / "x", eval__split="vaild", imitate__demonstrations=10**8)
    assert main(["imitate", *words]) == 2
    assert "did you mean 'valid'?" in capsys.readouterr().err


def row(length: int) -> TrainingSample:
    zeros = (0.0,) * length
    return TrainingSample((1,) * length, (0,) * length, zeros, zeros, zeros, zeros, length)


def test_memory_of_rows(policy: Path, tmp_path: Path):
    """Two episodes of one row of 30 and 50 tokens, batches of 4: a micro-batch of 100 tokens holds
    two rows of 50; one of 40 tokens one row, as a longer row still makes one; the whole batch has
    4 x 50. Activations are linear in them. Weights, gradients and moments are those of training."""
    config = resolve([], arguments(policy, tmp_path / "x"))
    episodes = [[row(30)], [row(50)]]

    def memory(tokens: int):
        optimizer = replace(config.optimizer, tokens_per_micro_batch=tokens)
        return memory_of_imitation(replace(config, optimizer=optimizer), SHAPE, episodes)

    one, two, four = (memory(t).activations for t in (40, 100, 10**6))
    assert one > 0 and (two, four) == (2 * one, 4 * one)
    trained = memory_of(config, SHAPE)
    assert (memory(100).weights, memory(100).optimizer) == (trained.weights, trained.optimizer)
    # 2 episodes are played side by side, of 400 + 4 tokens; keys and values of 4 + 4 bytes
    assert memory(100).cache == 2 * 404 * 2 * 4 * (4 + 4)


def test_window_rows_are_counted_one_a_turn(policy: Path, tmp_path: Path):
    """Episodes of 3 and 4 rows, batches of 2: 7 rows of at most 10 tokens."""
    config = resolve([], arguments(policy, tmp_path / "x", imitate__batch_episodes=2))
    episodes = [[row(10)] * 3, [row(10)] * 4]
    everything = replace(config.optimizer, tokens_per_micro_batch=10**6)
    single = replace(config.optimizer, tokens_per_micro_batch=10)
    both = [
        memory_of_imitation(replace(config, optimizer=o), SHAPE, episodes).activations
        for o in (everything, single)
    ]
    assert both[0] == 7 * both[1]
