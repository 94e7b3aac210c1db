"""A small ALFWorld game for the tests, in the form of the official files."""

import json
from pathlib import Path

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
