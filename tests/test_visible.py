"""No text of an environment or a model acts on a terminal."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paw.visible import HIDDEN, visible


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a mug 1", "a mug 1"),
        ("two\nlines\tand a tab", "two\nlines\tand a tab"),
        ("\x1b[2Jgone", "␛[2Jgone"),
        ("\x9b31mred", "⟨U+009B⟩31mred"),  # CSI in one character
        ("won\rlost", "won␍lost"),
        ("\x00\x07\x08\x7f", "␀␇␈␡"),
        ("\u202ekool", "⟨U+202E⟩kool"),
        ("\u2066a\u2069", "⟨U+2066⟩a⟨U+2069⟩"),
        ("a\u2028b", "a⟨U+2028⟩b"),
        ("zero\u200bwidth\ufeff", "zero⟨U+200B⟩width⟨U+FEFF⟩"),
        ("half \ud800", "half ⟨U+D800⟩"),
        ("tag \U000e0041", "tag ⟨U+E0041⟩"),
        ("naïve 漢字 🙂 a\u00a0b", "naïve 漢字 🙂 a\u00a0b"),
    ],
)
def test_what_would_act_is_shown(text: str, shown: str):
    assert visible(text) == shown


@given(st.text(st.characters()))
def test_nothing_is_left_that_acts(text: str):
    shown = visible(text)
    assert not [c for c in shown if c not in "\n\t" and unicodedata.category(c) in HIDDEN]
    shown.encode()
    assert visible(shown) == shown
