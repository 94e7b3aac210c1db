"""Text environments with Gymnasium's interface as a `TaskSource`.

    def factory(split="train"):
        return GymSource(make_game, name="game", instruction="win the game.", split=split)

    factory.style = Style(introduction="You play a game.", validation_split="valid")  # optional

`gymnasium` itself is not imported: anything with its `reset(seed=...)` and `step(action)` will do.
`make("gymnasium:ID")` is the one that Gymnasium has registered.
"""

import functools
import string
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from paw.envs.base import (
    Environment,
    Episode,
    Observation,
    StepResult,
    TaskSource,
    checked_max_return,
    flag,
    number,
    reaches,
)
from paw.errors import UserError, first_line, nearest, warn
from paw.style import Style
from paw.types import Task

FIRST_SEEDS = {"train": 0, "valid": 1_000_000, "test": 2_000_000}
"""Of the splits of an environment whose tasks are seeds."""
END_OF_SEEDS = 2**31
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
        num_tasks: length of the sequence; its seeds end before the next split's.
        max_return: largest attainable return of an episode, R_max.
        seed_offset: first seed; default: splits start a million apart.

    Raises:
        UserError: no such split, more tasks than seeds, a `max_return` that is not positive.
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
        self.name, self.split = name, split
        self.max_return = checked_max_return(name, max_return)
        self._make, self._instruction = make, instruction
        self._first_seed = FIRST_SEEDS[split] if seed_offset is None else seed_offset
        self._num_tasks = checked_num_tasks(name, num_tasks, self._first_seed)

    def __len__(self) -> int:
        return self._num_tasks

    def task(self, index: int) -> Task:
        return Task(f"{self.split}/{self._first_seed + index}", self.name, self._instruction)

    def open(self, task: Task, seed: int = 0) -> Environment:
        """The environment reset with the task's own seed; `seed` changes nothing."""
        return GymEnvironment(task, self._make(), self.max_return)


def checked_num_tasks(where: str, num_tasks: Any, first_seed: Any) -> int:
    """A number of tasks, one a seed, that reaches into no other split. Raises UserError."""
    if not _is_whole(first_seed) or not 0 <= first_seed < END_OF_SEEDS:
        raise UserError(f"{where}: seed_offset = {first_seed!r:.50}: 0 to {END_OF_SEEDS - 1:,}")
    room = min(s for s in (*FIRST_SEEDS.values(), END_OF_SEEDS) if s > first_seed) - first_seed
    if not _is_whole(num_tasks) or not 1 <= num_tasks <= room:
        raise UserError(
            f"{where}: num_tasks = {num_tasks!r:.50}: 1 to {room:,}, for each takes a seed, and "
            "behind those are the next split's"
        )
    return num_tasks


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


class GymEnvironment(Episode):
    """One episode of a Gymnasium-style environment.

    `info["admissible_commands"]`, and the bools `info["valid"]` and `info["success"]`, are read
    where they are given; without the last, an episode is a success if its return reaches
    `max_return`. What is not of Gymnasium's interface, or no text, raises TypeError.
    """

    def __init__(self, task: Task, environment: Any, max_return: float) -> None:
        super().__init__(task)
        self.max_return = max_return
        self._environment, self._return = environment, 0.0

    def start(self) -> Observation:
        """Reset with the task's own seed."""
        answer = self._environment.reset(seed=int(self.task.id.rpartition("/")[2]))
        text, info = _parts("reset", answer, RESET)
        return _observation(text, info)

    def play(self, command: str) -> StepResult:
        """One step of the environment."""
        text, reward, terminated, truncated, info = _parts(
            "step", self._environment.step(command), STEP
        )
        observation, reward = _observation(text, info), number("the reward", reward)
        self._return += reward
        success = truth(info.get("success"))
        if success is None:
            success = reaches(self._return, self.max_return)
        ended = flag("terminated", terminated) or flag("truncated", truncated)
        plain = {k: v for k, v in info.items() if isinstance(v, (str, int, float, bool))}
        return StepResult(
            observation=observation,
            reward=reward,
            terminated=bool(terminated),
            truncated=bool(truncated),
            valid=truth(info.get("valid")) is not False,
            success=success if ended else None,
            info=plain | score_of(self.task.kind, info),
        )

    def close(self) -> None:
        """Close the environment."""
        super().close()
        self._environment.close()


RESET = ("observation", "info")
STEP = ("observation", "reward", "terminated", "truncated", "info")
"""What Gymnasium's methods return."""


def _parts(method: str, answer: Any, names: tuple[str, ...]) -> tuple[Any, ...]:
    if not isinstance(answer, tuple | list) or len(answer) != len(names):
        many = f" of {len(answer)}" if isinstance(answer, tuple | list) else ""
        raise TypeError(
            f"{method} returned a {type(answer).__name__}{many}, not Gymnasium's "
            f"({', '.join(names)})"
        )
    if not isinstance(answer[-1], Mapping):
        raise TypeError(f"{method}: info is a {type(answer[-1]).__name__}, not a dict")
    return tuple(answer)


def _observation(text: Any, info: Mapping[str, Any]) -> Observation:
    if not isinstance(text, str):
        raise TypeError(f"the observation is a {type(text).__name__}, not text: {text!r:.50}")
    listed = info.get("admissible_commands")
    listed = () if listed is None else listed
    if isinstance(listed, str | Mapping) or not isinstance(listed, Iterable):
        raise TypeError(f"info['admissible_commands'] is {listed!r:.50}, not a list of texts")
    commands = tuple(listed)
    for command in commands:
        if not isinstance(command, str):
            raise TypeError(f"info['admissible_commands'] holds {command!r:.50}, which is no text")
    return Observation(text, commands)


def truth(value: Any) -> bool | None:
    """A bool, also NumPy's; None of anything else, which says nothing."""
    plain = isinstance(value, bool) or type(value).__name__ in ("bool", "bool_")
    return bool(value) if plain else None


def score_of(where: str, info: Mapping[str, Any]) -> dict[str, Any]:
    """The extra `score` where it is a number, else None for it: with other people's environments
    it may be anything. That is said once."""
    score = info.get("score")
    if score is None:
        return {}
    try:
        return {"score": number("score", score)}
    except (TypeError, ValueError) as error:
        _warn_of_score(where, type(error))
        return {"score": None}


@functools.cache  # once in a process
def _warn_of_score(where: str, kind: type[Exception]) -> None:
    what = "no number" if kind is TypeError else "not finite"
    warn(f"{where}: the score of its info is {what}, and is left out")


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

    def reset(self, *, seed: int) -> Any:
        return self._remembered(self._environment.reset(seed=seed))

    def step(self, action: str) -> Any:
        low, high = self._lengths
        if not low <= len(action) <= high:
            return self._refuse(f"A command has {low} to {high} characters.")
        if self._characters is not None and not self._characters.issuperset(action):
            shown = "".join(sorted(self._characters))
            return self._refuse(f"A command has only these characters: {shown}")
        try:
            return self._remembered(self._environment.step(action))
        except ValueError as error:  # of a wrapper of Gymnasium's
            if "values to unpack (expected 5" in str(error):
                raise TypeError(f"step returned not Gymnasium's ({', '.join(STEP)})") from error
            raise

    def _remembered(self, answer: Any) -> Any:
        """An answer, whose commands are those of a refused one as well."""
        info = answer[-1] if isinstance(answer, tuple) and answer else None
        named = info if isinstance(info, Mapping) else {}
        self._commands = {k: v for k, v in named.items() if k == "admissible_commands"}
        return answer

    def _refuse(self, why: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        return why, 0.0, False, False, self._commands | {"valid": False}

    def close(self) -> None:
        self._environment.close()
