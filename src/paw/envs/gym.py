"""Text environments with Gymnasium's interface as a `TaskSource`.

    def factory(split="train"):
        return GymSource(make_game, name="game", instruction="win the game.", split=split)

    factory.style = Style(introduction="You play a game.", validation_split="valid")  # optional

`gymnasium` itself is not imported: anything with its `reset(seed=...)` and `step(action)` will do.
`make("gymnasium:ID")` is the one that Gymnasium has registered.
"""

import functools
import string
from collections.abc import Callable, Mapping
from typing import Any

from paw.envs.base import Environment, Episode, Observation, StepResult, TaskSource
from paw.errors import UserError, first_line, nearest
from paw.style import Style
from paw.types import Task

FIRST_SEEDS = {"train": 0, "valid": 1_000_000, "test": 2_000_000}
"""Of the splits of an environment whose tasks are seeds."""
NUM_TASKS = 1000
INSTRUCTION = "get the highest reward."
"""Where nobody says what is asked."""


class GymSource(TaskSource):
    """One task per seed; observations and actions are strings.

    Args:
        make: builds one environment; called for every episode. Picklable (a module's function) if
            the pool shall hold the environments in worker processes.
        name: of the environment, for results and prompts.
        instruction: what is asked, in a sentence.
        split: name of the split; different splits take disjoint seeds.
        num_tasks: length of the sequence.
        max_return: largest attainable return of an episode, R_max.
        seed_offset: first seed; default: splits start a million apart.
    """

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        name: str,
        instruction: str,
        split: str = "train",
        num_tasks: int = NUM_TASKS,
        max_return: float = 1.0,
        seed_offset: int | None = None,
    ) -> None:
        if split not in FIRST_SEEDS:
            raise UserError(f"{name}: no split {split!r}{nearest(split, FIRST_SEEDS)}")
        self.name, self.split, self.max_return = name, split, max_return
        self._make, self._num_tasks, self._instruction = make, num_tasks, instruction
        self._first_seed = FIRST_SEEDS[split] if seed_offset is None else seed_offset

    def __len__(self) -> int:
        return self._num_tasks

    def task(self, index: int) -> Task:
        return Task(f"{self.split}/{self._first_seed + index}", self.name, self._instruction)

    def open(self, task: Task, seed: int = 0) -> Environment:
        """The environment reset with the task's own seed; `seed` changes nothing."""
        return GymEnvironment(task, self._make(), self.max_return)


class GymEnvironment(Episode):
    """One episode of a Gymnasium-style environment.

    `info["admissible_commands"]`, `info["valid"]` and `info["success"]` are read where they are
    given; without the last, an episode is a success if its return reaches `max_return`.
    """

    def __init__(self, task: Task, environment: Any, max_return: float) -> None:
        super().__init__(task)
        self.max_return = max_return
        self._environment, self._return = environment, 0.0

    def start(self) -> Observation:
        """Reset with the task's own seed."""
        text, info = self._environment.reset(seed=int(self.task.id.rpartition("/")[2]))
        return _observation(text, info)

    def play(self, command: str) -> StepResult:
        """One step of the environment."""
        text, reward, terminated, truncated, info = self._environment.step(command)
        self._return += float(reward)
        ended = bool(terminated or truncated)
        success = bool(info.get("success", self._return >= self.max_return)) if ended else None
        return StepResult(
            observation=_observation(text, info),
            reward=float(reward),
            terminated=bool(terminated),
            truncated=bool(truncated),
            valid=bool(info.get("valid", True)),
            success=success,
            info={k: v for k, v in info.items() if isinstance(v, (str, int, float, bool))},
        )

    def close(self) -> None:
        """Close the environment."""
        super().close()
        self._environment.close()


def _observation(text: Any, info: Mapping[str, Any]) -> Observation:
    return Observation(str(text), tuple(info.get("admissible_commands", ())))


def at(name: str) -> Callable[..., TaskSource]:
    """The factory of what Gymnasium has registered as `name`; `module:ID` imports a module first.

    Further options go to `gymnasium.make`. Commands that are not in its action space are not given
    to the environment: they are not valid. Gymnasium's default characters of a `Text` space, which
    have no blank, say nothing: then only the length counts.
    """

    def gymnasium(
        split: str = "train",
        num_tasks: int = NUM_TASKS,
        max_return: float = 1.0,
        instruction: str = INSTRUCTION,
        **options: Any,
    ) -> TaskSource:
        build = functools.partial(_Registered, name, options)
        try:
            build().close()
        except (UserError, ImportError):
            raise
        except Exception as error:  # Gymnasium's own, and whatever the environment raises
            raise UserError(f"gymnasium:{name}: {first_line(error)}") from error
        if num_tasks < 1:
            raise UserError(f"env.num_tasks = {num_tasks}: at least 1")
        return GymSource(
            build,
            name=name,
            instruction=instruction,
            split=split,
            num_tasks=num_tasks,
            max_return=max_return,
        )

    gymnasium.style = Style(validation_split="valid")  # pyright: ignore[reportFunctionMemberAccess]
    return gymnasium


class _Registered:
    """An environment of text that Gymnasium makes, which is asked before each step whether its
    action space has the command.

    Raises:
        UserError: its spaces are not text.
    """

    def __init__(self, name: str, options: dict[str, Any]) -> None:
        try:
            import gymnasium
        except ImportError:
            raise ImportError(
                "gymnasium:ID needs Gymnasium: pip install 'paw-rl[gymnasium]'"
            ) from None
        # its checker would warn once an episode
        self._environment = gymnasium.make(name, **({"disable_env_checker": True} | options))
        for what in ("observation", "action"):
            space = getattr(self._environment, f"{what}_space")
            if not isinstance(space, gymnasium.spaces.Text):
                self._environment.close()
                raise UserError(
                    f"gymnasium:{name}: its {what}s are {type(space).__name__}, and paw plays Text "
                    "alone; a wrapper can make text of them"
                )
        space: Any = self._environment.action_space
        self._lengths = space.min_length, space.max_length
        default = frozenset(string.ascii_letters + string.digits)
        self._characters = None if space.character_set == default else space.character_set
        self._commands: dict[str, Any] = {}

    def reset(self, *, seed: int) -> tuple[Any, Any]:
        text, info = self._environment.reset(seed=seed)
        return text, self._remembered(info)

    def step(self, action: str) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        low, high = self._lengths
        if not low <= len(action) <= high:
            return self._refuse(f"A command has {low} to {high} characters.")
        if self._characters is not None and not self._characters.issuperset(action):
            shown = "".join(sorted(self._characters))
            return self._refuse(f"A command has only these characters: {shown}")
        text, reward, terminated, truncated, info = self._environment.step(action)
        return text, reward, terminated, truncated, self._remembered(info)

    def _remembered(self, info: dict[str, Any]) -> dict[str, Any]:
        self._commands = {k: v for k, v in info.items() if k == "admissible_commands"}
        return info

    def _refuse(self, why: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return why, 0.0, False, False, self._commands | {"valid": False}

    def close(self) -> None:
        self._environment.close()
