"""The run directory: what a tiny run writes is what docs/run-directory.md says."""

import importlib.util
import json
import re
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zstandard

from paw.runs import read
from paw.runs.format import (
    EnvironmentRecord,
    EpisodeRecord,
    EvaluationRecord,
    ImitationRecord,
    TrajectoryRecord,
    TurnRecord,
)

from .tiny_runs import ForkServer, flags

DOCUMENT = Path(__file__).parents[2] / "docs" / "run-directory.md"


@pytest.fixture(scope="module")
def everything(server: ForkServer, policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with every optional metric, and an imitated policy and a result beside it."""
    folder = tmp_path_factory.mktemp("everything")
    settings = {
        "run__updates": 2,
        "run__diagnostics_every": 1,
        "algorithm__name": "ppo",
        "algorithm__kl_coefficient": 0.1,
        "algorithm__old_logprobs": "score",
        "eval__every": 1,
    }
    finished = server.run(["train", *flags(policy, folder / "run", **settings)])
    assert finished.code == 0, finished.err
    result = str(folder / "result.json")
    finished = server.run(["eval", str(folder / "run"), "--episodes", "1", "-o", result])
    assert finished.code == 0, finished.err
    small = {"imitate__demonstrations": 4, "imitate__steps": 1, "rollout__max_turns": 12}
    output = folder / "imitated"
    finished = server.run(["imitate", *flags(policy, imitate__output=output, **small)])
    assert finished.code == 0, finished.err
    return folder


def documented() -> set[str]:
    return set(re.findall(r"`([^`\n]+)`", DOCUMENT.read_text()))


def test_every_metric_is_documented(everything: Path):
    rows = [*read.metrics(everything / "run"), *read.metrics(everything / "imitated")]
    written = set().union(*rows)
    assert written - documented() == set()
    # and what is documented of metrics exists: all are written by this run but the LoRA-free rest
    metrics = {x for x in documented() if re.fullmatch(r"[a-z]+/[a-z_]+", x)}
    assert metrics - written == set()


def written(everything: Path) -> dict[type[msgspec.Struct], dict[str, Any]]:
    """An object of each kind as it lies in its file."""
    run = everything / "run"
    with zstandard.open(run / "trajectories" / "update-000002.jsonl.zst", "rb") as stream:
        trajectories = [msgspec.json.decode(line) for line in stream.read().splitlines()]
    evaluation = json.loads((run / "eval" / "update-000000.json").read_text())
    return {
        TrajectoryRecord: trajectories[0],
        TurnRecord: trajectories[0]["turns"][0],
        EvaluationRecord: evaluation,
        EpisodeRecord: evaluation["episodes"][0],
        EnvironmentRecord: json.loads((run / "environment.json").read_text()),
        ImitationRecord: json.loads((everything / "imitated" / "imitate.json").read_text()),
    }


def test_every_field_of_the_other_files_is_documented(everything: Path):
    run, words, found = everything / "run", documented(), written(everything)
    evaluation, report = found[EvaluationRecord], found[ImitationRecord]
    result = json.loads((everything / "result.json").read_text())
    objects = [
        *found.values(), found[TrajectoryRecord]["task"], *evaluation["by_kind"].values(),
        found[EnvironmentRecord]["data"], report["evaluations"][0], result,
    ]  # fmt: skip
    assert set().union(*objects) - words == set()
    checkpoint = {p.name for p in (run / "checkpoints" / "update-000002").iterdir()}
    assert checkpoint - words == set()


def test_the_format_has_the_fields_that_are_written(everything: Path):
    """No more and no fewer; imitate.json says what environment.json says as well."""
    found = written(everything)
    shared = {f.encode_name for f in msgspec.structs.fields(EnvironmentRecord)}
    shared -= {"data", "earlier"}
    for kind, value in found.items():
        names = {field.encode_name for field in msgspec.structs.fields(kind)}
        names |= shared if kind is ImitationRecord else set()
        assert value.keys() == names, kind


def test_the_reader_reads_what_was_written(everything: Path):
    run, found = everything / "run", written(everything)
    trajectories = read.trajectories(run)
    assert len(trajectories) == 4 and trajectories == read.trajectories(run, update=2)
    assert json.loads(msgspec.json.encode(trajectories[0])) == found[TrajectoryRecord]
    evaluations = read.evaluations(run)
    assert [e.update for e in evaluations] == [0, 1, 2]
    assert json.loads(msgspec.json.encode(evaluations[0])) == found[EvaluationRecord]
    assert json.loads(msgspec.json.encode(read.environment(run))) == found[EnvironmentRecord]
    assert read.environment(run).command[:2] == ("paw", "train")  # no path of the machine
    assert read.evaluation(everything / "result.json").update is None
    assert read.imitation(everything / "imitated").steps == 1
    config = read.config(run)
    assert config.run.updates == 2 and config.algorithm.name == "ppo"


def test_every_file_of_a_run_is_documented(everything: Path):
    text = DOCUMENT.read_text()
    for entry in [*(everything / "run").iterdir(), everything / "imitated" / "imitate.toml"]:
        assert entry.name in text


def test_a_run_begins_with_a_header_and_its_first_exchange(
    server: ForkServer, policy: Path, tmp_path: Path
):
    """On stderr, like the bar; stdout is for results."""
    finished = server.run(["train", *flags(policy, tmp_path / "run", run__updates=1)])
    lines = finished.err.splitlines()
    assert [line.split(" ")[0] for line in lines[:6]] == [
        "paw", "model", "tasks", "method", "budget", "directory",
    ]  # fmt: skip
    assert "grpo + PaW (cmae, rho 0.2, alpha 0.75, constant lambda x 1)" in lines[3]
    assert lines[4].endswith("1 updates of 2 groups x 2 episodes of at most 3 turns, window")
    assert str(tmp_path / "run") in lines[5]
    prompt = lines.index("first prompt:")
    assert lines.index("first response:") > prompt + 1 and "You are in" in lines[prompt + 1]
    assert "first prompt" not in finished.out


def test_missing_package_is_one_line_of_the_command(
    server: ForkServer, policy: Path, tmp_path: Path
):
    if importlib.util.find_spec("trackio") is not None:
        pytest.skip("trackio is installed")
    finished = server.run(["train", *flags(policy, tmp_path / "run", run__track='["trackio"]')])
    assert (finished.code, finished.err.count("\n")) == (2, 1)
    assert "pip install 'paw-rl[track]'" in finished.err
