"""Token by token, for people."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paw.runs.layout import SHIPPED
from paw.text.shown import TokenTexts
from paw.text.tokenizer import load_tokenizer

TOKENIZER = load_tokenizer(SHIPPED / "household")
TEXTS = TokenTexts(TOKENIZER)


def ids(text: str) -> list[int]:
    return TOKENIZER(text, add_special_tokens=False)["input_ids"]  # type: ignore[return-value]


@given(st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_joined_they_are_the_text(text: str) -> None:
    assert "".join(TEXTS(ids(text))) == text


def test_a_character_stands_at_the_token_that_completes_it() -> None:
    """U+00E9 is two bytes, U+1F917 four, each a token here; the end of a word and of a text too."""
    assert TEXTS(ids("\N{LATIN SMALL LETTER E WITH ACUTE}"))[-2:] == ("", "é")
    assert TEXTS(ids("🤗🤗"))[-8:] == ("", "", "", "🤗", "", "", "", "🤗")


def test_half_a_character_is_shown_as_broken() -> None:
    half = ids("🤗")[:-1]
    assert "".join(TEXTS(half)) == "\N{REPLACEMENT CHARACTER}"


def test_control_tokens_are_shown() -> None:
    end = TOKENIZER.convert_tokens_to_ids("<|end|>")
    assert TEXTS([*ids("go"), end])[-1] == "<|end|>"
    assert TEXTS([]) == ()


@pytest.mark.parametrize("text", ["go to shelf 1", " go", "a\n\n b"])
def test_spaces_stay_at_their_words(text: str) -> None:
    assert "".join(TEXTS(ids(text))) == text
