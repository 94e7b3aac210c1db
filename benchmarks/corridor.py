"""An environment of fixed sizes for benchmarks: every answer has 26 characters, no episode ends."""

from paw.envs import Episode, Observation, StepResult, Task, TaskSource


class Corridor(TaskSource):
    name, max_return = "corridor", 1000.0

    def __init__(self, split: str = "train") -> None:
        self.split = split

    def __len__(self) -> int:
        return 64

    def task(self, index: int) -> Task:
        return Task(f"{self.split}/{index}", "walk", f"walk through door {index:02}.")

    def open(self, task: Task, seed: int = 0) -> "Walk":
        return Walk(task, seed)


class Walk(Episode):
    """Longer commands are rewarded, so that returns differ within a group."""

    max_return = 1000.0

    def start(self) -> Observation:
        return Observation(f"A corridor with doors: {self.task.instruction}")

    def play(self, command: str) -> StepResult:
        text = f"Here are doors {self.rng.randint(1000, 9999)} and {self.rng.choice('abcd')}."
        return StepResult(Observation(text), reward=len(command) / 100)
