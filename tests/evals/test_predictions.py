"""What a model is asked about the answers of a file, in both contexts and by other tokenizers."""

import numpy as np
import pytest
import torch
from tests.text.templates import QWEN25, chat_tokenizer

from paw.envs.household import Household
from paw.evals.answers import read_answers
from paw.evals.predictions import ask, predict
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.runs.format import TrajectoryRecord, TurnRecord
from paw.text.dialogue import Serializer
from paw.text.tokenizer import make_tokenizer
from paw.types import SampledAction, Task

TASK = Task("t/1", "kind", "put a mug in the fridge.")
SHOWN = ("go to shelf 1", "look", "open fridge 1")


def turn(command, seen, answer, **columns):
    return TurnRecord(
        observation=seen, commands=SHOWN, response=columns.pop("response", command),
        command=command, valid=columns.pop("valid", True), next_observation=answer, **columns,
    )  # fmt: skip


TURNS = (
    turn("go to shelf 1", "You are in a room.", "You arrive at shelf 1. You see a mug 2."),
    turn("jump", "You arrive at shelf 1. You see a mug 2.", "Nothing happens.", valid=False),
    turn("look", "Nothing happens.", "You see a mug 2."),
)
RECORD = TrajectoryRecord(task=TASK, success=False, turns=TURNS)


@pytest.fixture(scope="module")
def tokenizer():
    texts = [t.observation for t in TURNS] + [t.next_observation for t in TURNS] + [*SHOWN]
    return make_tokenizer(texts * 3)


@pytest.fixture(scope="module")
def policy(tokenizer):
    model = create_policy_model(
        vocab_size=len(tokenizer), hidden_size=32, num_layers=2, num_heads=2, num_kv_heads=1,
        intermediate_size=64, max_positions=512, seed=0,
    )  # fmt: skip
    return Policy(model)


def serializer(tokenizer, context="append", response_format="command", **options):
    settings = {"history_turns": 1, "max_prompt_tokens": 4000, "max_observation_tokens": 10**6}
    return Serializer(
        tokenizer, Household.style, context=context, response_format=response_format,
        **(settings | options),
    )  # fmt: skip


def asked_of(s, record=RECORD):
    answers = read_answers([record], s.style, seed=0)
    return list(ask(s, record, {a.turn: a for a in answers}))


@pytest.mark.parametrize("response_format", ["command", "tags"])
def test_what_is_asked_in_a_growing_conversation(tokenizer, response_format):
    """The true rows are beginnings of one conversation, as it is played; the others differ from
    them in the action alone."""
    s = serializer(tokenizer, response_format=response_format)
    found = asked_of(s)
    assert [one.answer.turn for one in found] == [0, 1, 2]
    dialogue = s.dialogue(TASK)
    for t, one in zip(TURNS, found, strict=True):
        dialogue.observe(t.observation, t.commands)
        prompt = dialogue.prompt().token_ids
        rows = {name: list(row.token_ids) for name, row in one.rows.items()}
        (span,) = one.rows["true"].spans
        target = rows["true"][slice(*span)]
        assert tokenizer.decode(target) == t.next_observation
        assert all(row[: len(prompt)] == list(prompt) for row in rows.values())
        assert all(row[-len(target) :] == target for row in rows.values())
        middle = {
            name: tokenizer.decode(row[len(prompt) : -len(target)]) for name, row in rows.items()
        }
        written = t.command
        other = one.answer.other_command
        if response_format == "tags":
            written, other = (f"<think></think><action>{c}</action>" for c in (written, other))
        assert middle["true"] == f"{written}<|end|><|observation|>"
        assert middle["other"] == f"{other}<|end|><|observation|>"
        assert middle["none"] == "<|end|><|observation|>"
        ids = tuple(s.format.response(written))
        dialogue.act(SampledAction(ids, (), None, finished=True), t.command)


def test_what_is_asked_in_a_window(tokenizer):
    """Each turn has a prompt of its own; the target stands behind its action alone."""
    found = asked_of(serializer(tokenizer, "window", "tags"))
    texts = [tokenizer.decode(list(one.rows["true"].token_ids)) for one in found]
    assert [text.count("<|observation|>") for text in texts] == [2, 2, 2]
    for text, t in zip(texts, TURNS, strict=True):
        action = f"<think></think><action>{t.command}</action>"
        assert text.endswith(f"<|action|>{action}<|end|><|observation|>{t.next_observation}")


def test_a_sampled_response_keeps_its_tokens(tokenizer):
    """Spelled letter by letter it is the same text and other tokens; those of another tokenizer,
    which say something else here or nothing, are not taken."""
    s = serializer(tokenizer)
    letters, word = tuple(i for c in "look" for i in s.encode(c)), s.encode("look")
    assert len(letters) == 4 and len(word) == 1
    for ids, kept in ((letters, letters), ((0, 1, 2), word), ((10**6,), word)):
        sampled = turn("look", "You are here.", "You see.", action_ids=ids, finished=False)
        (one,) = asked_of(s, TrajectoryRecord(task=TASK, success=False, turns=(sampled,)))
        dialogue = s.dialogue(TASK)
        dialogue.observe("You are here.", SHOWN)
        prompt = dialogue.prompt().token_ids
        true, none = (one.rows[c].token_ids for c in ("true", "none"))
        assert true == prompt + kept + none[len(prompt) :]


def test_a_response_in_another_format_is_its_command(tokenizer):
    """A file of `tags`, with reasoning, for a model that writes commands; what no format reads is
    given as it is."""
    s = serializer(tokenizer)
    tagged = turn("look", "a", "b", response="<think>Hm.</think><action>look</action>")
    broken = turn("", "b", "c", response="I do not know", valid=False)
    first, second = asked_of(s, TrajectoryRecord(task=TASK, success=False, turns=(tagged, broken)))
    assert tokenizer.decode(list(first.rows["true"].token_ids)).endswith(
        "<|action|>look<|end|><|observation|>b"
    )
    assert "<|action|>I do not know<|end|>" in tokenizer.decode(list(second.rows["true"].token_ids))


def test_a_conversation_without_room_is_asked_about_no_further(tokenizer):
    """The second prompt is the first true row and the header of a response."""
    s = serializer(tokenizer)
    length = len(asked_of(s)[0].rows["true"].token_ids) + len(s.format.to_policy)
    for limit, turns in ((length, [0, 1]), (length - 1, [0])):
        asked = asked_of(serializer(tokenizer, max_prompt_tokens=limit))
        assert [one.answer.turn for one in asked] == turns


@pytest.mark.parametrize("context", ["append", "window"])
@pytest.mark.parametrize("max_tokens", [1, 10_000])
def test_predictions_are_what_the_model_says(tokenizer, policy, context, max_tokens):
    """Of each row by itself, token by token; the columns are those of the tokens' characters."""
    s = serializer(tokenizer, context)
    asked = asked_of(s)
    told = []
    found = predict(policy, iter(asked), num_classes=4, max_tokens=max_tokens, progress=told.append)
    assert told == [1, 2, 3]
    for condition, logprobs in found.logprobs.items():
        expected = []
        for one in asked:
            row = one.rows[condition]
            ((start, stop),) = row.spans
            with torch.no_grad():
                alone = policy.logprobs(pack([row.token_ids], "cpu"), torch.arange(start, stop))[0]
            expected += alone.tolist()
        assert logprobs == pytest.approx(expected, abs=1e-4)
    counts = [len(one.offsets) for one in asked]
    assert found.answer.tolist() == list(np.repeat([0, 1, 2], counts))
    assert found.accepted.tolist() == list(np.repeat([True, False, True], counts))
    assert found.task.tolist() == [0, 0, 0]
    # "You arrive at shelf 1. You see a mug 2." after "go to shelf 1": shelf is in the command.
    words = [
        tokenizer.decode(list(asked[0].rows["true"].token_ids)[-counts[0] :][i : i + 1])
        for i in range(counts[0])
    ]
    ranks = dict(zip([w.strip() for w in words], found.classes.tolist(), strict=False))
    assert (ranks["shelf"], ranks["mug"], ranks["2"], ranks["see"]) == (0, 1, 2, 3)


def test_two_tokenizers_predict_the_same_text(tokenizer):
    """Words and bytes: other tokens, the same characters."""
    counts = []
    for own in (tokenizer, chat_tokenizer(QWEN25)):
        one = asked_of(serializer(own))[0]
        counts.append(len(one.offsets))
        covered = {i for start, stop in one.offsets for i in range(start, stop)}
        assert covered == set(range(len(one.answer.text)))
    assert counts[0] < counts[1] == len(one.answer.text)
