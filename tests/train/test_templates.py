"""Rows of imitation and targets of training are the chat template's tokens, whatever it does."""

from dataclasses import replace

import pytest
import torch
from tests.text.families import GROWING, family_tokenizer

from paw.config.read import resolve
from paw.config.tree import PawConfig
from paw.envs.base import Observation, StepResult
from paw.imitate.demonstrations import Demonstration
from paw.imitate.rows import demonstration_rows
from paw.rollout.actor import make_serializer
from paw.rollout.collect import Move, make_transition
from paw.text.turns import render_ids
from paw.train.prediction.target import choose_targets
from paw.train.score import flatten
from paw.types import (
    Columns,
    Group,
    Judgement,
    SampledAction,
    Targets,
    Task,
    Trajectory,
    Transition,
)

TASK = Task("t", "kind", "put a mug in the fridge.")
TEXTS = ("You see a mug 1.", "\n Nothing happens.", "(You) are done.")
ANSWERS = ("go to shelf 1", "look")


def serializer(name, context="append"):
    return make_serializer(configuration(context), family_tokenizer(name))


def configuration(context="append"):
    settings = {
        "rollout.context": context,
        "rollout.response_format": "command",
        "imitate.observation_weight": 0.5,
    }
    return resolve([], [f"--{key}={value}" for key, value in settings.items()])


@pytest.mark.parametrize("name", GROWING)
def test_an_imitated_episode_is_the_rendered_conversation(name):
    """But for the end of the last user's turn, which nobody answered."""
    s = serializer(name)
    seen = tuple(Observation(text) for text in TEXTS)
    demonstration = Demonstration(TASK, seen, ANSWERS, (True, True))
    (row,) = demonstration_rows(s, demonstration, configuration())
    whole = (TEXTS[0], ANSWERS[0], TEXTS[1], ANSWERS[1], TEXTS[2])
    expected = render_ids(s.tokenizer, whole)
    length = len(row.token_ids)
    assert list(row.token_ids) == expected[:length]
    assert length >= len(expected) - len(s.format.to_policy)
    weights = zip(row.token_ids, row.target_weights, strict=True)
    said, read = [], []
    for i, weight in weights:
        if weight:
            (said if weight == 1 else read).append(i)
    end = s.format.pieces.end_of_turn
    assert "".join(s.tokenizer.decode(said).split()) == f"gotoshelf1{end}look{end}"
    shown = "".join(s.tokenizer.decode(read).split())
    assert shown.removeprefix(">") == "Nothinghappens.(You)aredone."  # OLMo 2: ">\n\n" is a token


def transition(s, observation: str, following: str) -> Transition:
    action = SampledAction(s.format.response("look"), (), None, finished=True)
    dialogue = s.dialogue(TASK)
    dialogue.observe(observation, ())
    result = StepResult(Observation(following), 0.0)
    move = Move(action, "look", "look", result, valid=True, penalty=0.0)
    return make_transition(s, dialogue.prompt(), Observation(observation), move)


def judgement(count: int) -> Judgement:
    column = torch.ones(count, dtype=torch.float64)
    none = torch.zeros(count, dtype=torch.bool)
    return Judgement(column, None, column, none, ~none, column[:1], column, none.long())


def columns_of(transitions: list[Transition], apart: bool = False) -> Columns:
    """Of one trajectory, or `apart` each of its own."""
    parts = [(t,) for t in transitions] if apart else [tuple(transitions)]
    members = [Trajectory(TASK, 0, i, part, False, True) for i, part in enumerate(parts)]
    return flatten([Group(TASK, tuple(members))])[1]


@pytest.mark.parametrize("context", ["append", "window"])
@pytest.mark.parametrize("name", GROWING)
def test_a_target_behind_its_action_is_the_next_turn(name, context):
    """Also where its first token takes the last of the header: then the header is shorter."""
    s = serializer(name, context)
    transitions = [transition(s, "A room.", text) for text in ("\nNo.", "You see a mug 1.")]

    def chosen(**options) -> Targets:
        columns = columns_of(transitions, apart=True)
        paw, generator = PawConfig(**options), torch.Generator()
        return choose_targets(transitions, columns, judgement(2), paw, s, generator=generator)

    targets = chosen()
    for i, t in enumerate(transitions):
        target = targets.by_transition[i]
        built = [*t.context_ids, *t.action.token_ids, *target.scaffold, *target.token_ids]
        whole = render_ids(s.tokenizer, ("A room.", "look", str(t.next_observation)))
        assert built == whole[: len(built)]
    shuffled = chosen(target="shuffled")
    own = targets.by_transition
    for i in (0, 1):  # each with the header of the text that it got
        assert replace(shuffled.by_transition[i], weight=0.0) == replace(own[1 - i], weight=0.0)


@pytest.mark.parametrize("name", GROWING)
def test_a_horizon_in_a_window_goes_on_as_the_conversation_would(name):
    """h_t a_t o_{t+1} a_{t+1} o_{t+2}: the template's own tokens for five turns of it."""
    s = serializer(name, "window")
    one = transition(s, "A room.", "\nNo.")
    transitions = [one, transition(s, "\nNo.", "You see a mug 1.")]
    targets = choose_targets(
        transitions, columns_of(transitions), judgement(2), PawConfig(horizon=2), s,
        generator=torch.Generator(),
    )  # fmt: skip
    first = targets.by_transition[0]
    (later,) = first.later
    built = [*one.context_ids, *one.action.token_ids, *first.scaffold, *first.token_ids]
    built += [*later.between, *later.scaffold, *later.token_ids]
    texts = ("A room.", "look", "\nNo.", "look", "You see a mug 1.")
    whole = render_ids(s.tokenizer, texts)
    assert built == whole[: len(built)] and len(later.token_ids) > 3


def test_an_observation_that_the_template_shows_nothing_of_is_no_target():
    """Llama 3 trims white space away: a target needs a token."""
    t = transition(serializer("llama-3"), "A room.", " \n")
    assert (t.next_observation, t.next_observation_ids, t.next_header_ids) == (" \n", (), ())
