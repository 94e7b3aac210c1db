"""A corridor of doors: a small correct environment, with faults added by the tests of check."""

from paw.envs.base import Observation, StepResult, TaskSource
from paw.envs.check import check_environment
from paw.types import Task


class Corridor:
    """Four doors: the fourth `forward` wins. The faults of the tests override it."""

    max_return = 2.0
    commands: tuple[str, ...] = ("forward", "wait", "say[<word>]")

    def __init__(self, task: Task):
        self.task = task
        self.place = 0
        self.stage = "new"

    def reset(self) -> Observation:
        if self.stage != "new":
            raise RuntimeError("used")
        self.stage = "running"
        return self.observe(f"{self.task.instruction} You are at door 0.")

    def observe(self, text: str) -> Observation:
        return Observation(text, self.commands)

    def step(self, command: str) -> StepResult:
        if self.stage != "running":
            raise RuntimeError("not running")
        return self.answer(command)

    def answer(self, command: str) -> StepResult:
        if command.startswith("say[") and command.endswith("]"):
            return StepResult(self.observe("An echo."))
        if command not in self.commands:
            return StepResult(self.observe("You cannot do that."), valid=False)
        self.place += command == "forward"
        if self.place < 4:
            return StepResult(self.observe(f"You are at door {self.place}."), reward=0.25)
        self.stage = "ended"
        return StepResult(Observation(""), reward=1.0, terminated=True, success=True)

    def close(self) -> None:
        pass


class Walker:
    def act(self, observation: Observation) -> str:
        return "forward"


class Corridors(TaskSource):
    name = "corridor"
    split = "train"
    max_return = 2.0
    environment: type = Corridor

    def __len__(self) -> int:
        return 5

    def task(self, index: int) -> Task:
        return Task(f"corridor-{index}", "walk", f"Walk through corridor {index}.")

    def open(self, task: Task, seed: int = 0) -> Corridor:
        return self.environment(task)


class Guided(Corridors):
    """With an expert; without waiting every `forward` pays: 3 x 0.25 + 1."""

    max_return = 1.75

    def open(self, task: Task, seed: int = 0) -> Corridor:
        env = super().open(task, seed)
        env.max_return = 1.75
        env.commands = ("forward",)
        return env

    def expert(self, task, seed=0, **options):
        return Walker()


def failures(source, **options):
    report = check_environment(source, num_tasks=3, **options)
    return {check.name: check.detail for check in report.checks if not check.passed}
