"""A scripted environment: observations of ALFWorld's lengths whatever the command, no data needed.

The lengths were recorded in tokens on 47 games of `valid_seen`, played by the exploring expert
(noise 0.7, junk 0.12) and counted by SmolLM2's tokenizer; each number below stands for an equal
share of what was seen. Texts are made of words that are one token each to a tokenizer made of
`vocabulary`. An episode's chance is its own, not its task's: the members of a group differ although
nothing that they say is read.
"""

import itertools
import random

from paw.envs.base import Episode, Observation, StepResult, TaskSource
from paw.style import Style
from paw.types import Task

FIRST = (99, 121, 133, 148, 173, 205, 238, 275)
LATER = (3, 10, 12, 13, 14, 14, 15, 16, 18, 21, 23, 26, 33, 40, 51, 79)
COMMANDS = (15, 18, 22, 25, 27, 36, 41, 47)
SUCCESS = 0.01
"""A turn: four of ten episodes are won before their fiftieth."""
TASK = "put the cabinet in the drawer"
WORDS = ("you", "see", "the", "go", "to", "cabinet", "drawer", "a", "is", "in", "it", "open")

_episodes = itertools.count()


class Scripted(Episode):
    """One episode."""

    max_return = 10.0

    def start(self) -> Observation:
        """Numbers of another episode than any before."""
        self.rng = random.Random(next(_episodes))
        return self._shown(FIRST)

    def play(self, command: str) -> StepResult:
        """Anything is done, and now and then it was the right thing."""
        won = self.rng.random() < SUCCESS
        reward = self.max_return if won else 0.0
        return StepResult(self._shown(LATER), reward, won, success=won or None)

    def _shown(self, lengths: tuple[int, ...]) -> Observation:
        text = " ".join(self.rng.choices(WORDS, k=self.rng.choice(lengths)))
        commands = (f"go to cabinet {i + 1}" for i in range(self.rng.choice(COMMANDS)))
        return Observation(text, tuple(commands))


def vocabulary() -> list[str]:
    """Texts with all words that prompts consist of, as a word tokenizer is made of."""
    numbers = " ".join(map(str, range(60)))
    prompts = "Your current observation is: Your admissible commands are: ['go to cabinet 1', 'x']."
    history = (
        "Your task is: So far you have taken 1 step(s). The last 1 observations and the commands "
        "you gave were: [Observation 1: 'x', Command 1: 'x'] You are now at step 2."
    )
    words = " ".join(("", *WORDS))
    return [words, numbers, prompts, history, Replay.style.introduction, Replay.style.rule, TASK]


class Replay(TaskSource):
    """As many tasks as an update asks for."""

    name, max_return = "replay", Scripted.max_return
    style = Style(introduction="You are in a household.")

    def __init__(self, split: str = "train") -> None:
        self.split = split

    def __len__(self) -> int:
        return 64

    def task(self, index: int) -> Task:
        """All alike."""
        return Task(f"replay/{index}", "replay", TASK)

    def open(self, task: Task, seed: int = 0) -> Scripted:
        """See `TaskSource`."""
        return Scripted(task, seed)
