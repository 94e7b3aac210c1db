"""A scripted person plays the household."""

import io

import pytest

from paw.envs.base import Observation, StepResult
from paw.envs.household import Household, HouseholdEnvironment
from paw.envs.household.layouts import generate
from paw.envs.play import HELP, completions, play, wrap
from paw.errors import UserError

WINNING = [
    "go to countertop 1",
    "take mug 1 from countertop 1",
    "go to sinkbasin 1",
    "clean mug 1 with sinkbasin 1",
    "go to cabinet 1",
    "open cabinet 1",
    "move mug 1 to cabinet 1",
]


class Person:
    """Types prepared lines, then presses what is left: Ctrl-D or Ctrl-C."""

    def __init__(self, lines, last=EOFError):
        self.lines = iter(lines)
        self.last = last
        self.screen: list[str] = []

    def input(self, prompt):
        assert prompt == "> "
        line = next(self.lines, None)
        if line is None:
            raise self.last
        return line

    def play(self, task_index=6, source=None):
        source = source or Household("valid")
        return play(source, task_index, input=self.input, output=self.screen.append)


def test_a_won_episode():
    person = Person(["dance", *WINNING])
    result = person.play()
    assert result is not None and result.success
    assert person.screen[:4] == [
        "household valid, task 6: valid/level1/00006 (pick_clean_then_place_in_recep)",
        "Task: put a clean mug in cabinet.",
        f"{HELP}\n",
        "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, "
        "a countertop 1, a drawer 1, a fridge 1, a microwave 1, and a sinkbasin 1.\n\n"
        "Your task is to: put a clean mug in cabinet.",
    ]
    assert person.screen[4:6] == ["Nothing happens.", "(not a valid command)"]
    assert person.screen[-3:] == [
        "You move the mug 1 to the cabinet 1.",
        "(reward +10)",
        "Success after 8 commands: return 10 of 10.",
    ]


def test_commands_on_demand_cost_no_turn():
    person = Person(["?", "", " ? ", "look", " :q "])
    assert person.play() is None
    listed = "\n".join(
        f"  {command}"
        for command in [f"go to {r} 1" for r in ("cabinet", "countertop", "drawer", "fridge")]
        + ["go to microwave 1", "go to sinkbasin 1", "inventory", "look"]
    )
    assert person.screen[4:7] == [
        listed,
        HELP,
        listed,
    ]
    assert person.screen[-1] == "Left after 1 command; the return so far is 0."


def test_quit_costs_no_turn():
    person = Person(["look", "quit"])
    assert person.play() is None
    assert person.screen[-1] == "Left after 1 command; the return so far is 0."


def test_an_environment_may_have_a_command_quit():
    person = Person(["!quit"], EOFError)
    person.play()
    assert person.screen[4:6] == ["Nothing happens.", "(not a valid command)"]


def test_words_are_whole_at_the_margin():
    """A table and a list keep their lines; what is too long goes on below its first word."""
    text = "You see a mug 1, and a bowl 12.\n\nname   n\nmug    1\n  go to the countertop 1"
    assert wrap(text, 20) == (
        "You see a mug 1, and\na bowl 12.\n\nname   n\nmug    1\n  go to the\n  countertop 1"
    )
    assert wrap("https://example.org/a-page 1", 10) == "https://example.org/a-page\n1"


def test_completion_stops_at_a_slot():
    commands = ("search[<query>]", "click[a]", "click[b]", "<search><query></search>")
    assert completions("", commands) == ["search[", "click[a]", "click[b]", "<search>"]
    assert completions("cl", commands) == ["click[a]", "click[b]"]
    assert completions("buy", commands) == []


@pytest.mark.parametrize("last", [EOFError, KeyboardInterrupt])
def test_leaving_by_end_of_file_or_ctrl_c(last):
    person = Person(WINNING[:2], last)
    assert person.play() is None
    assert person.screen[-2:] == ["", "Left after 2 commands; the return so far is 0."]


def test_no_such_task():
    with pytest.raises(UserError, match="household valid has 200 tasks, no number 200"):
        Person([]).play(task_index=200)


class Door(HouseholdEnvironment):
    closed = 0

    def close(self):
        Door.closed += 1


class OneDoor(Household):
    def open(self, task, seed=0):
        return Door(generate("valid", 1, 6))


def test_the_environment_is_closed():
    Person(["look"]).play(source=OneDoor("valid"))
    assert Door.closed == 1


class Quiz:
    """One question: a right answer pays 1 and succeeds, `again` gives up, the others fail."""

    max_return = 1.0

    def reset(self):
        return Observation("How many legs has a cat?")

    def step(self, command):
        right = command == "4"
        return StepResult(
            Observation(""),
            reward=1.0 if right else 0.0,
            terminated=command != "again",
            truncated=command == "again",
            success=right,
            info={"3": {"score": 0.5}, "2": {"score": "2/4"}}.get(command, {}),
        )

    def close(self):
        pass


class Quizzes(Household):
    def open(self, task, seed=0):
        return Quiz()


@pytest.mark.parametrize(
    ("answer", "end"),
    [
        ("4", ["(reward +1)", "Success after 1 command: return 1 of 1."]),
        ("5", ["Failure after 1 command: return 0 of 1."]),
        ("3", ["Failure after 1 command: return 0 of 1, score 0.5."]),
        ("2", ["Failure after 1 command: return 0 of 1, score '2/4'."]),
        ("again", ["Given up after 1 command: return 0 of 1."]),
    ],
)
def test_ends(answer, end):
    person = Person(["?", answer])
    person.play(source=Quizzes("valid"))
    # the question, the list of commands, and no line for the empty text of the end
    assert person.screen[3:] == [
        "How many legs has a cat?",
        "  (this environment lists no commands)",
        *end,
    ]


def test_default_input_and_output(monkeypatch, capsys):
    monkeypatch.setattr("sys.stdin", io.StringIO("look\n"))
    assert play(Household("valid"), 6) is None
    assert "you see nothing." in capsys.readouterr().out
