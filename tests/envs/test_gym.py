import re
import sys
import types
from pathlib import Path

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
