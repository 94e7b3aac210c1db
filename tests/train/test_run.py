"""The run directory: what a tiny run writes is what docs/run-directory.md says."""

import json
import os
import re
import signal
from dataclasses import replace
from pathlib import Path

import msgspec
import pytest
import zstandard

from paw.config.read import resolve
from paw.config.tree import Config
from paw.errors import UserError
from paw.runs.layout import run_directory
from paw.runs.run import InterruptGuard, Run, check_writable, read_metrics, write_atomically

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
    rows = read_metrics(everything / "run")
    written = set().union(*rows)
    assert written - documented() == set()
    # and what is documented of metrics exists: all are written by this run but the LoRA-free rest
    metrics = {x for x in documented() if re.fullmatch(r"[a-z]+/[a-z_]+", x)}
    assert metrics - written == set()


def test_every_field_of_the_other_files_is_documented(everything: Path):
    run, words = everything / "run", documented()
    with zstandard.open(run / "trajectories" / "update-000002.jsonl.zst", "rb") as stream:
        trajectories = [msgspec.json.decode(line) for line in stream.read().splitlines()]
    assert len(trajectories) == 4
    evaluation = json.loads((run / "eval" / "update-000000.json").read_text())
    environment = json.loads((run / "environment.json").read_text())
    report = json.loads((everything / "imitated" / "imitate.json").read_text())
    result = json.loads((everything / "result.json").read_text())
    objects = [
        *trajectories, trajectories[0]["task"], trajectories[0]["turns"][0],
        evaluation, *evaluation["by_kind"].values(), evaluation["episodes"][0],
        environment, environment["data"], report, report["evaluations"][0], result,
    ]  # fmt: skip
    assert set().union(*objects) - words == set()
    checkpoint = {p.name for p in (run / "checkpoints" / "update-000002").iterdir()}
    assert checkpoint - words == set()


def test_every_file_of_a_run_is_documented(everything: Path):
    text = DOCUMENT.read_text()
    for entry in (everything / "run").iterdir():
        assert entry.name in text


def test_written_configuration_is_the_resolved_one(everything: Path):
    config = resolve([everything / "run" / "config.toml"])
    assert config.run.updates == 2 and config.algorithm.name == "ppo"


def test_command_has_no_path_of_the_machine(everything: Path):
    facts = json.loads((everything / "run" / "environment.json").read_text())
    assert facts["command"][:2] == ["paw", "train"]


def test_default_directory():
    config = Config()
    assert run_directory(config) == Path("runs/household-grpo-paw-seed0")
    bare = replace(config, paw=replace(config.paw, enabled=False))
    assert run_directory(bare) == Path("runs/household-grpo-seed0")


def at(directory: Path, **changed: object) -> Config:
    config = Config()
    return replace(config, run=replace(config.run, directory=str(directory), **changed))  # pyright: ignore


def test_crash_while_the_directory_is_made_is_no_obstacle(tmp_path: Path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.toml.tmp").write_bytes(b"ha")
    run = Run(at(tmp_path / "run"))
    run.close()
    assert not list((tmp_path / "run").glob("*.tmp"))


def test_rewind_forgets_later_updates_and_broken_lines(tmp_path: Path):
    run = Run(at(tmp_path))
    for update in (1, 2, 3):
        run.log(update, {"wm/nll": update / 2})
    with open(tmp_path / "metrics.jsonl", "ab") as file:
        file.write(b'{"update": 4, "wm')
    assert [r["update"] for r in read_metrics(tmp_path)] == [1, 2, 3]
    run.rewind(2)
    assert [(r["update"], r["wm/nll"]) for r in read_metrics(tmp_path)] == [(1, 0.5), (2, 1.0)]
    run.close()


def test_a_broken_line_costs_itself_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Of six lines the third is unreadable and the fifth no update's; 5 is past the checkpoint."""
    run, file = Run(at(tmp_path)), tmp_path / "metrics.jsonl"
    rows = [b'{"update": %d}\n' % update for update in (1, 2, 3, 4, 5)]
    file.write_bytes(b"".join(rows))
    run.rewind(4)
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "metrics.jsonl.damaged").exists()
    rows[2:4] = [b'{"upd\xff\n', rows[3], b'{"wm/nll": 1}\n']
    damaged = b"".join(rows)
    file.write_bytes(damaged)
    run.rewind(4)
    assert file.read_bytes() == b'{"update": 1}\n{"update": 2}\n{"update": 4}\n'
    assert capsys.readouterr().err == (
        f"paw: warning: {file}: cannot read line 3, 5; left out, and kept in "
        "metrics.jsonl.damaged\n"
    )
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == damaged
    file.write_bytes(b"\n")  # damaged once more: what was kept stays
    run.rewind(4)
    assert (tmp_path / "metrics.jsonl.damaged").read_bytes() == damaged + b"\n"
    run.close()


def test_a_line_cut_short_at_the_end_is_no_damage(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    run, file = Run(at(tmp_path)), tmp_path / "metrics.jsonl"
    file.write_bytes(b'{"update": 1}\n{"update": 2')
    run.rewind(1)
    assert file.read_bytes() == b'{"update": 1}\n'
    file.write_bytes(b'{"update": 1}\n{"update": 2}')  # only its end of line is missing
    run.rewind(2)
    assert file.read_bytes() == b'{"update": 1}\n{"update": 2}\n'
    assert capsys.readouterr().err == ""
    assert not (tmp_path / "metrics.jsonl.damaged").exists()
    run.close()


def test_metrics_of_a_machine_that_lost_power(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_bytes(b'{"update": 1}\n\0\0\0\0\n{"update": 3}\n')
    assert read_metrics(tmp_path) == [{"update": 1}, {"update": 3}]
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        read_metrics(tmp_path / "none")


def test_a_directory_is_free_again_when_its_run_closes(tmp_path: Path):
    run = Run(at(tmp_path))
    with pytest.raises(UserError, match="another process is training in it"):
        Run(at(tmp_path))
    run.close()
    Run(at(tmp_path)).close()


def test_write_atomically_keeps_the_old_file_on_failure(tmp_path: Path):
    file = tmp_path / "file"
    write_atomically(file, b"old")
    with pytest.raises(TypeError):
        write_atomically(file, "not bytes")  # pyright: ignore
    assert file.read_bytes() == b"old"
    (tmp_path / "directory").mkdir()
    with pytest.raises(OSError, match="directory"):
        write_atomically(tmp_path / "directory", b"x")
    assert not (tmp_path / "directory.tmp").exists()


def test_check_writable(tmp_path: Path):
    check_writable(tmp_path / "new" / "file")
    assert list((tmp_path / "new").iterdir()) == []
    for path in (Path("/proc/x"), Path("/dev/null/x"), tmp_path):
        with pytest.raises(UserError, match="cannot write"):
            check_writable(path)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_first_interrupt_asks_and_the_second_stops(
    capsys: pytest.CaptureFixture[str], number: signal.Signals
):
    before = signal.getsignal(number)
    with pytest.raises(KeyboardInterrupt), InterruptGuard() as guard:
        os.kill(os.getpid(), number)
        assert guard.asked
        os.kill(os.getpid(), signal.SIGINT)
    assert signal.getsignal(number) is before
    assert "Ctrl-C again stops at once" in capsys.readouterr().err
