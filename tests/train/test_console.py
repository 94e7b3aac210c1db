"""Progress: a bar on a terminal, plain lines in a log file."""

import io

import pytest

from paw.runs import console
from paw.runs.console import Bar


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_a_log_file_gets_plain_lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The first call at once, then one line an interval, and where it ended."""
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    with Bar(9, "update") as bar:
        for number, seconds in ((1, 0), (2, 10), (3, 29.9), (4, 30), (5, 31), (6, 59)):
            now[0] = 100 + seconds
            bar(number, {"rollout/return_mean": number / 2, "other": 3})
    assert capsys.readouterr().err.split("\n") == [
        "update 1/9, 0 s, return 0.5",
        "update 4/9, 30 s, return 2",
        "update 6/9, 59 s, return 3",
        "",
    ]


def test_nothing_is_shown_before_the_first_call(capsys: pytest.CaptureFixture[str]):
    with Bar(0, "update"):
        pass
    assert capsys.readouterr().err == ""


def test_names_tell_bars_apart(capsys: pytest.CaptureFixture[str]):
    with Bar(2, "update", "grpo") as bar:
        bar(1, {})
        bar(2, {})
    assert capsys.readouterr().err == "grpo update 1/2, 0 s\ngrpo update 2/2, 0 s\n"


def test_a_terminal_has_a_bar(monkeypatch: pytest.MonkeyPatch):
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    with Bar(2, "update") as bar:
        bar(1, {})
        bar(2, {"eval/success_rate": 0.25})
    assert "2/2" in terminal.getvalue() and "eval=0.25" in terminal.getvalue()
