"""The household's engine: one episode of one game, in the texts of ALFWorld.

Differences from ALFWorld: no `help`, no slicing, every receptacle has a location of its own and
takes every object.
"""

from paw.envs.base import Observation, StepResult
from paw.envs.household.layouts import (
    APPLIANCES,
    CLOSABLE,
    LAMPS,
    TREATABLE,
    TREATMENTS,
    Game,
    type_of,
)

REWARD = 10.0
REFUSED = "Nothing happens."
_STATES = {"clean": "clean", "heat": "hot", "cool": "cool"}
_DESCRIPTIONS = {
    (): "There's nothing special about {}.",
    ("clean",): "This is a clean {}.",
    ("cool",): "This is a cold {}.",
    ("hot",): "This is a hot {}.",
    ("clean", "cool"): "This is a cool and clean {}.",
    ("clean", "hot"): "This is a hot and clean {}.",
}
_EMPTY_HANDS = "You are not carrying anything."
_LOST = "You are in the middle of a room. Looking quickly around you, you see nothing."


def listing(names: list[str] | tuple[str, ...]) -> str:
    """`a mug 2, a mug 1, and a pen 1`; always the article "a", and "nothing" for no name."""
    if not names:
        return "nothing"
    if len(names) == 1:
        return f"a {names[0]}"
    return ", ".join([f"a {name}" for name in names[:-1]]) + f", and a {names[-1]}"


class HouseholdEnvironment:
    """One episode. Won when the goal holds after any command; there is no other end."""

    max_return = REWARD

    def __init__(self, game: Game):
        self._game = game
        self._contents = {r: list(found) for r, found in game.contents.items()}
        self._open: set[str] = set()
        self._location: str | None = None
        self._held: str | None = None
        self._states: dict[str, set[str]] = {}
        self._lit: set[str] = set()
        self._commands: tuple[str, ...] = ()
        self._started = self._ended = False

    def reset(self) -> Observation:
        """The room and the task.

        Raises:
            RuntimeError: called before.
        """
        if self._started:
            raise RuntimeError("an environment is single-use: open a new one")
        self._started = True
        text = (
            "You are in the middle of a room. Looking quickly around you, you see "
            f"{listing(tuple(self._game.contents))}.\n\n"
            f"Your task is to: {self._game.instruction}"
        )
        return self._observe(text)

    def step(self, command: str) -> StepResult:
        """Play one command; `put O in/on R` and `put O to R` are spellings of `move O to R`.

        Raises:
            RuntimeError: before `reset`, or after the end.
        """
        if not self._started or self._ended:
            raise RuntimeError("the episode has " + ("ended" if self._ended else "not begun"))
        command = command.strip()
        if command.startswith("put "):
            command = "move " + command.removeprefix("put ").replace(" in/on ", " to ", 1)
        if command not in self._commands:
            return StepResult(Observation(REFUSED, self._commands), valid=False)
        text = self._perform(command)
        if not self._won():
            return StepResult(self._observe(text))
        self._ended = True
        return StepResult(self._observe(text), REWARD, terminated=True, success=True)

    def close(self) -> None:
        """Nothing to free."""

    def _observe(self, text: str) -> Observation:
        self._commands = self._admissible()
        return Observation(text, self._commands)

    def _accessible(self, receptacle: str) -> bool:
        return receptacle in self._open or type_of(receptacle) not in CLOSABLE

    def _admissible(self) -> tuple[str, ...]:
        """Every command that does something now, sorted."""
        here, held = self._location, self._held
        if here is None:
            return (*self._game.go_commands, "inventory", "look")
        going = f"go to {here}"
        commands = [c for c in self._game.go_commands if c != going]
        commands += ["inventory", "look", f"examine {here}"]
        accessible = self._accessible(here)
        if not accessible:
            commands.append(f"open {here}")
        elif here in self._open:
            commands.append(f"close {here}")
        if held:
            commands.append(f"examine {held}")
            for verb, appliance in APPLIANCES.items():
                if type_of(here) == appliance and type_of(held) in TREATABLE[verb]:
                    commands.append(f"{verb} {held} with {here}")
            if accessible:
                commands.append(f"move {held} to {here}")
        for name in self._contents[here]:
            if type_of(name) in LAMPS:
                commands.append(f"use {name}")
            elif accessible and not held:
                commands.append(f"take {name} from {here}")
        commands.sort()
        return tuple(commands)

    def _view(self, receptacle: str) -> str:
        found = self._contents[receptacle]
        if receptacle in self._open:
            return f"The {receptacle} is open. In it, you see {listing(found)}."
        if type_of(receptacle) in CLOSABLE:
            return f"The {receptacle} is closed."
        return f"On the {receptacle}, you see {listing(found)}."

    def _perform(self, command: str) -> str:
        """Carry out an admissible command and say what happened."""
        verb, _, rest = command.partition(" ")
        match verb:
            case "go":
                self._location = rest.removeprefix("to ")
                return f"You arrive at {self._location}. {self._view(self._location)}"
            case "open":
                self._open.add(rest)
                return f"You open the {rest}. {self._view(rest)}"
            case "close":
                self._open.remove(rest)
                return f"You close the {rest}."
            case "take":
                name, _, place = rest.partition(" from ")
                self._contents[place].remove(name)
                self._held = name
                return f"You pick up the {name} from the {place}."
            case "move":
                name, _, place = rest.partition(" to ")
                self._contents[place].append(name)
                self._contents[place].sort(key=self._game.rank.__getitem__)
                self._held = None
                return f"You move the {name} to the {place}."
            case "use":
                self._lit.add(rest)
                return f"You turn on the {rest}."
            case "examine":
                return self._examine(rest)
            case "inventory":
                return f"You are carrying: a {self._held}." if self._held else _EMPTY_HANDS
            case "look":
                near = f"You are facing the {self._location}. Next to it, you see nothing."
                return near if self._location else _LOST
        return self._treat(verb, rest)

    def _treat(self, verb: str, rest: str) -> str:
        """Clean, heat or cool; hot and cool replace each other, clean stays."""
        name, _, place = rest.partition(" with ")
        states = self._states.setdefault(name, set())
        if verb != "clean":
            states -= {"hot", "cool"}
        states.add(_STATES[verb])
        return f"You {verb} the {name} using the {place}."

    def _examine(self, name: str) -> str:
        if name != self._held:
            return self._view(name)
        states = tuple(sorted(self._states.get(name, ())))
        return _DESCRIPTIONS[states].format(name)

    def _won(self) -> bool:
        """Whether the goal holds here and now."""
        game, here = self._game, self._location
        if here is None:
            return False
        if game.kind == "look_at_obj_in_light":
            if self._held is None:
                return False
            near = self._contents[here]
            return type_of(self._held) == game.object_type and any(n in self._lit for n in near)
        if type_of(here) != game.place_type:
            return False
        wanted = [n for n in self._contents[here] if type_of(n) == game.object_type]
        if game.kind == "pick_two_obj_and_place":
            return len(wanted) >= 2
        treatment = TREATMENTS.get(game.kind)
        return any(
            treatment is None or _STATES[treatment] in self._states.get(n, ()) for n in wanted
        )
