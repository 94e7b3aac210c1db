"""Two experts: an explorer that knows only what it reads, and the game's own walkthrough.

Both are for demonstrations. The explorer visits places in the order in which the thing it looks
for is likely to be there, by the counts of `priors.json`; so it never reads a hidden location.
"""

import json
import math
import random
import re
from collections.abc import Generator, Sequence
from functools import lru_cache
from pathlib import Path

from paw.envs.alfworld.engine import REFUSED
from paw.envs.base import Observation
from paw.errors import UserError

PRIOR_FLOOR = 0.003
"""Added to every mean count, so that no place is ruled out."""

TREATED_AT = {
    "clean": ("sinkbasin", "sink", "bathtubbasin"),
    "heat": ("microwave",),
    "cool": ("fridge",),
}
VERB_OF_STATE = {"clean": "clean", "hot": "heat", "cool": "cool"}
"""The state in "put a hot mug in cabinet" -> the verb."""

_SENTENCES = (
    r"(?:look at|examine the) (?P<object>\w+) (?:under|with) the (?P<lamp>\w+)\.",
    r"(?:put|find) two (?P<two>\w+) (?:and put them )?(?:in|on) (?P<target>\w+)\.",
    r"(?P<verb>clean|heat|cool) some (?P<object>\w+) and put it (?:in|on) (?P<target>\w+)\.",
    r"put (?:a|some) (?:(?P<state>clean|hot|cool) )?(?P<object>\w+) (?:in|on) (?P<target>\w+)\.",
)
_NAMED = re.compile(r"a (\w+ \d+)")

Script = Generator[str, str, None]
"""Yields commands, is sent the observations."""


class _Expert:
    """Plays `_plan`, with useless or refused commands strewn in.

    `last_was_junk` tells whether the last command was one of those: a demonstration may keep it
    in the history and leave it out of what is imitated. Neither kind changes the game's state.
    """

    def __init__(self, seed: str, junk: float):
        self._random = random.Random(seed)
        self._junk = junk
        self._command = ""
        self.last_was_junk = False

    def act(self, observation: Observation) -> str:
        """The next command."""
        if not self.last_was_junk:
            self._command = self._plan(observation.text)
        self.last_was_junk = self._random.random() < self._junk
        if self.last_was_junk:
            return _junk_command(self._random, observation.commands)
        return self._command

    def _plan(self, text: str) -> str:
        raise NotImplementedError


class Walkthrough(_Expert):
    """Replays a game's own plan, then only looks."""

    def __init__(self, commands: Sequence[str], seed: str, junk: float):
        super().__init__(seed, junk)
        self._commands = iter(commands)

    def _plan(self, text: str) -> str:
        return next(self._commands, "look")


class Explorer(_Expert):
    """Searches, fetches, treats and places what the goal sentence names, reading texts only.

    Args:
        goal: the game's own goal sentence, one of the official templates.
        noise: unvisited places are tried in descending order of
            log((mean count of the thing there + PRIOR_FLOOR) / turns) + noise x Gumbel, where
            turns is 2 for kinds of places that were found closed, else 1.
    """

    def __init__(self, goal: str, seed: str, noise: float, junk: float):
        super().__init__(seed, junk)
        self._noise = noise
        for pattern in _SENTENCES:
            if match := re.fullmatch(pattern, goal):
                break
        else:
            raise UserError(f"alfworld: the explorer does not know the goal sentence {goal!r}")
        self._goal = {key: value for key, value in match.groupdict().items() if value}
        self._seen: dict[str, list[str]] = {}
        """Place -> the objects last seen there."""
        self._places: list[str] = []
        self._unvisited: list[str] = []
        self._here: set[str] = set()
        """Places known to be at the present location."""
        self._closed: set[str] = set()
        """Kinds of places found closed: seeing inside takes two turns."""
        self._done: set[str] = set()
        """Objects placed, or refused when taken."""
        self._script = self._play()
        next(self._script)

    def _plan(self, text: str) -> str:
        return self._script.send(text)

    def _play(self) -> Script:
        text = yield ""
        self._places = _NAMED.findall(text.partition("Your task is to:")[0])
        self._unvisited = list(self._places)
        goal = self._goal
        kind = goal.get("two") or goal["object"]
        verb = goal.get("verb") or VERB_OF_STATE.get(goal.get("state", ""))
        while True:
            held = yield from self._fetch(kind, goal.get("target"), pair="two" in goal)
            if "lamp" in goal:
                yield from self._switch_on(goal["lamp"])
                continue
            if verb is not None:
                yield from self._treat(verb, held)
            yield from self._put(held, kind, goal["target"])
            self._done.add(held)

    def _fetch(self, kind: str, target: str | None, pair: bool) -> Generator[str, str, str]:
        """Take an object of this kind. For a pair, those that lie in the target are left there."""
        while True:
            found = self._find(kind, avoid=target if pair else None)
            if found is None and not self._unvisited:
                found = self._find(kind, avoid=None)
            if found is None:
                yield from self._visit(self._next_place(kind))
                continue
            name, place = found
            yield from self._visit(place, to_see=False)
            if (yield f"take {name} from {place}") != REFUSED:
                self._seen[place].remove(name)
                return name
            self._done.add(name)

    def _find(self, kind: str, avoid: str | None) -> tuple[str, str] | None:
        for place, names in self._seen.items():
            for name in names:
                if _kind(name) == kind and name not in self._done and _kind(place) != avoid:
                    return name, place
        return None

    def _next_place(self, kind: str) -> str:
        """The likeliest unvisited place; all count as unvisited again when none is left."""
        if not self._unvisited:
            self._unvisited = list(self._places)
            self._done.clear()
        means = load_priors().get(kind, {})

        def score(place: str) -> float:
            gumbel = -math.log(-math.log(self._random.uniform(1e-12, 1 - 1e-12)))
            mean = means.get(_kind(place), 0.0) + PRIOR_FLOOR
            turns = 2 if _kind(place) in self._closed else 1
            return math.log(mean / turns) + self._noise * gumbel

        return max(self._unvisited, key=score)

    def _visit(self, place: str, to_see: bool = True, to_open: bool = True) -> Script:
        """Be at a place, open unless `to_open` is False; read what is there."""
        if place in self._here and not to_see:
            return
        text = yield f"go to {place}"
        if text == REFUSED:
            # Places that share a location: one stands there already and can just look.
            text = yield f"examine {place}"
            self._here.add(place)
        else:
            self._here = {place}
        if text.endswith(" is closed."):
            self._closed.add(_kind(place))
            if not to_open:
                self._here.discard(place)
                return
            text = yield f"open {place}"
        self._seen[place] = _NAMED.findall(text.partition("you see")[2])
        if place in self._unvisited:
            self._unvisited.remove(place)

    def _switch_on(self, lamp: str) -> Script:
        while (found := self._find(lamp, avoid=None)) is None:
            yield from self._visit(self._next_place(lamp))
        name, place = found
        yield from self._visit(place, to_see=False)
        yield f"use {name}"
        self._done.add(name)

    def _treat(self, verb: str, held: str) -> Script:
        kinds = TREATED_AT[verb]
        places = [place for place in self._places if _kind(place) in kinds]
        for place in sorted(places, key=lambda place: kinds.index(_kind(place))):
            yield from self._visit(place, to_see=False, to_open=False)
            if (yield f"{verb} {held} with {place}") != REFUSED:
                return

    def _put(self, held: str, kind: str, target: str) -> Script:
        """Into the target where most of the kind lie already: a pair must lie in one place."""
        targets = [place for place in self._places if _kind(place) == target]

        def num_there(place: str) -> int:
            return sum(_kind(name) == kind for name in self._seen.get(place, ()))

        for place in sorted(targets, key=num_there, reverse=True):
            yield from self._visit(place, to_see=False)
            if (yield f"move {held} to {place}") != REFUSED:
                self._seen[place].append(held)
                return


@lru_cache(maxsize=1)
def load_priors() -> dict[str, dict[str, float]]:
    """Kind of object -> kind of receptacle -> mean number in one such receptacle, over train."""
    return json.loads(Path(__file__).with_name("priors.json").read_text(encoding="utf-8"))


def _kind(name: str) -> str:
    return name.rpartition(" ")[0]


def _junk_command(rng: random.Random, commands: Sequence[str]) -> str:
    """A command that changes nothing: one that only looks, or one that is refused."""
    looks = [c for c in commands if c in ("look", "inventory") or c.startswith("examine ")]
    if rng.random() < 0.5:
        return rng.choice(looks)
    here = [c.removeprefix("examine ") for c in looks if c.startswith("examine ")]
    away = [c.removeprefix("go to ") for c in commands if c.startswith("go to ")]
    if here and rng.random() < 0.5:
        return f"go to {rng.choice(here)}"
    return f"{rng.choice(('open', 'close', 'examine', 'use'))} {rng.choice(away)}"
