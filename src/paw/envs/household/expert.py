"""An explorer that plays the household from its observations alone."""

import math
import re
from random import Random

from paw.envs.base import Observation
from paw.envs.household.layouts import APPLIANCES, GOALS, LAMPS, TREATMENTS, type_of, usual_share

_NAME = r"(\w+ \d+)"
_ARRIVE = re.compile(f"You arrive at {_NAME}\\.")
_VIEW = re.compile(f"(?:On the|The) {_NAME}(?: is open\\. In it)?, you see (.*)\\.")
_CLOSED = re.compile(f"(?:The {_NAME} is closed|You close the {_NAME})\\.")
_TAKE = re.compile(f"You pick up the {_NAME} from the {_NAME}\\.")
_MOVE = re.compile(f"You move the {_NAME} to the {_NAME}\\.")
_TREAT = re.compile(f"You (?:clean|heat|cool) the {_NAME} using")
_LISTED = re.compile(f"\\ba {_NAME}")
_UNLIKELY = 1e-3


def parse_goal(sentence: str) -> tuple[str, str, str]:
    """(kind, object type, place type) of a goal sentence.

    Raises:
        ValueError: none of the wordings of GOALS.
    """
    for kind, wordings in GOALS.items():
        for wording in wordings:
            pattern = re.escape(wording).replace(r"\{object\}", r"(\w+)")
            if found := re.fullmatch(pattern.replace(r"\{place\}", r"(\w+)"), sentence):
                return kind, found[1], found[2]
    raise ValueError(f"not a household goal: {sentence!r}")


class HouseholdExpert:
    """Looks through the receptacles, likely ones first, and does what the goal asks.

    `noise` times a Gumbel variate is added to the log-probability that orders the search; with
    probability `junk` a turn is spent on a command that changes nothing, mostly a refused one, so
    that demonstrations show refusals and how to go on after them.
    """

    last_was_junk: bool = False
    """Whether the last command was junk; imitation must not learn such a command."""

    def __init__(self, task_id: str, seed: int = 0, noise: float = 0.0, junk: float = 0.0):
        self._rng = Random(f"household expert/{task_id}/{seed}")
        self._noise = noise
        self._junk = junk
        self._kind = self._object_type = self._place_type = ""
        self._location: str | None = None
        self._held: str | None = None
        self._target: str | None = None
        self._contents: dict[str, list[str] | None] = {}
        self._closed: set[str] = set()
        self._treated: set[str] = set()
        self._orders: dict[str, list[str]] = {}

    def act(self, observation: Observation) -> str:
        """The next command, given the answer to the last one."""
        self._read(observation.text)
        self.last_was_junk = self._rng.random() < self._junk
        return self._waste(observation.commands) if self.last_was_junk else self._advance()

    def _read(self, text: str) -> None:
        """Remember what the text says."""
        if not self._contents:
            room, _, goal = text.partition("\n\nYour task is to: ")
            self._contents = dict.fromkeys(_LISTED.findall(room))
            self._kind, self._object_type, self._place_type = parse_goal(goal)
            return
        if found := _ARRIVE.search(text):
            self._location = found[1]
        if found := _CLOSED.search(text):
            self._closed.add(found[1] or found[2])
        if found := _VIEW.search(text):
            self._contents[found[1]] = _LISTED.findall(found[2])
            self._closed.discard(found[1])
        if found := _TAKE.search(text):
            self._held = found[1]
            (self._contents[found[2]] or []).remove(found[1])
        if found := _MOVE.search(text):
            self._held = None
            self._contents[found[2]] = [*(self._contents[found[2]] or ()), found[1]]
        if found := _TREAT.search(text):
            self._treated.add(found[1])

    def _advance(self) -> str:
        if self._held is None:
            name, place = self._find(self._object_type)
            if place is None:
                return self._search(self._object_type)
            return self._at(place) or self._opened(place) or f"take {name} from {place}"
        if self._kind == "look_at_obj_in_light":
            lamp, place = self._find(self._place_type)
            if place is None:
                return self._search(self._place_type)
            return self._at(place) or f"use {lamp}"
        treatment = TREATMENTS.get(self._kind)
        if treatment and self._held not in self._treated:
            appliance = self._nearest(APPLIANCES[treatment])
            return self._at(appliance) or f"{treatment} {self._held} with {appliance}"
        self._target = self._target or self._nearest(self._place_type)
        going = self._at(self._target) or self._opened(self._target)
        return going or f"move {self._held} to {self._target}"

    def _find(self, kind: str) -> tuple[str, str | None]:
        """A known object of the type that is not yet where it belongs, nearest first."""
        places = sorted(self._contents, key=lambda r: r != self._location)
        for place in places:
            if place != self._target:
                for name in reversed(self._contents[place] or ()):
                    if type_of(name) == kind:
                        return name, place
        return "", None

    def _nearest(self, kind: str) -> str:
        """The receptacle of the type where one stands, else the lowest number."""
        places = [r for r in reversed(self._contents) if type_of(r) == kind]
        return self._location if self._location in places else places[0]

    def _at(self, place: str) -> str | None:
        return None if self._location == place else f"go to {place}"

    def _opened(self, place: str) -> str | None:
        return f"open {place}" if place in self._closed else None

    def _search(self, kind: str) -> str:
        """Open what one stands at, else go to the likeliest receptacle not yet seen."""
        if self._location and self._contents[self._location] is None:
            return f"open {self._location}"
        if kind not in self._orders:
            self._orders[kind] = self._order(kind)
        unseen = [r for r in self._orders[kind] if self._contents[r] is None]
        return f"go to {unseen[0]}" if unseen else "look"

    def _order(self, kind: str) -> list[str]:
        """Receptacles, likeliest first; goal objects never start where they belong."""
        places = list(self._contents)
        scores = {}
        for place, share in zip(places, usual_share(kind, places), strict=True):
            belongs = kind not in LAMPS and type_of(place) == self._place_type
            gumbel = -math.log(-math.log(self._rng.random() + 1e-12) + 1e-12)
            scores[place] = math.log(_UNLIKELY if belongs else share) + self._noise * gumbel
        return sorted(places, key=lambda r: -scores[r])

    def _waste(self, admissible: tuple[str, ...]) -> str:
        """A command that changes nothing: one in four useless, the others refused."""
        if self._rng.random() < 0.25:
            return self._pick([c for c in admissible if c.startswith(("look", "inv", "exam"))])
        here = self._location
        known = [f"{self._object_type} {number}" for number in (1, 2)]
        known += (self._contents[here] or ()) if here else ()
        known += [self._held] if self._held else []
        while True:
            name, place = self._pick(known), self._pick([*self._contents])
            near = here or place
            command = self._pick(
                [
                    f"take {name} from {near}",
                    f"take {name} from {near}",
                    f"move {name} to {near}",
                    f"{self._pick([*APPLIANCES])} {name} with {place}",
                    f"open {near}",
                    f"go to {near}",
                    f"examine {name}",
                ]
            )
            if command not in admissible:
                return command

    def _pick(self, values: list[str]) -> str:
        return values[int(self._rng.random() * len(values))]
