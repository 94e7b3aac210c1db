"""What an environment may return, and what costs it its episode: nothing looks again behind it."""

import math
from dataclasses import replace

import numpy as np
import pytest
from fake_envs import Counting

from paw.envs.base import Observation, StepResult, number, reaches
from paw.errors import UserError
from paw.rollout.pool import EnvironmentPool
from paw.rollout.worker import Failure, Host, Open, Step, checked

GOOD = StepResult(Observation("seen", ("go",)), reward=0.5, info={"score": 0.25})


class Odd(Counting):
    """Steps as it is told."""

    def __init__(self, result):
        super().__init__()
        self.result = result

    def open(self, task, seed=0):
        environment = super().open(task, seed)
        environment.step = lambda command: self.result
        return environment


def step(result):
    source = Odd(result)
    host = Host(source)
    host.play(Open(0, source[0], 0))
    return host.play(Step(0, "go"))


def but(**changed):
    return replace(GOOD, **changed)


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        (but(info={"score": "3/10"}), "TypeError: info[\"score\"] is '3/10', not a number"),
        (but(info={"score": "3"}), "TypeError: info[\"score\"] is '3', not a number"),
        (but(info={"score": [1]}), 'TypeError: info["score"] is [1], not a number'),
        (but(info={"score": 10**400}), 'ValueError: info["score"] is inf'),
        (but(info={"score": float("nan")}), 'ValueError: info["score"] is nan'),
        (but(info=None), "TypeError: info is a NoneType, not a Mapping"),
        (but(reward=None), "TypeError: the reward is None, not a number"),
        (but(reward="1.0"), "TypeError: the reward is '1.0', not a number"),
        (but(reward=10**400), "ValueError: the reward is inf"),
        (but(reward=1e39), "ValueError: the reward is 1e+39, beyond what can be learned from"),
        (but(terminated="no"), "TypeError: terminated is 'no', not a bool"),
        (but(valid=None), "TypeError: valid is None, not a bool"),
        (but(success="false"), "TypeError: success is 'false', not a bool"),
        (but(observation=None), "TypeError: the observation is a NoneType, not an Observation"),
        (but(observation=Observation("x", "go")), "TypeError: the commands are a str, not a tuple"),
        (
            but(observation=Observation("x", (3,))),
            "TypeError: sequence item 1: expected str instance, int found",
        ),
    ],
)  # fmt: skip
def test_what_is_not_of_the_contract_costs_the_episode(result, reason):
    assert step(result) == Failure(reason)


def test_what_is_of_the_contract_passes_as_it_is():
    assert step(GOOD) is GOOD
    for score in (None, 3, True, np.float32(0.5)):
        assert checked(but(info={"score": score}), StepResult).score == score
    assert checked(but(info={}), StepResult).score is None


def test_numbers_and_bools_of_numpy_become_pythons():
    """Records and frames hold no others."""
    odd = but(reward=np.float32(0.5), terminated=np.bool_(True), success=np.bool_(False))
    found = step(odd)
    assert found == but(terminated=True, success=False)
    assert [type(x) for x in (found.reward, found.terminated, found.success)] == [float, bool, bool]


def test_numbers():
    assert [number("x", x) for x in (2, np.int64(2), np.array(2.0))] == [2.0] * 3
    for odd in (None, "2", b"2", [2], np.array([1.0, 2.0]), 2j):
        with pytest.raises(TypeError, match=r"x is .*, not a number"):
            number("x", odd)


def test_a_sum_of_rewards_reaches_what_it_is_short_of_by_rounding():
    tenths = sum([0.1] * 10)
    assert tenths < 1  # 0.9999999999999999
    assert reaches(tenths, 1.0) and reaches(1.5, 1.0)
    assert not reaches(1 - 1e-6, 1.0)


class Generous(Counting):
    """Pays 10."""

    max_return = 2.0


class Worthless(Counting):
    max_return = 0.0


class Endless(Counting):
    max_return = math.nan


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(("name", "value"), [("Worthless", "0.0"), ("Endless", "nan")])
def test_a_largest_return_that_is_none_is_refused_at_the_start(name, value, workers):
    with pytest.raises(UserError, match=f"test_checked:{name}': max_return = {value}: a positive"):
        EnvironmentPool(f"test_checked:{name}", "train", {}, workers=workers)


def test_returns_above_the_largest_are_told_of_once(capsys):
    """The group's weight would be 0, and nothing be predicted, without a word."""
    for name in ("test_checked:Generous", "fake_envs:Counting"):
        with EnvironmentPool(name, "train", {}, workers=0) as pool:
            pool.open([(slot, Counting()[slot], 0) for slot in range(2)])
            for _ in range(6):
                pool.step({0: "count", 1: "count"})
    (line,) = capsys.readouterr().err.splitlines()
    assert "Generous: an episode returned more than max_return = 2" in line
    assert "env.max_return" in line
