"""The household's rules and texts."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paw.envs.household import Household, HouseholdEnvironment
from paw.envs.household.layouts import APPLIANCES, GOALS, build, generate
from paw.types import Task

ROOM = {
    "fridge 1": ("egg 1",),
    "microwave 1": (),
    "sinkbasin 1": ("mug 1",),
    "desk 1": ("book 1", "desklamp 1", "book 2"),
    "desk 2": ("pen 1",),
    "drawer 1": (),
}
START = (
    "go to desk 1",
    "go to desk 2",
    "go to drawer 1",
    "go to fridge 1",
    "go to microwave 1",
    "go to sinkbasin 1",
    "inventory",
    "look",
)


def room(kind="pick_and_place_simple", object_type="mug", place_type="drawer", contents=None):
    """A started environment in a hand-made room."""
    game = build("x", kind, GOALS[kind][0], object_type, place_type, contents or ROOM)
    env = HouseholdEnvironment(game)
    env.reset()
    return env


def play(env, *commands):
    """The answers to commands that are all accepted and do not end the episode."""
    answers = []
    for command in commands:
        result = env.step(command)
        assert result.valid and not result.terminated, command
        assert (result.reward, result.success) == (0.0, None)
        answers.append(result.observation.text)
    return answers


def refused(env, command):
    """Whether the command is refused and changes nothing that is listed."""
    before = env.step("look").observation.commands
    result = env.step(command)
    assert result.valid == (result.observation.text != "Nothing happens.")
    return not result.valid and result.observation.commands == before


def test_worked_episode():
    source = Household("valid")
    task = source[6]
    assert task == Task(
        "valid/level1/00006", "pick_clean_then_place_in_recep", "put a clean mug in cabinet."
    )
    env = source.open(task, seed=3)
    assert env.reset().text == (
        "You are in the middle of a room. Looking quickly around you, you see a cabinet 1, "
        "a countertop 1, a drawer 1, a fridge 1, a microwave 1, and a sinkbasin 1.\n\n"
        "Your task is to: put a clean mug in cabinet."
    )
    for command, answer in (
        ("inventory", "You are not carrying anything."),
        ("take mug 1 from countertop 1", "Nothing happens."),
        ("go to countertop 1", "You arrive at countertop 1. On the countertop 1, you see a mug 1."),
        ("take mug 1 from countertop 1", "You pick up the mug 1 from the countertop 1."),
        ("go to sinkbasin 1", "You arrive at sinkbasin 1. On the sinkbasin 1, you see nothing."),
        ("clean mug 1 with sinkbasin 1", "You clean the mug 1 using the sinkbasin 1."),
        ("go to cabinet 1", "You arrive at cabinet 1. The cabinet 1 is closed."),
        ("move mug 1 to cabinet 1", "Nothing happens."),
        (
            "open cabinet 1",
            "You open the cabinet 1. The cabinet 1 is open. In it, you see nothing.",
        ),
    ):
        result = env.step(command)
        assert result.observation.text == answer
        assert result.valid == (answer != "Nothing happens.")
        assert (result.reward, result.terminated, result.success) == (0.0, False, None)
    result = env.step("move mug 1 to cabinet 1")
    assert result.observation.text == "You move the mug 1 to the cabinet 1."
    assert (result.reward, result.terminated, result.success) == (10.0, True, True)


def test_first_observation_lists_receptacles_by_type_and_descending_number():
    game = build(
        "x", "look_at_obj_in_light", GOALS["look_at_obj_in_light"][1], "book", "desklamp", ROOM
    )
    observation = HouseholdEnvironment(game).reset()
    assert observation.text == (
        "You are in the middle of a room. Looking quickly around you, you see a desk 2, a desk 1, "
        "a drawer 1, a fridge 1, a microwave 1, and a sinkbasin 1.\n\n"
        "Your task is to: examine the book with the desklamp."
    )
    assert observation.commands == START


def test_views_and_lists():
    env = room()
    assert play(env, "look", "go to desk 1", "examine desk 1", "look") == [
        "You are in the middle of a room. Looking quickly around you, you see nothing.",
        "You arrive at desk 1. On the desk 1, you see a book 2, a book 1, and a desklamp 1.",
        "On the desk 1, you see a book 2, a book 1, and a desklamp 1.",
        "You are facing the desk 1. Next to it, you see nothing.",
    ]
    assert play(env, "take book 2 from desk 1", "examine desk 1", "inventory") == [
        "You pick up the book 2 from the desk 1.",
        "On the desk 1, you see a book 1, and a desklamp 1.",
        "You are carrying: a book 2.",
    ]
    # what comes back stands where it stood in the list
    assert play(env, "move book 2 to desk 1", "examine desk 1", "inventory") == [
        "You move the book 2 to the desk 1.",
        "On the desk 1, you see a book 2, a book 1, and a desklamp 1.",
        "You are not carrying anything.",
    ]
    assert play(env, "go to desk 2") == ["You arrive at desk 2. On the desk 2, you see a pen 1."]


def test_open_and_close():
    env = room()
    assert play(env, "go to drawer 1") == ["You arrive at drawer 1. The drawer 1 is closed."]
    assert play(env, "open drawer 1", "examine drawer 1", "close drawer 1", "examine drawer 1") == [
        "You open the drawer 1. The drawer 1 is open. In it, you see nothing.",
        "The drawer 1 is open. In it, you see nothing.",
        "You close the drawer 1.",
        "The drawer 1 is closed.",
    ]
    assert refused(env, "close drawer 1")
    play(env, "go to fridge 1")
    assert refused(env, "take egg 1 from fridge 1")  # closed
    play(env, "open fridge 1")
    assert refused(env, "open fridge 1")
    play(env, "take egg 1 from fridge 1", "close fridge 1")
    assert refused(env, "move egg 1 to fridge 1")  # closed


def test_one_object_in_hand_and_only_from_here():
    env = room()
    play(env, "go to desk 1")
    for command in ("take pen 1 from desk 2", "take pen 1 from desk 1", "take mug 1 from desk 1"):
        assert refused(env, command)
    play(env, "take book 1 from desk 1")
    assert refused(env, "take book 2 from desk 1")  # hands full
    assert refused(env, "move book 2 to desk 1")  # not held
    assert refused(env, "move book 1 to desk 2")  # not here
    assert refused(env, "go to desk 1")  # here already
    assert refused(env, "take desklamp 1 from desk 1")  # lamps stay


def test_commands_are_complete_and_sorted():
    env = room()
    play(env, "go to fridge 1", "open fridge 1", "take egg 1 from fridge 1")
    going = tuple(c for c in START[:6] if c != "go to fridge 1")
    assert env.step("look").observation.commands == (
        "close fridge 1",
        "cool egg 1 with fridge 1",
        "examine egg 1",
        "examine fridge 1",
        *going,
        "inventory",
        "look",
        "move egg 1 to fridge 1",
    )
    play(env, "move egg 1 to fridge 1", "go to desk 1")
    assert env.step("look").observation.commands == (
        "examine desk 1",
        *[c for c in START[:6] if c != "go to desk 1"],
        "inventory",
        "look",
        "take book 1 from desk 1",
        "take book 2 from desk 1",
        "use desklamp 1",
    )


def test_clean_heat_and_cool():
    env = room()
    play(env, "go to sinkbasin 1")
    assert refused(env, "clean mug 1 with sinkbasin 1")  # not in hand
    assert play(
        env,
        "take mug 1 from sinkbasin 1",
        "examine mug 1",
        "clean mug 1 with sinkbasin 1",
        "examine mug 1",
        "go to microwave 1",
        "heat mug 1 with microwave 1",  # closed, and yet it heats
        "examine mug 1",
        "go to fridge 1",
        "cool mug 1 with fridge 1",
        "examine mug 1",
    ) == [
        "You pick up the mug 1 from the sinkbasin 1.",
        "There's nothing special about mug 1.",
        "You clean the mug 1 using the sinkbasin 1.",
        "This is a clean mug 1.",
        "You arrive at microwave 1. The microwave 1 is closed.",
        "You heat the mug 1 using the microwave 1.",
        "This is a hot and clean mug 1.",
        "You arrive at fridge 1. The fridge 1 is closed.",
        "You cool the mug 1 using the fridge 1.",
        "This is a cool and clean mug 1.",
    ]
    assert refused(env, "heat mug 1 with fridge 1")
    play(env, "open fridge 1", "move mug 1 to fridge 1")
    assert play(env, "take egg 1 from fridge 1", "cool egg 1 with fridge 1", "examine egg 1")[
        2:
    ] == ["This is a cold egg 1."]
    assert refused(env, "examine mug 1")  # not in hand
    play(env, "go to microwave 1", "heat egg 1 with microwave 1")
    assert play(env, "examine egg 1") == ["This is a hot egg 1."]
    play(env, "go to sinkbasin 1", "clean egg 1 with sinkbasin 1")
    assert play(env, "examine egg 1") == ["This is a hot and clean egg 1."]


def test_what_cannot_be_treated():
    env = room()
    play(env, "go to desk 1", "take book 1 from desk 1")
    for place, verb in (("sinkbasin 1", "clean"), ("microwave 1", "heat"), ("fridge 1", "cool")):
        play(env, f"go to {place}")
        assert refused(env, f"{verb} book 1 with {place}")


def test_lamps():
    env = room()
    assert refused(env, "use desklamp 1")  # not here
    assert play(env, "go to desk 1", "use desklamp 1", "use desklamp 1") == [
        "You arrive at desk 1. On the desk 1, you see a book 2, a book 1, and a desklamp 1.",
        "You turn on the desklamp 1.",
        "You turn on the desklamp 1.",
    ]
    assert refused(env, "use book 1")


@pytest.mark.parametrize(
    "spelling",
    [
        *("put book 1 in/on desk 2", "put book 1 to desk 2"),
        *("move book 1 to desk 2", "  move book 1 to desk 2\n"),
    ],
)
def test_spellings_of_move(spelling):
    env = room()
    play(env, "go to desk 1", "take book 1 from desk 1", "go to desk 2")
    assert play(env, spelling) == ["You move the book 1 to the desk 2."]


@pytest.mark.parametrize(
    "command",
    [
        *("", "Look", "look around", "go  to desk 1", "go to desk 1.", "go to", "go to desk 3"),
        *("put in/on", "put mug 1 in desk 1", "open room", "take", "use", "move", "help", "\x00"),
    ],
)
def test_every_other_string_is_refused(command):
    result = room().step(command)
    assert result.observation.text == "Nothing happens."
    assert result.observation.commands == START
    assert (result.valid, result.reward, result.terminated) == (False, 0.0, False)


TAKE_MUG = "go to sinkbasin 1; take mug 1 from sinkbasin 1"
TO_DRAWER = "go to drawer 1; open drawer 1; move mug 1 to drawer 1"
HEAT = "go to microwave 1; heat mug 1 with microwave 1"
COOL = "go to fridge 1; cool mug 1 with fridge 1"
BACK = "go to drawer 1; move mug 1 to drawer 1"
WAYS_TO_WIN = {
    "simple": ("pick_and_place_simple", "mug", "drawer", f"{TAKE_MUG}; {TO_DRAWER}"),
    "clean, not before it is put there": (
        "pick_clean_then_place_in_recep",
        "mug",
        "drawer",
        f"{TAKE_MUG}; {TO_DRAWER}; take mug 1 from drawer 1; go to sinkbasin 1; "
        f"clean mug 1 with sinkbasin 1; {BACK}",
    ),
    "heat, not what was cooled since": (
        "pick_heat_then_place_in_recep",
        "mug",
        "drawer",
        f"{TAKE_MUG}; {HEAT}; {COOL}; {TO_DRAWER}; take mug 1 from drawer 1; {HEAT}; {BACK}",
    ),
    "cool": (
        "pick_cool_then_place_in_recep",
        "mug",
        "drawer",
        f"{TAKE_MUG}; {COOL}; {TO_DRAWER}",
    ),
    "two, not in two drawers": (
        "pick_two_obj_and_place",
        "book",
        "drawer",
        "go to desk 1; take book 1 from desk 1; go to drawer 1; open drawer 1; "
        "move book 1 to drawer 1; go to desk 1; take book 2 from desk 1; "
        "go to drawer 2; open drawer 2; move book 2 to drawer 2; "
        "take book 2 from drawer 2; go to drawer 1; move book 2 to drawer 1",
    ),
    "use the lamp with the object in hand": (
        "look_at_obj_in_light",
        "book",
        "desklamp",
        "go to desk 1; take book 1 from desk 1; use desklamp 1",
    ),
    "take the object by the burning lamp": (
        "look_at_obj_in_light",
        "book",
        "desklamp",
        "go to desk 1; use desklamp 1; take book 1 from desk 1",
    ),
    "bring the object to the burning lamp": (
        "look_at_obj_in_light",
        "mug",
        "desklamp",
        f"go to desk 1; use desklamp 1; {TAKE_MUG}; go to desk 1",
    ),
}


@pytest.mark.parametrize("name", WAYS_TO_WIN)
def test_won_exactly_at_the_last_command(name):
    kind, object_type, place_type, commands = WAYS_TO_WIN[name]
    env = room(kind, object_type, place_type, ROOM | {"drawer 2": ()})
    *before, last = commands.split("; ")
    play(env, *before)
    result = env.step(last)
    assert (result.valid, result.terminated, result.truncated) == (True, True, False)
    assert (result.reward, result.success) == (10.0, True)
    with pytest.raises(RuntimeError, match="ended"):
        env.step("look")


def test_not_won_by_another_object_or_place():
    env = room()  # a mug in a drawer
    play(env, "go to desk 2", "take pen 1 from desk 2", "go to drawer 1", "open drawer 1")
    play(
        env, "move pen 1 to drawer 1", *TAKE_MUG.split("; "), "go to desk 1", "move mug 1 to desk 1"
    )
    env = room("look_at_obj_in_light", "mug", "desklamp")
    play(env, "go to desk 1", "take book 1 from desk 1", "use desklamp 1")


def test_single_use():
    game = generate("train", 1, 0)
    with pytest.raises(RuntimeError, match="not begun"):
        HouseholdEnvironment(game).step("look")
    env = HouseholdEnvironment(game)
    env.reset()
    with pytest.raises(RuntimeError, match="single-use"):
        env.reset()
    env.close()
    env.close()


@settings(max_examples=60, deadline=None)
@given(st.sampled_from([1, 2, 3]), st.integers(0, 10_000), st.randoms(use_true_random=False))
def test_listed_commands_are_accepted_and_all_others_refused(level, number, rng):
    game = generate("train", level, number)
    env = HouseholdEnvironment(game)
    observation = env.reset()
    for _ in range(12):
        result = env.step(rng.choice(observation.commands))
        assert result.valid
        observation = result.observation
        if result.terminated:
            return
        assert list(observation.commands) == sorted(set(observation.commands))
    receptacles = list(game.contents)
    things = [*game.rank, *receptacles]
    universe = {
        f"{verb} {x}" for verb in ("open", "close", "examine", "use", "go to") for x in things
    }
    universe |= {f"take {x} from {r}" for x in things for r in receptacles}
    universe |= {f"move {x} to {r}" for x in things for r in receptacles}
    universe |= {f"{v} {x} with {r}" for v in APPLIANCES for x in things for r in receptacles}
    assert set(observation.commands) <= universe | {"look", "inventory"}
    for command in sorted(universe - set(observation.commands)):
        result = env.step(command)
        assert not result.valid and result.observation.text == "Nothing happens."
        assert result.observation.commands == observation.commands


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=40) | st.sampled_from(["put ", "put a in/on b", "go to"])))
def test_no_string_raises(commands):
    env = room()
    for command in commands:
        assert isinstance(env.step(command).observation.text, str)
