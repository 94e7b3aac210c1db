"""ALFWorld's rules and errors on a small game written here; the real games: test_alfworld_data."""

import json
import pickle
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import paw.envs
from paw.envs.alfworld import Alfworld
from paw.envs.alfworld.engine import HELP, REFUSED, GameState
from paw.envs.alfworld.expert import load_priors
from paw.envs.alfworld.game import GameFileError, parse_game
from paw.envs.check import check_environment, format_report
from paw.errors import UserError

# Ids as in the official files, short. Two apples and a mug; the mug lies on the counter and, the
# same mug, on the shelf. Fridge and sink basin share location 2, counter and shelf location 1.
OBJECTS = (
    "Apple_bar_01",
    "Apple_bar_02",
    "Mug_bar_01",
    "Knife_bar_01",
    "DeskLamp_bar_01",
    "CD_bar_01",
    "Candle_bar_01",
)
RECEPTACLES = {
    "CounterTop_bar_01": ("CounterTop", 1),
    "Shelf_bar_01": ("Shelf", 1),
    "Fridge_bar_01": ("Fridge", 2),
    "Sink_bar_01_bar_SinkBasin": ("SinkBasin", 2),
    "Microwave_bar_01": ("Microwave", 3),
    "Bathtub_bar_01_bar_BathtubBasin": ("BathtubBasin", 4),
}
INSIDE = (
    ("Apple_bar_01", "CounterTop_bar_01"),
    ("Apple_bar_02", "Fridge_bar_01"),
    ("Mug_bar_01", "CounterTop_bar_01"),
    ("Mug_bar_01", "Shelf_bar_01"),
    ("Knife_bar_01", "CounterTop_bar_01"),
    ("DeskLamp_bar_01", "Microwave_bar_01"),
    ("CD_bar_01", "Bathtub_bar_01_bar_BathtubBasin"),
    ("Candle_bar_01", "Bathtub_bar_01_bar_BathtubBasin"),
)

PLACE = """(:goal (and (exists (?r - receptacle) (exists (?o - object) (and (inReceptacle ?o ?r)
    (objectType ?o {o}Type) (receptacleType ?r {r}Type) ) ) ) ) ) )"""
TREAT = """(:goal (and (exists (?r - receptacle) (exists (?o - object) (and ({able} ?o)
    (objectType ?o {o}Type) (receptacleType ?r {r}Type) ({state} ?o) (inReceptacle ?o ?r)
    ) ) ) ) ) )"""
TWO = """(:goal (and (exists (?r - receptacle) (exists (?o1 - object) (and (objectType ?o1 {o}Type)
    (receptacleType ?r {r}Type) (inReceptacle ?o1 ?r) (exists (?o2 - object)
    (and (not (= ?o1 ?o2)) (objectType ?o2 {o}Type) (receptacleType ?r {r}Type)
    (inReceptacle ?o2 ?r) ) ) ) ) ) ) ) )"""
LOOK = """(:goal (and (exists (?ot - object ?r - receptacle ?a - agent ?l - location) (and
    (objectType ?ot {r}Type) (toggleable ?ot) (isToggled ?ot) (receptacleAtLocation ?r ?l)
    (atLocation ?a ?l) (inReceptacle ?ot ?r) ) ) (exists (?o - object ?a - agent)
    (and (objectType ?o {o}Type) (holds ?a ?o) ) ) ) ) )"""
HOT_APPLE = TREAT.format(able="heatable", state="isHot", o="Apple", r="Shelf")


def game_text(goal: str = HOT_APPLE, sentence: str = "put a hot apple in shelf.") -> str:
    declared = [f"{o} - object" for o in OBJECTS] + [f"{r} - receptacle" for r in RECEPTACLES]
    # Declared, and in no fact: it must not be counted when apples are numbered.
    declared += ["Apple_bar_99 - object", "Apple - object", "ShelfType - rtype"]
    facts = ["(atLocation agent1 loc_0)"]
    for o in OBJECTS:
        facts.append(f"(objectType {o} {o.split('_')[0]}Type)")
    for o in OBJECTS[:4]:
        facts.append(f"(pickupable {o})")
    for o in OBJECTS[:2]:
        facts += [f"({able} {o})" for able in ("heatable", "coolable", "cleanable", "sliceable")]
    facts += ["(toggleable DeskLamp_bar_01)", "(isReceptacleObject Mug_bar_01)"]
    facts += ["(openable Fridge_bar_01)", "(openable Microwave_bar_01)"]
    for r, (kind, place) in RECEPTACLES.items():
        facts += [f"(receptacleType {r} {kind}Type)", f"(receptacleAtLocation {r} loc_{place})"]
        if kind != "BathtubBasin":
            facts += [f"(canContain {kind}Type {o}Type)" for o in ("Apple", "Mug")]
    for o, r in INSIDE:
        facts += [f"(inReceptacle {o} {r})", f"(objectAtLocation {o} loc_{RECEPTACLES[r][1]})"]
    problem = "(define (problem p) (:domain alfred) (:objects\n{}\n)\n(:init\n{}\n)\n{})"
    rule = json.dumps({"task": [{"rhs": f"Your task is to: {sentence}"}]})
    return json.dumps(
        {
            "pddl_domain": "",
            "grammar": f'grammar :: """\n{rule}\n""";',
            "pddl_problem": problem.format("\n".join(declared), "\n".join(facts), goal),
            "solvable": True,
            "walkthrough": [
                "go to countertop 1",
                "take apple 2 from countertop 1",
                "go to microwave 1",
                "heat apple 2 with microwave 1",
                "go to shelf 1",
                "move apple 2 to shelf 1",
            ],
        }
    )


HEAT = "pick_heat_then_place_in_recep-Apple-None-Shelf-1"


def write_game(root: Path, game: str, text: str | None = None, split: str = "train") -> Path:
    folder = root / "json_2.1.1" / split / game
    folder.mkdir(parents=True)
    path = folder / "game.tw-pddl"
    path.write_text(game_text() if text is None else text)
    return path


@pytest.fixture
def source(tmp_path: Path) -> Alfworld:
    write_game(tmp_path, f"{HEAT}/trial_T1")
    return Alfworld("train", data_dir=tmp_path)


def play(state: GameState, *commands: str) -> list[str | None]:
    return [state.step(command) for command in commands]


def test_whole_game(source: Alfworld):
    task = source[0]
    assert task.id == f"train/{HEAT}/trial_T1"
    assert task.kind == "pick_heat_then_place_in_recep"
    assert task.instruction == "put a hot apple in shelf."
    env = source.open(task)
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


GAME = parse_game(game_text())


@settings(max_examples=200)
@given(st.lists(st.text() | st.from_regex(r"(go to|take|open|move) \w+ \d( from \w+ \d)?")))
def test_no_string_raises_and_refused_ones_change_nothing(commands: list[str]):
    state = GameState(GAME)
    for command in commands:
        before = state.commands
        admissible = command.strip() in before
        assert (state.step(command) is not None) == admissible
        assert admissible or state.commands == before


@settings(max_examples=100)
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


def test_environment_is_played_once(source: Alfworld):
    env = source.open(source[0])
    with pytest.raises(RuntimeError):
        env.step("look")
    env.reset()
    with pytest.raises(RuntimeError):
        env.reset()
    env.close()
    env.close()
    with pytest.raises(RuntimeError):
        env.step("look")


def test_contract(source: Alfworld):
    report = check_environment(source)
    assert report.passed, format_report(report)


@pytest.mark.parametrize("kind", ["explorer", "walkthrough"])
@pytest.mark.parametrize("junk", [0.0, 0.3])
def test_experts_win(source: Alfworld, kind: str, junk: float):
    num_junk = 0
    for seed in range(10):
        env, expert = source.open(source[0]), source.expert(source[0], seed, kind=kind, junk=junk)
        observation = env.reset()
        for _ in range(100):
            before = observation.commands
            result = env.step(expert.act(observation))
            observation = result.observation
            num_junk += expert.last_was_junk
            assert not expert.last_was_junk or observation.commands == before
            if result.terminated:
                break
        assert result.success
    assert (num_junk > 0) == (junk > 0)


def num_turns(text: str, folder: Path, limit: int = 60) -> int:
    """Turns that the explorer without noise takes to win."""
    write_game(folder, f"{HEAT}/trial_T1", text)
    source = Alfworld("train", data_dir=folder)
    env, expert = source.open(source[0]), source.expert(source[0], noise=0.0)
    observation = env.reset()
    for turn in range(limit):
        result = env.step(expert.act(observation))
        observation = result.observation
        if result.terminated:
            return turn + 1
    return limit + 1


def test_explorer_goes_to_the_likeliest_place_first(source: Alfworld):
    means = load_priors()["apple"]
    places = ("bathtubbasin", "countertop", "fridge", "microwave", "shelf", "sinkbasin")
    likeliest = max(places, key=lambda place: means.get(place, 0.0))
    observation = source.open(source[0]).reset()
    assert source.expert(source[0], noise=0.0).act(observation) == f"go to {likeliest} 1"


def test_explorer_turns_to_another_object_when_refused(tmp_path: Path):
    text = game_text()
    for object_id in OBJECTS[:2]:
        # One apple is fixed, whichever comes first: the other one has to do.
        fixed = text.replace(f"(pickupable {object_id})", "")
        assert num_turns(fixed, tmp_path / object_id) < 30


def test_explorer_sees_places_that_share_a_location(tmp_path: Path):
    """With every place in one location only the first `go to` is not refused."""
    text = game_text(TWO.format(o="Apple", r="SinkBasin"), "put two apple in sinkbasin.")
    for place in (2, 3, 4):
        text = text.replace(f"loc_{place})", "loc_1)")
    assert num_turns(text, tmp_path) < 25


def test_experts_are_seeded(source: Alfworld):
    def walk(seed: int) -> list[str]:
        env, expert = source.open(source[0]), source.expert(source[0], seed, noise=2.0, junk=0.2)
        observation, commands = env.reset(), []
        for _ in range(5):
            commands.append(expert.act(observation))
            observation = env.step(commands[-1]).observation
        return commands

    assert walk(1) == walk(1)
    assert len({tuple(walk(seed)) for seed in range(8)}) > 1


def test_which_folders_are_games(tmp_path: Path):
    kept = [
        "look_at_obj_in_light-Mug-None-DeskLamp-301/trial_T2",
        "look_at_obj_in_light-Mug-None-DeskLamp-301/trial_T1",
        f"{HEAT}/trial_T1",
    ]
    for game in kept:
        write_game(tmp_path, game)
    write_game(tmp_path, "pick_and_place_simple-AppleSliced-None-Shelf-1/trial_T1")
    write_game(tmp_path, "pick_and_place_with_movable_recep-Mug-Pan-Shelf-1/trial_T1")
    write_game(tmp_path, f"{HEAT}/trial_movable")
    unsolvable = game_text().replace('"solvable": true', '"solvable": false')
    write_game(tmp_path, f"{HEAT}/trial_T2", unsolvable)
    (tmp_path / "json_2.1.1" / "train" / HEAT / "trial_T3").mkdir()  # no game file
    source = Alfworld("train", data_dir=tmp_path)
    assert [task.id for task in source] == sorted(f"train/{game}" for game in kept)
    heat = Alfworld("train", data_dir=tmp_path, kinds="pick_heat_then_place_in_recep")
    assert [task.id for task in heat] == [f"train/{HEAT}/trial_T1"]
    assert heat.find(heat[0].id) == heat[0]


def test_data_dir_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_game(tmp_path, f"{HEAT}/trial_T1", split="valid_seen")
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert len(paw.envs.make("alfworld", split="valid_seen")) == 1


def test_human_goals(tmp_path: Path):
    path = write_game(tmp_path, f"{HEAT}/trial_T1")
    with pytest.raises(UserError, match=r"traj_data\.json"):
        Alfworld("train", data_dir=tmp_path, goals="human")[0]
    annotations = {"turk_annotations": {"anns": [{"task_desc": "Warm an apple. "}]}}
    path.with_name("traj_data.json").write_text(json.dumps(annotations))
    source = Alfworld("train", data_dir=tmp_path, goals="human")
    assert source[0].instruction == "Warm an apple."
    assert source.open(source[0]).reset().text.endswith("\n\nYour task is to: Warm an apple.")
    assert source.expert(source[0]).act(source.open(source[0]).reset())


def test_missing_data(tmp_path: Path):
    with pytest.raises(UserError, match=r"no folder json_2\.1\.1 in .*nowhere.*alfworld-download"):
        Alfworld("train", data_dir=tmp_path / "nowhere")
    write_game(tmp_path, f"{HEAT}/trial_T1")
    with pytest.raises(UserError, match="give its parent"):
        Alfworld("train", data_dir=tmp_path / "json_2.1.1")
    with pytest.raises(UserError, match=r"no split valid_unseen .*there: train.*alfworld-download"):
        Alfworld("valid_unseen", data_dir=tmp_path)
    with pytest.raises(UserError, match="no game of pick_two_obj_and_place"):
        Alfworld("train", data_dir=tmp_path, kinds=["pick_two_obj_and_place"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid_sen"}, "did you mean 'valid_seen'"),
        ({"kinds": "pick_two"}, "did you mean 'pick_two_obj_and_place'"),
        ({"goals": "poetic"}, "template, human"),
        ({"engine": "textworld"}, "native"),
        ({"kind": "pick_two_obj_and_place"}, "did you mean 'kinds'"),
    ],
)
def test_bad_options(options: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        paw.envs.make("alfworld", data_dir=tmp_path, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        (game_text()[:500], "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"pddl_problem": "", "grammar": "Your task is to: x"}', "walkthrough"),
        (game_text(goal="(:goal (and (isSliced Apple)))"), "goal of unknown form"),
        (game_text().replace("(atLocation agent1", "(near agent1"), "where the agent starts"),
        (game_text().replace("Mug_bar_01 - object", ""), "without declaring"),
        (game_text().replace("Your task is to", "You shall"), "Your task is to"),
        (game_text().replace("(:init", "(:begin"), "lacks"),
        (game_text().replace("(receptacleAtLocation Shelf", "(at Shelf"), "without location"),
    ],
)
def test_bad_game_files(text: str, message: str, tmp_path: Path):
    with pytest.raises(GameFileError, match=message):
        parse_game(text)
    path = write_game(tmp_path, f"{HEAT}/trial_T1", text)
    source = Alfworld("train", data_dir=tmp_path)
    with pytest.raises(UserError) as caught:
        source.open(source[0])
    line = str(caught.value)
    assert str(path) in line and "alfworld-download" in line and "\n" not in line


def test_binary_game_file(tmp_path: Path):
    write_game(tmp_path, f"{HEAT}/trial_T1").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        Alfworld("train", data_dir=tmp_path)[0]


def test_pickles_are_small(source: Alfworld):
    env = source.open(source[0])
    env.reset()
    assert len(pickle.dumps(env)) < 8_000
    copy = pickle.loads(pickle.dumps(source))
    assert copy[0] == source[0] and len(pickle.dumps(source)) < 1_000
