"""The environment pool: one slow, hanging or dying environment never stops the rest.

    with EnvironmentPool("household", "train", {}, workers=2) as pool:
        observations = pool.open([(slot, task, seed) for slot, ...])
        results = pool.step({slot: "go north" for slot in observations})

Environments live in worker processes (slot modulo `workers`). A worker plays its environments in
turn and answers after each, so that the one it is busy with is always known. When that one gives
no answer in time, or takes the process down, it alone fails: the worker is replaced and the other
environments are rebuilt from their recorded commands when they are next stepped.
"""

import contextlib
import functools
import os
import pickle
import selectors
import signal
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from paw import envs
from paw.envs.base import Observation, StepResult, checked_max_return, reaches
from paw.errors import UserError, warn
from paw.rollout.worker import (
    GRACE_SECONDS,
    LENGTH,
    TICK,
    Answer,
    Close,
    Failure,
    Host,
    Job,
    Open,
    Replay,
    Step,
    describe,
    encode,
)
from paw.types import Task

__all__ = ["EnvironmentPool", "Failure"]

START_SECONDS = 600.0
"""What a worker gets to open its source: a product catalogue takes minutes to read."""

# The parent's own sys.path, not the current directory that `-m` would put first.
BOOTSTRAP = "import sys; sys.path[:] = sys.argv[1:]; from paw.rollout.worker import main; main()"


@dataclass(slots=True)
class _Episode:
    task: Task
    seed: int
    observation: Observation
    commands: list[str] = field(default_factory=list)
    return_: float = 0.0
    ended: bool = False
    lost: bool = False
    """Its worker is gone: the next step has to rebuild it."""


class _Worker:
    """One process and the two pipes to it. Neither reading nor writing ever blocks."""

    def __init__(self, configuration: bytes):
        # Sets of strings keep their order from one worker to its replacement.
        environ = {"PYTHONHASHSEED": "0"} | os.environ
        self.process = subprocess.Popen(
            [sys.executable, "-c", BOOTSTRAP, *sys.path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            bufsize=0,
            env=environ,
            process_group=0,  # Ctrl-C reaches the parent alone; a kill takes grandchildren along
        )
        assert self.process.stdin and self.process.stdout
        self.stdin, self.stdout = self.process.stdin.fileno(), self.process.stdout.fileno()
        os.set_blocking(self.stdin, False)
        os.set_blocking(self.stdout, False)
        self.pending: deque[Job] = deque()
        self.ready = False
        self.last_message = time.monotonic()
        self._inbox = bytearray()
        self._outbox = b""
        self.write(configuration)

    def send(self, jobs: Sequence[Job]) -> None:
        self.pending.extend(jobs)
        if self.ready:
            self.last_message = time.monotonic()
        self.write(encode(jobs))

    def write(self, frame: bytes = b"") -> None:
        """Write as much as the pipe takes now; `unsent` tells whether some is left."""
        self._outbox += frame
        try:
            self._outbox = self._outbox[os.write(self.stdin, self._outbox) :]
        except BlockingIOError:
            pass
        except BrokenPipeError:
            self._outbox = b""  # the worker is dead: the end of its stdout says so

    @property
    def unsent(self) -> bool:
        return bool(self._outbox)

    def read(self) -> list[bytes] | None:
        """The pickles that have arrived in full; None at the end of the stream."""
        try:
            data = os.read(self.stdout, 1 << 16)
        except BlockingIOError:
            return []
        if not data:
            return None
        self._inbox += data
        bodies, start = [], 0
        while len(self._inbox) >= start + LENGTH.size:
            (length,) = LENGTH.unpack_from(self._inbox, start)
            if len(self._inbox) < start + LENGTH.size + length:
                break
            start += LENGTH.size
            bodies.append(bytes(self._inbox[start : start + length]))
            start += length
        del self._inbox[:start]
        return bodies

    def hang_up(self) -> None:
        """Tell the worker to close its environments and exit."""
        assert self.process.stdin
        self.process.stdin.close()

    def kill(self) -> str:
        """End the process and whatever it started; says how it ended."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.process.pid, signal.SIGKILL)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        code = self.process.wait()
        if code < 0:
            return f"the environment's process was killed by {signal.Signals(-code).name}"
        return f"the environment's process exited with code {code}"


@functools.cache  # once a run
def _warn_of_return(name: str, max_return: float) -> None:
    warn(
        f"{name}: an episode returned more than max_return = {max_return:g}; the prediction weighs "
        "too little then, or nothing (Eq. 10): set env.max_return to the largest attainable return"
    )


class EnvironmentPool:
    """Many environments by slot, stepped together.

    Args:
        name, split, options: as for `paw.envs.make`.
        workers: processes; 0 plays in this process, without protection against hangs and crashes.
        step_seconds: how long one `reset`, `step` or `close` may take in a worker.

    Raises:
        UserError: the source does not open (unknown option, missing data).
    """

    def __init__(
        self,
        name: str,
        split: str | None,
        options: dict[str, Any],
        *,
        workers: int = 1,
        step_seconds: float = 60.0,
    ):
        self.num_restarts = 0
        """Workers that were replaced."""
        self.max_return: float
        """Largest attainable return of an episode (Eq. 10), from the source."""
        self._name = name
        self._step_seconds = step_seconds
        self._episodes: dict[int, _Episode] = {}
        self._answers: dict[int, Answer] = {}
        self._configuration = encode((name, split, options))
        self._selector = selectors.DefaultSelector()
        self._workers: list[_Worker] = []
        self._host: Host | None = None
        if workers == 0:
            source = envs.make(name, split, **options)
            self.max_return = checked_max_return(f"environment {name!r}", source.max_return)
            self._host = Host(source)
            return
        try:
            for _ in range(workers):
                self._workers.append(self._start())
            self._watch(lambda worker: not worker.ready)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> "EnvironmentPool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def open(self, requests: Sequence[tuple[int, Task, int]]) -> dict[int, Observation | Failure]:
        """A fresh, reset environment in each slot of `(slot, task, seed)`; an old one is closed."""
        return self._play([Open(*request) for request in requests])

    def step(self, commands: Mapping[int, str]) -> dict[int, StepResult | Failure]:
        """Play one command in each slot named. A slot that fails is closed.

        Raises:
            RuntimeError: the slot is not open (never was, failed or was closed) or has ended.
        """
        for slot in commands:
            if slot not in self._episodes:
                raise RuntimeError(f"slot {slot} is not open")
            if self._episodes[slot].ended:
                raise RuntimeError(f"slot {slot}: its episode has ended")
        return self._play([Step(slot, command) for slot, command in commands.items()])

    def close_slots(self, slots: Iterable[int]) -> None:
        """Free the environments in `slots`; those not open are ignored."""
        self._play([Close(slot) for slot in slots if self._episodes.pop(slot, None)])

    def close(self) -> None:
        """End all workers: they close their environments, and are killed if that takes long."""
        if self._host:
            self._host.close()
        self._episodes.clear()
        for worker in list(self._workers):
            if worker.pending or not worker.ready:
                self._end(worker)
            else:
                worker.hang_up()
        deadline = time.monotonic() + GRACE_SECONDS
        while self._workers and (left := deadline - time.monotonic()) > 0:
            for key, _ in self._selector.select(left):
                if key.data.read() is None:
                    self._end(key.data)
        for worker in list(self._workers):
            self._end(worker)

    def _play(self, jobs: list[Any]) -> dict[int, Any]:
        """Hand out the jobs, wait for all answers; by slot, in the order of the jobs."""
        self._answers = {}
        if self._host:
            for job in jobs:
                self._record(job, self._host.play(job))
        else:
            try:
                self._receive(0)  # a worker that died since the last turn is nobody's fault
                shares: list[list[Job]] = [[] for _ in self._workers]
                for job in jobs:
                    shares[job.slot % len(shares)].append(self._with_replay(job))
                for index, share in enumerate(shares):
                    self._send(self._workers[index], share)
                self._watch(lambda worker: bool(worker.pending))
            except BaseException:  # Ctrl-C too: answers still on their way would be misread later
                self.close()
                raise
        return {job.slot: self._answers[job.slot] for job in jobs}

    def _record(self, job: Job, answer: Answer) -> None:
        self._answers[job.slot] = answer
        if isinstance(answer, Failure):
            self._episodes.pop(job.slot, None)
        elif isinstance(job, Open) and isinstance(answer, Observation):
            self._episodes[job.slot] = _Episode(job.task, job.seed, answer)
        elif isinstance(job, Step) and isinstance(answer, StepResult):
            episode = self._episodes[job.slot]
            episode.commands.append(job.command)
            episode.return_ += answer.reward
            if episode.return_ > self.max_return and not reaches(self.max_return, episode.return_):
                _warn_of_return(self._name, self.max_return)
            episode.observation = answer.observation
            episode.ended = answer.terminated or answer.truncated
            episode.lost = False

    def _with_replay(self, job: Job) -> Job:
        """The same job, with what rebuilds its environment where that went with its worker."""
        if not isinstance(job, Step) or not self._episodes[job.slot].lost:
            return job
        e = self._episodes[job.slot]
        return job._replace(replay=Replay(e.task, e.seed, tuple(e.commands), e.observation))

    # What follows deals with processes.

    def _start(self) -> _Worker:
        worker = _Worker(self._configuration)
        self._selector.register(worker.stdout, selectors.EVENT_READ, worker)
        return worker

    def _send(self, worker: _Worker, jobs: Sequence[Job]) -> None:
        if jobs:
            worker.send(jobs)
            if worker.unsent:
                self._selector.register(worker.stdin, selectors.EVENT_WRITE, worker)

    def _watch(self, waiting: Callable[[_Worker], bool]) -> None:
        """Serve the pipes while a worker is waited for; replace those silent too long."""
        while busy := [worker for worker in self._workers if waiting(worker)]:
            deadline = min(self._deadline(worker) for worker in busy)
            active = self._receive(max(0.0, deadline - time.monotonic()))
            now = time.monotonic()
            for worker in busy:
                # One with something to say is not late, however long this process slept.
                if worker not in active and now >= self._deadline(worker):
                    self._replace(worker, f"no answer within {self._limit(worker):g} s")

    def _limit(self, worker: _Worker) -> float:
        return self._step_seconds if worker.ready else START_SECONDS

    def _deadline(self, worker: _Worker) -> float:
        return worker.last_message + self._limit(worker)

    def _receive(self, timeout: float) -> set[_Worker]:
        """Wait for something to read or write, do it, and name the workers concerned."""
        active = set()
        for key, _ in self._selector.select(timeout):
            worker: _Worker = key.data
            active.add(worker)
            if worker not in self._workers:  # replaced a moment ago, its descriptors closed
                continue
            if key.fd == worker.stdin:
                worker.write()
                if not worker.unsent:
                    self._selector.unregister(worker.stdin)
            elif (bodies := worker.read()) is None:
                self._replace(worker)
            else:
                worker.last_message = time.monotonic()
                for body in bodies:
                    self._handle(worker, body)
        return active

    def _handle(self, worker: _Worker, body: bytes) -> None:
        try:
            message: Any = pickle.loads(body)
        except Exception as error:  # an object in `info` may raise anything as it unpickles
            message = (worker.pending[0].slot, Failure(describe(error)))
        if not worker.ready:
            if isinstance(message, Exception):
                raise message
            self.max_return, worker.ready = message, True
        elif message[1] != TICK:
            self._record(worker.pending.popleft(), message[1])

    def _replace(self, worker: _Worker, reason: str | None = None) -> None:
        """A new process instead of `worker`; the job that it was at fails, the others go on.

        Each call fails one environment for good, so that a turn replaces a bounded number.
        """
        index, ready, jobs = self._workers.index(worker), worker.ready, list(worker.pending)
        end = self._end(worker)
        if not ready:
            raise UserError(f"environment {self._name!r} does not start: {reason or end}")
        self.num_restarts += 1
        self._workers.insert(index, self._start())
        for slot, episode in self._episodes.items():
            if slot % len(self._workers) == index:
                episode.lost = True
        if jobs:
            self._record(jobs.pop(0), Failure(reason or end))
        self._send(self._workers[index], [self._with_replay(job) for job in jobs])

    def _end(self, worker: _Worker) -> str:
        """Kill, reap and forget one worker; says how it ended."""
        for fd in (worker.stdin, worker.stdout):
            with contextlib.suppress(KeyError):
                self._selector.unregister(fd)
        self._workers.remove(worker)
        return worker.kill()
