"""Records as the columns and tables of a page. Pure."""

from collections.abc import Sequence
from typing import Any

from paw.report.data import Evaluation, Kind
from paw.runs.format import EvaluationRecord, MetricsRow, TrajectoryRecord


def cells(record: TrajectoryRecord) -> dict[str, Any]:
    """What the table says of an episode, by column, beside what it is chosen by."""
    turns = record.turns
    advantages = [t.advantage for t in turns if t.advantage is not None]
    return {
        "env": record.env,
        "index": record.index,
        "turns": len(turns),
        "valid": sum(t.valid for t in turns) / len(turns) if turns else None,
        "failure": record.failure and record.failure.strip().partition("\n")[0],
        "advantage": sum(advantages) / len(advantages) if advantages else None,
    }


def columns(rows: Sequence[MetricsRow]) -> dict[str, tuple[float | None, ...]]:
    """Metrics by name; what is no number is None."""
    names = dict.fromkeys(name for row in rows for name in row if name != "health")

    def number(value: object) -> float | None:
        finite = isinstance(value, int | float) and abs(value) < float("inf")
        return float(f"{value:.6g}") if finite else None

    return {name: tuple(number(row.get(name)) for row in rows) for name in names}


def evaluation(record: EvaluationRecord) -> Evaluation:
    """Success of all tasks, then of each kind."""
    whole = Kind(
        kind="",
        success=record.success_rate,
        low=record.interval[0],
        high=record.interval[1],
        episodes=record.num_episodes,
    )
    kinds = (
        Kind(
            kind=kind,
            success=found.get("success_rate", 0.0),
            low=found.get("interval", (0.0, 1.0))[0],
            high=found.get("interval", (0.0, 1.0))[1],
            episodes=found.get("num_episodes", 0),
        )
        for kind, found in sorted(record.by_kind.items())
    )
    return Evaluation(
        update=record.update,
        split=record.split,
        temperature=record.temperature,
        kinds=(whole, *kinds),
        failures=record.failures,
    )
