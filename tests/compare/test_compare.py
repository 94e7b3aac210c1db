"""`paw compare` as a user calls it: three arms, one of which cannot go on."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paw.cli import main
from paw.commands.compare import _devices
from paw.config.read import resolve
from paw.runs import read

ARMS = """
zero = {about = "prediction without weight", paw = {enabled = true, coefficient = 0.0}}
broken = {about = "diverges at once", optimizer = {learning_rate = 1e30}}
"""
TINY = [
    "--run.updates", "2", "--rollout.groups", "2", "--rollout.group_size", "2",
    "--rollout.max_turns", "4", "--eval.episodes", "3", "--eval.max_turns", "3",
]  # fmt: skip


def command(output: Path, *more: str) -> list[str]:
    file = output.parent / "arms.toml"
    file.write_text(ARMS)
    given = ["compare", "--output", str(output), "--arm-file", str(file), *TINY]
    return [*given, *(more or ("--arms", "baseline,zero,broken", "--seeds", "1", "--jobs", "2"))]


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    output = tmp_path_factory.mktemp("compare") / "out"
    assert main(command(output)) == 1  # a run failed
    return output


def run_of(output: Path, arm: str, seed: int = 0) -> dict:
    runs = json.loads((output / "compare.json").read_text())["runs"]
    return next(r for r in runs if (r["arm"], r["seed"]) == (arm, seed))


def test_arms_of_a_seed_are_alike_but_for_the_arm(compared: Path):
    """Without weight the prediction is the baseline to the bit; an arm's first update plays what
    every other arm's does."""
    baseline, zero, broken = (run_of(compared, arm) for arm in ("baseline", "zero", "broken"))
    assert baseline["digest"] and baseline["digest"] == zero["digest"]
    assert baseline["curve"] == zero["curve"] and len(baseline["curve"]) == 3
    first = [read.metrics(compared / r["directory"])[0] for r in (baseline, zero, broken)]
    for name in ("rollout/return_mean", "rollout/turns_mean", "tokens/sampled"):
        assert first[0][name] == first[1][name] == first[2][name]


def test_what_failed_stays_in_the_table(compared: Path):
    broken = run_of(compared, "broken")
    assert broken["status"] == "failed" and "not finite" in broken["reason"]
    assert broken["final"] is None and broken["digest"] is None
    told = (compared / "compare.md").read_text()
    assert "broken seed 0: failed" in told and "too few for a verdict" in told
    comparisons = json.loads((compared / "compare.json").read_text())["comparisons"]
    zero = next(c for c in comparisons if c["arm"] == "zero" and c["metric"] == "final")
    assert zero["num_pairs"] == 1 and zero["mean_difference"] == 0 and zero["verdict"] is None
    assert zero["panel"]["arm_only"] == zero["panel"]["baseline_only"] == 0
    broken = next(c for c in comparisons if c["arm"] == "broken" and c["metric"] == "final")
    assert broken["num_pairs"] == 0 and broken["interval"] is None
    with open(compared / "seeds.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["status"] for row in rows] == ["finished", "finished", "failed"]
    assert (compared / "plots" / "forest.png").is_file()


def test_again_makes_nothing_anew(compared: Path, capsys):
    """Not even the failed run, until it is asked for."""
    before = (compared / "compare.json").read_bytes()
    logs = {f: f.read_bytes() for f in compared.glob("runs/*/*.log")}
    assert main(command(compared)) == 1
    assert (compared / "compare.json").read_bytes() == before
    assert {f: f.read_bytes() for f in compared.glob("runs/*/*.log")} == logs


def test_the_directory_of_a_finished_run_may_be_elsewhere(compared: Path, tmp_path: Path, capsys):
    """Its settings and what it showed are enough for the same tables; nothing is made again."""
    output = tmp_path / "out"
    shutil.copytree(compared / "runs" / "broken", output / "runs" / "broken")
    for arm in ("baseline", "zero"):
        (output / "runs" / arm).mkdir()
        for suffix in ("toml", "json"):
            file = Path("runs", arm, f"seed-0.{suffix}")
            shutil.copy(compared / file, output / file)
    assert main(command(output)) == 1
    for name in ("compare.json", "seeds.csv"):
        assert (output / name).read_bytes() == (compared / name).read_bytes()
    assert [f.parent.name for f in output.glob("runs/*/seed-0/")] == ["broken"]
    assert main([*command(output), "--rollout.group_size", "3"]) == 2
    assert "is of another configuration (rollout.group_size" in capsys.readouterr().err


def test_another_configuration_is_refused(compared: Path, capsys):
    assert main([*command(compared), "--rollout.group_size", "3"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and "is of another configuration (rollout.group_size" in said


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--arms", "baseline,paw"], "--output DIR is needed"),
        (["--output", "x", "--arms", "baseline,pwa"], "no arm 'pwa'; did you mean 'paw'"),
        (["--output", "x", "--baseline", "ce"], "--baseline ce: it is not among --arms"),
        (["--output", "x", "--run.directory", "y"], "each run has its own"),
        (["--output", "x", "--model.path", "nothing/there/x"], "no such directory"),
    ],
)
def test_mistakes_are_one_line(more: list[str], message: str, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["compare", *more]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1 and message in said
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("seen", "devices"),
    [(None, ["0", "1"]), ("2, 3", ["2", "3"]), ("GPU-a,GPU-b,GPU-c", ["GPU-a", "GPU-b"])],
)  # fmt: skip
def test_gpus_are_those_that_this_process_may_see(seen, devices, monkeypatch: pytest.MonkeyPatch):
    """Of two that torch finds; what cannot be named ends its list."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if seen is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", seen)
    config = resolve([], [])
    assert _devices(config) == devices
    assert _devices(replace(config, model=replace(config.model, device="cuda:1"))) == []


@pytest.mark.slow
def test_killed_and_gone_on_with_it_ends_the_same(compared: Path, tmp_path: Path):
    """SIGKILL of the comparison at some moments; its runs save and end by themselves."""
    output = tmp_path / "out"
    for seconds in (9.0, 14.0):
        process = subprocess.Popen([sys.executable, "-m", "paw", *command(output)])
        time.sleep(seconds)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    assert main(command(output)) == 1
    assert (output / "compare.json").read_bytes() == (compared / "compare.json").read_bytes()
    assert (output / "seeds.csv").read_bytes() == (compared / "seeds.csv").read_bytes()
