"""Which characters of an observation each of its tokens stands for, in every family."""

import pytest
from tests.text.families import GROWING, family_tokenizer
from tests.text.templates import QWEN25, chat_tokenizer

from paw.envs.household import Household
from paw.text.dialogue import Serializer

TEXTS = (
    "Nothing happens.",
    "You see a mug 1, and a mug 2.\n\nOn it: nothing.",
    "\n\n Ünïcode → “quotes” 12.50€ and <|im_start|>.",
    "<think>x</think>",
)


def serializer(tokenizer, response_format="command", context="append"):
    return Serializer(
        tokenizer, Household.style, context=context, response_format=response_format,
        history_turns=2, max_prompt_tokens=4000, max_observation_tokens=512,
    )  # fmt: skip


def check(s, text, commands=()):
    ids, _ = s.target(text, commands)
    offsets = s.offsets(text, commands)
    assert len(offsets) == len(ids)
    assert all(0 <= start <= stop <= len(text) for start, stop in offsets)
    assert offsets == sorted(offsets)
    covered = {i for start, stop in offsets for i in range(start, stop)}
    assert {i for i, c in enumerate(text) if not c.isspace()} <= covered
    return ids, offsets


@pytest.mark.parametrize("name", GROWING)
@pytest.mark.parametrize("text", TEXTS)
def test_every_visible_character_has_its_tokens(name, text):
    s = serializer(family_tokenizer(name))
    check(s, text)
    check(s, text, ("go to shelf 1", "look"))


def test_by_hand():
    """Bytes of a byte alphabet: each ASCII character is its own token, "é" two of the same place,
    and the commands behind the text are none of it."""
    s = serializer(chat_tokenizer(QWEN25), "tags")
    _, offsets = check(s, "aé b", ("look",))
    assert offsets == [(0, 1), (1, 2), (1, 2), (2, 3), (3, 4)]
