"""The reader: tolerant of files of earlier versions, plain about files that are no run's."""

from pathlib import Path

import msgspec
import pytest
import zstandard

from paw.errors import UserError
from paw.runs import read
from paw.types import Task

TURN = {"observation": "a", "response": "look", "valid": True, "next_observation": None}
EPISODE = {"task": {"id": "1", "kind": "k", "instruction": "i"}, "success": True, "turns": [TURN]}


def compressed(*rows: object) -> bytes:
    lines = b"".join(msgspec.json.encode(row) + b"\n" for row in rows)
    return zstandard.ZstdCompressor().compress(lines)


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two updates with trajectories; the second one's file has two frames."""
    folder = tmp_path / "trajectories"
    folder.mkdir()
    (folder / "update-000001.jsonl.zst").write_bytes(compressed(EPISODE))
    parts = [compressed({**EPISODE, "index": i, "return": 2.5, "old": 1}) for i in (0, 1)]
    (folder / "update-000002.jsonl.zst").write_bytes(b"".join(parts))
    return tmp_path


def test_fields_that_were_not_written_have_defaults(run: Path):
    (episode,) = read.trajectories(run, update=1)
    assert episode.task == Task("1", "k", "i")
    assert (episode.return_, episode.score, episode.prompt_limit) == (0.0, None, False)
    (turn,) = episode.turns
    assert (turn.commands, turn.action_ids, turn.target_ids) == ((), (), None)


def test_trajectories_of_a_file_of_an_update_and_of_the_newest(run: Path):
    """Every frame of a file is read, and a field that is no more is passed over."""
    newest = read.trajectories(run)
    assert [(t.index, t.return_) for t in newest] == [(0, 2.5), (1, 2.5)]
    assert newest == read.trajectories(run, 2)
    assert newest == read.trajectories(run / "trajectories" / "update-000002.jsonl.zst")


def test_what_is_no_trajectory_file_is_one_line(run: Path, tmp_path: Path):
    with pytest.raises(UserError, match="no trajectories of update 3 there"):
        read.trajectories(run, 3)
    file = tmp_path / "x.zst"
    whole = compressed(EPISODE)
    for data, part in (
        (None, "No such file"),
        (b"plain", "cannot read it"),
        (whole[:-4], "cut short"),
        (compressed([1]), "not a run's trajectory file"),
        (compressed({**EPISODE, "turns": [{**TURN, "valid": 1}]}), "not a run's trajectory file"),
    ):
        if data is not None:
            file.write_bytes(data)
        with pytest.raises(UserError, match=part) as caught:
            read.trajectories(file)
        assert str(file) in str(caught.value)


def test_evaluations_in_the_order_of_updates(tmp_path: Path):
    assert read.evaluations(tmp_path) == []
    (tmp_path / "eval").mkdir()
    for update, rate in ((20, 0.5), (0, 0.25)):
        result = {"update": update, "num_episodes": 4, "success_rate": rate, "interval": [0, 1]}
        file = tmp_path / "eval" / f"update-{update:06d}.json"
        file.write_bytes(msgspec.json.encode(result))
    found = read.evaluations(tmp_path)
    assert [(e.update, e.success_rate, e.interval) for e in found] == [
        (0, 0.25, (0.0, 1.0)), (20, 0.5, (0.0, 1.0)),
    ]  # fmt: skip
    (tmp_path / "eval" / "update-000030.json").write_text('{"update": 30}')
    with pytest.raises(UserError, match=r"update-000030\.json: not what a run writes there"):
        read.evaluations(tmp_path)


def test_measured_leaves_out_what_was_not(tmp_path: Path):
    (tmp_path / "metrics.jsonl").write_text(
        '{"update": 1, "wm/nll": null}\n{"update": 2, "wm/nll": 0.5}\n{"update": 3}\n'
    )
    assert read.measured(read.metrics(tmp_path), "wm/nll") == [(2, 0.5)]


def test_a_directory_without_a_run_is_one_line(tmp_path: Path):
    for reader in (read.environment, read.imitation, read.config, read.metrics):
        with pytest.raises(UserError, match=str(tmp_path)):
            reader(tmp_path)
