"""A session of the server: our environments as OpenEnv's `Environment`, one instance a client."""

import asyncio
import functools
import json
import random
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import Future
from queue import SimpleQueue
from typing import Any, TypeVar
from uuid import uuid4

from openenv.core.env_server import Environment
from openenv.core.env_server.types import EnvironmentMetadata

from paw import __version__
from paw.envs.base import Observation, StepResult, TaskSource
from paw.errors import nearest, warn
from paw.integrations.openenv.models import PawAction, PawObservation, PawState
from paw.rollout.worker import Answer, Failure, Host, Job, Open, Step, describe
from paw.types import Task

T = TypeVar("T")
MAX_SEED = 2**63 - 1
MAX_EPISODE_ID_CHARS = 255
MAX_TASKS_LISTED = 1000
"""Of one request to the task API."""
SLOT = 0
"""A session's host holds one environment."""


class Refused(RuntimeError):
    """What a client asks cannot be done; the message goes to it and the session goes on."""


class Stage:
    """What all sessions share: tasks by split, the first is the default; and how long a call may
    take."""

    def __init__(self, sources: Mapping[str, TaskSource], step_seconds: float) -> None:
        self.sources, self.step_seconds = dict(sources), step_seconds
        self.default = next(iter(self.sources))
        self.num_hanging = 0
        """Calls that have not returned though their session is gone: each holds a thread."""
        self._changing = threading.Lock()

    def source(self, split: Any) -> TaskSource:
        """Raises Refused for a split that is not served."""
        if not isinstance(split, str) or split not in self.sources:
            raise Refused(f"no split {split!r:.100}{nearest(str(split)[:100], self.sources)}")
        return self.sources[split]

    def hanging(self, change: int) -> None:
        """Count a call that hangs (1), or has returned after all (-1)."""
        with self._changing:
            self.num_hanging += change


class Player:
    """A thread for the calls of one session, so that none waits for another's. It keeps no process
    from ending, whatever its call does."""

    def __init__(self) -> None:
        self._jobs: SimpleQueue[tuple[Callable[[], Any], Future[Any]] | None] = SimpleQueue()
        threading.Thread(target=self._run, name="session", daemon=True).start()

    def submit(self, call: Callable[[], T]) -> "Future[T]":
        """Do it after all that was submitted before."""
        future: Future[T] = Future()
        self._jobs.put((call, future))
        return future

    def end(self) -> None:
        """After that the thread ends."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (job := self._jobs.get()) is not None:
            call, future = job
            if future.set_running_or_notify_cancel():
                try:
                    future.set_result(call())
                except Refused as error:
                    future.set_exception(error)
                except BaseException as error:  # SystemExit and the like would end the event loop
                    why = f"the environment failed: {describe(error)}"
                    warn(why)
                    future.set_exception(Refused(why))
            del job, call, future  # an idle session holds nothing of its last call


class Session(Environment[PawAction, PawObservation, PawState]):
    """One episode after the other, each of a task that the client names or the seed draws."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def __init__(self, stage: Stage) -> None:
        super().__init__()
        self._stage = stage
        self._state = PawState()
        self._host: Host | None = None
        self._player: Player | None = None
        self._over = "step before reset"
        """Why there is no step; empty while an episode runs."""
        self._ended = ""
        """Why there is nothing more at all."""
        self._is_closed = self._hangs = self._counts = False
        """Closed; a call was given up and has not returned; it counts at the stage."""
        self._changing = threading.Lock()

    @property
    def state(self) -> PawState:
        """Where the session is."""
        return self._state

    def reset(
        self,
        seed: Any = None,
        episode_id: Any = None,
        index: Any = None,
        split: Any = None,
        **other: Any,
    ) -> PawObservation:
        """Begin an episode; what was running is given up.

        Args:
            seed: of the environment (0); without an index it draws the task as well.
            episode_id: comes back in the state; a random one is made.
            index: number of the task in its split.
            split: one of those served, the first by default.

        Raises:
            Refused: something else than that, or the environment failed.
        """
        if other:
            known = ("seed", "episode_id", "index", "split")
            name = next(iter(other))[:100]
            raise Refused(f"reset takes no {name!r}{nearest(name, known)}")
        split = self._stage.default if split is None else split
        source = self._stage.source(split)
        if seed is not None:
            seed = _whole("seed", seed, MAX_SEED)
        if index is None:
            drawing = random.Random(seed) if seed is not None else random.SystemRandom()
            index = drawing.randrange(len(source))
        index = _whole("index", index, len(source) - 1)
        if episode_id is None:
            episode_id = uuid4().hex
        if not isinstance(episode_id, str) or len(episode_id) > MAX_EPISODE_ID_CHARS:
            raise Refused(f"episode_id must be a text of at most {MAX_EPISODE_ID_CHARS} characters")
        return self._begin(split, index, seed or 0, episode_id)

    def step(
        self, action: PawAction, timeout_s: float | None = None, **other: Any
    ) -> PawObservation:
        """Give one command. Raises Refused before a reset, after the end, and of a failure."""
        if self._over or self._host is None:
            raise Refused(self._over)
        result = self._asked(self._host, Step(SLOT, action.command))
        if isinstance(result, Failure):
            raise self._failed(result)
        assert isinstance(result, StepResult)
        self._state.step_count += 1
        if result.terminated or result.truncated:
            self._state.done, self._over = True, "the episode is over: reset begins the next"
        return _observed(result)

    async def reset_async(
        self,
        seed: Any = None,
        episode_id: Any = None,
        index: Any = None,
        split: Any = None,
        **other: Any,
    ) -> PawObservation:
        """`reset` in the session's own thread."""
        call = functools.partial(self.reset, seed, episode_id, index, split, **other)
        return await self._play(call)

    async def step_async(
        self, action: PawAction, timeout_s: float | None = None, **other: Any
    ) -> PawObservation:
        """`step` in the session's own thread."""
        return await self._play(functools.partial(self.step, action))

    def close(self) -> None:
        """Free what the session holds; does not wait for it."""
        with self._changing:
            if self._is_closed:
                return
            self._is_closed = True
            if self._hangs:  # its place is free now, and its thread is not
                self._counts = True
                self._stage.hanging(1)
        if self._ended:
            return
        self._ended = "the session is closed"
        if self._player is None:
            self._free()
        else:
            self._player.submit(self._free)
            self._player.end()

    def get_metadata(self) -> EnvironmentMetadata:
        """Name, a sentence, and the version of paw."""
        source = self._stage.sources[self._stage.default]
        return EnvironmentMetadata(
            name=source.name, description=source.style.introduction, version=__version__
        )

    # OpenEnv's task API: each is asked of a fresh instance.

    def list_splits(self) -> list[str]:
        """Those served, the default first."""
        return list(self._stage.sources)

    def num_tasks(self, split: str) -> int:
        """Raises Refused for a split that is not served."""
        return len(self._stage.source(split))

    async def get_task(self, split: str, index: int) -> dict[str, Any]:
        """One task. Raises IndexError, which OpenEnv answers with 400, and Refused."""
        source = self._stage.source(split)
        if not 0 <= index < len(source):
            raise IndexError(index)
        return await self._play(lambda: _about(source, index))

    async def list_tasks(self, split: str) -> list[dict[str, Any]]:
        """The first tasks."""
        return await self.get_task_range(split)

    async def get_task_range(
        self, split: str, start: int | None = None, stop: int | None = None
    ) -> list[dict[str, Any]]:
        """Tasks of a slice; without an end the next `MAX_TASKS_LISTED`.

        Raises:
            Refused: more than that, or a task that fails.
        """
        source = self._stage.source(split)
        numbers = range(*slice(start, stop).indices(len(source)))
        if stop is not None and len(numbers) > MAX_TASKS_LISTED:
            raise Refused(f"{len(numbers)} tasks: at most {MAX_TASKS_LISTED} a request")
        return await self._play(lambda: [_about(source, i) for i in numbers[:MAX_TASKS_LISTED]])

    async def _play(self, call: Callable[[], T]) -> T:
        """A call in the session's thread. One that takes too long ends the session, and keeps its
        place until it returns."""
        if self._ended:
            raise Refused(self._ended)
        if self._player is None:
            self._player = Player()
        future = self._player.submit(call)
        seconds = self._stage.step_seconds
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.wrap_future(future)
        except TimeoutError:
            self._hangs = True
            self._ended = f"the environment gave no answer in {seconds:g} s: the session is over"
            self._player.submit(self._free)
            self._player.submit(self._returned)
            self._player.end()
            self._warn(self._ended)
            raise Refused(self._ended) from None

    def _returned(self) -> None:
        with self._changing:
            self._hangs = False
            if self._counts:
                self._stage.hanging(-1)

    def _asked(self, host: Host, job: Job) -> Answer:
        """What the host answers. It lets Ctrl-C through, which in a session's thread an environment
        has made."""
        try:
            return host.play(job)
        except BaseException as error:
            host.drop(SLOT)
            return Failure(describe(error))

    def _free(self) -> None:
        if self._host is not None:
            self._host.close()

    def _begin(self, split: str, index: int, seed: int, episode_id: str) -> PawObservation:
        source = self._stage.sources[split]
        if self._host is None or self._state.split != split:
            if self._host is not None:
                self._host.close()
            self._host = Host(source)
        self._state = PawState(episode_id=episode_id, split=split, index=index, seed=seed)
        try:
            task = source[index]
            self._state.task = _described(source, index, task)
        except BaseException as error:  # other people's code
            raise self._failed(Failure(describe(error))) from error
        first = self._asked(self._host, Open(SLOT, task, seed))
        if isinstance(first, Failure):
            raise self._failed(first)
        assert isinstance(first, Observation)
        self._over = ""
        return PawObservation(
            text=first.text,
            commands=list(first.commands),
            metadata={"task": self._state.task},
        )

    def _failed(self, failure: Failure) -> Refused:
        self._state.done = True
        self._over = "the environment failed: reset begins another episode"
        self._warn(failure.reason)
        return Refused(f"the environment failed: {failure.reason}")

    def _warn(self, what: str) -> None:
        state = self._state
        warn(f"{state.split} {state.index}, episode {state.episode_id}: {what}")


def _whole(name: str, value: Any, largest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= largest:
        raise Refused(f"{name} must be a whole number from 0 to {largest}, not {value!r:.50}")
    return value


def _about(source: TaskSource, index: int) -> dict[str, Any]:
    """A task as a client gets it. Raises Refused where it fails, which the log is told too."""
    try:
        return _described(source, index, source[index])
    except BaseException as error:  # other people's code
        why = f"{source.split} {index}: the task failed: {describe(error)}"
        warn(why)
        raise Refused(why) from None


def _described(source: TaskSource, index: int, task: Task) -> dict[str, Any]:
    return {
        "id": task.id,
        "kind": task.kind,
        "instruction": task.instruction,
        "split": source.split,
        "index": index,
        "max_return": float(source.max_return),
    }


def _observed(result: StepResult) -> PawObservation:
    metadata = {k: v for k, v in result.info.items() if isinstance(k, str) and _is_plain(v)}
    if result.score is not None:
        metadata["score"] = result.score
    return PawObservation(
        text=result.observation.text,
        commands=list(result.observation.commands),
        valid=result.valid,
        success=result.success,
        truncated=result.truncated and not result.terminated,
        reward=float(result.reward),
        done=result.terminated or result.truncated,
        metadata=metadata,
    )


def _is_plain(value: Any) -> bool:
    """Can a message hold it? Extras of an environment may be any object."""
    if isinstance(value, int | float | None):
        return True
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except (TypeError, ValueError, RecursionError):
        return False
    return True
