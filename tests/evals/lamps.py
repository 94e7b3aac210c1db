"""An environment of a third party with a style of its own, and an expert."""

from paw.envs import Episode, Observation, StepResult, Style, Task, TaskSource


class Lamp(Episode):
    max_return = 1.0

    def start(self) -> Observation:
        return Observation("A lamp. It is dark.", ("On", "Off"))

    def play(self, command: str) -> StepResult:
        if command == "On":
            return StepResult(
                Observation("It is light."), 1.0, terminated=True, success=True, info={"score": 0.5}
            )
        return StepResult(Observation("It is dark.", ("On", "Off")), valid=command == "Off")


class Switcher:
    def act(self, observation: Observation) -> str:
        return "On"


class Lamps(TaskSource):
    name, max_return = "lamps", 1.0
    style = Style(
        introduction="You look after a lamp.",
        tags=("switch",),
        needs_reasoning=False,
        validation_split="dusk",
        rate_name="lit",
        score_name="glow",
        tasks_name="lamps",
        average_over="streets",
        protocol={"rollout": {"max_turns": 3}, "eval": {"temperature": 0.0}},
    )

    def __init__(self, split: str = "dawn") -> None:
        self.split = split

    def __len__(self) -> int:
        return 6

    def task(self, index: int) -> Task:
        return Task(f"{self.split}/{index}", f"street {index % 2}", "light the lamp.")

    def open(self, task: Task, seed: int = 0) -> Lamp:
        return Lamp(task, seed)

    def expert(self, task: Task, seed: int = 0) -> Switcher:
        return Switcher()
