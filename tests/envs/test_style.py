"""How environments are asked: by their factory's style, built in or not."""

import sys
import types
from functools import partial

import pytest

from paw import envs
from paw.envs.gym import GymSource
from paw.envs.household import Household
from paw.errors import UserError
from paw.style import Style

OWN = Style(introduction="You count.", validation_split="test")


class Counted(GymSource):
    style = OWN

    def __init__(self, split: str = "train"):
        super().__init__(object, name="counted", instruction="count.", split=split)


def named(split: str = "train") -> GymSource:
    return GymSource(object, name="named", instruction="count.", split=split)


def plain(split: str = "train") -> GymSource:
    return GymSource(object, name="plain", instruction="count.", split=split)


def hidden(split: str = "train") -> Counted:
    return Counted(split)


def wrong(split: str = "train") -> GymSource:
    return plain(split)


@pytest.fixture(autouse=True)
def module(monkeypatch: pytest.MonkeyPatch) -> None:
    """`styled:NAME` are the factories above."""
    styled = types.ModuleType("styled")
    monkeypatch.setattr(named, "style", OWN, raising=False)
    monkeypatch.setattr(wrong, "style", {"introduction": "You count."}, raising=False)
    for factory in (Counted, named, plain, hidden, wrong):
        setattr(styled, factory.__name__, factory)
    styled.part = partial(Household, level=2)  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "styled", styled)


def test_papers_settings():
    """Table 5 of the paper: turns, prompt tokens, temperature of evaluation, penalty, history."""
    protocols = {name: envs.style(name).protocol for name in envs.BUILT_IN}
    assert protocols == {
        "household": {"rollout": {"max_turns": 20}},
        "alfworld": {"rollout": {"max_turns": 50}},
        "webshop": {"rollout": {"max_turns": 15, "max_prompt_tokens": 4096}},
        "search_qa": {
            "rollout": {
                "max_turns": 4,
                "history_turns": 4,
                "max_prompt_tokens": 4096,
                "invalid_penalty": 0.01,
            },
            "eval": {"temperature": 0.0},
        },
    }


@pytest.mark.parametrize("name", ["styled:Counted", "styled:named"])
def test_a_class_or_a_function_has_a_style(name):
    assert envs.style(name) == OWN
    assert envs.make(name, "valid").style == OWN


def test_the_default_is_a_game_of_commands():
    assert envs.style("styled:plain") == Style() == envs.make("styled:plain").style


@pytest.mark.parametrize("name", ["styled:hidden", "styled:part"])
def test_tasks_whose_factory_shows_another_style_are_refused(name):
    """Or a run would ask with the style of nobody: prompts are made before there are tasks."""
    with pytest.raises(UserError, match="another style than its factory; give the factory"):
        envs.make(name)


def test_a_style_of_another_type():
    with pytest.raises(UserError, match="its style is a dict, not"):
        envs.style("styled:wrong")


def test_the_default_rule_is_the_papers():
    assert Style().rule == (
        "First reason about the situation inside <think> </think>. Then give one command inside "
        "<action> </action>."
    )
    assert Style(tags=("say", "do"), needs_reasoning=False).rule == (
        "Give one command inside <say> </say> or <do> </do>."
    )


@pytest.mark.parametrize("tags", [(), ("",), ("a b",), ("<a>",), ("a|b",)])
def test_tags_are_words(tags):
    with pytest.raises(ValueError, match="tags are words"):
        Style(tags=tags)


def test_a_rule_that_asks_for_other_tags_is_refused():
    with pytest.raises(ValueError, match="<move> is not in it"):
        Style(tags=("move",), rule="Give a command inside <action> </action>.")
