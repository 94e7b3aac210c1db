"""An environment of one's own, in fewer than sixty lines: guess a number.

paw check-env examples.own_environment:Guess
paw play examples.own_environment:Guess
paw train --env.name examples.own_environment:Guess --model.path MODEL
"""

import random

from paw.envs import Observation, StepResult, Task, TaskSource


class Guess(TaskSource):
    name, max_return = "guess", 1.0

    def __init__(self, split: str = "train", largest: int = 20) -> None:
        self.split, self.largest = split, largest

    def __len__(self) -> int:
        return 1000

    def task(self, index: int) -> Task:
        return Task(f"{self.split}/{index}", "guess", f"guess my number, 1 to {self.largest}.")

    def open(self, task: Task, seed: int = 0) -> "GuessGame":
        return GuessGame(random.Random(task.id).randint(1, self.largest), self.largest)


class GuessGame:
    max_return = 1.0

    def __init__(self, number: int, largest: int) -> None:
        self.number, self.largest, self.state = number, largest, "new"

    def _observation(self, text: str) -> Observation:
        return Observation(text, tuple(str(n) for n in range(1, self.largest + 1)))

    def reset(self) -> Observation:
        if self.state != "new":
            raise RuntimeError("open a new environment instead")
        self.state = "running"
        return self._observation(f"Guess my number, 1 to {self.largest}.")

    def step(self, command: str) -> StepResult:
        if self.state != "running":
            raise RuntimeError("step before reset, or after the end")
        if command.strip() not in self._observation("").commands:
            return StepResult(self._observation("That is not a number I know."), valid=False)
        guess = int(command)
        if guess != self.number:
            hint = "higher" if guess < self.number else "lower"
            return StepResult(self._observation(f"No, it is {hint}."))
        self.state = "ended"
        return StepResult(self._observation("Yes!"), 1.0, terminated=True, success=True)

    def close(self) -> None:
        pass
