"""What of an observation is named, changed and refused, by hand."""

from dataclasses import replace

import pytest

from paw.envs.household import Household
from paw.errors import UserError
from paw.evals.answers import changed_from, classes_of, commands_of, read_answers
from paw.runs.format import TrajectoryRecord, TurnRecord
from paw.style import GAME, Style, Wording
from paw.types import Task

TASK = Task("t/1", "kind", "put a mug in the fridge.")


def turn(command, answer, valid=True, commands=(), response=None, seen="a room"):
    return TurnRecord(
        observation=seen,
        commands=commands,
        response=command if response is None else response,
        command=command,
        valid=valid,
        next_observation=answer,
    )


def episode(*turns, failure=None):
    return TrajectoryRecord(task=TASK, success=False, failure=failure, turns=turns)


def marked(text, flags):
    """The text with what is not flagged as dots."""
    return "".join(c if flag else "." for c, flag in zip(text, flags, strict=True))


def test_classes_of_a_game():
    text = "You put the mug 2 in fridge 1. You see a cup 3."
    found = classes_of(text, "put mug 2 in fridge 1", TASK.instruction, GAME)
    named = {
        name: marked(text, [rank == number for rank in found])
        for number, name in enumerate(GAME.classes)
    }
    # "put" is the verb and "in" a link: neither is a name, whatever the observation repeats.
    assert named["names in the command"] == "............mug......fridge...................."
    assert named["other names"] == ".........................................cup..."
    assert named["numbers"] == "................2...........1................3."
    assert named["fixed words"] == "You put the ... . in ...... .. You see a ... .."


def test_a_class_that_is_not_declared_is_refused():
    wording = Wording(("a", "rest"), lambda text, command, task: [("b", 0, 1)], lambda c: c)
    with pytest.raises(UserError, match="'b', which is no class"):
        classes_of("text", "", "", wording)


def test_spans_beyond_the_text_are_cut():
    wording = Wording(("a", "rest"), lambda text, command, task: [("a", -5, 99)], lambda c: c)
    assert classes_of("text", "", "", wording) == (0, 0, 0, 0)


def test_changed_words():
    """Aligned: what is inserted is changed, what stands behind it is not."""
    usual = "You arrive at shelf 1. On the shelf 1, you see nothing."
    text = "You arrive at shelf 2. On the shelf 2, you see a mug 1, and a cup 4."
    assert marked(text, changed_from(usual, text)) == (
        "....................2...............2..........a mug 1, and a cup 4."
    )
    assert not any(changed_from(usual, usual))
    assert all(changed_from("", text))


def test_the_likeliest_answer_is_the_most_frequent_after_such_a_command():
    """`go` is refused twice of three times, so an accepted one's words are all changed; `open` has
    two answers once each: the first is taken."""
    told = read_answers(
        [
            episode(turn("go to shelf 1", "Nothing happens.", valid=False)),
            episode(
                turn("go to shelf 1", "You arrive."),
                turn("go away", "Nothing happens.", valid=False),
                turn("open box 1", "It is open."),
                turn("open box 2", "It is shut."),
                turn("look", None),
            ),
        ],
        Style(),
        seed=0,
    )
    assert [(a.episode, a.turn, a.accepted) for a in told] == [
        (0, 0, False), (1, 0, True), (1, 1, False), (1, 2, True), (1, 3, True),
    ]  # fmt: skip
    assert [marked(a.text, a.changed) for a in told] == [
        "................", "You.arrive.", "................", "...........", "......shut.",
    ]  # fmt: skip


def test_another_command_is_admissible_and_not_the_same():
    commands = ("go to shelf 1", "look", "help")
    style = replace(Household.style, hidden_commands=("help",))
    answers = read_answers(
        [episode(*[turn("go to shelf 1", f"a {i}", commands=commands) for i in range(20)])],
        style, seed=0,
    )  # fmt: skip
    assert {a.other_command for a in answers} == {"look"}
    (alone,) = read_answers([episode(turn("look", "a", commands=("look",)))], style, seed=0)
    assert alone.other_command is None


def test_what_is_the_agents_to_choose_is_taken_from_another_turn():
    """`search[<query>]` is filled as another accepted turn filled it."""
    shown = ("search[<query>]",)
    turns = [
        turn("search[red shoes]", "a", commands=shown),
        turn("search[blue lamp]", "b", commands=shown),
        turn("search[", "c", valid=False, commands=shown),
    ]
    answers = read_answers([episode(*turns)], Style(), seed=0)
    assert answers[0].other_command == "search[blue lamp]"
    assert answers[1].other_command == "search[red shoes]"
    assert answers[2].other_command in ("search[blue lamp]", "search[red shoes]")


def test_draws_hang_on_the_seed_and_the_turn_alone():
    commands = tuple(f"go to shelf {i}" for i in range(20))
    first, second = (episode(turn("look", text, commands=commands)) for text in ("a", "b"))

    def drawn(records, seed):
        return [a.other_command for a in read_answers(records, Style(), seed)]

    assert drawn([first, second], 0)[0] == drawn([first], 0)[0]
    assert len({tuple(drawn([first, second], seed)) for seed in range(5)}) > 1


def test_commands_of_demonstrations_are_read_from_the_responses():
    """`paw imitate` records responses alone, of either format."""
    tags = "<think>So.</think><action>go to shelf 1</action>"
    record = episode(turn("", "a", response=tags), turn("", "b", response="look"))
    assert commands_of(record, Style()) == ["go to shelf 1", "look"]


@pytest.mark.parametrize(
    "records",
    [[], [episode(turn("look", None))], [episode(turn("look", "a"), failure="it hung")],
     [episode(turn("look", " \n"))]],
    ids=["empty", "no-answer", "failed", "blank"],
)  # fmt: skip
def test_nothing_to_predict_is_said(records):
    with pytest.raises(UserError, match="nothing to predict"):
        read_answers(records, Style(), seed=0)
