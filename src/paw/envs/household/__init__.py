"""The built-in environment: a procedural text household in the conventions of ALFWorld.

    source = Household(split="train", level=1)
    env = source.open(source[0]); print(env.reset().text)

A pure-Python world of numbered receptacles and objects with ALFWorld's commands, answers and six
kinds of task, small enough at level 1 that a policy of 0.1 M parameters learns it in minutes.
Levels 2 and 3 have more receptacles (12, 23), objects (12, 24), both wordings of every goal and
more of the long kinds.
"""

from collections.abc import Sequence
from typing import Any

from paw.envs.base import Environment, TaskSource
from paw.envs.household.expert import HouseholdExpert
from paw.envs.household.layouts import GOALS, LEVELS, Game, generate, schedule
from paw.envs.household.world import REWARD, HouseholdEnvironment
from paw.envs.places import scenes
from paw.errors import UserError, nearest
from paw.style import Style
from paw.types import Task

__all__ = ["Household", "HouseholdEnvironment", "HouseholdExpert"]

NUM_TASKS = {"train": 4000, "valid": 200, "test": 200}
MAX_TASKS = 10_000_000
"""Tasks that `num_tasks` may ask for: their order is a list in memory."""


class Household(TaskSource):
    """The household's tasks of one split and level, generated when asked for.

    Args:
        split: `train`, `valid` or `test`; no layout occurs in two of them.
        level: 1 (6 receptacles, 5 objects), 2 (12, 12) or 3 (23, 24).
        kinds: only tasks of these kinds, ALFWorld's names; None is all six.
        num_tasks: length of the sequence; None is 4000 for `train`, 200 for the others.

    Raises:
        UserError: unknown split, level or kind, or a `num_tasks` out of range.
    """

    name = "household"
    max_return = REWARD
    style = Style(
        introduction="You are an agent in a household described in text.",
        lower_case=True,
        validation_split="valid",
        protocol={"rollout": {"max_turns": 20}},
        scenes=scenes,
    )

    def __init__(
        self,
        split: str = "train",
        level: int = 1,
        kinds: Sequence[str] | None = None,
        num_tasks: int | None = None,
    ):
        if split not in NUM_TASKS:
            raise UserError(f"household: no split {split!r}{nearest(split, NUM_TASKS)}")
        if level not in LEVELS:
            raise UserError(f"household: no level {level!r}; known: {', '.join(map(str, LEVELS))}")
        if num_tasks is not None and not 1 <= num_tasks <= MAX_TASKS:
            raise UserError(
                f"household: num_tasks must be at least 1 and at most {MAX_TASKS:,}, not "
                f"{num_tasks}"
            )
        kinds = list(GOALS) if kinds is None else [kinds] if isinstance(kinds, str) else kinds
        for kind in kinds:
            if kind not in GOALS:
                raise UserError(f"household: no kind of task {kind!r}{nearest(kind, GOALS)}")
        if not kinds:
            raise UserError(f"household: kinds is empty; known: {', '.join(GOALS)}")
        self.split = split
        self.level = level
        self.kinds = tuple(kinds)
        self._num_tasks = NUM_TASKS[split] if num_tasks is None else num_tasks
        self._offsets = [i for i, kind in enumerate(schedule(level)) if kind in kinds]

    def __len__(self) -> int:
        return self._num_tasks

    def facts(self) -> dict[str, Any]:
        """Split, number of tasks, level and kinds."""
        return super().facts() | {"level": self.level, "kinds": sorted(self.kinds)}

    def task(self, index: int) -> Task:
        """Task `index`; its id does not depend on `kinds` and `num_tasks`."""
        rounds, place = divmod(index, len(self._offsets))
        number = rounds * len(schedule(self.level)) + self._offsets[place]
        game = generate(self.split, self.level, number)
        return Task(game.id, game.kind, game.instruction)

    def open(self, task: Task, seed: int = 0) -> Environment:
        """A fresh episode. Nothing in a game is random, so `seed` changes nothing."""
        return HouseholdEnvironment(self._game(task))

    def expert(  # pyright: ignore[reportIncompatibleMethodOverride]  # options by name
        self, task: Task, seed: int = 0, noise: float = 0.0, junk: float = 0.0
    ) -> HouseholdExpert:
        """An explorer that reads observations only; `HouseholdExpert` explains the options."""
        return HouseholdExpert(task.id, seed, noise, junk)

    def _game(self, task: Task) -> Game:
        prefix, _, number = task.id.rpartition("/")
        if prefix == f"{self.split}/level{self.level}" and number.isdecimal():
            game = generate(self.split, self.level, int(number))
            if game.id == task.id:
                return game
        raise UserError(f"household {self.split}, level {self.level}, has no task {task.id!r}")
