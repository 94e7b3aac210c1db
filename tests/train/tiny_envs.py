"""Environments for tests, named as `tiny_envs:NAME`."""

import time
from typing import Any

from paw.envs.base import Observation, StepResult, TaskSource
from paw.types import Task


class _Episode:
    max_return = 1.0

    def __init__(self, seconds: float):
        self.seconds = seconds

    def reset(self) -> Observation:
        return Observation("A room.", ("look",))

    def step(self, command: str) -> StepResult:
        time.sleep(self.seconds)
        return StepResult(Observation("A room."))

    def close(self) -> None:
        pass


class Sleepy(TaskSource):
    """Steps take `seconds`; there are `num_tasks` tasks, maybe none."""

    name, max_return = "sleepy", 1.0

    def __init__(self, split: str = "train", seconds: float = 0.0, num_tasks: int = 4):
        self.split, self.seconds, self.num_tasks = split, seconds, num_tasks

    def __len__(self) -> int:
        return self.num_tasks

    def task(self, index: int) -> Task:
        return Task(str(index), "look", "Look.")

    def open(self, task: Task, seed: int = 0) -> Any:
        return _Episode(self.seconds)


def needs_package(split: str = "train") -> TaskSource:
    """A factory whose environment lacks its package."""
    raise ImportError("this environment needs the package 'frobnicate': pip install frobnicate")
