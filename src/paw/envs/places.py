"""Where things are, read from the texts of ALFWorld: the scene of `alfworld` and `household`.

Observations alone say what has happened: a command that was refused is answered "Nothing happens."
and changes nothing. Several receptacles may share a location; that is known once they were looked
at together or one was used from the other.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache

from paw.style import Block, Step

MAX_PLACES = 12
"""Places listed; of more the number is said."""

_NAME = r"[^\W\d_]+ \d+"
_LIST = rf"nothing|a {_NAME}(?:, (?:and )?a {_NAME})*"
_VIEW = (
    rf"(?:On the (?P<on>{_NAME}), you see (?P<found>{_LIST})\.|The (?P<box>{_NAME}) is "
    rf"(?:closed\.|open\. In it, you see (?P<inside>{_LIST})\.))"
)
_ROOM = (
    rf"(?P<middle>You are in the middle of a room\. Looking quickly around you, you see "
    rf"(?:{_LIST})\.)|You are facing the (?P<facing>{_NAME}(?:, (?:and )?{_NAME})*)\. "
    rf"Next to it, you see (?:{_LIST})\."
)
_TEXTS = (
    rf"(?:-= Welcome to TextWorld, ALFRED! =-\n\n)?(?:{_ROOM})(?:\n\nYour task is to: .*)?",
    rf"(?:You arrive at (?P<arrived>{_NAME})\. |You open the {_NAME}\. )?{_VIEW}",
    rf"You close the (?P<closed>{_NAME})\.",
    rf"You pick up the (?P<taken>{_NAME}) from the (?P<source>{_NAME})\.",
    rf"You move the (?P<moved>{_NAME}) to the (?P<target>{_NAME})\.",
    rf"You (?P<verb>clean|heat|cool) the (?P<treated>{_NAME}) using the (?P<tool>{_NAME})\.",
    rf"You turn on the (?P<lit>{_NAME})\.",
    rf"You sliced the (?P<sliced>{_NAME}) with the {_NAME}\.",
    rf"You are carrying: a (?P<carried>{_NAME})\.",
    r"(?P<empty>You are not carrying anything\.)",
    # Says nothing of where things are.
    r"Nothing happens\.|Available commands:.*",
    rf"There's nothing special about {_NAME}\.|This {_NAME} is on\.",
    rf"This is a [a-z ]+ {_NAME}\.(?: In it, you see (?:{_LIST})\.)?",
)
_TEXT = re.compile("|".join(_TEXTS), re.DOTALL)
_NAMES = re.compile(_NAME)
_GAINED = {"clean": "clean", "heat": "hot", "cool": "cool"}
_LOST = {"hot": "cool", "cool": "hot"}


@dataclass(slots=True)
class _Place:
    """What is known of a receptacle."""

    state: str = ""
    """`open` or `closed`; empty of one that cannot be opened, or was never looked at"""
    contents: list[str] = field(default_factory=list)
    seen: bool = False
    """Somebody has looked into it: `contents` is all that was there"""

    def view(self) -> tuple[str, str]:
        """(its state, what was last seen in it)."""
        listed = ", ".join(self.contents)
        if self.seen:
            return self.state, listed or "nothing"
        return self.state, f"{listed}, and what was there before" if listed else "not looked into"


@lru_cache(maxsize=1024)
def _found(text: str) -> dict[str, str] | None:
    """The parts of an observation by name; None for none of the game's texts."""
    match = _TEXT.fullmatch(text)
    return match and {name: part for name, part in match.groupdict().items() if part is not None}


class _Memory:
    """What an attentive player knows."""

    def __init__(self) -> None:
        self.here: tuple[str, ...] | None = None
        """Receptacles at hand, the one that was gone to first; (): the middle of the room; None:
        no text has told"""
        self.carried = ""
        self.places: dict[str, _Place] = {}
        """The latest last"""
        self.states: dict[str, list[str]] = {}
        self._together: dict[str, tuple[str, ...]] = {}

    def read(self, text: str) -> bool:
        """Take in an observation. False: it is none of the game's texts."""
        found = _found(text)
        if found is None:
            return False
        if "middle" in found:
            self.here = ()
        elif "facing" in found:
            self._stand_at(tuple(_NAMES.findall(found["facing"])))
        elif "arrived" in found:
            arrived = found["arrived"]
            self._stand_at(self._together.get(arrived, (arrived,)), arrived)
        self._look(found)
        self._change(found)
        return True

    def _stand_at(self, names: tuple[str, ...], first: str = "") -> None:
        first = first or (self.here[0] if self.here and self.here[0] in names else names[0])
        self.here = (first, *(name for name in names if name != first))
        self._together |= dict.fromkeys(names, self.here)

    def _at(self, name: str) -> _Place:
        """A receptacle that was used or seen just now, so it is at hand."""
        here = self.here or ()
        if name not in here:
            self._stand_at(tuple(dict.fromkeys((*here, name, *self._together.get(name, ())))))
        place = self.places[name] = self.places.pop(name, _Place())
        return place

    def _look(self, found: dict[str, str]) -> None:
        name = found.get("on") or found.get("box")
        if name is None:
            return
        place, listed = self._at(name), found.get("found") or found.get("inside")
        if "box" in found:
            place.state = "open" if listed else "closed"
        if listed:
            place.seen, place.contents = True, _NAMES.findall(listed)

    def _change(self, found: dict[str, str]) -> None:
        if name := found.get("closed"):
            self._at(name).state = "closed"
        elif thing := found.get("taken"):
            source = self._at(found["source"])
            source.contents = [x for x in source.contents if x != thing]
            self.carried = thing
        elif thing := found.get("moved"):
            target = self._at(found["target"])
            target.contents = [*(x for x in target.contents if x != thing), thing]
            self.carried = ""
        elif thing := found.get("treated"):
            self._at(found["tool"])
            gained = _GAINED[found["verb"]]
            self._gain(thing, gained, _LOST.get(gained))
        elif thing := found.get("lit"):
            self._gain(thing, "on")
        elif thing := found.get("sliced"):
            self._gain(thing, "sliced")
        elif thing := found.get("carried"):
            self.carried = thing
        elif "empty" in found:
            self.carried = ""

    def _gain(self, thing: str, state: str, lost: str | None = None) -> None:
        had = self.states.get(thing, [])
        self.states[thing] = [*(x for x in had if x not in (state, lost)), state]


def scenes(instruction: str, turns: Sequence[Step]) -> Iterator[Sequence[Block]]:
    """Of each turn: place, what is carried and what is here; what was last seen at other places.

    Nothing from a text on that is none of the game's: what it did is not known.
    """
    memory, known = _Memory(), True
    for observation, _ in turns:
        known = known and memory.read(observation)
        yield _drawn(memory) if known else ()


def _drawn(memory: _Memory) -> list[Block]:
    """What an attentive player knows, as Blocks."""
    here = memory.here
    place = "not known" if here is None else here[0] if here else "the middle of the room"
    carried = memory.carried and _with_states(memory, memory.carried)
    facts = [("Place", place), ("Carried", carried or "nothing")]
    facts += [_shown(memory, name) for name in here or ()]
    elsewhere = [name for name in reversed(memory.places) if name not in (here or ())]
    items = [_shown(memory, name) for name in elsewhere[:MAX_PLACES]]
    if len(elsewhere) > MAX_PLACES:
        items.append(("", f"… and {len(elsewhere) - MAX_PLACES} more"))
    blocks = [Block("facts", "Where things are", tuple(facts))]
    return [*blocks, Block("items", "Last seen elsewhere", tuple(items))] if items else blocks


def _shown(memory: _Memory, name: str) -> tuple[str, str]:
    """A place as an entry of a block."""
    state, seen = memory.places.get(name, _Place()).view()
    return f"{name} ({state})" if state else name, _NAMES.sub(
        lambda thing: _with_states(memory, thing[0]), seen
    )


def _with_states(memory: _Memory, thing: str) -> str:
    states = memory.states.get(thing)
    return f"{thing} ({', '.join(states)})" if states else thing
