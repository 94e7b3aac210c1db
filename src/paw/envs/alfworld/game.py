"""The official game file `game.tw-pddl`, read into a compact immutable `Game`.

A game file is JSON: one PDDL domain and one text grammar, the same in every game of release
json_2.1.2 (the engine knows both), a PDDL problem, the goal sentence inside the grammar, and a
`walkthrough`. So a game is its problem and one sentence. Entities become indices: the official
engine lists objects by internal id in lower case, so index order is the order of its texts.

Source: ALFWorld (arXiv 2010.03768), TextWorld's PDDL games.
"""

import json
import re
from collections import defaultdict
from dataclasses import dataclass
from functools import lru_cache

TASK = "Your task is to: "
STATES = ("clean", "hot", "cool")

_SENTENCE = re.compile(TASK + r'((?:[^"\\]|\\.)*)"')
_FACT = re.compile(r"\((\w+) ([^\s()]+)(?: ([^\s()]+))?\)")

_PLACED = r"\(objectType \?{o} (?P<object>\w+)\) \(receptacleType \?r (?P<target>\w+)\) "
_GOALS = {
    "look": r"\(:goal \(and \(exists \(\?ot - object \?r - receptacle \?a - agent \?l - location\) "
    r"\(and \(objectType \?ot (?P<target>\w+)\) \(toggleable \?ot\) \(isToggled \?ot\) "
    r"\(receptacleAtLocation \?r \?l\) \(atLocation \?a \?l\) \(inReceptacle \?ot \?r\) \) \) "
    r"\(exists \(\?o - object \?a - agent\) \(and \(objectType \?o (?P<object>\w+)\) "
    r"\(holds \?a \?o\) \) \) \) \) \)",
    "place": r"\(:goal \(and \(exists \(\?r - receptacle\) \(exists \(\?o - object\) "
    r"\(and \(inReceptacle \?o \?r\) " + _PLACED.format(o="o") + r"\) \) \) \) \) \)",
    "treat": r"\(:goal \(and \(exists \(\?r - receptacle\) \(exists \(\?o - object\) "
    r"\(and \((?P<able>\w+able) \?o\) "
    + _PLACED.format(o="o")
    + r"\(is(?P<state>Clean|Hot|Cool) \?o\) \(inReceptacle \?o \?r\) \) \) \) \) \) \)",
    "two": r"\(:goal \(and \(exists \(\?r - receptacle\) \(exists \(\?o1 - object\) \(and "
    + _PLACED.format(o="o1")
    + r"\(inReceptacle \?o1 \?r\) \(exists \(\?o2 - object\) \(and \(not \(= \?o1 \?o2\)\) "
    r"\(objectType \?o2 (?P=object)\) \(receptacleType \?r (?P=target)\) "
    r"\(inReceptacle \?o2 \?r\) \) \) \) \) \) \) \) \)",
}
_GOAL_PATTERNS = {name: re.compile(pattern) for name, pattern in _GOALS.items()}


class GameFileError(ValueError):
    """A game file that cannot be read; the message says why, without the path."""


@dataclass(frozen=True, slots=True)
class Goal:
    """What wins: `count` different `objects`, in state `state`, in one of the `targets`.

    With `look`: any of the `objects` held where any of the `targets` (lamps) stands switched on.
    """

    objects: frozenset[int]
    targets: frozenset[int]
    """Receptacles; with `look`, toggleable objects."""
    state: str | None = None
    """One of STATES."""
    count: int = 1
    look: bool = False


@dataclass(frozen=True, slots=True)
class Game:
    """One game. Objects and receptacles are indices into their names; locations are integers."""

    task: str
    """The goal sentence, full stop included."""
    walkthrough: tuple[str, ...]
    """The game's own plan with full knowledge, 3 to 10 commands."""
    goal: Goal
    start: int
    """Location of the agent; in every official game one without receptacles."""
    receptacles: tuple[str, ...]
    """Names, "sinkbasin 1"."""
    locations: tuple[int, ...]
    """[receptacles]"""
    receptacle_types: tuple[str, ...]
    """[receptacles] "SinkBasinType": the name does not always tell it."""
    openable: frozenset[int]
    opened: frozenset[int]
    contents: tuple[tuple[int, ...], ...]
    """[receptacles] the objects in each, ascending; an object may lie in several."""
    objects: tuple[str, ...]
    object_types: tuple[str, ...]
    """[objects] "" where the problem gives none."""
    at: frozenset[tuple[int, int]]
    """(object, location) pairs; the problem's own fact, independent of `contents`."""
    inside: dict[int, tuple[int, ...]]
    """The objects in each object that can hold others."""
    can_contain: frozenset[tuple[str, str]]
    """(receptacle type, object type) pairs; shared between games."""
    attributes: dict[str, frozenset[int]]
    """Objects by `pickupable`, `cleanable`, `heatable`, `coolable`, `toggleable`, `sliceable`,
    `clean`, `hot`, `cool`, `toggled`, `sliced`."""


ATTRIBUTES = {
    **{a: a for a in ("pickupable", "cleanable", "heatable", "coolable", "toggleable")},
    "sliceable": "sliceable",
    "isClean": "clean",
    "isHot": "hot",
    "isCool": "cool",
    "isToggled": "toggled",
    "isSliced": "sliced",
}


def find_task_sentence(text: str) -> str | None:
    """The goal sentence in the raw text of a game file, without parsing it; None without one."""
    # The grammar is a JSON document inside a JSON string, so its quotes are escaped once.
    start = text.find(TASK)
    if start < 0:
        return None
    end = text.find('\\"', start)
    sentence = text[start + len(TASK) : end]
    return sentence if end >= 0 and "\\" not in sentence else None


def parse_game(text: str) -> Game:
    """Read the text of a `game.tw-pddl` file.

    Raises:
        GameFileError: not JSON, a key is missing, or the problem has an unknown form.
    """
    try:
        data = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise GameFileError(f"not valid JSON ({error})") from error
    if not isinstance(data, dict):
        raise GameFileError("not a JSON object")
    for key, kind in (("pddl_problem", str), ("grammar", str), ("walkthrough", list)):
        if not isinstance(data.get(key), kind):
            raise GameFileError(f"no {key!r}")
    sentence = _SENTENCE.search(data["grammar"])
    if sentence is None:
        raise GameFileError(f"the grammar has no {TASK!r}")
    return _build(data["pddl_problem"], sentence[1], tuple(map(str, data["walkthrough"])))


def _build(problem: str, task: str, walkthrough: tuple[str, ...]) -> Game:
    declared, init, goal = _sections(problem)
    facts, can_contain = _facts(init)
    # Things of which no fact speaks do not exist for the official engine, which numbers the rest.
    mentioned = {entity for pairs in facts.values() for pair in pairs for entity in pair}
    ids: dict[str, list[str]] = {"object": [], "receptacle": []}
    words = declared.replace(")", " ").split()
    for i, word in enumerate(words[:-1]):
        if word == "-" and words[i + 1] in ids and words[i - 1] in mentioned:
            ids[words[i + 1]].append(words[i - 1])
    names = _names([*ids["object"], *ids["receptacle"]])
    objects = {e: i for i, e in enumerate(sorted(ids["object"], key=str.lower))}
    receptacles = {e: i for i, e in enumerate(sorted(ids["receptacle"], key=str.lower))}

    places: dict[str, int] = {}
    for _, place in facts["receptacleAtLocation"]:
        places.setdefault(place, len(places))
    if len(facts["atLocation"]) != 1:
        raise GameFileError("the problem does not say where the agent starts")
    try:
        start = places.setdefault(facts["atLocation"][0][1], len(places))
        where = {receptacles[r]: places[p] for r, p in facts["receptacleAtLocation"]}
        contents = _grouped((receptacles[r], objects[o]) for o, r in facts["inReceptacle"])
        inside = _grouped((objects[h], objects[o]) for o, h in facts["inReceptacleObject"])
        holders = [objects[o] for o, _ in facts["isReceptacleObject"]]
        attributes = {
            name: frozenset(objects[o] for o, _ in facts[predicate])
            for predicate, name in ATTRIBUTES.items()
        }
        object_types = {objects[o]: t for o, t in facts["objectType"]}
        receptacle_types = {receptacles[r]: t for r, t in facts["receptacleType"]}
        at = frozenset((objects[o], places[p]) for o, p in facts["objectAtLocation"] if p in places)
        openable = frozenset(receptacles[r] for r, _ in facts["openable"])
        opened = frozenset(receptacles[r] for r, _ in facts["opened"])
    except KeyError as error:
        raise GameFileError(f"the problem uses {error} without declaring it") from error
    if len(where) != len(receptacles) or len(receptacle_types) != len(receptacles):
        raise GameFileError("the problem has a receptacle without location or type")
    return Game(
        task=task,
        walkthrough=walkthrough,
        goal=_parse_goal(goal, object_types, receptacle_types, attributes),
        start=start,
        receptacles=tuple(names[e] for e in receptacles),
        locations=tuple(where[r] for r in range(len(receptacles))),
        receptacle_types=tuple(receptacle_types[r] for r in range(len(receptacles))),
        openable=openable,
        opened=opened,
        contents=tuple(contents.get(r, ()) for r in range(len(receptacles))),
        objects=tuple(names[e] for e in objects),
        object_types=tuple(object_types.get(o, "") for o in range(len(objects))),
        at=at,
        inside={o: inside.get(o, ()) for o in holders},
        can_contain=can_contain,
        attributes=attributes,
    )


def _sections(problem: str) -> tuple[str, str, str]:
    """The declared objects, the initial facts and the goal (blanks collapsed) of a PDDL problem."""
    bounds = [problem.find(mark) for mark in ("(:objects", "(:init", "(:goal")]
    if -1 in bounds or bounds != sorted(bounds):
        raise GameFileError("the problem lacks (:objects, (:init or (:goal")
    declared, init, goal = bounds
    return problem[declared:init], problem[init:goal], " ".join(problem[goal:].split())


def _names(ids: list[str]) -> dict[str, str]:
    """ "DiningTable_bar_..." -> "diningtable 2": counted down in the order of lower-case ids."""
    kinds = {}
    for entity in sorted(ids, key=str.lower):
        low = entity.lower()
        kinds[entity] = low.split("_bar_", 1)[0] + ("basin" if "basin" in low else "")
    left: defaultdict[str, int] = defaultdict(int)
    for kind in kinds.values():
        left[kind] += 1
    names = {}
    for entity, kind in kinds.items():
        names[entity] = f"{kind} {left[kind]}"
        left[kind] -= 1
    return names


Facts = dict[str, list[tuple[str, str]]]
"""Predicate -> its one or two arguments, "" for a missing second one."""


def _facts(init: str) -> tuple[Facts, frozenset[tuple[str, str]]]:
    """The initial facts, `canContain` apart."""
    start, end = init.find("(canContain"), init.rfind("(canContain")
    start, end = (start, init.find(")", end) + 1) if start >= 0 else (0, 0)
    can_contain, facts = _parse_block(init[start:end])
    facts = defaultdict(list, {name: list(pairs) for name, pairs in facts.items()})
    for predicate, first, second in _FACT.findall(init[:start] + init[end:]):
        facts[predicate].append((first, second))
    return facts, can_contain


@lru_cache(maxsize=256)
def _parse_block(block: str) -> tuple[frozenset[tuple[str, str]], Facts]:
    """The part with the `canContain` facts: half of all, and one of a few texts in all games."""
    facts: defaultdict[str, list[tuple[str, str]]] = defaultdict(list)
    for predicate, first, second in _FACT.findall(block):
        facts[predicate].append((first, second))
    return frozenset(facts.pop("canContain", ())), dict(facts)


def _grouped(pairs) -> dict[int, tuple[int, ...]]:
    groups: defaultdict[int, set[int]] = defaultdict(set)
    for key, value in pairs:
        groups[key].add(value)
    return {key: tuple(sorted(values)) for key, values in groups.items()}


def _parse_goal(
    goal: str,
    object_types: dict[int, str],
    receptacle_types: dict[int, str],
    attributes: dict[str, frozenset[int]],
) -> Goal:
    matches = ((name, pattern.match(goal)) for name, pattern in _GOAL_PATTERNS.items())
    name, match = next(((n, m) for n, m in matches if m), ("", None))
    if match is None:
        raise GameFileError(f"the problem has a goal of unknown form: {goal[:80]}...")
    found = match.groupdict()
    objects = frozenset(o for o, t in object_types.items() if t == found["object"])
    if name == "look":
        lamps = frozenset(o for o, t in object_types.items() if t == found["target"])
        return Goal(objects, lamps & attributes["toggleable"], look=True)
    targets = frozenset(r for r, t in receptacle_types.items() if t == found["target"])
    if name == "treat":
        able = attributes.get(found["able"], frozenset())
        return Goal(objects & able, targets, state=found["state"].lower())
    return Goal(objects, targets, count=2 if name == "two" else 1)
