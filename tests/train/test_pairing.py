"""What the arms of a seed share beyond their first update (`paw compare`)."""

from pathlib import Path

import pytest

from paw.compare.arms import read_arms
from paw.config.read import overlay
from paw.train.loop import act
from paw.train.session import open_session

from .tiny_runs import flags


@pytest.mark.parametrize("seed", [0, 1])
def test_arms_of_equal_weights_play_the_same_in_any_update(policy: Path, tmp_path: Path, seed: int):
    """Tasks, seeds of environments and of every sample of updates 2 and 7 hang on the seed and the
    update alone: before anything is learned, arms play the same there to the token."""
    played, tasks = [], set()
    arms = read_arms()
    for name in ("baseline", "paw", "placebo_random", "random_select", "two_epochs", "decay"):
        given = flags(policy, tmp_path / name, run__updates=9, run__seed=seed)
        session = open_session(overlay([], given, on_top=arms[name].layer).config)
        try:
            groups = [act(session, update) for update in (2, 7)]
        finally:
            session.close()
        tasks |= {tuple(g.task.id for g in of_update) for of_update in groups}
        played.append([
            (t.task.id, [(turn.action.token_ids, turn.next_observation) for turn in t.transitions])
            for of_update in groups for g in of_update for t in g.trajectories
        ])  # fmt: skip
    assert all(one == played[0] for one in played)
    assert len(tasks) == 2  # of two updates, in every arm
