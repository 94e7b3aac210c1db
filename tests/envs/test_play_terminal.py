"""`paw play` in a terminal of its own: history, Tab, whole words, a policy watched turn by turn."""

import contextlib
import os
import pty
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from paw.cli import main

SECONDS = 120


class Terminal:
    """A child on a pseudo terminal of 40 columns."""

    def __init__(self, *words: str):
        self.fd, other = pty.openpty()
        ioctl(other, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 40, 0, 0))
        env = os.environ | {"TERM": "dumb", "COLUMNS": "40", "INPUTRC": os.devnull}
        self.child = subprocess.Popen(
            [sys.executable, "-m", "paw.cli", *words],
            stdin=other, stdout=other, stderr=other, env=env, start_new_session=True,
        )  # fmt: skip
        os.close(other)
        self.screen = ""

    def type(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def read_until(self, text: str) -> str:
        """What came since the last call, up to and with `text`."""
        end = time.monotonic() + SECONDS
        while text not in self.screen and time.monotonic() < end:
            if select.select([self.fd], [], [], 1.0)[0]:
                try:
                    self.screen += os.read(self.fd, 4096).decode()
                except OSError:  # the child has gone
                    break
        before, found, self.screen = self.screen.partition(text)
        assert found, before
        return before + found

    def close(self) -> None:
        self.child.kill()
        self.child.wait()
        os.close(self.fd)


@contextlib.contextmanager
def terminal(*words: str) -> Iterator[Terminal]:
    opened = Terminal(*words)
    try:
        yield opened
    finally:
        opened.close()


def test_tab_history_and_whole_words():
    pytest.importorskip("readline")
    with terminal("play", "household", "--split", "valid", "--task", "6") as person:
        first = person.read_until("> ")
        lines = [line.strip() for line in first.splitlines()]
        assert "You are in the middle of a room. Looking" in lines  # the 40 columns
        person.type("go to f\t")
        person.read_until("go to fridge 1")
        person.type("\n")
        person.read_until("You arrive at fridge 1.")
        person.type("open f\t\n")
        person.read_until("You open the fridge 1.")
        person.type("\x1b[A\n")  # the line before, again
        person.read_until("Nothing happens.")
        person.type("quit\n")
        person.read_until("Left after 3 commands")
        assert person.child.wait(SECONDS) == 0


def test_watching_waits_for_enter():
    with terminal("play", "household", "--policy", "household", "--task", "1") as person:
        person.read_until("[turn 1]")
        assert "[turn 2]" not in person.read_until("q: stop")
        person.type("\n")
        person.read_until("[turn 2]")
        person.read_until("q: stop")
        person.type("q\n")
        person.read_until("Stopped after turn 2;")
        assert person.child.wait(SECONDS) == 0


def test_watching_in_a_pipe_plays_to_the_end(capsys: pytest.CaptureFixture[str]):
    words = ["play", "household", "--policy", "household", "--split", "test", "--task", "3"]
    assert main([*words, "--temperature", "0"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("household test, task 3: test/level1/00003 ")
    assert "household plays at temperature 0\n" in shown
    turns = shown.count("[turn ")
    ended = f"after {turns} command" in shown and "of 10." in shown
    assert ended or f"Cut after turn {turns}: return 0 of 10." in shown
    assert main([*words, "--temperature", "0"]) == 0
    assert capsys.readouterr().out == shown


def test_a_policy_cut_at_the_turn_limit(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    """The example's environment: the household's policy never guesses a number."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])
    guess = "examples.own_environment:Guess"
    assert main(["play", guess, "--policy", "household"]) == 0
    shown = capsys.readouterr().out
    assert "not valid" in shown and "of 1." in shown.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--temperature", "0"], "--temperature is that of a policy; it needs --policy"),
        (["--policy", "nowhere"], "model.path = 'nowhere': no such directory"),
        (["--policy", "household", "--task", "100000"], "household valid has 200 tasks"),
        (["--policy", "household", "--temperature", "-1"], "eval.temperature = -1.0"),
    ],
)
def test_mistakes_are_one_line(words: list[str], line: str, capsys: pytest.CaptureFixture[str]):
    assert main(["play", "household", *words]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
