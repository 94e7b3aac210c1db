"""An environment of one's own: `paw check-env examples.own_environment:Guess`, `paw play …`."""

import random

from paw.envs import Observation, StepResult, Task, TaskSource

NUMBERS = tuple(str(n) for n in range(1, 21))


class Guess(TaskSource):
    name, max_return = "guess", 1.0

    def __init__(self, split: str = "train") -> None:
        self.split = split

    def __len__(self) -> int:
        return 1000

    def task(self, index: int) -> Task:
        return Task(f"{self.split}/{index}", "guess", "guess my number, 1 to 20.")

    def open(self, task: Task, seed: int = 0) -> "GuessGame":
        return GuessGame(random.Random(task.id).choice(NUMBERS))


class GuessGame:
    max_return = 1.0

    def __init__(self, number: str) -> None:
        self.number, self.state = number, "new"

    def reset(self) -> Observation:
        self._go(before="new", after="running")
        return Observation("Guess my number, 1 to 20.", NUMBERS)

    def step(self, command: str) -> StepResult:
        right = command.strip() == self.number
        self._go(before="running", after="ended" if right else "running")
        if right:
            return StepResult(Observation("Yes!"), 1.0, terminated=True, success=True)
        if command.strip() not in NUMBERS:
            return StepResult(Observation("That is not a number I know.", NUMBERS), valid=False)
        hint = "higher" if int(command) < int(self.number) else "lower"
        return StepResult(Observation(f"No, it is {hint}.", NUMBERS))

    def _go(self, before: str, after: str) -> None:
        if self.state != before:  # single use: reset once, no step before it or after the end
            raise RuntimeError(f"the environment is {self.state}")
        self.state = after

    def close(self) -> None:
        pass
