"""From a few played episodes to the time of an update, by hand."""

from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import pytest

from paw.commands.measure import Played, num_passes, pace_of, samples_of
from paw.config.read import resolve
from paw.config.tree import Config
from paw.text.dialogue import Serializer
from paw.types import SampledAction, Task, TrainingSample, Trajectory, Transition

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


def serializer(append: bool) -> Serializer:
    """One token of scaffold before a target."""
    found = SimpleNamespace(append=append, to_user=lambda action: (0,), encode=lambda text: ())
    return cast(Serializer, found)


def samples(config: Config, append: bool = False) -> list[TrainingSample]:
    return samples_of(TWO, config, 10.0, serializer(append))


def scored(sample: TrainingSample) -> list[int]:
    """Tokens with a weight."""
    weights = zip(sample.policy_weights, sample.target_weights, strict=True)
    return [i for i, pair in enumerate(weights) if any(pair)]


def test_rows_of_a_window():
    """Four rows of 4 + 2 and 6 + 4 tokens; half of them, the first two, have a target of 1 + 3."""
    rows = samples(CONFIG)
    assert [len(r.token_ids) for r in rows] == [10, 10, 10, 10]
    assert [scored(r) for r in rows] == [[4, 5, 7, 8, 9]] * 2 + [[6, 7, 8, 9]] * 2
    alone = replace(CONFIG, paw=replace(CONFIG.paw, enabled=False))
    assert [len(r.token_ids) for r in samples(alone)] == [6, 6, 10, 10]


def test_rows_of_a_conversation():
    """A row an episode, 2 x (4 + 2) tokens, the last target of the first one behind it."""
    config = replace(CONFIG, paw=replace(CONFIG.paw, selection_fraction=1.0))
    first = samples(config, append=True)[0]
    assert (len(first.token_ids), first.base_length) == (16, 12)
    assert scored(first) == [4, 5, 10, 11, 13, 14, 15]


def test_an_update_by_its_tokens():
    """2 turns an episode of 3 tokens each: 10 x 2 x 3 = 60 at 12 tokens/s are 5 s. Rows have 40
    tokens in 4 turns, 10 each: 20 x 10 at 10 ms are 2 s."""
    played = Played(TWO, 12.0, stopped=False, response_limit=8)
    pace = pace_of(CONFIG, played, samples(CONFIG), 0.01)
    assert (pace.act, pace.learn) == (pytest.approx(5.0), pytest.approx(2.0))
    assert (pace.episodes, pace.at_most) == (2, False)


def test_episodes_that_time_ended_give_an_upper_bound():
    """All 10 turns of each of the 10 episodes: 300 tokens at 12 a second."""
    pace = pace_of(CONFIG, Played(TWO, 12.0, stopped=True, response_limit=8), [], 0.01)
    assert (pace.act, pace.at_most) == (pytest.approx(25.0), True)


def test_responses_that_were_cut_give_an_upper_bound():
    """2 turns of 8 tokens: 160 tokens at 16 a second; and 160 + 20 x 4 learned ones. A limit that
    no response met, or that is the run's own, bounds nothing."""
    cut = [episode(turn(4, 2, 0, finished=False), turn(4, 2, 0))]
    rows = samples_of(cut, CONFIG, 10.0, serializer(append=False))  # 6 tokens each, no target
    pace = pace_of(CONFIG, Played(cut, 16.0, stopped=False, response_limit=2), rows, 0.01)
    assert (pace.act, pace.at_most) == (pytest.approx(10.0), True)
    assert pace.learn == pytest.approx(2.4)
    for trajectories, limit in ((TWO, 4), (cut, 8)):
        assert not pace_of(CONFIG, Played(trajectories, 1.0, False, limit), rows, 0.01).at_most


def test_passes():
    """The policy's, 1; without gradient a third; the critic's with and without, 4/3."""

    def passes(*flags: str) -> float:
        return num_passes(resolve([], flags))

    assert passes() == 1
    assert passes("--algorithm.old_logprobs", "score") == pytest.approx(4 / 3)
    assert passes("--algorithm.kl_coefficient", "0.1") == pytest.approx(4 / 3)
    assert passes("--algorithm.name", "ppo") == pytest.approx(7 / 3)
    # Two epochs: what has a gradient twice.
    assert passes("--algorithm.name", "ppo", "--optimizer.epochs", "2") == pytest.approx(13 / 3)
