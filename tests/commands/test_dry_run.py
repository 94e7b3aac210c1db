"""`paw train --dry-run`: says what would be, refuses what `paw train` would, begins nothing."""

import json
import re
import shutil
from pathlib import Path

import pytest

from paw.cli import main
from paw.commands.arguments import num_bytes
from paw.config.read import resolve, to_toml
from train.tiny_runs import flags, make_policy


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("model") / "policy")


TIME = r"time       .*about .* s an update \(.* acting, .* learning\), .* in all, measured on \d "


def shown(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(["train", "--dry-run", *arguments]) == 0
    return capsys.readouterr().out


def warning(out: str) -> str:
    """The one line that warns."""
    (line,) = [x for x in out.splitlines() if x.startswith("warn ")]
    return line


def test_says_what_would_be_and_begins_nothing(policy: Path, tmp_path: Path, capsys):
    """2 x 2 trajectories of 3 turns of 400 + 4 tokens; 9 of the 12 turns with a target of
    512 + 16: 4,848 + 4,752 = 9,600."""
    run = tmp_path / "run"
    out = shown(capsys, *flags(policy, run, eval__every=2))
    assert f"{run} (new)" in out and not run.exists()
    assert "household train: 4,000; evaluation every 2 updates on 2 episodes" in out
    assert "grpo + PaW (cmae, rho 0.2, alpha 0.75, constant lambda x 1)" in out
    assert "48 sampled, 4,800 read, 9,600 trained (4,752 of them for the prediction)" in out
    assert "M: 1 layers of 16" in out and "memory     about" in out and "warn" not in out
    assert "expected" not in out
    assert re.search(TIME, out)


def test_goes_on_from_a_run(policy: Path, tmp_path: Path, capsys):
    run = tmp_path / "run"
    arguments = flags(policy, run)
    run.mkdir()
    (run / "config.toml").write_text(to_toml(resolve([], arguments)))
    assert "begun, no checkpoint yet" in shown(capsys, *arguments)
    checkpoint = run / "checkpoints" / "update-000004"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer.pt").write_bytes(b"")
    row = {
        "tokens/sampled": 40,
        "tokens/trained": 900,
        "rollout/turns_mean": 2,
        "time/update": 1800,
    }
    rows = [{"update": i + 1, **row} for i in range(4)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    out = shown(capsys, *arguments)
    assert "goes on from update-000004" in out and "6, 4 done" in out
    assert "40 sampled, 900 trained, 2.0 turns an episode, 1800.0 s; 1.0 h left" in out
    for change, part in ((["--rollout.groups", "3"], "another configuration"),
                         (["--run.resume", "false"], "holds a run already")):  # fmt: skip
        out = shown(capsys, *arguments, *change)
        assert part in warning(out) and re.search(TIME, out) and "expected" not in out
    shutil.rmtree(checkpoint)  # what was measured is protected like a checkpoint
    out = shown(capsys, *arguments, "--rollout.groups", "3")
    assert "another configuration" in warning(out)


def test_hub_models_are_downloaded_later(tmp_path: Path, capsys, monkeypatch):
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    name = "nobody-at-all/no-such-model"
    out = shown(capsys, *flags(name, tmp_path / "run"))
    assert (
        f"not on this disk: it will be downloaded; for its memory, first: hf download {name}" in out
    )
    assert "48 sampled" in out


def test_refuses_what_train_would(policy: Path, tmp_path: Path, capsys):
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.json").write_text('{"model_type": "nothing"}')
    (empty / "tokenizer.json").write_text("{}")
    run, short = tmp_path / "run", tmp_path / "short"
    shutil.copytree(policy, short)
    weights = short / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:5000])
    cases = {
        "cannot load": flags(short, run),
        "cannot read its config.json": flags(empty, run),
        "did you mean 'valid'": flags(policy, run, eval__every=1, eval__split="vaild"),
        "chat template alone takes": flags(policy, run, rollout__max_prompt_tokens=1),
        "must be auto, cpu, cuda": flags(policy, run, model__device="tpu"),
        "no metrics.jsonl there": flags(
            policy, run, paw__weight="matched_constant", paw__match=tmp_path
        ),
    }
    for part, arguments in cases.items():
        assert main(["train", "--dry-run", *arguments]) == 2, part
        (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("paw: ")]
        assert part in line
    assert not run.exists()


def test_says_what_does_not_fit(policy: Path, tmp_path: Path, capsys):
    many = flags(policy, tmp_path / "run", rollout__groups=10**6, rollout__conversations=10**6)
    assert "warn       it does not fit: lower optimizer" in shown(capsys, *many)


def test_a_directory_that_is_taken(policy: Path, tmp_path: Path, capsys):
    """What is wrong with the place is a line; all the rest is told."""
    (tmp_path / "notes.txt").write_text("x")
    out = shown(capsys, *flags(policy, tmp_path))
    assert "paw train refuses this: " in warning(out) and "holds something else" in warning(out)
    assert re.search(TIME, out)


@pytest.mark.parametrize(("memory", "fits"), [("80GB", True), ("2MiB", False)])
def test_a_device_of_another_machine(policy: Path, tmp_path: Path, capsys, memory: str, fits: bool):
    arguments = flags(policy, tmp_path / "run", model__device="cuda:9")
    out = shown(capsys, *arguments, "--device-memory", memory)
    assert ("warn" not in out) == fits
    assert ("74.5 GiB on cuda:9" if fits else "2.0 MiB on cuda:9") in out
    assert "not measured: cuda:9 is another machine's" in out
    out = shown(capsys, *arguments)
    assert "refuses this: model.device = 'cuda:9': this machine has" in warning(out)
    assert "cuda:9 is not here: --device-memory 80GB says whether it fits" in out


def test_only_what_is_not_set_is_advised(policy: Path, tmp_path: Path, capsys):
    arguments = flags(policy, tmp_path / "run", rollout__groups=10**6, rollout__conversations=10**6)
    assert "or set model.gradient_checkpointing or model.lora_rank" in warning(
        shown(capsys, *arguments)
    )
    on = ["--model.gradient_checkpointing", "true"]
    assert warning(shown(capsys, *arguments, *on)).endswith("or set model.lora_rank")
    assert warning(shown(capsys, *arguments, *on, "--model.lora_rank", "2")).endswith(
        "rollout.max_prompt_tokens"
    )


@pytest.mark.parametrize(
    ("text", "size"),
    [("80GB", 80 * 10**9), ("24 GiB", 24 * 2**30), ("1.5T", 15 * 10**11), ("512mib", 2**29)],
)
def test_sizes(text: str, size: int):
    assert num_bytes(text) == size


@pytest.mark.parametrize("arguments", [["--device-memory", "80"], ["--device-memory", "80GB"]])
def test_device_memory_is_for_dry_runs(policy: Path, tmp_path: Path, capsys, arguments: list[str]):
    dry = ["--dry-run"] if arguments[-1] == "80" else []
    assert main(["train", *dry, *arguments, *flags(policy, tmp_path / "run")]) == 2
    err = capsys.readouterr().err
    assert ("80' is not a size such as 80GB" if dry else "goes with --dry-run") in err
