"""How an evaluation says how far it is."""

import pytest

from paw.envs.base import Observation, StepResult
from paw.evals import progress
from paw.evals.progress import Watched
from paw.rollout.pool import Failure
from paw.types import Task

TASK = Task("t", "k", "do it")


class Scripted:
    """Environments whose results a test gives, turn by turn."""

    def __init__(self, opened, results):
        self.opened, self.results = opened, list(results)

    def open(self, requests):
        return self.opened

    def step(self, commands):
        return self.results.pop(0)

    def close_slots(self, slots):
        pass


def result(terminated=False, success=None):
    return StepResult(Observation("x"), 0.0, terminated, False, True, success, {})


def test_success_and_time_left(monkeypatch):
    """5 episodes of at most 4 turns, 3 of them open, one of which fails at once; 10 s a turn.
    Turn 1 plays 2 episodes in 10 s, 5 s each: 2 x 3 + 2 x 4 = 14 left, 70 s. In turn 2 one is won:
    4 played in 20 s; 2 + 8 = 10 left, 50 s. Then the other's prompt is full: closed."""
    clock, told = [0.0], []
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    opened = {0: Observation("a"), 1: Observation("b"), 2: Failure("gone")}
    results = [{0: result(), 1: result()}, {0: result(True, True), 1: result()}]
    watched = Watched(Scripted(opened, results), 5, 4, lambda *how: told.append(how))
    watched.open([(slot, TASK, 0) for slot in range(3)])
    for _ in range(2):
        clock[0] += 10.0
        watched.step({0: "go", 1: "go"})
    assert told == [(1, 0, pytest.approx(70.0)), (2, 1, pytest.approx(50.0))]
    watched.close_slots([0])
    watched.close_slots([1])
    watched._environments = Scripted({0: Observation("a")}, [{0: result(True, False)}])
    watched.open([(0, TASK, 0)])
    watched.step({0: "go"})
    assert told[-1][:2] == (4, 1)
