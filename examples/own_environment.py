"""An environment of one's own: `paw check-env examples.own_environment:Guess`, `paw play …`."""

from paw.envs import Episode, Observation, StepResult, Task, TaskSource

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
        return GuessGame(task, seed)


class GuessGame(Episode):
    max_return = 1.0

    def start(self) -> Observation:
        self.number = self.rng.choice(NUMBERS)
        return Observation("Guess my number, 1 to 20.", NUMBERS)

    def play(self, command: str) -> StepResult:
        if command.strip() == self.number:
            return StepResult(Observation("Yes!"), 1.0, terminated=True, success=True)
        if command.strip() not in NUMBERS:
            return StepResult(Observation("That is not a number I know.", NUMBERS), valid=False)
        hint = "higher" if int(command) < int(self.number) else "lower"
        return StepResult(Observation(f"No, it is {hint}.", NUMBERS))
