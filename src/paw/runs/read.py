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
    ResultRecord,
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
        return [_decoded(utf8(line), TrajectoryRecord) for line in lines]
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
    found = trajectory_files(file)
    if update is None:
        return found[-1]
    for kept in found:
        if kept.name == f"{name_of(update)}.jsonl.zst":
            return kept
    updates = [int(kept.name[7:13]) for kept in found]
    raise UserError(
        f"{place}: no trajectories of update {update} there; kept are {len(updates)} updates from "
        f"{updates[0]} to {updates[-1]}, the nearest {min(updates, key=lambda u: abs(u - update))}"
    )


def trajectory_files(directory: str | Path) -> list[Path]:
    """The trajectory files of a run, oldest first; at least one.

    Raises:
        UserError: the run has none.
    """
    name = "update-" + "[0-9]" * 6
    found = sorted((Path(directory) / "trajectories").glob(f"{name}.jsonl.zst"))
    if not found:
        raise UserError(
            f"{directory}: no trajectories there: it is no run, or one that has kept none yet "
            "(run.save_trajectories_every)"
        )
    return found


def evaluations(directory: str | Path) -> list[EvaluationRecord]:
    """The evaluations of a run, in the order of their updates."""
    return [evaluation(file) for file in sorted((Path(directory) / "eval").glob("update-*.json"))]


def evaluation(file: str | Path) -> EvaluationRecord:
    """One evaluation: of a run, or of `paw eval -o`."""
    return _record(Path(file), EvaluationRecord)


def result(file: str | Path) -> ResultRecord:
    """What `paw eval -o` wrote."""
    return _record(Path(file), ResultRecord)


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
        return _decoded(file.read_bytes(), kind)
    except msgspec.ValidationError as error:
        raise UserError(f"{file}: not what a run writes there: {error}") from error
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot read it: {error}") from error


def _decoded(data: bytes, kind: type[Record]) -> Record:
    """JSON as `kind`. Half a surrogate pair, which another program may have escaped and no UTF-8
    can hold, is read as "?"."""
    try:
        return msgspec.json.decode(data, type=kind)
    except msgspec.ValidationError:
        raise
    except msgspec.DecodeError:
        whole = json.dumps(json.loads(data), ensure_ascii=False).encode("utf-8", "replace")
        return msgspec.json.decode(whole, type=kind)


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
