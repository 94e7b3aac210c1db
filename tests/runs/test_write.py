"""What a run writes: metrics line by line, one process at a time, default names."""

from dataclasses import replace
from pathlib import Path

import msgspec
import pytest

from paw.compare import results
from paw.config.tree import Config
from paw.errors import UserError
from paw.runs import read
from paw.runs.layout import HELD
from paw.runs.write import Run


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
    assert [r["update"] for r in read.metrics(tmp_path)] == [1, 2, 3]
    run.rewind(2)
    assert [(r["update"], r["wm/nll"]) for r in read.metrics(tmp_path)] == [(1, 0.5), (2, 1.0)]
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
    assert read.metrics(tmp_path) == [{"update": 1}, {"update": 3}]
    with pytest.raises(UserError, match=r"no metrics\.jsonl"):
        read.metrics(tmp_path / "none")


def test_a_directory_is_free_again_when_its_run_closes(tmp_path: Path):
    run = Run(at(tmp_path))
    with pytest.raises(UserError, match="another process is training in it"):
        Run(at(tmp_path))
    run.close()
    Run(at(tmp_path)).close()


def test_a_run_that_goes_on_elsewhere_says_where_it_was_before(tmp_path: Path):
    """Each other place once, in their order; the same again is no other place."""
    Run(at(tmp_path)).close()
    Run(at(tmp_path)).close()
    here = read.environment(tmp_path)
    assert here.earlier == ()
    there = msgspec.structs.replace(here, processor="Another", commit="ab12")
    (tmp_path / "environment.json").write_bytes(msgspec.json.encode(there))
    for _ in range(2):
        Run(at(tmp_path)).close()
        (found,) = read.environment(tmp_path).earlier
        assert (found["processor"], found["commit"]) == ("Another", "ab12")
        assert found["torch"] == here.versions["torch"] and found["gpu"] == here.gpu
    third = msgspec.structs.replace(read.environment(tmp_path), gpu="A GPU")
    (tmp_path / "environment.json").write_bytes(msgspec.json.encode(third))
    Run(at(tmp_path)).close()
    assert [start["gpu"] for start in read.environment(tmp_path).earlier] == [here.gpu, "A GPU"]
    made = results._made_with(tmp_path)
    assert made["processor"] == f"Another, then A GPU, then {here.gpu or here.processor}"
    assert made["torch"] == here.versions["torch"]


def test_a_damaged_environment_is_written_again(tmp_path: Path):
    Run(at(tmp_path)).close()
    (tmp_path / "environment.json").write_text('{"versions"')
    Run(at(tmp_path)).close()
    assert read.environment(tmp_path).earlier == ()


def test_metrics_are_held_until_they_are_logged(tmp_path: Path):
    """With the times so far; of another update they are what a crash left."""
    run, file = Run(at(tmp_path)), tmp_path / HELD
    with run.stage("act"):
        pass
    row = run.hold(2, {"wm/nll": 0.5})
    assert row["time/act"] == row["time/update"] > 0
    assert run.held(2, []) == run.held(2, [{"update": 1}]) == row
    with run.stage("eval"):
        pass
    logged = run.log(2, {**row, "eval/success_rate": 0.25})
    assert logged.items() > row.items() and logged["time/eval"] > 0 and not file.exists()
    for first, earlier in ((1, []), (2, [{"update": 2}])):
        run.hold(2, {})
        assert run.held(first, earlier) is None and not file.exists()
    run.close()
