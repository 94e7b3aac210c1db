"""The rules of the text game: a state, its admissible commands, and what each command does.

The official engine (TextWorld over Fast Downward) derives both from the game file's PDDL domain
and text grammar at every step; here they are written out, text for text. What surprises a reader
of the rules surprises in the official engine too, and is marked below.
"""

from paw.envs.alfworld.game import TASK, Game

BANNER = "-= Welcome to TextWorld, ALFRED! =-"
REFUSED = "Nothing happens."
HELP = """Available commands:
  look:                             look around your current location
  inventory:                        check your current inventory
  go to (receptacle):               move to a receptacle
  open (receptacle):                open a receptacle
  close (receptacle):               close a receptacle
  take (object) from (receptacle):  take an object from a receptacle
  move (object) to (receptacle):  place an object in or on a receptacle
  examine (something):              examine a receptacle or an object
  use (object):                     use an object
  heat (object) with (receptacle):  heat an object using a receptacle
  clean (object) with (receptacle): clean an object using a receptacle
  cool (object) with (receptacle):  cool an object using a receptacle
  slice (object) with (object):     slice an object using a sharp object
"""

TREATMENTS = {
    # verb: (attribute of the object, types of the receptacle, state gained, state lost)
    "clean": ("cleanable", ("SinkType", "SinkBasinType"), "clean", None),
    "heat": ("heatable", ("MicrowaveType",), "hot", "cool"),
    "cool": ("coolable", ("FridgeType",), "cool", "hot"),
}
KNIVES = ("KnifeType", "ButterKnifeType")
MIDDLE_OF_ROOM = "You are in the middle of a room. Looking quickly around you, you see {}."

Action = tuple[str, int, int]
"""(verb, first argument, second argument): indices of receptacles or objects, -1 for none."""


class GameState:
    """A game in play. `commands` are the admissible commands, sorted; every other does nothing."""

    __slots__ = (
        "_actions",
        "_at",
        "_base",
        "_contents",
        "_game",
        "_held",
        "_here",
        "_location",
        "_opened",
        "_removed",
        "_states",
        "commands",
        "won",
    )

    def __init__(self, game: Game):
        self._game = game
        self._location = game.start
        self._held = -1
        self._contents = list(game.contents)
        self._at = set(game.at)
        self._opened = set(game.opened)
        self._states = {
            s: game.attributes[s] for s in ("clean", "hot", "cool", "toggled", "sliced")
        }
        # (object, receptacle) pairs that a `take` made false, the only ones that `look` lists.
        self._removed: set[tuple[int, int]] = set()
        self._arrive()
        self._refresh()

    def intro(self, task: str) -> str:
        """The first observation: banner, room and task, in three paragraphs."""
        game = self._game
        # Only here does the middle of the room show all receptacles; `look` there sees nothing.
        room = self._facing() or MIDDLE_OF_ROOM.format(_listed(game.receptacles))
        return f"{BANNER}\n\n{room}\n\n{TASK}{task}"

    def step(self, command: str) -> str | None:
        """Play `command`; its answer, or None when it is not admissible and nothing happens."""
        action = self._actions.get(command.strip())
        if action is None:
            return None
        verb, first, second = action
        return _VERBS[verb](self, first, second)

    # ------------------------------------------------------------------ admissible commands

    def _arrive(self) -> None:
        """What depends on the location alone."""
        game, location = self._game, self._location
        self._base: dict[str, Action] = {
            "help": ("help", -1, -1),
            "inventory": ("inventory", -1, -1),
            "look": ("look", -1, -1),
        }
        here = []
        for r, place in enumerate(game.locations):
            if place != location:
                self._base["go to " + game.receptacles[r]] = ("go", r, -1)
            else:
                # Receptacles that share a location: all at hand, none of them to be gone to.
                here.append(r)
                self._base["examine " + game.receptacles[r]] = ("view", r, -1)
        self._here = tuple(here)

    def _refresh(self) -> None:
        """Admissible commands and `won` after a change of state."""
        game = self._game
        actions = dict(self._base)
        for r in self._here:
            name = game.receptacles[r]
            reachable = True
            if r in game.openable:
                reachable = r in self._opened
                verb = "close" if reachable else "open"
                actions[f"{verb} {name}"] = (verb, r, -1)
            for o in self._contents[r]:
                # A lamp can be switched on in a closed receptacle too.
                if o in game.attributes["toggleable"]:
                    actions["use " + game.objects[o]] = ("use", o, -1)
                if reachable and self._held < 0 and o in game.attributes["pickupable"]:
                    actions[f"take {game.objects[o]} from {name}"] = ("take", o, r)
            if self._held >= 0:
                self._add_uses_of_held(actions, r, reachable)
        if self._held >= 0:
            held = game.objects[self._held]
            # Objects that lie about cannot be examined, for a slip in the official domain.
            actions["examine " + held] = ("inspect", self._held, -1)
            if game.object_types[self._held] in KNIVES:
                for o in game.attributes["sliceable"]:
                    if (o, self._location) in self._at:
                        actions[f"slice {game.objects[o]} with {held}"] = ("slice", o, self._held)
        self._actions = actions
        self.commands = tuple(sorted(actions))
        self.won = self._is_won()

    def _add_uses_of_held(self, actions: dict[str, Action], r: int, reachable: bool) -> None:
        game, o = self._game, self._held
        held, name, kind = game.objects[o], game.receptacles[r], game.receptacle_types[r]
        if reachable and (kind, game.object_types[o]) in game.can_contain:
            actions[f"move {held} to {name}"] = ("move", o, r)
        for verb, (attribute, kinds, _, _) in TREATMENTS.items():
            if kind in kinds and o in game.attributes[attribute]:
                actions[f"{verb} {held} with {name}"] = (verb, o, r)

    def _is_won(self) -> bool:
        goal = self._game.goal
        if goal.look:
            return self._held in goal.objects and any(
                o in goal.targets and o in self._states["toggled"]
                for r in self._here
                for o in self._contents[r]
            )
        ready = goal.objects if goal.state is None else goal.objects & self._states[goal.state]
        return any(len(ready.intersection(self._contents[r])) >= goal.count for r in goal.targets)

    # ------------------------------------------------------------------ what commands do

    def _help(self, _: int, __: int) -> str:
        return HELP

    def _inventory(self, _: int, __: int) -> str:
        if self._held < 0:
            return "You are not carrying anything."
        return f"You are carrying: a {self._game.objects[self._held]}."

    def _look(self, _: int, __: int) -> str:
        return self._facing() or MIDDLE_OF_ROOM.format("nothing")

    def _facing(self) -> str:
        """The view of the current location; empty in the middle of the room."""
        game = self._game
        if not self._here:
            return ""
        facing = _joined([game.receptacles[r] for r in self._here])
        moved = sorted(
            (o, r) for o, r in self._removed if r in self._here and (o, self._location) in self._at
        )
        beside = _listed([game.objects[o] for o, _ in moved])
        return f"You are facing the {facing}. Next to it, you see {beside}."

    def _go(self, r: int, _: int) -> str:
        self._location = self._game.locations[r]
        self._arrive()
        self._refresh()
        return f"You arrive at {self._game.receptacles[r]}. {self._view(r)}"

    def _view(self, r: int, _: int = -1) -> str:
        game = self._game
        name = game.receptacles[r]
        if r in game.openable and r not in self._opened:
            return f"The {name} is closed."
        seen = _listed([game.objects[o] for o in self._contents[r]])
        if r in game.openable:
            return f"The {name} is open. In it, you see {seen}."
        return f"On the {name}, you see {seen}."

    def _open(self, r: int, _: int) -> str:
        self._opened.add(r)
        self._refresh()
        return f"You open the {self._game.receptacles[r]}. {self._view(r)}"

    def _close(self, r: int, _: int) -> str:
        self._opened.discard(r)
        self._refresh()
        return f"You close the {self._game.receptacles[r]}."

    def _take(self, o: int, r: int) -> str:
        # An object listed in two receptacles stays visible in the other one while held.
        self._contents[r] = tuple(x for x in self._contents[r] if x != o)
        self._removed.add((o, r))
        self._at.discard((o, self._location))
        self._held = o
        self._refresh()
        return f"You pick up the {self._game.objects[o]} from the {self._game.receptacles[r]}."

    def _move(self, o: int, r: int) -> str:
        self._contents[r] = tuple(sorted({*self._contents[r], o}))
        self._removed.discard((o, r))
        self._at.add((o, self._location))
        self._held = -1
        self._refresh()
        return f"You move the {self._game.objects[o]} to the {self._game.receptacles[r]}."

    def _treat(self, verb: str, o: int, r: int) -> str:
        _, _, gained, lost = TREATMENTS[verb]
        self._states[gained] = self._states[gained] | {o}
        if lost is not None:
            self._states[lost] = self._states[lost] - {o}
        self._refresh()
        return f"You {verb} the {self._game.objects[o]} using the {self._game.receptacles[r]}."

    def _use(self, o: int, _: int) -> str:
        self._states["toggled"] = self._states["toggled"] | {o}
        self._refresh()
        return f"You turn on the {self._game.objects[o]}."

    def _slice(self, o: int, knife: int) -> str:
        self._states["sliced"] = self._states["sliced"] | {o}
        self._refresh()
        return f"You sliced the {self._game.objects[o]} with the {self._game.objects[knife]}."

    def _inspect(self, o: int, _: int) -> str:
        game = self._game
        name = game.objects[o]
        if o in game.inside:
            # Whatever its state: a heated mug never reads "hot".
            inner = _listed([game.objects[i] for i in game.inside[o]])
            return f"This is a normal {name}. In it, you see {inner}."
        clean, hot, cool, toggled, sliced = (o in self._states[s] for s in _STATES)
        if hot or cool or clean:
            if hot:
                state = "hot and clean" if clean else "hot"
            elif cool:
                state = "cool and clean" if clean else "cool" if sliced else "cold"
            else:
                state = "clean"
            return f"This is a {state} {'sliced ' if sliced else ''}{name}."
        if toggled and o in game.attributes["toggleable"]:
            return f"This {name} is on."
        if sliced and o in game.attributes["sliceable"]:
            return f"This is a sliced {name}."
        return f"There's nothing special about {name}."


_STATES = ("clean", "hot", "cool", "toggled", "sliced")

_VERBS = {
    "help": GameState._help,
    "inventory": GameState._inventory,
    "look": GameState._look,
    "go": GameState._go,
    "view": GameState._view,
    "open": GameState._open,
    "close": GameState._close,
    "take": GameState._take,
    "move": GameState._move,
    "use": GameState._use,
    "slice": GameState._slice,
    "inspect": GameState._inspect,
    **{verb: lambda s, o, r, verb=verb: s._treat(verb, o, r) for verb in TREATMENTS},
}


def _joined(names) -> str:
    """ "x", "x, and y", "x, y, and z"."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])}, and {names[-1]}"


def _listed(names) -> str:
    """Names with the article, which is always "a"; "nothing" for none."""
    return _joined(["a " + name for name in names]) if names else "nothing"
