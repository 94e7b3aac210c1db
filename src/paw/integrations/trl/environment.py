"""Any environment of ours as TRL's `environment_factory`: one tool, `act`."""

from typing import Any

from datasets import Dataset

from paw import envs
from paw.envs.base import Environment, Observation, StepResult, TaskSource
from paw.errors import UserError, first_line
from paw.rollout.worker import checked
from paw.types import Task

OVER = "The episode is over."
FAILED = "The environment failed."
NOTICES = (OVER, FAILED)
"""What `act` says where the environment says nothing: read by the policy, never predicted."""


def environment(
    name: str, split: str | None = None, data_dir: str | None = None, **options: Any
) -> tuple[type["TextEnvironment"], Dataset]:
    """Tasks of an environment, for `GRPOTrainer(environment_factory=…, train_dataset=…)`.

    Args:
        name: household, alfworld, webshop, search_qa, a registered name or module:factory.
        split: None takes the environment's training split.
        data_dir: folder of the benchmark's files; None: the environment's own variable.
        options: of that environment.

    Returns:
        (factory, dataset): a class whose instances play one episode after the other, and one row a
        task with what its `reset` takes: `task` (index), `seed`, and `prompt`, to whose end the
        first observation is put. The factory's `get_reward` is the task's return; its attribute
        `max_return` is R_max.

    Raises:
        UserError: unknown name, split or option, or missing data.
    """
    folder = {} if data_dir is None else {"data_dir": data_dir}
    source = envs.make(name, split=split, **folder, **options)
    prompt = [{"role": "user", "content": _instructions(source)}]
    rows = [{"prompt": prompt, "task": i, "seed": 0} for i in range(len(source))]
    members = {
        "source": source,
        "max_return": float(source.max_return),
        "settings": {"name": name, "data_dir": data_dir, "split": source.split, "options": options},
        "__doc__": f"One episode of {source.name} after the other.",
    }
    factory = type(source.name.replace(":", "_"), (TextEnvironment,), members)
    return factory, Dataset.from_list(rows)


def _instructions(source: TaskSource) -> str:
    return (
        f"{source.style.introduction} Play by calling the tool `act` with one command at a time, "
        "and read its answer before the next, until the task is done.\n\n"
    )


class TextEnvironment:
    """An episode at a time. Its public methods are what TRL shows the policy as tools: only `act`;
    `reset` and `get_reward` are TRL's own.

    Errors of the environment never leave it: the episode ends, has no reward (TRL leaves it out of
    its group), and `_failure` says why.
    """

    source: TaskSource
    max_return: float
    settings: dict[str, Any]
    """Keys of `[env]`"""

    def __init__(self) -> None:
        self._episode: Environment | None = None
        self._begin(Task("", "", ""), 0)

    def _begin(self, task: Task, index: int) -> None:
        self._close()
        self._task, self._index = task, index
        self._first = Observation("")
        self._steps: list[StepResult] = []
        self._commands: list[str] = []
        self._answers: list[str] = []
        self._failure: str | None = None

    def reset(self, task: int, seed: int = 0, **row: Any) -> str:
        """Begin an episode of a task.

        Args:
            task: Its index in the split.
            seed: Seed of the environment.
            row: Other columns of the dataset.

        Returns:
            What is asked, and the first observation.
        """
        if not 0 <= task < len(self.source):
            raise UserError(f"column task = {task}: {self.source.name} has {len(self.source)}")
        self._begin(Task(str(task), "", ""), task)
        try:
            self._task = self.source[task]
            self._episode = self.source.open(self._task, seed=seed)
            self._first = checked(self._episode.reset(), Observation)
        except Exception as error:
            return self._fail(error)
        asked = self._task.instruction
        parts = [self._first.text] if asked in self._first.text else [asked, self._first.text]
        if self.source.style.shows_commands and self._first.commands:
            parts.append(f"Commands that can be given now: {', '.join(self._first.commands)}")
        return "\n\n".join(part for part in parts if part)

    def act(self, command: str) -> str:
        """Give one command and read what happens.

        Args:
            command: The command, as the environment understands it.

        Returns:
            What is observed then.
        """
        self._answers.append(self._step(str(command)))
        return self._answers[-1]

    def get_reward(self) -> float | None:
        """The task's return; None of an episode whose environment failed."""
        return None if self._failure is not None else sum(s.reward for s in self._steps)

    def _step(self, command: str) -> str:
        if self._failure is not None:
            return FAILED
        if self._episode is None or self._ended():
            return OVER
        try:
            result = checked(self._episode.step(command), StepResult)
        except Exception as error:
            return self._fail(error)
        self._steps.append(result)
        self._commands.append(command)
        if self._ended():
            self._close()
            return result.observation.text or OVER
        return result.observation.text

    def _ended(self) -> bool:
        return bool(self._steps) and (self._steps[-1].terminated or self._steps[-1].truncated)

    def _fail(self, error: Exception) -> str:
        self._failure = f"{type(error).__name__}: {first_line(error)}"
        self._close()
        return FAILED

    def _close(self) -> None:
        episode, self._episode = self._episode, None
        if episode is not None:
            try:
                episode.close()
            except Exception as error:
                self._failure = self._failure or f"{type(error).__name__}: {first_line(error)}"
