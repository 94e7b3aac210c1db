"""ALFWorld's rules on a small game written here; the real games: test_alfworld_data."""

import pickle

import pytest
from alfworld_small import HEAT, LOOK, PLACE, TREAT, TWO, game_text
from hypothesis import given, settings
from hypothesis import strategies as st

from paw.envs.alfworld import Alfworld
from paw.envs.alfworld.engine import HELP, REFUSED, GameState
from paw.envs.alfworld.game import parse_game
from paw.envs.check import check_environment, format_report

GAME = parse_game(game_text())


def play(state: GameState, *commands: str) -> list[str | None]:
    return [state.step(command) for command in commands]


def test_whole_game(small_alfworld: Alfworld):
    task = small_alfworld[0]
    assert task.id == f"train/{HEAT}/trial_T1"
    assert task.kind == "pick_heat_then_place_in_recep"
    assert task.instruction == "put a hot apple in shelf."
    env = small_alfworld.open(task)
    first = env.reset()
    # In the order of lower-case ids; of two ids, the first gets the higher number.
    assert first.text == (
        "-= Welcome to TextWorld, ALFRED! =-\n\n"
        "You are in the middle of a room. Looking quickly around you, you see a bathtubbasin 1, "
        "a countertop 1, a fridge 1, a microwave 1, a shelf 1, and a sinkbasin 1.\n\n"
        "Your task is to: put a hot apple in shelf."
    )
    assert first.commands == (
        "go to bathtubbasin 1",
        "go to countertop 1",
        "go to fridge 1",
        "go to microwave 1",
        "go to shelf 1",
        "go to sinkbasin 1",
        "help",
        "inventory",
        "look",
    )
    script = {
        "look": "You are in the middle of a room. Looking quickly around you, you see nothing.",
        "go to countertop 1": "You arrive at countertop 1. On the countertop 1, you see "
        "a apple 2, a knife 1, and a mug 1.",
        "go to shelf 1": REFUSED,  # it shares the counter's location
        "examine shelf 1": "On the shelf 1, you see a mug 1.",
        "take apple 2 from countertop 1": "You pick up the apple 2 from the countertop 1.",
        "inventory": "You are carrying: a apple 2.",
        "go to microwave 1": "You arrive at microwave 1. The microwave 1 is closed.",
        "move apple 2 to microwave 1": REFUSED,
        "heat apple 2 with microwave 1": "You heat the apple 2 using the microwave 1.",
        "examine apple 2": "This is a hot apple 2.",
        "go to shelf 1 ": "You arrive at shelf 1. On the shelf 1, you see a mug 1.",
    }
    for command, text in script.items():
        result = env.step(command)
        assert (result.observation.text, result.valid) == (text, text != REFUSED)
        assert (result.reward, result.terminated, result.success) == (0.0, False, None)
        assert result.info["score"] == 0.0
    last = env.step("move apple 2 to shelf 1")
    assert last.observation.text == "You move the apple 2 to the shelf 1."
    assert (last.reward, last.terminated, last.truncated, last.success) == (10.0, True, False, True)
    assert last.info["score"] == 1.0 and env.max_return == 10.0
    with pytest.raises(RuntimeError):
        env.step("look")


@pytest.mark.parametrize("command", ["look", " look", "look\n", "\tlook  "])
def test_ends_are_stripped(command: str):
    assert GameState(parse_game(game_text())).step(command) is not None


@pytest.mark.parametrize(
    "command",
    ["", "LOOK", "look around", "go  to shelf 1", "go to shelf 1.", "go to", "i", "go to shelf 2"],
)
def test_anything_else_does_nothing(command: str):
    state = GameState(parse_game(game_text()))
    assert state.step(command) is None


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.text() | st.from_regex(r"(go to|take|open) [a-z]+ \d", fullmatch=True), max_size=10)
)
def test_no_string_raises_and_refused_ones_change_nothing(commands: list[str]):
    state = GameState(GAME)
    for command in commands:
        before = state.commands
        admissible = command.strip() in before
        assert (state.step(command) is not None) == admissible
        assert admissible or state.commands == before


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(0, 10**6), max_size=40))
def test_random_walks(choices: list[int]):
    """Commands stay sorted and unique; a pickled copy answers as the original does."""
    state = GameState(GAME)
    copy = pickle.loads(pickle.dumps(state))
    for choice in choices:
        assert list(state.commands) == sorted(set(state.commands))
        assert {"look", "inventory", "help"} <= set(state.commands)
        command = state.commands[choice % len(state.commands)]
        assert state.step(command) == copy.step(command) is not None
        copy = pickle.loads(pickle.dumps(copy))
        assert (state.commands, state.won) == (copy.commands, copy.won)


def test_object_in_two_places():
    state = GameState(GAME)
    play(state, "go to shelf 1", "take mug 1 from shelf 1")
    assert state.step("examine shelf 1") == "On the shelf 1, you see nothing."
    assert state.step("examine countertop 1") == (
        "On the countertop 1, you see a apple 2, a knife 1, and a mug 1."
    )
    assert "take apple 2 from countertop 1" not in state.commands  # one thing at a time
    state.step("move mug 1 to shelf 1")
    assert state.step("examine shelf 1") == "On the shelf 1, you see a mug 1."


def test_look_lists_what_was_moved_within_the_location():
    state = GameState(GAME)
    facing = "You are facing the countertop 1, and shelf 1. Next to it, you see "
    play(state, "go to shelf 1", "take apple 2 from countertop 1")
    assert state.step("look") == facing + "nothing."
    state.step("move apple 2 to shelf 1")
    assert state.step("look") == facing + "a apple 2."
    play(state, "take apple 2 from shelf 1", "move apple 2 to countertop 1")
    assert state.step("look") == facing + "a apple 2."  # missing from the shelf now
    assert state.step("go to fridge 1") == "You arrive at fridge 1. The fridge 1 is closed."
    assert state.step("look") == (
        "You are facing the fridge 1, and sinkbasin 1. Next to it, you see nothing."
    )


def test_states_of_an_object():
    state = GameState(GAME)
    assert play(state, "go to fridge 1", "take apple 1 from fridge 1")[1] is None
    opened = "You open the fridge 1. The fridge 1 is open. In it, you see a apple 1."
    assert play(state, "open fridge 1", "take apple 1 from fridge 1")[0] == opened
    assert state.step("close fridge 1") == "You close the fridge 1."
    seen = []
    for command in ("", "clean apple 1 with sinkbasin 1", "cool apple 1 with fridge 1"):
        state.step(command)
        seen.append(state.step("examine apple 1"))
    play(state, "go to microwave 1", "heat apple 1 with microwave 1")  # undoes cool, not clean
    seen.append(state.step("examine apple 1"))
    assert seen == [
        "There's nothing special about apple 1.",
        "This is a clean apple 1.",
        "This is a cool and clean apple 1.",
        "This is a hot and clean apple 1.",
    ]
    # "candle" before "cd": the order of ids in lower case.
    assert state.step("go to bathtubbasin 1") == (
        "You arrive at bathtubbasin 1. On the bathtubbasin 1, you see a candle 1, and a cd 1."
    )
    assert state.commands == (
        "examine apple 1",
        "examine bathtubbasin 1",  # it neither cleans nor takes apples
        *(
            f"go to {r}"
            for r in ("countertop 1", "fridge 1", "microwave 1", "shelf 1", "sinkbasin 1")
        ),
        "help",
        "inventory",
        "look",
    )


def test_cold_object():
    state = GameState(GAME)
    play(state, "go to fridge 1", "open fridge 1", "take apple 1 from fridge 1")
    state.step("cool apple 1 with fridge 1")
    assert state.step("examine apple 1") == "This is a cold apple 1."


def test_look_repeats_what_left_two_receptacles():
    """Seen in the official engine: one line for each receptacle here that the object left."""
    text = game_text().replace("Microwave_bar_01 loc_3", "Microwave_bar_01 loc_1")
    state = GameState(parse_game(text))
    play(state, "go to shelf 1", "open microwave 1", "take apple 2 from countertop 1")
    play(state, "move apple 2 to shelf 1", "take apple 2 from shelf 1")
    assert state.step("move apple 2 to microwave 1") is not None
    assert state.step("look") == (
        "You are facing the countertop 1, microwave 1, and shelf 1. Next to it, you see "
        "a apple 2, and a apple 2."
    )


def test_knife_lamp_mug_and_help():
    state = GameState(GAME)
    play(state, "go to countertop 1", "take knife 1 from countertop 1")
    assert "move knife 1 to countertop 1" not in state.commands  # no canContain for knives
    assert state.step("slice apple 2 with knife 1") == "You sliced the apple 2 with the knife 1."
    assert state.step("slice apple 1 with knife 1") is None
    state.step("go to microwave 1")
    assert state.step("use desklamp 1") == "You turn on the desklamp 1."  # microwave still closed
    assert state.step("use desklamp 1") == "You turn on the desklamp 1."
    assert state.step("help") == HELP
    state = GameState(GAME)
    play(state, "go to shelf 1", "take mug 1 from shelf 1")
    assert state.step("examine mug 1") == "This is a normal mug 1. In it, you see nothing."


@pytest.mark.parametrize(
    ("goal", "commands"),
    [
        (
            PLACE.format(o="Apple", r="Shelf"),
            ["go to shelf 1", "take apple 2 from countertop 1", "move apple 2 to shelf 1"],
        ),
        (
            TWO.format(o="Apple", r="Fridge"),  # the second apple lies in the fridge already
            [
                "go to shelf 1",
                "take apple 2 from countertop 1",
                "go to fridge 1",
                "open fridge 1",
                "move apple 2 to fridge 1",
            ],
        ),
        (
            # a place and a state, in this order first: only both together win
            TREAT.format(able="cleanable", state="isClean", o="Apple", r="SinkBasin"),
            [
                "go to shelf 1",
                "take apple 2 from countertop 1",
                "go to sinkbasin 1",
                "move apple 2 to sinkbasin 1",
                "take apple 2 from sinkbasin 1",
                "clean apple 2 with sinkbasin 1",
                "move apple 2 to sinkbasin 1",
            ],
        ),
        (
            LOOK.format(o="Apple", r="DeskLamp"),
            [
                "go to microwave 1",
                "use desklamp 1",
                "go to shelf 1",
                "take apple 2 from countertop 1",
                "go to microwave 1",
            ],
        ),
    ],
)
def test_goals(goal: str, commands: list[str]):
    state = GameState(parse_game(game_text(goal)))
    for command in commands:
        assert not state.won
        assert state.step(command) is not None
    assert state.won


def test_state_must_be_the_goal_s():
    cool = TREAT.format(able="coolable", state="isCool", o="Apple", r="Shelf")
    state = GameState(parse_game(game_text(cool)))
    take = ("go to fridge 1", "open fridge 1", "take apple 1 from fridge 1")
    play(state, *take, "cool apple 1 with fridge 1", "go to microwave 1")
    play(state, "heat apple 1 with microwave 1", "go to shelf 1")
    assert state.step("move apple 1 to shelf 1") is not None and not state.won


def test_environment_is_played_once(small_alfworld: Alfworld):
    env = small_alfworld.open(small_alfworld[0])
    with pytest.raises(RuntimeError):
        env.step("look")
    env.reset()
    with pytest.raises(RuntimeError):
        env.reset()
    env.close()
    env.close()
    with pytest.raises(RuntimeError):
        env.step("look")


def test_contract(small_alfworld: Alfworld):
    report = check_environment(small_alfworld)
    assert report.passed, format_report(report)


def test_pickles_are_small(small_alfworld: Alfworld):
    env = small_alfworld.open(small_alfworld[0])
    env.reset()
    assert len(pickle.dumps(env)) < 8_000
    copy = pickle.loads(pickle.dumps(small_alfworld))
    assert copy[0] == small_alfworld[0] and len(pickle.dumps(small_alfworld)) < 1_000
