"""From the runs of a comparison to paired differences. Nothing here depends on a clock."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from paw.compare.results import THEN, Result
from paw.evals.paired import Difference, difference, holm, verdict

LEVEL = 0.95
METRICS: dict[str, Callable[[Result], float | None]] = {
    "final": lambda run: run.final,
    "late_window": lambda run: run.late,
    "area": lambda run: run.area,
}
"""What arms are compared by: panel success after the last update; mean success of the training
episodes of the last quarter of the updates; mean height of the curve of panel success."""


@dataclass(frozen=True, slots=True)
class Panel:
    """Episodes of the last evaluation, the same in both arms: game, sample and seed."""

    both: int
    arm_only: int
    baseline_only: int
    neither: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """One arm against the baseline, by one metric."""

    arm: str
    metric: str
    seeds: tuple[int, ...]
    """Of the pairs: both runs finished"""
    differences: tuple[float, ...]
    found: Difference
    holm_p_value: float | None
    """Over the arms"""
    verdict: str | None
    panel: Panel


def compare(results: Sequence[Result], arms: Sequence[str], baseline: str) -> list[Comparison]:
    """Every arm but the baseline, by every metric.

    Args:
        results: one a run.
        arms: in the order of the tables.
        baseline: one of them.
    """
    runs = {(r.arm, r.seed): r for r in results}
    comparisons = []
    for metric, value in METRICS.items():
        rows = []
        for arm in (a for a in arms if a != baseline):
            pairs = _pairs(runs, arm, baseline, value)
            differences = tuple(value_of - base for _, value_of, base in pairs)
            rows.append((arm, tuple(seed for seed, *_ in pairs), differences))
        found = [difference(differences, LEVEL) for _, _, differences in rows]
        corrected = holm([f.p_value for f in found])
        for (arm, seeds, differences), f, p in zip(rows, found, corrected, strict=True):
            comparisons.append(
                Comparison(
                    arm, metric, seeds, differences, f, p, verdict(f, p, len(rows)),
                    _panel(runs, arm, baseline, seeds),
                )
            )  # fmt: skip
    return comparisons


def level_of(results: Sequence[Result], baseline: str) -> float | None:
    """The mean final success of the baseline: what arms have to reach."""
    finals = [r.final for r in results if r.arm == baseline and r.final is not None]
    return fmean(finals) if finals else None


def time_ratios(results: Sequence[Result], arms: Sequence[str], baseline: str) -> dict[str, float]:
    """Median over seeds of (seconds an update of the arm / of the baseline), of the seeds whose two
    runs were made, from end to end, by processors of one name."""
    runs = {(r.arm, r.seed): r for r in results}
    processors = {key: run.made_with.get("processor") for key, run in runs.items()}
    ratios = {}
    for arm in arms:
        found = [
            a / b
            for seed, a, b in _pairs(runs, arm, baseline, lambda run: run.seconds)
            if processors[arm, seed] == processors[baseline, seed]
            and THEN not in (processors[arm, seed] or "")
        ]
        if found:
            ratios[arm] = median(found)
    return ratios


def _pairs(
    runs: Mapping[tuple[str, int], Result],
    arm: str,
    baseline: str,
    value: Callable[[Result], float | None],
) -> list[tuple[int, float, float]]:
    """(seed, value of the arm, value of the baseline) where both are there."""
    pairs = []
    for (name, seed), run in sorted(runs.items()):
        other = runs.get((baseline, seed))
        if name != arm or other is None:
            continue
        ours, theirs = value(run), value(other)
        if ours is not None and theirs is not None:
            pairs.append((seed, ours, theirs))
    return pairs


def _panel(
    runs: Mapping[tuple[str, int], Result], arm: str, baseline: str, seeds: Sequence[int]
) -> Panel:
    counts = {(a, b): 0 for a in (True, False) for b in (True, False)}
    for seed in seeds:
        for a, b in zip(runs[arm, seed].panel, runs[baseline, seed].panel, strict=True):
            if a is not None and b is not None:
                counts[a, b] += 1
    return Panel(counts[True, True], counts[True, False], counts[False, True], counts[False, False])
