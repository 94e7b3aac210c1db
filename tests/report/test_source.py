"""Runs, evaluations and comparisons read as they grow, and gathered into a page."""

import base64
import json
import tomllib
import zlib
from pathlib import Path

import msgspec
import pytest

from paw.config.read import resolve, to_toml
from paw.errors import UserError
from paw.report.data import Chunk, Run
from paw.report.facts import readable, run_facts
from paw.report.gather import gather, material
from paw.report.source import Source
from paw.runs.format import EnvironmentRecord, TrajectoryRecord, TurnRecord
from paw.runs.records import write_trajectories
from paw.types import Task

CONFIG = """
[env]
name = "household"
split = "train"
[model]
path = "household"
[run]
updates = 3
seed = 4
[paw]
probability_cap = 0.3
"""


def trajectory(update: int, group: int, index: int, **changed: object) -> TrajectoryRecord:
    turn = TurnRecord(
        observation="You are here.", response="go to shelf 1", command="go to shelf 1", valid=True,
        next_observation="You arrive at shelf 1.", action_ids=(5, 6), advantage=0.5,
    )  # fmt: skip
    usual = {
        "update": update, "group": group, "index": index, "success": index == 0,
        "task": Task(f"task {group}", "pick", "put a pen in the drawer"), "turns": (turn, turn),
    }  # fmt: skip
    return TrajectoryRecord(**usual | changed)


def save(run: Path, update: int, *records: TrajectoryRecord) -> None:
    (run / "trajectories").mkdir(parents=True, exist_ok=True)
    file = run / "trajectories" / f"update-{update:06d}.jsonl.zst"
    write_trajectories(file, records, "household")


def log(run: Path, update: int, **metrics: object) -> None:
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write(json.dumps({"update": update, **metrics}) + "\n")


@pytest.fixture
def run(tmp_path: Path) -> Path:
    directory = tmp_path / "a run"
    directory.mkdir()
    (directory / "config.toml").write_text(CONFIG)
    log(directory, 1, **{"wm/nll": 2.0, "rollout/success_rate": 0.5, "health": ["x"]})
    save(directory, 1, *(trajectory(1, g, i) for g in range(2) for i in range(2)))
    return directory


def page_of(*paths: Path, room: int = 10**6) -> tuple[list[Run], list[Chunk]]:
    page, packed = gather(material(paths), room)
    texts = [zlib.decompress(base64.b64decode(text), wbits=-15) for text in packed]
    return list(page.runs), [msgspec.json.decode(text, type=Chunk) for text in texts]


def test_a_run(run: Path) -> None:
    (found,), chunks = page_of(run)
    assert (found.name, found.source, found.state, found.env) == (
        "a run", "run", "unfinished", "household"
    )  # fmt: skip
    assert (found.updates, found.planned, found.probability_cap, found.loss) == (1, 3, 0.3, "cmae")
    assert found.metrics == {"update": (1.0,), "wm/nll": (2.0,), "rollout/success_rate": (0.5,)}
    assert dict(found.facts)["seed"] == "4"
    episodes = found.episodes
    assert episodes.update == (1, 1, 1, 1) and episodes.group == (0, 0, 1, 1)
    assert episodes.success == (True, False, True, False)
    assert episodes.turns == (2, 2, 2, 2) and episodes.valid == (1.0,) * 4
    assert episodes.chunk == (0, 0, 1, 1) and episodes.place == (0, 1, 0, 1)
    assert [found.tasks[t].id for t in episodes.task] == ["task 0", "task 0", "task 1", "task 1"]
    assert found.left_out == ""
    # Every row finds itself where it says.
    for row, (chunk, place) in enumerate(zip(episodes.chunk, episodes.place, strict=True)):
        assert chunks[chunk].episodes[place].row == row
    action = chunks[0].episodes[0].turns[0].action
    assert action is not None and action.id == (5, 6) and len(action.text) == 2


def test_what_there_is_no_room_for(run: Path) -> None:
    for update in (2, 3):
        log(run, update)
        save(run, update, *(trajectory(update, g, i) for g in range(2) for i in range(2)))
    (whole,), chunks = page_of(run)
    sizes = [len(base64.b64encode(zlib.compress(msgspec.json.encode(c)))) for c in chunks]
    (part,), kept = page_of(run, room=int(2.5 * max(sizes)))
    assert 0 < len(kept) < len(chunks)
    left = [c < 0 for c in part.episodes.chunk]
    assert sum(left) == 12 - 2 * len(kept)
    assert [why == "" for why in part.episodes.why] == left
    assert f"{2 * len(kept)} of 12 episodes are kept whole" in part.left_out
    assert part.episodes.success == whole.episodes.success  # the table has all
    for row, (chunk, place) in enumerate(
        zip(part.episodes.chunk, part.episodes.place, strict=True)
    ):
        assert chunk < 0 or kept[chunk].episodes[place].row == row


def test_grows_without_being_read_again(run: Path) -> None:
    source = Source(run, "x")
    assert source.refresh()
    assert not source.refresh()
    # What was read is not opened again: were it, this would be told.
    (run / "trajectories" / "update-000001.jsonl.zst").chmod(0)
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write('{"update": 2, "wm/nll": ')  # a line in the making
    assert not source.refresh()
    with open(run / "metrics.jsonl", "a", encoding="utf-8") as file:
        file.write("1.5}\n")
    save(run, 2, trajectory(2, 0, 0), trajectory(2, 1, 0, failure="it hung\nlong story"))
    assert source.refresh()
    assert [row["update"] for row in source.metrics] == [1, 2]
    assert [row.update for row in source.rows] == [1, 1, 1, 1, 2, 2]
    assert source.problems == []
    found = source.run([""] * 6, {}, "")
    assert found.episodes.failure == (None,) * 5 + ("it hung",)


def test_an_update_that_is_made_again_takes_its_place(run: Path) -> None:
    """A run that goes on from a checkpoint makes the updates after it again."""
    source = Source(run, "x")
    source.refresh()
    log(run, 1, **{"wm/nll": 3.0})
    save(run, 1, trajectory(1, 0, 0))
    source.refresh()
    assert [row["wm/nll"] for row in source.metrics] == [3.0]
    assert len(source.rows) == 1
    (run / "metrics.jsonl").write_text('{"update": 1, "wm/nll": 4.0}\n')  # cut and written anew
    source.refresh()
    assert [row["wm/nll"] for row in source.metrics] == [4.0]


def test_broken_old_and_empty_runs(tmp_path: Path, run: Path) -> None:
    (run / "trajectories" / "update-000002.jsonl.zst").write_bytes(b"no zstandard")
    (run / "eval").mkdir()
    (run / "eval" / "update-000000.json").write_text("{}")
    (run / "config.toml").write_text('[paw]\nlost_key = 3\n[env]\nname = "gone:factory"\n')
    empty = tmp_path / "empty"
    empty.mkdir()
    (empty / "config.toml").write_text(CONFIG)
    broken, nothing = page_of(run, empty)[0]
    assert broken.state == "unfinished" and len(broken.episodes.group) == 4
    assert broken.reason is not None
    assert "update-000002" in broken.reason and "update-000000" in broken.reason
    assert nothing.state == "empty" and nothing.metrics == {} and nothing.episodes.group == ()


def test_values_of_another_type_are_named_and_left_out(run: Path) -> None:
    (run / "config.toml").write_text(
        'algorithm = 3\n[env]\nname = 5\n[model]\npath = "household"\n'
        '[run]\nupdates = "many"\n[paw]\ncoefficient = "x"\nprobability_cap = 1\nlost = 3\n'
    )
    (found,), _ = page_of(run)
    assert (found.planned, found.env, found.probability_cap) == (None, "", 1)
    for name in ("algorithm", "env.name", "run.updates", "paw.coefficient"):
        assert name in str(found.reason)
    assert "lost" not in str(found.reason)


@pytest.mark.parametrize("env", ["household", "alfworld", "webshop", "search_qa"])
def test_everything_that_a_run_writes_is_readable(env: str) -> None:
    config = resolve([], ["--env.name", env, "--run.directory", "x"])
    assert readable(tomllib.loads(to_toml(config)))[1] == []


def test_failed_runs_say_why(run: Path) -> None:
    (run / "failed-update-000002.jsonl").write_text("{}\n")
    (found,), _ = page_of(run)
    assert found.state == "failed" and "failed-update-000002" in str(found.reason)


def test_a_comparison(tmp_path: Path, run: Path) -> None:
    for arm in ("baseline", "paw"):
        place = tmp_path / "cmp" / "runs" / arm / "seed-1"
        place.mkdir(parents=True)
        (place / "config.toml").write_text(CONFIG)
    (tmp_path / "cmp" / "runs" / "paw" / "seed-1.failed").write_text("not finite\n")
    found = gather(material([tmp_path / "cmp"]))[0]
    assert found.comparison is None  # not written yet
    assert [(r.arm, r.seed, r.state, r.reason) for r in found.runs] == [
        ("baseline", 1, "empty", None), ("paw", 1, "failed", "not finite"),
    ]  # fmt: skip
    (tmp_path / "cmp" / "compare.json").write_text('{"runs": [], "comparisons": []}')
    assert gather(material([tmp_path / "cmp"]))[0].comparison == {"runs": [], "comparisons": []}
    with pytest.raises(UserError, match="a page of its own"):
        material([tmp_path / "cmp", run])


def test_an_evaluation_with_its_trajectories(tmp_path: Path) -> None:
    kind = {"success_rate": 0.5, "interval": [0.1, 0.9], "num_episodes": 2}
    result = {
        "model": "household", "env": "household", "split": "valid", "num_episodes": 2,
        "num_failures": 0, "success_rate": 0.5, "interval": [0.1, 0.9], "by_kind": {"pick": kind},
    }  # fmt: skip
    (tmp_path / "e.json").write_text(json.dumps(result))
    write_trajectories(
        tmp_path / "e.jsonl.zst", [trajectory(0, 0, i) for i in range(2)], "household"
    )
    (found,), chunks = page_of(tmp_path / "e.json")
    assert (found.source, found.state, found.updates) == ("evaluation", "finished", 0)
    assert found.episodes.update == (None, None) and len(chunks) == 1
    assert [(k.kind, k.success, k.low, k.high, k.episodes) for k in found.evaluations[0].kinds] == [
        ("", 0.5, 0.1, 0.9, 2), ("pick", 0.5, 0.1, 0.9, 2),
    ]  # fmt: skip
    (alone,), _ = page_of(tmp_path / "e.jsonl.zst")
    assert alone.env == "household" and len(alone.episodes.group) == 2


@pytest.mark.parametrize("what", ["nothing", "a folder", "a file.txt", "gone.json"])
def test_what_is_no_run(tmp_path: Path, what: str) -> None:
    (tmp_path / "a folder").mkdir()
    (tmp_path / "a file.txt").write_text("x")
    with pytest.raises(UserError, match=r"no such file|no run directory"):
        material([tmp_path / what])


def test_a_file_that_is_no_evaluation_is_told(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("[]")
    (found,), _ = page_of(tmp_path / "b.json")
    assert "not what a run writes" in str(found.reason)


def test_names_tell_runs_apart(tmp_path: Path) -> None:
    for arm in ("one", "two"):
        (tmp_path / arm / "seed-0").mkdir(parents=True)
        (tmp_path / arm / "seed-0" / "config.toml").write_text("")
    found = material([tmp_path / arm / "seed-0" for arm in ("one", "two")])
    assert [source.name for source in found.sources] == ["one/seed-0", "two/seed-0"]


def test_a_run_that_went_on_elsewhere_says_where_it_was_begun():
    begun = {"commit": "ab12", "processor": "X", "gpu": None, "torch": "2.11.0"}
    record = EnvironmentRecord(processor="Y", cpus=2, earlier=(begun, {"gpu": "G"}))
    found = dict(run_facts({}, record))
    assert found["machine"] == "Y, 2 cores"
    assert found["begun with"] == "X, torch 2.11.0, ab12; G"
    assert "begun with" not in dict(run_facts({}, EnvironmentRecord(processor="Y")))
