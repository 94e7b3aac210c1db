"""Which runs there are, in which order, and which wait for which. Nothing is trained here."""

import json
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paw.compare import jobs, results
from paw.compare.arms import choose_arms, read_arms
from paw.compare.plan import Planned, in_turns, make_plan
from paw.compare.results import Result, read_result
from paw.config.read import overlay, to_toml
from paw.errors import UserError
from paw.runs.layout import HELD


def plan_of(
    output: Path, names: list[str], seeds: range, more: Sequence[str] = ()
) -> list[Planned]:
    arms = choose_arms(read_arms(), names)
    flags = ["--rollout.context", "append", "--run.updates", "8", *more]
    resolved = {arm.name: overlay([], flags, on_top=arm.layer) for arm in arms}
    return make_plan(arms, resolved, seeds, output, 1)


def test_runs_of_a_seed_stand_together_and_differ_by_their_arm_alone(tmp_path: Path):
    plan = plan_of(tmp_path, ["baseline", "matched_constant", "paw", "echo"], range(3, 5))
    assert [(p.seed, p.arm) for p in plan] == [
        (3, "baseline"), (3, "matched_constant"), (3, "paw"), (3, "echo"),
        (4, "baseline"), (4, "matched_constant"), (4, "paw"), (4, "echo"),
    ]  # fmt: skip
    assert [(p.seed, p.arm) for p in in_turns(plan)] == [
        (3, "baseline"), (3, "paw"), (3, "echo"), (3, "matched_constant"),
        (4, "paw"), (4, "echo"), (4, "baseline"), (4, "matched_constant"),
    ]  # fmt: skip
    matched = plan[1]
    assert matched.after == plan[2].directory == tmp_path / "runs" / "paw" / "seed-3"
    assert matched.config.paw.match == str(matched.after)
    for planned in plan:
        config = asdict(planned.config)
        assert config["run"].pop("directory") == str(planned.directory)
        assert config["run"].pop("seed") == planned.seed
        config.pop("paw")
        if planned.arm == "baseline" and planned.seed == 3:
            first = config
        assert config == first
    # every task once, four evaluations; sizes are chosen
    assert (first["eval"]["episodes"], first["eval"]["every"]) == (200, 2)
    assert first["optimizer"]["tokens_per_micro_batch"] > 0 < first["rollout"]["conversations"]


def test_a_run_waits_for_the_one_it_takes_its_constant_from(tmp_path: Path):
    plan = plan_of(tmp_path, ["baseline", "paw", "matched_constant"], range(1))
    paw, matched = plan[1], plan[2]
    said: list[str] = []
    under_way = {p.directory for p in plan}
    assert jobs._may_begin(paw, under_way) and not jobs._may_begin(matched, under_way)
    assert not jobs._given_up(matched, plan, under_way, said.append)
    done = under_way - {paw.directory}
    assert jobs._may_begin(matched, done)
    assert jobs._given_up(matched, plan, done, said.append)  # it was killed: another time
    assert matched.status == "missing" and not said
    jobs._fail(paw, "diverged", said.append)
    assert jobs._given_up(matched, plan, done, said.append)
    assert matched.status == "failed" and said[-1].endswith("did not finish")


def test_its_constant_cannot_come_from_a_run_of_which_only_the_result_was_kept(tmp_path: Path):
    plan = plan_of(tmp_path, ["baseline", "paw", "matched_constant"], range(1))
    paw, matched = plan[1], plan[2]
    keep(paw, json.dumps(KEPT))
    said: list[str] = []
    assert jobs._given_up(matched, plan, {matched.directory}, said.append)
    assert matched.status == "failed" and "is not here any more" in said[-1]


def test_a_comparison_may_lie_elsewhere(tmp_path: Path):
    """Its path is in paw.match of one arm, and no difference."""
    plan = plan_of(tmp_path / "there", ["paw", "matched_constant"], range(1))
    for planned in plan:
        keep(planned, json.dumps(KEPT))
    (tmp_path / "there").rename(tmp_path / "here")
    moved = plan_of(tmp_path / "here", ["paw", "matched_constant"], range(1))
    assert [p.status for p in moved] == ["finished", "finished"]


@pytest.mark.parametrize(
    "flags",
    [["--run.updates", "4"], ["--eval.episodes", "100"], ["--eval.every", "4"]],
    ids=lambda flags: flags[0],
)
def test_what_a_run_may_change_a_comparison_may_not(flags: list[str], tmp_path: Path):
    """Pairs of 8 and 4 updates, panels of 200 and 100: silently, were more seeds added so."""
    keep(plan_of(tmp_path, ["baseline", "paw"], range(1))[0], json.dumps(KEPT))
    with pytest.raises(UserError, match=rf"of another configuration \({flags[0][2:]}"):
        plan_of(tmp_path, ["baseline", "paw"], range(2), flags)


def test_a_run_that_the_machine_killed_is_told(tmp_path: Path):
    """Out of memory, say: it is missing and may go on, and the command does not end well."""
    planned = plan_of(tmp_path, ["baseline", "paw"], range(1))[0]
    planned.directory.parent.mkdir(parents=True)
    planned.log.touch()
    process = subprocess.Popen(["sleep", "60"])
    process.kill()
    process.wait()
    said: list[str] = []
    reason = jobs._ended(jobs._Job(planned, process, 0), said.append, stopped=False)
    assert reason == "killed by signal 9" and said[0].endswith("the same command goes on with it")
    assert read_result(planned, tmp_path, reason).reason == reason and planned.status == "missing"
    assert jobs._ended(jobs._Job(planned, process, 0), said.append, stopped=True) is None


def test_a_directory_that_another_process_has_is_left_to_it(tmp_path: Path):
    planned = plan_of(tmp_path, ["baseline", "paw"], range(1))[0]
    planned.directory.mkdir(parents=True)
    handle = jobs.lock(jobs.training_place(planned.config))
    try:
        assert not jobs._may_begin(planned, set())
    finally:
        jobs.os.close(handle)
    assert jobs._may_begin(planned, set())


KEPT = {
    "updates": 8, "curve": [[0, 0.25], [8, 0.5]], "training": [0.5] * 8, "trained": [10] * 8,
    "panel": [True, None], "metrics": {"turns": 5.0}, "seconds": 2.0, "digest": "ab",
}  # fmt: skip


def keep(planned: Planned, text: str) -> None:
    planned.settings.parent.mkdir(parents=True, exist_ok=True)
    planned.settings.write_text(to_toml(planned.config))
    planned.kept.write_text(text)


def test_what_was_kept_stands_for_the_run(tmp_path: Path):
    planned = plan_of(tmp_path, ["baseline", "paw"], range(1))[1]
    assert planned.status == "missing"
    keep(planned, json.dumps(KEPT))
    assert planned.status == "finished" and jobs._updates_so_far(planned) == 8
    found = read_result(planned, tmp_path)
    assert found.final == found.late == 0.5 and found.area == 0.375
    assert found.panel == (True, None) and found.digest == "ab" and found.seconds == 2.0
    keep(planned, json.dumps(KEPT | {"updates": 7}))  # of a shorter run
    assert planned.status == "missing"


def test_a_run_that_ended_in_its_last_evaluation_is_not_finished(tmp_path: Path):
    """It goes on with the evaluation, without which it has no panel."""
    planned = plan_of(tmp_path, ["baseline", "paw"], range(1))[1]
    checkpoint = planned.directory / "checkpoints" / "update-000008"
    checkpoint.mkdir(parents=True)
    (checkpoint / "trainer.pt").touch()
    assert planned.status == "finished"
    (planned.directory / HELD).write_text('{"update": 8}')
    assert planned.updates_made == 7 and planned.status == "missing"


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{}", '{"updates": "x"}', '{"updates": 8}', json.dumps(KEPT | {"curve": [["a", 1]]}),
     json.dumps(KEPT | {"training": 3}), json.dumps(KEPT | {"panel": None}),
     json.dumps(KEPT | {"made_with": 3})],
)  # fmt: skip
def test_a_damaged_result_is_named(text: str, tmp_path: Path):
    planned = plan_of(tmp_path, ["baseline", "paw"], range(1))[1]
    keep(planned, text)
    with pytest.raises(UserError, match=r"seed-0.json is no result of a run; copy it again"):
        read_result(planned, tmp_path)


def test_a_result_without_its_settings_is_not_trusted(tmp_path: Path):
    planned = plan_of(tmp_path, ["baseline", "paw"], range(1))[1]
    keep(planned, json.dumps(KEPT))
    planned.settings.unlink()
    with pytest.raises(UserError, match=r"seed-0.json needs seed-0.toml beside it"):
        _ = planned.status


def result(curve, training=(0.0,) * 8, trained=(10.0,) * 8) -> Result:
    return Result("paw", 0, "x", "finished", curve=curve, training=training, trained=trained)


def test_numbers_of_a_run_by_hand():
    """(0, 0.2), (4, 0.4), (8, 0.4): 4 x 0.3 + 4 x 0.4 = 2.8 over 8 updates. The late window of
    eight updates has two; 0.4 is reached after four updates of 10 tokens."""
    run = result(((0, 0.2), (4, 0.4), (8, 0.4)), training=(0.0,) * 6 + (0.5, 0.75))
    assert run.final == 0.4 and run.area == pytest.approx(0.35) and run.late == 0.625
    assert run.reaches(0.4) == (4, 40.0) and run.reaches(0.2) == (0, 0.0)
    assert run.reaches(0.5) is None
    unfinished = Result("paw", 0, "x", "failed", "diverged", curve=run.curve, training=(0.5,))
    assert unfinished.final is unfinished.area is unfinished.late is None


@given(st.integers(1, 1000))
def test_the_late_window_is_a_quarter(count: int):
    assert 1 <= results.window(count) <= count
    assert abs(results.window(count) - count / 4) <= 1
