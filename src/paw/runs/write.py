"""The one writer of run directories.

config.toml  environment.json  metrics.jsonl  trajectories/  checkpoints/  eval/

A run of `paw imitate` is one as well: there an update is an optimizer step.
"""

import contextlib
import errno
import fcntl
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from paw.config.read import changes, to_toml
from paw.config.tree import Config
from paw.errors import UserError, warn
from paw.runs import read
from paw.runs.begun import begun, with_choices
from paw.runs.facts import data_facts, earlier_starts, environment_facts, peak_memory
from paw.runs.files import write_atomically
from paw.runs.format import EnvironmentRecord, MetricsRow, TrajectoryRecord
from paw.runs.layout import HELD, Place, complete, name_of, training_place
from paw.runs.records import write_trajectories
from paw.runs.sinks import Sink, open_sinks
from paw.types import TrainingSample


class Run:
    """An open run directory.

    Args:
        place: where; None: as `paw train`.

    Raises (on opening):
        UserError: the directory cannot be written, holds something else, is in use, holds a run of
            another configuration, or holds a run while `resume` is off.
    """

    def __init__(self, config: Config, place: Place | None = None) -> None:
        self.config = config
        self.place = place or training_place(config)
        self.directory = self.place.directory
        self.checkpoints = self.directory / "checkpoints"
        self._times: dict[str, float] = {}
        self._sinks: list[Sink] = []
        self._lock: int | None = None
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        with self._writing():
            check_directory(self.config, self.place)
            self.directory.mkdir(parents=True, exist_ok=True)
            self._lock = lock(self.place)
            settings = to_toml(self.config).encode()
            write_atomically(self.directory / self.place.settings, settings)
            for folder in ("checkpoints", "trajectories", "eval"):
                (self.directory / folder).mkdir(exist_ok=True)
            for leftover in [*self.directory.glob("*.tmp"), *self.directory.glob("*/*.tmp")]:
                shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()
            write_atomically(self.directory / "environment.json", _json(self._environment()))

    def _environment(self) -> dict[str, Any]:
        facts = {**environment_facts(), "data": data_facts(self.config.env.data_dir)}
        earlier: list[dict[str, str | None]] = []
        with contextlib.suppress(UserError):  # the first start, or what is left of a full disk
            earlier = earlier_starts(
                read.environment(self.directory), msgspec.convert(facts, EnvironmentRecord)
            )
        return {**facts, "earlier": earlier}

    @contextlib.contextmanager
    def _writing(self, name: str = ".") -> Iterator[None]:
        """A full disk or a directory that cannot be written is one line that says how to go on."""
        try:
            yield
        except OSError as error:
            kept = complete(self.checkpoints) if self.checkpoints.is_dir() else []
            where = kept[-1].name if kept else "the start"
            what = error.filename or self.directory / name
            full = error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
            mend = "make room or " if full else ""
            raise UserError(
                f"cannot write {what}: {error.strerror or error}; {mend}choose another "
                f"{self.place.key}; the same command then goes on from {where}"
            ) from error

    def track(self) -> None:
        """Open the sinks besides metrics.jsonl."""
        self._sinks = open_sinks(self.config, self.directory)

    def rewind(self, update: int) -> list[MetricsRow]:
        """Forget metrics of updates after `update`, which are about to be made again.

        Returns those that stay. A broken line costs itself alone, is warned of, and stays in
        `metrics.jsonl.damaged`; one that a kill cut short at the end belongs to an update that is
        made again.
        """
        file = self.directory / "metrics.jsonl"
        if not file.is_file():
            return []
        lines = file.read_bytes().splitlines(keepends=True)
        rows = [read.metrics_row(line) for line in lines]
        broken = [n for n, row in enumerate(rows, start=1) if row is None]
        if broken == [len(lines)] and not lines[-1].endswith(b"\n"):
            broken = []
        with self._writing():
            if broken:
                damaged = file.with_name(file.name + ".damaged")
                before = damaged.read_bytes() if damaged.is_file() else b""
                write_atomically(damaged, before + b"".join(lines))
                numbers = ", ".join(map(str, broken[:9])) + (", …" if broken[9:] else "")
                warn(f"{file}: cannot read line {numbers}; left out, and kept in {damaged.name}")
            kept = [row for row in rows if row is not None and row["update"] <= update]
            write_atomically(file, b"".join(_json(row, indent=False) for row in kept))
        return kept

    @contextlib.contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Time a stage of the update: `time/<name>` seconds."""
        start = time.perf_counter()
        yield
        self._times[name] = self._times.get(name, 0.0) + time.perf_counter() - start

    def times(self) -> dict[str, float]:
        """`time/<stage>` seconds since they were last asked for, and their sum `time/update`."""
        stages = ("act", "score", "judge", "serialise", "learn", "hand_over")
        found = {f"time/{name}": seconds for name, seconds in self._times.items()}
        found["time/update"] = sum(self._times.get(stage, 0.0) for stage in stages)
        self._times = {}
        return found

    def hold(self, update: int, metrics: Mapping[str, Any]) -> MetricsRow:
        """Keep the metrics of an update that is still to be evaluated, for a run that is killed
        before `log`; returned with their times."""
        row = {"update": update, **metrics, **self.times()}
        with self._writing(HELD):
            write_atomically(self.directory / HELD, _json(row, indent=False))
        return row

    def held(self, update: int, earlier: Sequence[MetricsRow]) -> MetricsRow | None:
        """What `hold` kept of `update`, unless it is logged among `earlier`."""
        file = self.directory / HELD
        logged = bool(earlier) and earlier[-1]["update"] == update
        row = read.metrics_row(file.read_bytes()) if file.is_file() else None
        if row is None or row["update"] != update or logged:
            file.unlink(missing_ok=True)
            return None
        return row

    def log(self, update: int, metrics: Mapping[str, Any]) -> MetricsRow:
        """Append one line to metrics.jsonl, times and memory included; returns it."""
        row: MetricsRow = {"update": update, **self.times(), **metrics}
        row["memory/peak_bytes"] = peak_memory()
        with self._writing("metrics.jsonl"), open(self.directory / "metrics.jsonl", "ab") as file:
            file.write(_json(row, indent=False))
            file.flush()
            os.fsync(file.fileno())
        (self.directory / HELD).unlink(missing_ok=True)
        for sink in self._sinks:
            sink.log(update, {k: v for k, v in row.items() if isinstance(v, int | float)})
        return row

    def save_trajectories(self, update: int, records: Sequence[TrajectoryRecord]) -> None:
        """Write `trajectories/update-<number>.jsonl.zst`, one trajectory a line."""
        file = self.directory / "trajectories" / f"{name_of(update)}.jsonl.zst"
        with self._writing():
            write_trajectories(file, records, self.config.env.name)

    def save_evaluation(self, update: int, result: Mapping[str, Any]) -> None:
        """Write `eval/update-<number>.json`: an `EvaluationRecord`."""
        with self._writing():
            write_atomically(
                self.directory / "eval" / f"{name_of(update)}.json",
                _json({"update": update, **result}),
            )

    def dump(self, update: int, samples: Sequence[TrainingSample]) -> Path:
        """Write the mini-batch that made a loss or gradient NaN or infinite, for inspection."""
        file = self.directory / f"failed-{name_of(update)}.jsonl"
        with self._writing():
            write_atomically(file, b"".join(msgspec.json.encode(s) + b"\n" for s in samples))
        return file

    def close(self) -> None:
        """Close the sinks and let other processes at the directory."""
        for sink in self._sinks:
            sink.close()
        self._sinks = []
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def lock(place: Place) -> int:
    """Keep other processes off a run's directory until the descriptor is closed or this one dies;
    UserError if another has it."""
    handle = os.open(place.directory, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # else a file system without locks
            os.close(handle)
            raise UserError(
                f"{place.where}: another process is training in it; wait for it or choose another "
                "directory"
            ) from None
    return handle


def check_directory(config: Config, place: Place | None = None) -> None:
    """May a run of `config` begin or go on there (None: as `paw train`)? Makes nothing.

    Raises:
        UserError: it holds something else, a run of another configuration, or a run while `resume`
            is off.
    """
    place = place or training_place(config)
    where, written = place.where, place.directory / place.settings
    if not written.is_file():
        if foreign := _foreign(place):
            raise UserError(f"{where} holds something else ({foreign}) and no run: choose another")
        return
    if not config.run.resume:
        raise UserError(
            f"{where} holds a run already: choose another directory, or set run.resume = true to "
            "go on with it"
        )
    if (before := begun(place.directory, place.settings)) is None:
        return  # it ended before its first update: nothing to protect, the mistake was mended
    check_unchanged(before, config, place)


def check_unchanged(before: Config, config: Config, place: Place) -> None:
    """Raises UserError, with the keys that differ, where a run begun as `before` cannot be one of
    `config`."""
    if differing := changes(before, with_choices(config, before), place.changeable):
        shown = "; ".join(differing[:12])
        more = f"; and {len(differing) - 12} more" if len(differing) > 12 else ""
        raise UserError(
            f"{place.directory} holds a run of another configuration ({shown}{more}): choose "
            f"another {place.key} or restore the values; {place.directory / place.settings} given "
            "as a configuration file holds them"
        )


def _foreign(place: Place) -> str | None:
    """The first thing there that no run has begun to write, if any."""
    if not place.directory.is_dir():
        return "a file" if place.directory.exists() else None
    names = (p.name for p in place.directory.iterdir() if p.name != f"{place.settings}.tmp")
    return min(names, default=None)


def _json(value: Any, indent: bool = True) -> bytes:
    return json.dumps(value, indent=1 if indent else None, allow_nan=True).encode() + b"\n"
