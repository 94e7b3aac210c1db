"""Household games: what stands where and what is asked, a pure function of (split, level, number).

A layout is the receptacles and the places of the objects. The checksum of a layout decides which
split may use it, so the splits share no layout, however many tasks are drawn. Random numbers come
from `random.Random(text).random()` alone, the one sequence that Python promises to keep.
"""

import zlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, lru_cache
from itertools import chain, groupby
from random import Random

GOALS = {
    "pick_and_place_simple": ("put a {object} in {place}.", "put some {object} on {place}."),
    "look_at_obj_in_light": (
        "look at {object} under the {place}.",
        "examine the {object} with the {place}.",
    ),
    "pick_clean_then_place_in_recep": (
        "put a clean {object} in {place}.",
        "clean some {object} and put it in {place}.",
    ),
    "pick_heat_then_place_in_recep": (
        "put a hot {object} in {place}.",
        "heat some {object} and put it in {place}.",
    ),
    "pick_cool_then_place_in_recep": (
        "put a cool {object} in {place}.",
        "cool some {object} and put it in {place}.",
    ),
    "pick_two_obj_and_place": (
        "put two {object} in {place}.",
        "find two {object} and put them in {place}.",
    ),
}
"""The two wordings of each kind of task, ALFWorld's."""

TREATMENTS = {
    "pick_clean_then_place_in_recep": "clean",
    "pick_heat_then_place_in_recep": "heat",
    "pick_cool_then_place_in_recep": "cool",
}
"""What must be done to the object before it is put away."""

APPLIANCES = {"clean": "sinkbasin", "heat": "microwave", "cool": "fridge"}
CLOSABLE = frozenset({"cabinet", "drawer", "fridge", "microwave", "safe"})
"""Receptacle types that start closed."""

LAMPS = frozenset({"desklamp", "floorlamp"})
"""Objects that stay where they are and can be used."""

USUAL_PLACES = {
    "apple": ("fridge", "countertop"),
    "book": ("desk", "shelf"),
    "bowl": ("cabinet", "diningtable"),
    "bread": ("countertop", "diningtable"),
    "candle": ("shelf", "dresser"),
    "cd": ("shelf", "drawer"),
    "cellphone": ("bed", "desk"),
    "creditcard": ("dresser", "desk"),
    "cup": ("cabinet", "coffeetable"),
    "desklamp": ("desk", "sidetable"),
    "egg": ("fridge", "microwave"),
    "floorlamp": ("sofa", "coffeetable"),
    "fork": ("drawer", "diningtable"),
    "keychain": ("dresser", "sidetable"),
    "knife": ("drawer", "countertop"),
    "laptop": ("bed", "sofa"),
    "lettuce": ("fridge", "sinkbasin"),
    "mug": ("cabinet", "countertop"),
    "newspaper": ("sofa", "coffeetable"),
    "pan": ("stoveburner", "sinkbasin"),
    "pen": ("desk", "drawer"),
    "pillow": ("bed", "sofa"),
    "plate": ("cabinet", "sinkbasin"),
    "potato": ("fridge", "stoveburner"),
    "tomato": ("countertop", "fridge"),
    "vase": ("shelf", "safe"),
    "watch": ("sidetable", "drawer"),
}
"""Object type -> the receptacle types where it mostly is."""

USUAL_SHARE = 0.75
"""Share of objects that lie in a usual place, where the room has one; the others lie anywhere."""

FOOD = ("apple", "bread", "egg", "lettuce", "potato", "tomato")
DISHES = ("bowl", "cup", "mug", "pan", "plate")
TREATABLE = {
    "clean": frozenset((*FOOD, *DISHES, "fork", "knife")) - {"bread"},
    "heat": frozenset((*FOOD, *DISHES)) - {"bowl", "lettuce", "pan"},
    "cool": frozenset((*FOOD, *DISHES)),
}


@dataclass(frozen=True, slots=True)
class Level:
    """How large the games are."""

    receptacles: tuple[str, ...]
    """Types drawn besides one fridge, microwave and sinkbasin."""
    num_receptacles: int
    """Receptacles drawn from `receptacles`."""
    max_copies: int
    """Receptacles of one type, at most."""
    objects: tuple[str, ...]
    num_objects: int
    max_same: int
    """Objects of one type, at most."""
    lamp: str
    wordings: int
    """Wordings used of each goal."""
    shares: tuple[int, ...]
    """Tasks of each kind, in the order of GOALS, in every run of sum(shares) tasks."""


_SMALL = ("cabinet", "countertop", "desk", "drawer", "garbagecan", "shelf", "sidetable")
_MEDIUM = (*_SMALL, "bed", "diningtable", "dresser")
_LARGE = (*_MEDIUM, "coffeetable", "safe", "sofa", "stoveburner")
_FEW = ("apple", "book", "cd", "egg", "mug", "pen", "plate", "watch")
_MORE = (*_FEW, "bowl", "bread", "cellphone", "creditcard", "fork", "keychain", "lettuce", "tomato")
_ALL = tuple(sorted(USUAL_PLACES.keys() - LAMPS))

LEVELS = {
    1: Level(_SMALL, 3, 1, _FEW, 5, 2, "desklamp", 1, (6, 3, 4, 3, 3, 1)),
    2: Level(_MEDIUM, 9, 3, _MORE, 12, 3, "desklamp", 2, (4, 2, 4, 3, 3, 4)),
    3: Level(_LARGE, 20, 6, _ALL, 24, 4, "floorlamp", 2, (4, 2, 4, 3, 3, 4)),
}

_BUCKETS = {"valid": (0,), "test": (1,), "train": (2, 3)}
"""Checksum of the layout modulo 4."""


@dataclass(frozen=True, slots=True)
class Game:
    """One task and the room it starts in; never changed, shared by its episodes."""

    id: str
    kind: str
    instruction: str
    object_type: str
    place_type: str
    """Receptacle type, or lamp type for `look_at_obj_in_light`."""
    contents: dict[str, tuple[str, ...]]
    """Receptacle -> objects, both in listing order."""
    rank: dict[str, int] = field(repr=False, compare=False)
    """Object -> its position in any list."""
    go_commands: tuple[str, ...] = field(repr=False, compare=False)
    """`go to` for every receptacle, sorted."""

    @property
    def layout(self) -> str:
        """The layout as one line of text: equal exactly for equal layouts."""
        return _describe(self.contents)


def type_of(name: str) -> str:
    """`"mug 2"` -> `"mug"`."""
    return name.partition(" ")[0]


def usual_share(object_type: str, receptacles: Sequence[str]) -> list[float]:
    """Probability [receptacles] that an object of the type starts in each of them."""
    usual = [type_of(r) in USUAL_PLACES[object_type] for r in receptacles]
    anywhere = 1.0 / len(receptacles)
    if not any(usual):
        return [anywhere] * len(receptacles)
    rest = (1 - USUAL_SHARE) * anywhere
    return [rest + USUAL_SHARE / sum(usual) * u for u in usual]


@cache
def schedule(level: int) -> tuple[str, ...]:
    """The kinds of the tasks 0, 1, 2, ...: repeated for ever, each kind spread evenly."""
    shares = zip(GOALS, LEVELS[level].shares, strict=True)
    spread = [((i + 0.5) / share, kind) for kind, share in shares for i in range(share)]
    return tuple(kind for _, kind in sorted(spread))


@lru_cache(maxsize=1024)
def generate(split: str, level: int, number: int) -> Game:
    """Game `number` of a split and level."""
    rng = Random(f"household/{split}/{level}/{number}")
    kinds = schedule(level)
    kind = kinds[number % len(kinds)]
    while True:
        object_type, place_type, contents = _draw(rng, LEVELS[level], kind)
        if zlib.crc32(_describe(contents).encode()) % 4 in _BUCKETS[split]:
            break
    wording = GOALS[kind][int(rng.random() * LEVELS[level].wordings)]
    task_id = f"{split}/level{level}/{number:05d}"
    return build(task_id, kind, wording, object_type, place_type, contents)


def build(
    task_id: str,
    kind: str,
    wording: str,
    object_type: str,
    place_type: str,
    contents: Mapping[str, Sequence[str]],
) -> Game:
    """The game of a room and a goal; `contents` in any order."""
    objects = sorted(chain.from_iterable(contents.values()), key=_listing_key)
    receptacles = sorted(contents, key=_listing_key)
    return Game(
        id=task_id,
        kind=kind,
        instruction=wording.format(object=object_type, place=place_type),
        object_type=object_type,
        place_type=place_type,
        contents={r: tuple(sorted(contents[r], key=_listing_key)) for r in receptacles},
        rank={name: i for i, name in enumerate(objects)},
        go_commands=tuple(sorted(f"go to {r}" for r in receptacles)),
    )


def _draw(rng: Random, level: Level, kind: str) -> tuple[str, str, dict[str, tuple[str, ...]]]:
    """Object type, place type and contents of a random game that is not yet won."""
    types = list(APPLIANCES.values())
    types += _draw_limited(rng, level.receptacles, level.num_receptacles, level.max_copies)
    receptacles = sorted(_numbered(types), key=_listing_key)

    treatment = TREATMENTS.get(kind)
    wanted = [o for o in level.objects if treatment is None or o in TREATABLE[treatment]]
    object_type = _pick(rng, wanted)
    if kind == "look_at_obj_in_light":
        place_type = level.lamp
    else:
        appliance = APPLIANCES[treatment] if treatment else None
        place_type = _pick(rng, sorted(set(types) - {appliance}))

    present = [object_type] * (2 if kind == "pick_two_obj_and_place" else 1)
    # a lamp that nothing asks for must be met as well, or its sight alone would tell the goal
    if kind == "look_at_obj_in_light" or rng.random() < 0.2:
        present.append(level.lamp)
    present += _draw_limited(
        rng, level.objects, level.num_objects - len(present), level.max_same, present
    )
    by_type = {t: [*names] for t, names in groupby(receptacles, key=type_of)}
    places = {t: _places(t, by_type, place_type if t == object_type else None) for t in {*present}}
    placed: dict[str, list[str]] = {r: [] for r in receptacles}
    for name in _numbered(present):
        usual, allowed = places[type_of(name)]
        place = _pick(rng, usual if usual and rng.random() < USUAL_SHARE else allowed)
        placed[place].append(name)
    contents = {r: tuple(sorted(found, key=_listing_key)) for r, found in placed.items()}
    return object_type, place_type, contents


def _places(
    object_type: str, by_type: dict[str, list[str]], avoid: str | None
) -> tuple[list[str], list[str]]:
    """Where an object may be, usual places and all; never in a receptacle of the type `avoid`."""
    barred = CLOSABLE if object_type in LAMPS else ()
    allowed = {t: names for t, names in by_type.items() if t != avoid and t not in barred}
    usual = [allowed.get(t, []) for t in sorted(USUAL_PLACES[object_type])]
    return [*chain.from_iterable(usual)], [*chain.from_iterable(allowed.values())]


def _pick(rng: Random, values: Sequence[str]) -> str:
    return values[int(rng.random() * len(values))]


def _draw_limited(
    rng: Random, types: Sequence[str], number: int, most: int, present: Sequence[str] = ()
) -> list[str]:
    """`number` random types, none of them more than `most` times together with `present`."""
    left = Counter(dict.fromkeys(types, most))
    left.subtract(present)
    drawn: list[str] = []
    while len(drawn) < number:
        choice = _pick(rng, types)
        if left[choice] > 0:
            left[choice] -= 1
            drawn.append(choice)
    return drawn


def _numbered(types: Sequence[str]) -> list[str]:
    """`["mug", "pen", "mug"]` -> `["mug 1", "pen 1", "mug 2"]`."""
    count: Counter[str] = Counter()
    names = []
    for t in types:
        count[t] += 1
        names.append(f"{t} {count[t]}")
    return names


def _listing_key(name: str) -> tuple[str, int]:
    """Lists run by type, then from the highest number down, as ALFWorld's do."""
    kind, _, number = name.partition(" ")
    return kind, -int(number)


def _describe(contents: dict[str, tuple[str, ...]]) -> str:
    return "; ".join(f"{r}: {', '.join(found)}" for r, found in contents.items())
