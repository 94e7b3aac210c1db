"""Experts of one's own: one method is enough, and what `paw imitate` asks beyond it is said."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest

from paw.cli import main
from paw.config.read import resolve
from paw.envs import Episode, Observation, StepResult, Task, TaskSource
from paw.envs.check import check_environment
from paw.errors import UserError
from paw.imitate.demonstrations import expert_demonstrations, expert_options

DOCS = Path(__file__).parents[2] / "docs"


class Lamp(Episode):
    """`on` wins; three turns are all there are."""

    max_return = 1.0
    turns = 0

    def start(self) -> Observation:
        return Observation("A lamp.", ("on", "wait"))

    def play(self, command: str) -> StepResult:
        self.turns += 1
        if command == "on":
            return StepResult(Observation("Light."), 1.0, terminated=True, success=True)
        ended = self.turns == 3
        here = Observation("Dark.", ("on", "wait"))
        return StepResult(here, truncated=ended, success=False if ended else None)


class Says:
    def __init__(self, *commands: Any):
        self.left = list(commands)

    def act(self, observation: Observation) -> str:
        return self.left.pop(0)


class Lamps(TaskSource):
    name, split, max_return = "lamps", "train", 1.0
    commands: tuple = ("wait", "on")

    def __len__(self) -> int:
        return 3

    def task(self, index: int) -> Task:
        return Task(f"lamp/{index}", "lamp", "light the lamp.")

    def open(self, task: Task, seed: int = 0) -> Lamp:
        return Lamp(task, seed)

    def expert(self, task: Task, seed: int = 0, **options: Any) -> Says:
        return Says(*self.commands)


class Bare(Lamps):
    def expert(self, task, seed=0):
        return Says("wait", "on")


class Junky(Lamps):
    """The first of its commands is junk."""

    def expert(self, task, seed=0, *, junk: float = 0.0):
        class Expert(Says):
            @property
            def last_was_junk(self):
                return len(self.left) == 1

        return Expert("dance", "on")


class Dawdler(Lamps):
    commands = ("wait",) * 9


class Mute(Lamps):
    commands = (None,)


def configuration(*flags: str):
    return resolve([], ["--imitate.demonstrations=2", *flags])


def test_one_method_is_enough():
    demonstrations = expert_demonstrations(Bare(), configuration())
    assert [d.imitated for d in demonstrations] == [(True, True)] * 2
    assert len(demonstrations[0].observations) == 3


def test_junk_is_played_and_not_imitated():
    demonstrations = expert_demonstrations(Junky(), configuration())
    assert [d.imitated for d in demonstrations] == [(False, True)] * 2


def test_options_go_to_experts_that_take_them():
    assert expert_options(Bare(), configuration()) == {}
    assert expert_options(Junky(), configuration()) == {"junk": 0.12}
    assert expert_options(Lamps(), configuration("--imitate.noise=0.2")) == {
        "noise": 0.2,
        "junk": 0.12,
    }


def test_an_option_that_the_expert_does_not_take_is_said():
    with pytest.raises(UserError, match=r"imitate.noise = 0.7: the expert of lamps takes no noise"):
        expert_options(Junky(), configuration("--imitate.noise=0.7"))


def test_an_episode_that_the_environment_ends_is_not_won():
    with pytest.raises(UserError, match="won none of its episodes"):
        expert_demonstrations(Dawdler(), configuration())


def test_an_expert_that_gives_no_text():
    with pytest.raises(UserError, match="the expert of lamps gave None, not a command"):
        expert_demonstrations(Mute(), configuration())


class Moody(Lamps):
    """Its experts are not the same twice."""

    opened = 0

    def expert(self, task, seed=0):
        self.opened += 1
        return Says(*["wait"] * (self.opened % 2), "on")


def test_the_check_plays_imitation():
    details = {check.name: check.detail for check in check_environment(Junky()).checks}
    assert details["imitation"] == "the expert wins 3 of 3 episodes; 3 of 6 commands junk"
    checks = check_environment(Moody()).checks
    assert {check.name: check.detail for check in checks if not check.passed} == {
        "imitation": "task lamp/0: the expert plays otherwise the second time"
    }


def blocks(page: str) -> str:
    text = (DOCS / page).read_text(encoding="utf-8")
    return "\n\n".join(re.findall(r"```python\n(.*?)```", text, re.DOTALL))


def test_the_page_does_what_it_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "my_games.py").write_text(blocks("experts.md"), encoding="utf-8")
    monkeypatch.syspath_prepend(DOCS.parent)  # for the example
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.chdir(tmp_path)
    page = (DOCS / "experts.md").read_text(encoding="utf-8")
    lines = re.findall(r"^    paw (.+)$", page, re.M)
    check, imitate, _ = map(shlex.split, lines)
    assert main(check) == 0
    assert "the expert wins 8 of 8 episodes; 0 of" in capsys.readouterr().out
    short = ["--imitate.steps=2", "--imitate.demonstrations=20", "--eval.episodes=2"]
    short += ["--rollout.max_response_tokens=8"]
    assert main([*imitate, *short, "--imitate.batch_episodes=2"]) == 0
    assert json.loads(Path("guesser/imitate.json").read_text())["demonstrations"] == 20
    assert main(["check-env", "my_games:GuidedWithJunk"]) == 0
    assert not re.search(r"; 0 of \d+ commands junk", capsys.readouterr().out)
