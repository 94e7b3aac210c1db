"""No text of an environment or a model acts on a terminal."""

import io
import sys
import types
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paw.cli import main
from paw.envs.gym import GymSource
from paw.errors import warn
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


class Shouting:
    """A Gymnasium environment whose texts act on a terminal."""

    def reset(self, **_: object) -> tuple[str, dict[str, object]]:
        return "\x1b[2Ja room", {}

    def step(self, _: str) -> tuple[str, float, bool, bool, dict[str, object]]:
        return "gone\r\u202e", 0.0, True, False, {}

    def close(self) -> None:
        pass


def test_what_is_printed_of_an_environment(monkeypatch, capsys):
    """`paw play` and `paw check-env` show its texts, and errors and warnings name its words."""
    source = GymSource(Shouting, name="shouting", instruction="be \x1b[2J still.", split="train")
    module = types.ModuleType("shouting")
    monkeypatch.setattr(module, "make", lambda split="train": source, raising=False)
    monkeypatch.setitem(sys.modules, "shouting", module)
    monkeypatch.setattr(sys, "stdin", io.StringIO("look\n"))
    assert main(["play", "shouting:make"]) == 0
    out = capsys.readouterr().out
    assert "be ␛[2J still." in out and "␛[2Ja room" in out and "gone␍⟨U+202E⟩" in out
    main(["check-env", "shouting:make", "--tasks", "1"])
    main(["play", "shouting:\x1b[2J"])
    warn("\x1b[2J")
    captured = capsys.readouterr()
    assert not set(out + captured.out + captured.err) & set("\x1b\r\u202e")
