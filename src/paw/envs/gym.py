"""Text environments with Gymnasium's interface as a `TaskSource`.

    def factory(split="train"):
        return GymSource(make_game, name="game", instruction="win the game.", split=split)

    factory.style = Style(introduction="You play a game.", validation_split="valid")  # optional

`gymnasium` itself is not imported: anything with its `reset(seed=...)` and `step(action)` will do.
"""

from collections.abc import Callable, Mapping
from typing import Any

from paw.envs.base import Environment, Episode, Observation, StepResult, TaskSource
from paw.errors import UserError
from paw.types import Task


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

    SPLITS = ("train", "valid", "test")

    def __init__(
        self,
        make: Callable[[], Any],
        *,
        name: str,
        instruction: str,
        split: str = "train",
        num_tasks: int = 1000,
        max_return: float = 1.0,
        seed_offset: int | None = None,
    ) -> None:
        if split not in self.SPLITS:
            raise UserError(f"{name}: no split {split!r}; known: {', '.join(self.SPLITS)}")
        self.name, self.split, self.max_return = name, split, max_return
        self._make, self._num_tasks, self._instruction = make, num_tasks, instruction
        start = 1_000_000 * self.SPLITS.index(split)
        self._first_seed = start if seed_offset is None else seed_offset

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
