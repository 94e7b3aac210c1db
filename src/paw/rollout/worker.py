"""Environments in one process, and the main function of a worker process of `EnvironmentPool`.

The worker reads frames from stdin and answers on stdout. A frame is a little-endian 8-byte length
and a pickle. In: `(name, split, options)` once, then a list of jobs a turn. Out: `max_return` (or
the exception that kept the source from opening) once, then `(slot, answer)` for each job, in the
order of the jobs and as soon as each is done, so that the reader knows which one is being played.

Imports no torch: a worker starts in a fifth of a second.
"""

import contextlib
import os
import pickle
import select
import signal
import struct
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

from paw import envs
from paw.envs.base import (
    Environment,
    Observation,
    StepResult,
    TaskSource,
    checked_max_return,
    flag,
    number,
)
from paw.errors import UserError
from paw.types import Task

T = TypeVar("T")
LENGTH = struct.Struct("<Q")
TICK = "tick"
"""Instead of an answer: a replay is getting on."""
LARGEST_REWARD = 1e15
"""Squares of returns have to fit into a float32."""
GRACE_SECONDS = 2.0
"""What a worker gets to close its environments before it is killed."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Stands in place of an Observation or StepResult: the environment is gone, and why."""

    reason: str


class Replay(NamedTuple):
    """An episode so far: enough to rebuild its environment, which is deterministic."""

    task: Task
    seed: int
    commands: tuple[str, ...]
    observation: Observation
    """What the last command showed; a rebuilt environment must show the same."""


class Open(NamedTuple):
    """Job: a fresh environment in `slot`, reset. Answer: Observation."""

    slot: int
    task: Task
    seed: int


class Step(NamedTuple):
    """Job: one command; with `replay`, the environment is rebuilt first. Answer: StepResult."""

    slot: int
    command: str
    replay: Replay | None = None


class Close(NamedTuple):
    """Job: free the environment in `slot`, if there is one. Answer: None."""

    slot: int


Job = Open | Step | Close
Answer = Observation | StepResult | Failure | None


def encode(message: Any) -> bytes:
    """One frame."""
    body = pickle.dumps(message, protocol=5)
    return LENGTH.pack(len(body)) + body


class Host:
    """The environments of one process by slot. An exception costs its own environment only."""

    def __init__(self, source: TaskSource):
        self._source = source
        self._environments: dict[int, Environment] = {}

    def play(self, job: Job, tick: Callable[[], None] = lambda: None) -> Answer:
        """Do one job; `tick` is called after each command of a replay."""
        # The one place that catches everything: environments are other people's code, and
        # sys.exit() in one of them must not end the training either.
        try:
            return self._play(job, tick)
        except (Exception, SystemExit) as error:
            self.drop(job.slot)
            return Failure(describe(error))

    def drop(self, slot: int) -> None:
        """Close and forget the environment in `slot`, if there is one."""
        environment = self._environments.pop(slot, None)
        if environment is not None:
            with contextlib.suppress(Exception, SystemExit):
                environment.close()

    def close(self) -> None:
        """Close them all."""
        for slot in list(self._environments):
            self.drop(slot)

    def _play(self, job: Job, tick: Callable[[], None]) -> Answer:
        match job:
            case Open(slot, task, seed):
                return self._open(slot, task, seed)
            case Step(slot, command, replay):
                if replay is not None:
                    self._rebuild(slot, replay, tick)
                return checked(self._environments[slot].step(command), StepResult)
            case Close(slot):
                return self.drop(slot)

    def _open(self, slot: int, task: Task, seed: int) -> Observation:
        self.drop(slot)
        environment = self._environments[slot] = self._source.open(task, seed)
        return checked(environment.reset(), Observation)

    def _rebuild(self, slot: int, replay: Replay, tick: Callable[[], None]) -> None:
        observation = self._open(slot, replay.task, replay.seed)
        for command in replay.commands:
            tick()
            observation = self._environments[slot].step(command).observation
        tick()
        if observation != replay.observation:
            raise RuntimeError("the environment is not deterministic: its replay differs")


def describe(error: BaseException) -> str:
    """`TypeName: message`, in one line that UTF-8 can hold."""
    line = f"{type(error).__name__}: {' '.join(str(error).split())}"
    return line.encode("utf-8", "backslashreplace").decode()


def checked(value: Any, kind: type[T]) -> T:
    """What an environment returned, an Observation or a StepResult, as an episode can go on with
    it: behind this nothing looks again, and what is not of the contract would end the whole run.

    Raises:
        TypeError, ValueError: it is something else, or holds something else.
    """
    if not isinstance(value, kind):
        raise TypeError(f"the environment returned {type(value).__name__}, not {kind.__name__}")
    found = _checked_result(value) if isinstance(value, StepResult) else value
    seen = found.observation if isinstance(found, StepResult) else found
    if not isinstance(seen, Observation):
        raise TypeError(f"the observation is a {type(seen).__name__}, not an Observation")
    if not isinstance(seen.commands, tuple | list):
        raise TypeError(f"the commands are a {type(seen.commands).__name__}, not a tuple")
    "".join((seen.text, *seen.commands)).encode()  # no tokenizer reads a lone surrogate or None
    return cast(T, found)


def _checked_result(result: StepResult) -> StepResult:
    """With a float for a reward and bools, which may be NumPy's."""
    reward = number("the reward", result.reward)
    if abs(reward) > LARGEST_REWARD:
        raise ValueError(f"the reward is {reward:g}, beyond what can be learned from")
    if not isinstance(result.info, Mapping):
        raise TypeError(f"info is a {type(result.info).__name__}, not a Mapping")
    _ = result.score
    given = {name: getattr(result, name) for name in ("terminated", "truncated", "valid")}
    if result.success is not None:
        given["success"] = result.success
    plain: dict[str, Any] = {name: flag(name, value) for name, value in given.items()}
    if type(result.reward) in (float, int) and all(type(x) is bool for x in given.values()):
        return result
    return replace(result, reward=reward, **plain)


def main() -> None:
    """Serve the pool at the other end of stdin and stdout until it closes stdin."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    commands, answers = _take_pipes()
    threading.Thread(target=_exit_with_parent, args=(commands.fileno(),), daemon=True).start()
    with contextlib.suppress(BrokenPipeError):
        _serve(commands, answers)
    os._exit(0)  # no waiting for threads or exit handlers that an environment left behind


def _take_pipes() -> tuple[BinaryIO, BinaryIO]:
    """Move the protocol off fds 0 and 1: what an environment prints goes to stderr instead."""
    commands = os.fdopen(os.dup(0), "rb")
    answers = os.fdopen(os.dup(1), "wb")
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.close(nothing)
    os.dup2(2, 1)
    sys.stdout = sys.stderr  # unbuffered lines, so that nothing is lost with the process
    return commands, answers


def _exit_with_parent(fd: int) -> None:
    """Kill this process group when the pool is gone, even while an environment hangs."""
    parent = os.getppid()
    poller = select.poll()
    poller.register(fd, 0)  # POLLHUP alone: no writer is left
    while not poller.poll(1000) and os.getppid() == parent:
        pass
    time.sleep(GRACE_SECONDS)
    os.killpg(0, signal.SIGKILL)


def _serve(commands: BinaryIO, answers: BinaryIO) -> None:
    def send(frame: bytes) -> None:
        answers.write(frame)
        answers.flush()

    name, split, options = _read(commands)
    try:
        source = envs.make(name, split, **options)
        max_return = checked_max_return(f"environment {name!r}", source.max_return)
    except (Exception, SystemExit) as error:
        return send(encode(_portable(error)))
    send(encode(max_return))
    host = Host(source)
    while (jobs := _read(commands)) is not None:
        for job in jobs:
            tick = encode((job.slot, TICK))
            answer = host.play(job, lambda tick=tick: send(tick))
            try:
                frame = encode((job.slot, answer))
            except Exception as error:  # pickle raises anything: `info` may hold any object
                host.drop(job.slot)
                frame = encode((job.slot, Failure(describe(error))))
            send(frame)
    host.close()


def _read(stream: BinaryIO) -> Any:
    """The next message, or None at the end of the stream."""
    header = stream.read(LENGTH.size)
    if len(header) < LENGTH.size:
        return None
    body = stream.read(LENGTH.unpack(header)[0])
    return pickle.loads(body)


def _portable(error: BaseException) -> Exception:
    """The same error in a form that surely unpickles; bugs bring their traceback as a note."""
    if isinstance(error, UserError):
        return UserError(str(error))
    if isinstance(error, ImportError):
        return ImportError(str(error))
    other = RuntimeError(describe(error))
    other.add_note("".join(traceback.format_exception(error)))
    return other
