"""The one reader of run directories: `read.metrics(directory)` and its kin.

Files of earlier versions are read as well (see `format`); what is no run's file is a `UserError`.
"""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import msgspec
import zstandard

from paw.config.read import resolve
from paw.config.tree import Config
from paw.errors import UserError
from paw.runs.format import (
    EnvironmentRecord,
    EvaluationRecord,
    ImitationRecord,
    MetricsRow,
    TrajectoryRecord,
)
from paw.runs.layout import name_of
from paw.utf8 import utf8

Record = TypeVar("Record")


def metrics(directory: str | Path) -> list[MetricsRow]:
    """The rows of a run's metrics.jsonl, without lines that a kill or a crash left broken.

    Raises:
        UserError: there is no such file.
    """
    file = Path(directory) / "metrics.jsonl"
    if not file.is_file():
        raise UserError(f"{directory}: no metrics.jsonl there; is it a run directory?")
    rows = (metrics_row(line) for line in file.read_bytes().splitlines())
    return [row for row in rows if row is not None]


def metrics_row(line: bytes) -> MetricsRow | None:
    """One update's metrics; None for a line that is none."""
    try:
        row = json.loads(line)  # which reads the NaN that msgspec refuses
    except ValueError:
        return None
    whole = isinstance(row, dict) and isinstance(row.get("update"), int)
    return row if whole else None


def measured(rows: Iterable[MetricsRow], name: str) -> list[tuple[int, float]]:
    """(update, value) of one metric, where it was measured."""
    return [(row["update"], row[name]) for row in rows if row.get(name) is not None]


def trajectories(place: str | Path, update: int | None = None) -> list[TrajectoryRecord]:
    """The episodes of a trajectory file, or of an update of a run directory (None: its newest).

    Raises:
        UserError: no such file, or not one that a run has written.
    """
    file = trajectory_file(place, update)
    try:
        lines = _decompressed(file.read_bytes()).splitlines()
        return [msgspec.json.decode(utf8(line), type=TrajectoryRecord) for line in lines]
    except msgspec.ValidationError as error:
        raise UserError(f"{str(file)!r}: not a run's trajectory file: {error}") from error
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise UserError(f"{str(file)!r}: cannot read it: {error}") from error


def trajectory_file(place: str | Path, update: int | None = None) -> Path:
    """A file as it is; of a run directory the file of an update (None: its newest).

    Raises:
        UserError: the run has none.
    """
    file = Path(place)
    if not file.is_dir():
        return file
    name = "update-*" if update is None else name_of(update)
    found = sorted((file / "trajectories").glob(f"{name}.jsonl.zst"))
    if not found:
        what = "" if update is None else f" of update {update}"
        raise UserError(f"{place}: no trajectories{what} there")
    return found[-1]


def evaluations(directory: str | Path) -> list[EvaluationRecord]:
    """The evaluations of a run, in the order of their updates."""
    return [evaluation(file) for file in sorted((Path(directory) / "eval").glob("update-*.json"))]


def evaluation(file: str | Path) -> EvaluationRecord:
    """One evaluation: of a run, or of `paw eval -o`."""
    return _record(Path(file), EvaluationRecord)


def environment(directory: str | Path) -> EnvironmentRecord:
    """Versions, commit and hardware of a run's last start."""
    return _record(Path(directory) / "environment.json", EnvironmentRecord)


def imitation(directory: str | Path) -> ImitationRecord:
    """How the policy in `directory` was warm-started."""
    return _record(Path(directory) / "imitate.json", ImitationRecord)


def config(directory: str | Path) -> Config:
    """The resolved configuration of a run.

    Raises:
        UserError: there is none, or it has keys that this version does not know.
    """
    return resolve([Path(directory) / "config.toml"])


def _record(file: Path, kind: type[Record]) -> Record:
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{file}: not what a run writes there: {error}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot read it: {error}") from error


def _decompressed(data: bytes) -> bytes:
    """All frames of a zstandard file. Raises ValueError where the last one is cut short."""
    whole = b""
    while data:
        frame = zstandard.ZstdDecompressor().decompressobj()
        whole += frame.decompress(data)
        if not frame.eof:
            raise ValueError("it is cut short")
        data = frame.unused_data
    return whole
