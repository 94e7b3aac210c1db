"""How far an evaluation is: episodes finished and won, and how long the rest may take."""

import time
from collections.abc import Callable, Mapping, Sequence

from paw.envs.base import Observation, StepResult
from paw.rollout.collect import Environments
from paw.rollout.pool import Failure
from paw.types import Task

Progress = Callable[[int, int, float], None]
"""Is told the number of finished and of won episodes, and the seconds that the rest takes if no
episode ends before its last turn."""


class Watched:
    """Environments that tell `progress` at every turn how the evaluation stands.

    Args:
        environments: that play.
        episodes: to be played in all.
        max_turns: of one.
        progress: see `Progress`.
    """

    def __init__(
        self, environments: Environments, episodes: int, max_turns: int, progress: Progress
    ) -> None:
        self._environments, self._progress = environments, progress
        self._later, self._max_turns = episodes, max_turns
        self._left: dict[int, int] = {}
        """Turns that an open episode may still take, by its slot."""
        self._num_turns = self._num_finished = self._num_won = 0
        self._start = time.monotonic()

    def open(
        self, requests: Sequence[tuple[int, Task, int]]
    ) -> Mapping[int, Observation | Failure]:
        opened = self._environments.open(requests)
        self._later -= len(requests)
        self._left = dict.fromkeys(opened, self._max_turns)
        self._end([slot for slot, first in opened.items() if isinstance(first, Failure)])
        return opened

    def step(self, commands: Mapping[int, str]) -> Mapping[int, StepResult | Failure]:
        results = self._environments.step(commands)
        self._num_turns += len(commands)
        for slot, result in results.items():
            self._left[slot] -= 1
            if isinstance(result, Failure):
                self._end([slot])
            elif result.terminated or result.truncated or not self._left[slot]:
                self._num_won += bool(result.success)
                self._end([slot])
        turns_left = sum(self._left.values()) + self._later * self._max_turns
        seconds = (time.monotonic() - self._start) / self._num_turns
        self._progress(self._num_finished, self._num_won, seconds * turns_left)
        return results

    def close_slots(self, slots: Sequence[int]) -> None:
        self._environments.close_slots(slots)
        self._end(slots)

    def _end(self, slots: Sequence[int]) -> None:
        self._num_finished += len(
            [slot for slot in slots if self._left.pop(slot, None) is not None]
        )
