import re
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from paw.envs.check import check_environment, format_report
from paw.envs.gym import FIRST_SEEDS, GymSource
from paw.errors import UserError


class Countdown:
    """Gymnasium's interface: say 'down' as often as the seed's last digit, plus one, says."""

    def reset(self, *, seed):
        self.left = seed % 10 + 1
        return f"{self.left} left", {"admissible_commands": ["down"]}

    def step(self, action):
        valid = action == "down"
        self.left -= valid
        done = self.left == 0
        info = {"admissible_commands": ["down"], "valid": valid, "steps": object()}
        return f"{self.left} left", float(done), done, False, info

    def close(self):
        pass


def countdown(**options):
    return GymSource(Countdown, name="countdown", instruction="count down to 0.", **options)


def test_an_adapted_environment_keeps_the_contract():
    report = check_environment(countdown(), num_tasks=3)
    assert report.passed, format_report(report)


def test_the_example_of_the_documentation_keeps_the_contract():
    page = Path(__file__).parents[2] / "docs" / "environments.md"
    example = re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)[0]
    module = types.ModuleType("my_games")
    sys.modules["my_games"] = module  # where pickle looks for the class
    exec(example, vars(module))
    report = check_environment(module.countdown(), num_tasks=3)
    del sys.modules["my_games"]
    assert report.passed, format_report(report)


def test_an_episode_by_hand():
    source = countdown(num_tasks=5)
    env = source.open(source[1])  # seed 1: two steps
    assert env.reset().text == "2 left"
    assert env.step("up").valid is False
    first = env.step("down")
    assert (first.reward, first.terminated, first.success) == (0.0, False, None)
    last = env.step("down")
    assert (last.reward, last.terminated, last.success) == (1.0, True, True)
    assert last.info == {"valid": True}
    with pytest.raises(RuntimeError, match="after the end"):
        env.step("down")


def test_splits_take_other_seeds():
    ids = [{t.id.partition("/")[2] for t in countdown(split=s)} for s in FIRST_SEEDS]
    assert not ids[0] & ids[1] and not ids[1] & ids[2] and not ids[0] & ids[2]
    with pytest.raises(UserError, match="no split 'dev'"):
        countdown(split="dev")


class Says:
    """Answers as it is told."""

    def __init__(self, **changed):
        self.answer = {"observation": "o", "reward": 0.1, "terminated": False, "truncated": False}
        self.answer |= {"info": {}} | changed

    def reset(self, *, seed):
        return self.answer.get("first", ("start", {}))

    def step(self, action):
        return self.answer.get("whole") or tuple(self.answer.values())

    def close(self):
        pass


def answers(turns=1, **changed):
    source = GymSource(lambda: Says(**changed), name="says", instruction="go.")
    env = source.open(source[0])
    env.reset()
    return [env.step("go") for _ in range(turns)][-1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"observation": None}, "the observation is a NoneType, not text: None"),
        ({"observation": b"abc"}, "the observation is a bytes, not text: b'abc'"),
        ({"observation": ("a", "b")}, "the observation is a tuple, not text"),
        ({"info": {"admissible_commands": "look"}}, "'look', not a list of texts"),
        ({"info": {"admissible_commands": 3}}, "is 3, not a list of texts"),
        ({"info": {"admissible_commands": {"look": 1}}}, "not a list of texts"),
        ({"info": {"admissible_commands": [1]}}, "holds 1, which is no text"),
        ({"info": None}, "step: info is a NoneType, not a dict"),
        ({"reward": None}, "the reward is None, not a number"),
        ({"reward": "1.0"}, "the reward is '1.0', not a number"),
        ({"terminated": "no"}, "terminated is 'no', not a bool"),
        ({"whole": ("o", 0.0, True, {})}, "step returned a tuple of 4, not Gymnasium's (obs"),
        ({"first": "start"}, "reset returned a str, not Gymnasium's (observation, info)"),
        ({"first": (None, {})}, "the observation is a NoneType, not text: None"),
    ],
)
def test_what_is_not_of_the_interface_is_said(changed, message):
    with pytest.raises(TypeError, match=re.escape(message)):
        answers(**changed)
    source = GymSource(lambda: Says(**changed), name="says", instruction="go.")
    assert message in format_report(check_environment(source, num_tasks=1))


def test_what_an_info_does_not_say_is_not_read():
    seen = answers(info={"admissible_commands": None, "valid": None, "success": "false"})
    assert (seen.observation.commands, seen.valid, seen.success) == ((), True, None)
    odd = {"info": {"success": "false", "valid": "no"}, "terminated": True}
    lost = answers(**odd)  # by its return, which reaches nothing
    assert (lost.valid, lost.success) == (True, False)
    assert answers(**odd, reward=1).success is True
    numpy = {"success": np.bool_(False), "valid": np.bool_(False)}
    said = answers(info=numpy, terminated=np.bool_(True), reward=np.float32(1))
    assert (said.valid, said.success, said.reward) == (False, False, 1.0)


def test_a_score_that_is_no_number_is_left_out_and_said_once(capsys):
    for score in ("3/10", [3]):
        seen = answers(info={"score": score})
        assert seen.score is None
    (line,) = capsys.readouterr().err.splitlines()
    assert line.endswith("says: the score of its info is no number, and is left out")
    assert answers(info={"score": np.float32(0.5)}).score == 0.5


def test_ten_tenths_are_one():
    source = GymSource(Says, name="says", instruction="go.")
    env = source.open(source[0])
    env.reset()
    rewards = [env.step("go").reward for _ in range(9)]
    env._environment.answer["terminated"] = True
    last = env.step("go")
    assert sum([*rewards, last.reward]) < 1  # 0.9999999999999999
    assert last.success is True


@pytest.mark.parametrize("value", [0, -1.0, float("nan"), float("inf"), None, "1", 10**400])
def test_a_largest_return_that_is_none_is_refused(value):
    with pytest.raises(UserError, match=r"countdown: max_return = .*: a positive number"):
        countdown(max_return=value)


def test_seeds_of_a_split_end_before_those_of_the_next():
    million = 1_000_000
    assert countdown(num_tasks=million)[million - 1].id == "train/999999"
    assert len(countdown(split="test", num_tasks=5 * million)) == 5 * million
    assert countdown(seed_offset=million - 5, num_tasks=5)[4].id == "train/999999"
    for options in (
        {"num_tasks": million + 1},
        {"split": "valid", "num_tasks": million + 1},
        {"seed_offset": million - 5, "num_tasks": 6},
        {"num_tasks": 0},
        {"num_tasks": 2.5},
    ):
        with pytest.raises(UserError, match="countdown: num_tasks = "):
            countdown(**options)
    for offset in (-1, 2**31, 0.5):
        with pytest.raises(UserError, match="countdown: seed_offset = "):
            countdown(seed_offset=offset)
