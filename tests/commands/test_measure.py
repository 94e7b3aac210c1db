"""From a few played episodes to the time of an update, by hand."""

from dataclasses import replace

import pytest

from paw.commands.measure import LearnedRow, Played, learned_rows, num_passes, pace_of
from paw.config.read import resolve
from paw.types import SampledAction, Task, Trajectory, Transition

CONFIG = resolve(
    [],
    ["--rollout.groups", "5", "--rollout.group_size", "2", "--rollout.max_turns", "10",
     "--rollout.max_response_tokens", "8", "--paw.selection_fraction", "0.5"],
)  # fmt: skip


def turn(context: int, action: int, target: int, *, finished: bool = True) -> Transition:
    """So many tokens; the second half of the context is the observation."""
    roles = (0,) * (context - context // 2) + (2,) * (context // 2)
    sampled = SampledAction((7,) * action, (0.0,) * action, None, finished)
    return Transition(
        (1,) * context, roles, sampled, "", "", 0.0, 0.0, True, "", "x", (9,) * target
    )


def episode(*turns: Transition) -> Trajectory:
    return Trajectory(Task("0", "k", "i"), 0, 0, turns, False, True)


TWO = [episode(turn(4, 2, 3), turn(4, 2, 3)), episode(turn(6, 4, 3), turn(6, 4, 3))]


def test_rows_of_a_window():
    """Four rows; half of them, the first two, have their target: 9, 9, 10 and 10 tokens."""
    rows = learned_rows(TWO, CONFIG)
    assert [len(r.token_ids) for r in rows] == [9, 9, 10, 10]
    assert [r.scored for r in rows] == [[4, 5, 6, 7, 8]] * 2 + [[6, 7, 8, 9]] * 2
    alone = replace(CONFIG, paw=replace(CONFIG.paw, enabled=False))
    assert [len(r.token_ids) for r in learned_rows(TWO, alone)] == [6, 6, 10, 10]


def test_rows_of_a_conversation():
    """A row an episode: 2 x (4 + 2) tokens; the second turn's observation stands at 8 and 9."""
    config = replace(CONFIG, rollout=replace(CONFIG.rollout, context="append"))
    rows = learned_rows(TWO, config)
    assert [len(r.token_ids) for r in rows] == [12, 20]
    assert rows[0].scored == [4, 5, 8, 9, 10, 11]


def test_an_update_by_its_tokens():
    """2 turns an episode of 3 tokens each: 10 x 2 x 3 = 60 at 12 tokens/s are 5 s. Rows have 38
    tokens in 4 turns, 9.5 each: 20 x 9.5 at 10 ms are 1.9 s."""
    played = Played(TWO, 12.0, stopped=False, response_limit=8)
    pace = pace_of(CONFIG, played, learned_rows(TWO, CONFIG), 0.01)
    assert (pace.act, pace.learn) == (pytest.approx(5.0), pytest.approx(1.9))
    assert (pace.episodes, pace.at_most) == (2, False)


def test_episodes_that_time_ended_give_an_upper_bound():
    """All 10 turns of each of the 10 episodes: 300 tokens at 12 a second."""
    pace = pace_of(CONFIG, Played(TWO, 12.0, stopped=True, response_limit=8), [], 0.01)
    assert (pace.act, pace.at_most) == (pytest.approx(25.0), True)


def test_responses_that_were_cut_give_an_upper_bound():
    """2 turns of 8 tokens: 160 tokens at 16 a second; and 160 + 20 x 4 learned ones. A limit that
    no response met, or that is the run's own, bounds nothing."""
    cut = [episode(turn(4, 2, 0, finished=False), turn(4, 2, 0))]
    rows = [LearnedRow([0] * 6, [4, 5])] * 2
    pace = pace_of(CONFIG, Played(cut, 16.0, stopped=False, response_limit=2), rows, 0.01)
    assert (pace.act, pace.at_most) == (pytest.approx(10.0), True)
    assert pace.learn == pytest.approx(2.4)
    for trajectories, limit in ((TWO, 4), (cut, 8)):
        assert not pace_of(CONFIG, Played(trajectories, 1.0, False, limit), rows, 0.01).at_most


def test_passes():
    """The policy's, 1; without gradient a third; the critic's with and without, 4/3."""

    def passes(*flags: str) -> float:
        return num_passes(resolve([], flags).algorithm)

    assert passes() == 1
    assert passes("--algorithm.old_logprobs", "score") == pytest.approx(4 / 3)
    assert passes("--algorithm.kl_coefficient", "0.1") == pytest.approx(4 / 3)
    assert passes("--algorithm.name", "ppo") == pytest.approx(7 / 3)
