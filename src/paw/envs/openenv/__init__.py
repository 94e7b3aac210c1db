"""Tasks of anybody's OpenEnv server, by its address: `make("openenv:http://127.0.0.1:8000")`.

Actions and observations have to be text. Tasks are those of the server's task API where it has
one, by split and index; elsewhere a task is a seed, and the splits train, valid and test take
disjoint ones. An episode is a WebSocket connection, which OpenEnv makes a session of its own.
"""

import contextlib
import functools
import os
import time
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

from paw.envs.base import (
    Environment,
    Episode,
    Observation,
    StepResult,
    TaskSource,
    checked_max_return,
    number,
    reaches,
)
from paw.envs.gym import FIRST_SEEDS, INSTRUCTION, NUM_TASKS, checked_num_tasks, score_of
from paw.envs.openenv.shape import text_of_action, text_of_observation
from paw.envs.openenv.wire import (
    MAX_COMMAND_CHARS,
    NoAnswer,
    ServerError,
    Wire,
    ask,
    checked_url,
)
from paw.errors import RunFailure, UserError, nearest, warn
from paw.style import Style
from paw.types import Task

ATTEMPTS = 4
"""To ask for a task, with seconds between them: a server may be starting again."""
WAITS = (0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts at a server that has no session free: those that were closed a moment
ago end on their own time."""
COMMANDS = ("commands", "admissible_commands", "available_actions", "legal_actions")
"""Names under which environments list what can be done now."""


def at(url: str) -> Callable[..., TaskSource]:
    """The factory of the tasks at an address; asks nothing of the server yet."""

    def openenv(
        split: str = "train",
        num_tasks: int | None = None,
        max_return: float | None = None,
        instruction: str | None = None,
        action: str | None = None,
        observation: str | None = None,
    ) -> TaskSource:
        return OpenEnvSource(
            url,
            split,
            num_tasks=num_tasks,
            max_return=max_return,
            instruction=instruction,
            fields=(action, observation),
        )

    openenv.style = Style()  # pyright: ignore[reportFunctionMemberAccess]
    return openenv


class OpenEnvSource(TaskSource):
    """The tasks of one split.

    Args:
        url: of the server, http or https; `$NAME` stands for a variable of the environment.
        split: as the server has them; train, valid or test where tasks are seeds.
        num_tasks: only the first ones; where tasks are seeds 1000, at most a million.
        max_return: R_max; default: what the server says of its tasks, else 1.
        instruction: what is asked, where the server does not say.
        fields: (of an action, of an observation) that is the text; None: the only one.

    Raises:
        UserError: nothing answers there, or it is no environment of text.
    """

    def __init__(
        self,
        url: str,
        split: str = "train",
        *,
        num_tasks: int | None = None,
        max_return: float | None = None,
        instruction: str | None = None,
        fields: tuple[str | None, str | None] = (None, None),
    ) -> None:
        self.url, self.split = checked_url(os.path.expandvars(url)), split
        where = f"openenv:{self.url}"
        self._instruction = instruction or INSTRUCTION
        try:
            schema = ask(f"{self.url}/schema")
            parts = [schema[k] for k in ("action", "observation")] if schema else None
            if not parts or not all(isinstance(part, dict) for part in parts):
                raise UserError(f"{where}: no OpenEnv server: it has no /schema of actions")
            self.action_field = text_of_action(parts[0], fields[0], where)
            """That takes the command."""
            for part in (parts[1], schema.get("reset_observation") or parts[1]):
                self._observation = text_of_observation(part, fields[1], where)
            self.name, self._length = self._look_around()
            self._described: dict[int, dict[str, Any]] = {}
            offered = {} if self._length is None else self._about(0)
        except NoAnswer as error:
            raise UserError(f"{where}: {error}") from None
        except (LookupError, TypeError, ValueError):
            raise UserError(f"{where}: what it answers is none of OpenEnv's protocol") from None
        known = 1.0 if offered.get("max_return") is None else offered["max_return"]
        self.max_return = checked_max_return(where, known if max_return is None else max_return)
        if self._length is None:
            if split not in FIRST_SEEDS:
                raise UserError(
                    f"{where} has no tasks of its own, so a task is a seed, and there is no split "
                    f"{split!r}{nearest(split, FIRST_SEEDS)}"
                )
            wanted = NUM_TASKS if num_tasks is None else num_tasks
            self._num_tasks = checked_num_tasks(where, wanted, FIRST_SEEDS[split])
        else:
            self._num_tasks = self._length if num_tasks is None else num_tasks
            if not 1 <= self._num_tasks <= self._length:
                raise UserError(f"{where}: num_tasks = {num_tasks}: 1 to {self._length:,}")

    def _look_around(self) -> tuple[str, int | None]:
        """(the environment's name, tasks of the split; None where it has no task API)."""
        names = ask(f"{self.url}/list_environments")
        name = str(names[0]) if names else "openenv"
        if not names:
            return name, None
        try:
            splits = ask(f"{self.url}/{quote(name, safe='')}/splits", absent=501)
        except NoAnswer as error:
            if not str(error).startswith("HTTP 404 "):
                raise
            splits = None
            _warn_of_tasks(self.url, name)
        if not splits:
            return name, None
        known = [str(split["name"]) for split in splits]
        if self.split not in known:
            raise UserError(
                f"openenv:{self.url}: no split {self.split!r}{nearest(self.split, known)}"
            )
        answer = ask(f"{self.url}/{quote(name, safe='')}/num_tasks", {"split": self.split})
        length = None if answer is None else int(answer["num_tasks"])
        if length == 0:
            raise UserError(f"openenv:{self.url}: split {self.split!r} has no tasks")
        return name, length

    def _about(self, index: int) -> dict[str, Any]:
        """What the server says of a task."""
        if index not in self._described:
            asked = {"split": self.split, "index": index}
            answer = ask(f"{self.url}/{quote(self.name, safe='')}/task", asked)
            about = answer.get("task") if isinstance(answer, dict) else None
            self._described[index] = about if isinstance(about, dict) else {}
        return self._described[index]

    def _patiently(self, index: int) -> dict[str, Any]:
        """The same, while a run goes on. Raises RunFailure where the server is gone for good."""
        for attempt in range(ATTEMPTS - 1):
            with contextlib.suppress(NoAnswer):
                return self._about(index)
            time.sleep(2**attempt)
        try:
            return self._about(index)
        except NoAnswer as error:
            raise RunFailure(f"openenv:{self.url}: {error}") from None

    def __len__(self) -> int:
        return self._num_tasks

    def facts(self) -> dict[str, Any]:
        """Name, split and number of tasks, what a task is, and the largest return."""
        kind = "seed" if self._length is None else "index"
        return super().facts() | {"tasks": kind, "max_return": self.max_return}

    def task(self, index: int) -> Task:
        """A task by its index, or by its seed.

        Raises:
            RunFailure: the server is gone.
        """
        if self._length is None:
            seed = FIRST_SEEDS[self.split] + index
            return Task(f"{self.split}/{seed}", self.name, self._instruction)
        said = {k: v for k, v in self._patiently(index).items() if isinstance(v, str) and v}
        own = f":{said['id']}" if "id" in said else ""
        return Task(
            f"{self.split}/{index}{own}",
            said.get("kind", self.name),
            said.get("instruction", self._instruction),
        )

    def open(self, task: Task, seed: int = 0) -> Environment:
        """A session of its own; where a task is a seed, `seed` changes nothing."""
        number = task.id.removeprefix(f"{self.split}/").partition(":")[0]
        if not number.isdecimal():
            raise UserError(f"openenv:{self.url}: no task {task.id!r}")
        start = {"seed": int(number)}
        if self._length is not None:
            start = {"split": self.split, "index": int(number), "seed": seed}
        return OpenEnvEpisode(task, self, start)

    def observed(self, answer: dict[str, Any]) -> Observation:
        """What an answer shows. Raises TypeError where its text is none."""
        seen = answer["observation"]
        text = seen.get(self._observation)
        if not isinstance(text, str | None):
            raise TypeError(f"observation.{self._observation} is no text: {text!r:.50}")
        return Observation(text or "", _commands(seen))

    def action(self, command: str) -> dict[str, Any]:
        """An action of a command."""
        return {self.action_field: command}


class OpenEnvEpisode(Episode):
    """One episode over one connection.

    `success`, `valid` and `truncated` are read from the observation or its metadata where they are
    given; without the first, an episode is a success if its return reaches `max_return`.
    """

    def __init__(self, task: Task, source: OpenEnvSource, start: dict[str, Any]) -> None:
        super().__init__(task)
        self.max_return = source.max_return
        self._source, self._start, self._return = source, start, 0.0
        self._wire: Wire | None = None
        self._last = Observation("")

    def start(self) -> Observation:
        """Connect and reset."""
        answer = self._reset()
        if answer.get("done"):
            raise ValueError("the episode is over at its start")
        self._last = self._source.observed(answer)
        return self._last

    def _reset(self) -> dict[str, Any]:
        waits = iter(WAITS)
        while True:
            self._wire = Wire(self._source.url)
            try:
                return self._wire.ask("reset", self._start)
            except ServerError as error:
                self._wire.close()
                seconds = next(waits, None)
                if error.code != "CAPACITY_REACHED":
                    raise
                if seconds is None:
                    _warn_of_full(self._source.url, error.message)
                    raise
                time.sleep(seconds)

    def play(self, command: str) -> StepResult:
        """One step. A command that the server does not take as an action is not valid."""
        assert self._wire is not None
        if len(command) > MAX_COMMAND_CHARS or not _is_unicode(command):
            why = f"A command is valid Unicode of at most {MAX_COMMAND_CHARS:,} characters."
            return StepResult(Observation(why, self._last.commands), valid=False)
        try:
            answer = self._wire.ask("step", self._source.action(command))
        except ServerError as error:
            if not error.is_of(self._source.action_field, command):
                raise
            why = error.errors[0].get("msg") or error.message
            return StepResult(Observation(str(why), self._last.commands), valid=False)
        self._last = self._source.observed(answer)
        given, done = answer.get("reward"), bool(answer.get("done"))
        reward = 0.0 if given is None else number("the reward", given)
        self._return += reward
        said = _said(answer)
        truncated = done and said.get("truncated") is True
        success = said.get("success")
        if not isinstance(success, bool):
            success = reaches(self._return, self.max_return)
        return StepResult(
            observation=self._last,
            reward=reward,
            terminated=done and not truncated,
            truncated=truncated,
            valid=said.get("valid") is not False,
            success=success if done else None,
            info={k: v for k, v in said.items() if k not in ("valid", "success", "truncated")}
            | score_of(f"openenv:{self._source.url}", said),
        )

    def close(self) -> None:
        """End the connection, and with it the session."""
        super().close()
        if self._wire is not None:
            self._wire.close()


@functools.cache  # once in a process
def _warn_of_full(url: str, message: str) -> None:
    warn(f"openenv:{url} must take as many sessions as are played at once: {message}")


@functools.cache  # once in a process
def _warn_of_tasks(url: str, name: str) -> None:
    warn(
        f"openenv:{url} lists the environment {name!r} and has no /{name}/splits (HTTP 404), as "
        "every OpenEnv server does: a task is a seed there"
    )


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _said(answer: dict[str, Any]) -> dict[str, str | int | float | bool]:
    """Plain values of the metadata, and the observation's own truth values."""
    seen = answer["observation"]
    metadata = [x for x in (seen.get("metadata"), answer.get("metadata")) if isinstance(x, dict)]
    said = {k: v for part in metadata for k, v in part.items() if isinstance(v, str | int | float)}
    return said | {k: v for k, v in seen.items() if isinstance(v, bool)}


def _commands(seen: dict[str, Any]) -> tuple[str, ...]:
    metadata = seen.get("metadata")
    for place in (seen, metadata if isinstance(metadata, dict) else {}):
        for name in COMMANDS:
            listed = place.get(name)
            if isinstance(listed, list) and all(isinstance(x, str) for x in listed):
                return tuple(listed)
    return ()
