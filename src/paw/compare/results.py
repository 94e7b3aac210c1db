"""What one run of a comparison shows, read from its directory."""

import hashlib
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from statistics import fmean, median

from paw.compare.plan import Planned
from paw.runs import read
from paw.runs.files import write_atomically
from paw.runs.format import MetricsRow
from paw.runs.layout import newest_checkpoint

LATE = 0.25
"""Share of the updates, the last ones, that the late window has."""
ROUNDING = 1e-9
"""A mean of equal numbers may be a little more than each."""
SHOWN = {
    "valid_action_rate": "rollout/valid_action_rate",
    "turns": "rollout/turns_mean",
    "role_confusion": "wm/role_confusion_rate",
    "entropy": "policy/entropy",
    "kl_all_failed": "policy/kl_after_all_failed",
    "next_observation_nll": "wm/next_observation_nll",
}
"""Means over the late window, by their short names."""
KEPT = ("curve", "training", "trained", "panel", "metrics", "seconds", "digest")
"""Fields of a finished run that are kept when its directory goes."""
MADE_WITH = ("commit", "processor", "torch")
"""What is told of where a run was made: `processor` is the GPU where there is one."""
THEN = ", then "
"""Between the places of a run that went on elsewhere."""


@dataclass(frozen=True, slots=True)
class Result:
    """One run."""

    arm: str
    seed: int
    directory: str
    """Below the comparison's"""
    status: str
    """finished | failed | missing"""
    reason: str | None = None
    """Why it failed, or was killed"""
    curve: tuple[tuple[int, float], ...] = ()
    """(update, success on the panel)"""
    training: tuple[float, ...] = ()
    """Success of the training episodes, by update"""
    trained: tuple[float, ...] = ()
    """Tokens trained on, by update"""
    panel: tuple[bool | None, ...] = ()
    """Success of each episode of the last evaluation; None where its environment failed"""
    metrics: dict[str, float | None] = field(default_factory=dict)
    """Of the late window"""
    seconds: float | None = None
    """Of an update, its median"""
    digest: str | None = None
    """Of the trained weights"""
    made_with: dict[str, str | None] = field(default_factory=dict)
    """MADE_WITH, by the newest start of the run; empty where it is not known"""

    @property
    def final(self) -> float | None:
        """Success on the panel after the last update."""
        return self.curve[-1][1] if self.status == "finished" and self.curve else None

    @property
    def late(self) -> float | None:
        """Mean success of the training episodes in the late window."""
        if self.status != "finished" or not self.training:
            return None
        return _mean(self.training[-window(len(self.training)) :])

    @property
    def area(self) -> float | None:
        """Mean height of the curve of panel success, straight lines between evaluations."""
        if self.status != "finished" or len(self.curve) < 2:
            return None
        pairs = zip(self.curve, self.curve[1:], strict=False)
        whole = math.fsum((b - a) * (x + y) / 2 for (a, x), (b, y) in pairs)
        return whole / (self.curve[-1][0] - self.curve[0][0])

    def reaches(self, level: float) -> tuple[int, float] | None:
        """Updates and trained tokens until the panel's success is at `level`, by the first
        evaluation that shows it."""
        for update, success in self.curve:
            if success >= level - ROUNDING:
                return update, math.fsum(self.trained[:update])
        return None


def read_result(planned: Planned, output: Path, killed: str | None = None) -> Result:
    """What the run of `planned` has shown so far; if it is finished, that is kept as a file.

    Args:
        planned: the run.
        output: where the comparison lies.
        killed: why it ended just now, where it can go on.

    Raises:
        UserError: the directory is gone, and what was kept cannot be read.
    """
    directory, status = planned.directory, planned.status
    relative = str(directory.relative_to(output))
    reason = planned.failure.read_text(encoding="utf-8").strip() if status == "failed" else killed
    empty = Result(planned.arm, planned.seed, relative, status, reason)
    if status == "finished" and newest_checkpoint(directory / "checkpoints") is None:
        return _from_kept(planned, empty)
    if not (directory / "metrics.jsonl").is_file():
        return empty
    rows = read.metrics(directory)
    evaluations = [e for e in read.evaluations(directory) if e.update is not None]
    last = evaluations[-1] if evaluations else None
    result = replace(
        empty,
        curve=tuple((e.update or 0, e.success_rate) for e in evaluations),
        training=_column(rows, "rollout/success_rate"),
        trained=_column(rows, "tokens/trained"),
        panel=tuple(None if e.failure else e.success for e in last.episodes) if last else (),
        metrics=_late_metrics(rows, planned),
        seconds=median(seconds) if (seconds := _column(rows, "time/update")) else None,
        digest=_digest(directory) if status == "finished" else None,
        made_with=_made_with(directory),
    )
    if status == "finished":
        shown = {name: getattr(result, name) for name in (*KEPT, "made_with")}
        kept = {"updates": planned.updates_made, **shown}
        write_atomically(planned.kept, json.dumps(kept).encode() + b"\n")
    return result


def _from_kept(planned: Planned, empty: Result) -> Result:
    found = planned.read_kept(KEPT)
    shown = {name: found[name] for name in KEPT}
    try:
        shown["curve"] = tuple((int(update), float(success)) for update, success in shown["curve"])
        shown |= {name: tuple(map(float, shown[name])) for name in ("training", "trained")}
        shown["panel"] = tuple(shown["panel"])
        return replace(empty, **shown, made_with=dict(found.get("made_with", {})))
    except (ValueError, TypeError):
        raise planned.damaged from None


def window(count: int) -> int:
    """Updates of the late window, of `count`."""
    return max(1, round(LATE * count))


def _column(rows: Sequence[MetricsRow], name: str) -> tuple[float, ...]:
    return tuple(value for _, value in read.measured(rows, name))


def _late_metrics(rows: Sequence[MetricsRow], planned: Planned) -> dict[str, float | None]:
    late = rows[-window(len(rows)) :] if rows else []
    found = {short: _mean(_column(late, name)) for short, name in SHOWN.items()}
    rollout = planned.config.rollout
    episodes = rollout.groups * rollout.group_size
    turns = sum(row["rollout/turns_mean"] * (episodes - row["rollout/failures"]) for row in late)
    sampled = sum(row["tokens/sampled"] for row in late)
    return found | {"response_tokens": sampled / turns if turns else None}


def _made_with(directory: Path) -> dict[str, str | None]:
    """Of a run that went on elsewhere all are named, in their order."""
    found = read.environment(directory)
    values = [
        (start.get("commit"), start.get("gpu") or start.get("processor"), start.get("torch"))
        for start in (*found.earlier, found.start)
    ]
    return {
        name: THEN.join(dict.fromkeys(value or "not known" for value in column))
        if any(column)
        else None
        for name, column in zip(MADE_WITH, zip(*values, strict=True), strict=True)
    }


def _digest(directory: Path) -> str | None:
    newest = newest_checkpoint(directory / "checkpoints")
    weights = None if newest is None else newest / "model.safetensors"
    if weights is None or not weights.is_file():
        return None
    with open(weights, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None
