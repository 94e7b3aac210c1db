"""The contract of every environment: text in, text out, single use, no torch.

    source = paw.envs.make("household", split="train")     # a TaskSource: a sequence of tasks
    env = source.open(source[0], seed=0)                    # an Environment: one episode
    observation = env.reset()
    while True:
        result = env.step(choose(observation))
        if result.terminated: break

An environment has no step limit of its own (`rollout.max_turns` truncates), never raises on a
command however malformed, and is deterministic in (task, seed, commands).
"""

import hashlib
import math
import random
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, overload, runtime_checkable

from paw.errors import UserError
from paw.style import Style
from paw.types import Task


@dataclass(frozen=True, slots=True)
class Observation:
    """What the agent reads."""

    text: str
    """Raw environment text, before any prompt template: the target of the next-observation loss."""
    commands: tuple[str, ...] = ()
    """Commands admissible now, in the environment's order; slots like `search[<query>]` allowed."""


@dataclass(frozen=True, slots=True)
class StepResult:
    """What one command did."""

    observation: Observation
    """o_{t+1}. After the end of an episode that shows nothing any more, text is empty."""
    reward: float = 0.0
    """Reward of this turn; an episode's rewards sum to its return, at most `max_return`."""
    terminated: bool = False
    """The task ended (won, lost, answered)."""
    truncated: bool = False
    """The environment itself gave up (not the turn limit, which the rollout owns)."""
    valid: bool = True
    """The command was understood and accepted; False for a refused or malformed one."""
    success: bool | None = None
    """None until the episode ends."""
    info: Mapping[str, Any] = field(default_factory=dict)
    """Extras; `info["score"]`, a finite number, where the benchmark has a score besides the
    reward."""

    @property
    def score(self) -> float | None:
        """`info["score"]`, if there is one. Raises as `number`."""
        score = self.info.get("score")
        return None if score is None else number('info["score"]', score)


@runtime_checkable
class Environment(Protocol):
    """One episode of one task. Single use: `reset` once, `step` until `terminated`, `close`."""

    @property
    def max_return(self) -> float:
        """Largest attainable return R_max of an episode (Eq. 10)."""
        ...

    def reset(self) -> Observation:
        """The first observation. A second call raises RuntimeError: open a new environment."""
        ...

    def step(self, command: str) -> StepResult:
        """Play one command; bad ones never raise. RuntimeError before `reset` and after the end."""
        ...

    def close(self) -> None:
        """Free what the episode holds; may be called twice."""
        ...


class Expert(Protocol):
    """Plays one episode from its observations, for demonstrations.

    `act` is all it needs. One that gives bad commands on purpose, so that demonstrations show what
    follows them, says so by its attribute `last_was_junk: bool`: such commands are not imitated.
    """

    def act(self, observation: Observation) -> str:
        """The next command."""
        ...


class Episode:
    """An environment that holds the single-use rule by itself: write `start` and `play`.

    A subclass sets `max_return`. Chance comes from `rng`, seeded by (task, seed).
    """

    max_return: float

    def __init__(self, task: Task, seed: int = 0) -> None:
        self.task = task
        self.rng = random.Random(f"{task.id}/{seed}")
        self._state = "new"

    def start(self) -> Observation:
        """The first observation."""
        raise NotImplementedError

    def play(self, command: str) -> StepResult:
        """What one command does, however malformed it is."""
        raise NotImplementedError

    def reset(self) -> Observation:
        """See `Environment`; a subclass writes `start`."""
        if self._state != "new":
            raise RuntimeError("an environment is for one episode: open a new one")
        self._state = "running"
        return self.start()

    def step(self, command: str) -> StepResult:
        """See `Environment`; a subclass writes `play`."""
        if self._state != "running":
            raise RuntimeError("step before reset, or after the end of the episode")
        result = self.play(command)
        if result.terminated or result.truncated:
            self._state = "ended"
        return result

    def close(self) -> None:
        """Nothing to free; an episode that holds something frees it here."""
        self._state = "closed"


def number(what: str, value: Any) -> float:
    """A finite number as a float; NumPy's and the like are numbers too, texts of digits are not.

    Raises:
        TypeError: it is no number.
        ValueError: it is not finite.
    """
    given: Any = value if hasattr(value, "__float__") else None
    try:
        found = float(given)
    except OverflowError:  # an int beyond all floats
        found = math.inf
    except (TypeError, ValueError):
        raise TypeError(f"{what} is {value!r:.50}, not a number") from None
    if not math.isfinite(found):
        raise ValueError(f"{what} is {found}")
    return found


def flag(what: str, value: Any) -> bool:
    """A bool, also NumPy's. Raises TypeError for anything else."""
    if isinstance(value, str) or value not in (True, False):
        raise TypeError(f"{what} is {value!r:.50}, not a bool")
    return bool(value)


def reaches(return_: float, max_return: float) -> bool:
    """Is it the largest attainable return, or as good as that? Ten rewards of 0.1 sum to
    0.9999999999999999."""
    return return_ >= max_return or math.isclose(return_, max_return, rel_tol=1e-9)


def checked_max_return(where: str, value: Any) -> float:
    """R_max > 0, which the weights (Eq. 10) divide by. Raises UserError."""
    try:
        found = number("max_return", value)
    except (TypeError, ValueError):
        found = 0.0
    if found <= 0:
        raise UserError(f"{where}: max_return = {value!r:.50}: a positive number, R_max of Eq. 10")
    return found


def digest(texts: Iterable[str]) -> str:
    """SHA-256, in hex, of some texts in their order, for `TaskSource.facts`."""
    total = hashlib.sha256()
    for text in texts:
        data = text.encode("utf-8", "surrogatepass")
        total.update(len(data).to_bytes(8, "big") + data)
    return total.hexdigest()


def listing_digest(folder: Path) -> str:
    """SHA-256, in hex, of the names and sizes of a folder's files: data that may be moved."""
    total = hashlib.sha256()
    for file in sorted(folder.iterdir()):
        total.update(f"{file.name} {file.stat().st_size if file.is_file() else '-'}\n".encode())
    return total.hexdigest()


class TaskSource(Sequence[Task]):
    """The tasks of one split, in a stable order with stable ids, and how to open them.

    Subclasses set `name`, `split`, `max_return` and define `__len__`, `task(index)` and `open`.
    Picklable: a worker process gets its own copy. `style` and `expert` are optional.
    """

    name: str
    split: str
    max_return: float
    style: Style = Style()
    """How the environment is asked, read and scored; set in the class, as it counts before there
    are any tasks."""

    def __len__(self) -> int:
        raise NotImplementedError

    def task(self, index: int) -> Task:
        """Task number `index`, 0 <= index < len(self)."""
        raise NotImplementedError

    def open(self, task: Task, seed: int = 0) -> Environment:
        """A fresh single-use environment for `task`; deterministic in (task, seed)."""
        raise NotImplementedError

    def expert(self, task: Task, seed: int = 0, **options: Any) -> Expert:
        """An expert for one episode of `task` (optional).

        Options are keyword parameters with defaults. `paw imitate` sets `noise` (randomness of its
        exploration) and `junk` (share of bad commands) of experts that take them, and whatever
        stands in `imitate.expert`.
        """
        raise NotImplementedError(f"{self.name} has no expert")

    def facts(self) -> dict[str, Any]:
        """What a score on these tasks depends on, JSON-able: stands in every result as `source`.

        Scores may be compared where facts agree, so they hold no machine's paths. Subclasses add
        their own, such as the size and hash of a catalogue; cheap enough for every evaluation.
        """
        return {"name": self.name, "split": self.split, "num_tasks": len(self)}

    @overload
    def __getitem__(self, index: int) -> Task: ...
    @overload
    def __getitem__(self, index: slice) -> list[Task]: ...
    def __getitem__(self, index: int | slice) -> Task | list[Task]:
        if isinstance(index, slice):
            return [self.task(i) for i in range(*index.indices(len(self)))]
        if index < 0:
            index += len(self)
        if not 0 <= index < len(self):
            raise IndexError(f"{self.name} {self.split} has {len(self)} tasks, no number {index}")
        return self.task(index)

    def __iter__(self) -> Iterator[Task]:
        return (self.task(i) for i in range(len(self)))
