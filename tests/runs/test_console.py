"""Progress: a bar that fits a terminal's line, plain lines in a log file."""

import io
import re

import pytest

from paw.runs import console
from paw.runs.console import Bar, duration, fitting
from paw.runs.health import WELL


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [100.0]
    monkeypatch.setattr(console.time, "monotonic", lambda: now[0])
    return now


def on_terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Stderr is a terminal of 80 columns; called within the test, where pytest leaves it alone."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("COLUMNS", "80")
    return terminal


def screen(text: str) -> list[str]:
    """What a terminal shows of `text`: carriage return, line feed, cursor up."""
    lines, row, column = [""], 0, 0
    for part in re.findall(r"\x1b\[A|\r|\n|[^\x1b\r\n]+", text):
        if part == "\x1b[A":
            row -= 1
        elif part == "\r":
            column = 0
        elif part == "\n":
            row, column = row + 1, 0
            lines += [""] * (row + 1 - len(lines))
        else:
            old = lines[row].ljust(column)
            lines[row] = old[:column] + part + old[column + len(part) :]
            column += len(part)
    return [line.rstrip() for line in lines]


def test_a_log_file_gets_plain_lines(capsys: pytest.CaptureFixture[str], clock: list[float]):
    """The first call at once, then one line an interval, and where it ended; the pace is that of
    the calls so far: 30 s for 3 updates, 59 s for 5, and what is left takes as long."""
    with Bar(9, "update") as bar:
        for number, seconds in ((1, 0), (2, 10), (3, 29.9), (4, 30), (5, 31), (6, 59)):
            clock[0] = 100 + seconds
            bar(number, {"rollout/return_mean": number / 2, "other": 3})
    assert capsys.readouterr().err.split("\n") == [
        "update 1/9, return 0.5",
        "update 4/9, 10 s/update, 50 s left, return 2",
        "update 6/9, 11.8 s/update, 35 s left, return 3",
        "",
    ]


def test_the_last_line_says_how_long_it_took(capsys: pytest.CaptureFixture[str], clock):
    with Bar(80, "update") as bar:
        bar(79, {})
        clock[0] += 200
        bar(80, {})
    lines = capsys.readouterr().err.splitlines()
    assert lines == ["update 79/80", "update 80/80, 200 s/update, 3 min in all"]


def test_work_before_the_first_step_is_no_part_of_the_pace(capsys, clock: list[float]):
    """Demonstrations take 100 s, the step 2 s."""
    with Bar(10, "step") as bar:
        bar(0, {"demonstrations": 100})
        clock[0] += 100
        bar(0, {"demonstrations": 200})
        clock[0] += 2
        bar(1, {"imitate/nll": 1.5})
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == "step 1/10, 2 s/step, 18 s left, nll 1.5, demonstrations 200"


def test_episodes_that_end_all_at_once_keep_the_clock_of_the_first_call(capsys, clock):
    with Bar(40, "episode") as bar:
        for finished in (0, 0, 0, 20):
            bar(finished, {})
            clock[0] += 10
    assert capsys.readouterr().err.splitlines()[-1] == "episode 20/40, 1.5 s/episode, 30 s left"


def test_nothing_is_shown_before_the_first_call(capsys: pytest.CaptureFixture[str]):
    with Bar(0, "update"):
        pass
    assert capsys.readouterr().err == ""


def test_what_was_not_measured_is_not_shown(capsys: pytest.CaptureFixture[str]):
    with Bar(2, "update") as bar:
        bar(1, {"wm/nll": None, "rollout/return_mean": 1.0})
    assert capsys.readouterr().err == "update 1/2, return 1\n"


def test_names_tell_bars_apart(capsys: pytest.CaptureFixture[str]):
    with Bar(2, "update", "grpo") as bar:
        bar(1, {})
    assert capsys.readouterr().err == "grpo update 1/2\n"


LONG = {
    "rollout/success_rate": 0.123456,
    "rollout/return_mean": -1.23456e-05,
    "eval/success_rate": 0.456789,
    "wm/nll": 12345.678,
}


def test_a_bar_fits_80_columns(monkeypatch: pytest.MonkeyPatch, clock: list[float]):
    """Whatever its numbers; what matters least is left out, and nothing is wrapped."""
    terminal = on_terminal(monkeypatch)
    with Bar(1_000_000, "update", "baseline") as bar:
        for number in (99_998, 99_999, 100_000):
            clock[0] += 12345.678
            bar(number, LONG)
    drawn = re.split(r"[\r\n]", terminal.getvalue())
    assert max(len(line) for line in drawn) < 80
    assert terminal.getvalue().isascii()
    assert screen(terminal.getvalue())[0] == (
        "baseline update 100000/1000000 |#2          | 1.23e+04 s/update"
    )


def test_a_bar_shows_pace_time_left_and_numbers(
    monkeypatch: pytest.MonkeyPatch, clock: list[float]
):
    terminal = on_terminal(monkeypatch)
    with Bar(80, "update") as bar:
        bar(39, {})
        clock[0] += 3.1
        bar(40, LONG)
    assert screen(terminal.getvalue()) == [
        "update 40/80 |######      | 3.1 s/update, 2 min left, success 0.123",
        "",
    ]


def test_two_bars_keep_their_order(monkeypatch: pytest.MonkeyPatch, clock: list[float]):
    """Whichever is called first and most."""
    terminal = on_terminal(monkeypatch)
    bars = [Bar(9, "update", name, line) for line, name in enumerate(("first", "other"))]
    for number, index in ((0, 0), (0, 1), (1, 1), (2, 1), (1, 0), (3, 1), (2, 0)):
        clock[0] += 1
        bars[index](number, {})
    for bar in bars:
        bar.close()
    shown = screen(terminal.getvalue())
    assert [line.partition(" |")[0] for line in shown] == [
        "first update 2/9",
        "other update 3/9",
        "",
    ]


def test_lines_stand_above_the_bar(monkeypatch: pytest.MonkeyPatch, clock: list[float]):
    terminal = on_terminal(monkeypatch)
    with Bar(2, "update") as bar:
        bar.say("header")
        bar(0, {})
        bar.say("prompt: \u00fc\x1b[31m\nresponse")
        clock[0] += 1
        bar(1, {})
    assert [line.partition(" |")[0] for line in screen(terminal.getvalue())] == [
        "header", "prompt: \\xfc\\x1b[31m", "response", "update 1/2", "",
    ]  # fmt: skip


def test_health_is_said_once_when_it_begins_and_once_when_it_is_over(
    capsys: pytest.CaptureFixture[str], clock: list[float]
):
    with Bar(99, "update") as bar:
        for update in range(1, 4 + WELL):
            bar(update, {"health": ["no valid action"] if update in (2, 3) else []})
    warnings = [x for x in capsys.readouterr().err.splitlines() if "warning" in x]
    assert warnings == [
        "paw: warning: update 2: no valid action",
        f"paw: warning: update {3 + WELL}: over since update 4: no valid action",
    ]


def test_parts_that_do_not_fit_are_left_out_from_the_end():
    assert fitting(["12", "34", "56"], 10) == "12, 34, 56"
    assert fitting(["12", "34", "56"], 9) == "12, 34"
    assert fitting(["12"], 1) == ""


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.4, "0 s"), (89, "89 s"), (124, "2 min"), (7200, "2.0 h"), (200_000, "2.3 days")],
)
def test_durations_as_a_person_says_them(seconds: float, text: str):
    assert duration(seconds) == text
