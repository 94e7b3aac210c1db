"""Pictures of a comparison: every seed a dot, curves with bands, a forest plot of differences."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from paw.compare.tell import Story
from paw.evals.paired import LEAST_PAIRS, t_quantile

COLOURS = (
    "#555555", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#b45309", "#0e7490", "#be185d",
    "#4d7c0f", "#6d28d9",
)  # fmt: skip
KINDS = ("png", "svg")


def draw(story: Story, output: Path) -> list[Path]:
    """Write plots/seeds, plots/curves and plots/forest as PNG and SVG; what there is no run for is
    left out. Returns the PNGs."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "paw"  # equal runs, equal files
    done = [run for run in story.results if run.final is not None]
    if not done:
        return []
    folder = output / "plots"
    folder.mkdir(exist_ok=True)
    figures = {"seeds": _seeds(story), "curves": _curves(story), "forest": _forest(story)}
    written = []
    for name, figure in figures.items():
        if figure is None:
            continue
        for kind in KINDS:
            metadata: dict[str, Any] = {"Date": None} if kind == "svg" else {}
            figure.savefig(folder / f"{name}.{kind}", dpi=130, metadata=metadata)
        written.append(folder / f"{name}.png")
    return written


def _figure(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axis = figure.subplots()
    axis.spines[["top", "right"]].set_visible(False)
    axis.grid(alpha=0.25)
    return figure, axis


def _colour(story: Story, arm: str) -> str:
    names = [a.name for a in story.arms]
    return COLOURS[names.index(arm) % len(COLOURS)]


def _seeds(story: Story) -> Any:
    """Final success by arm: a dot a seed, joined by seed, and the mean."""
    arms = [a.name for a in story.arms]
    figure, axis = _figure(max(5.0, 1.3 * len(arms) + 1.5), 4.2)
    runs = {(r.arm, r.seed): 100 * r.final for r in story.results if r.final is not None}
    for seed in sorted({seed for _, seed in runs}):
        points = [(x, runs[arm, seed]) for x, arm in enumerate(arms) if (arm, seed) in runs]
        axis.plot(*zip(*points, strict=True), color="#bbbbbb", linewidth=0.8, zorder=1)
    for x, arm in enumerate(arms):
        values = [value for (name, _), value in runs.items() if name == arm]
        axis.scatter([x] * len(values), values, s=28, color=_colour(story, arm), zorder=2)
        if values:
            axis.hlines(fmean(values), x - 0.22, x + 0.22, color=_colour(story, arm), linewidth=2.5)
    axis.set_xticks(range(len(arms)), arms, rotation=30 if len(arms) > 4 else 0, ha="right"
                    if len(arms) > 4 else "center")  # fmt: skip
    axis.set_xlim(-0.5, len(arms) - 0.5)
    axis.set_ylabel("panel success after the last update, %")
    axis.set_title("A dot a seed; a line joins the arms of a seed; bars are means", fontsize=9)
    return figure


def _curves(story: Story) -> Any:
    """Panel success by update: means over seeds, bands of the t interval of the mean."""
    from matplotlib.ticker import MaxNLocator

    figure, axis = _figure(7.0, 4.2)
    for arm in story.arms:
        curves = [dict(r.curve) for r in story.results if r.arm == arm.name and r.final is not None]
        if not curves:
            continue
        updates = sorted(set.intersection(*(set(curve) for curve in curves)))
        columns = [[100 * curve[u] for curve in curves] for u in updates]
        means = [fmean(column) for column in columns]
        colour = _colour(story, arm.name)
        label = f"{arm.name} ({len(curves)} seed{'s' if len(curves) > 1 else ''})"
        axis.plot(updates, means, "o-", markersize=3.5, color=colour, label=label, zorder=3)
        for curve in curves:
            axis.plot(updates, [100 * curve[u] for u in updates], color=colour, alpha=0.25, lw=0.7)
        if len(curves) > 1:
            halves = [_half(column) for column in columns]
            low = [m - h for m, h in zip(means, halves, strict=True)]
            high = [m + h for m, h in zip(means, halves, strict=True)]
            axis.fill_between(updates, low, high, color=colour, alpha=0.12, linewidth=0)
    # Of what was measured: the band of two seeds would hide it.
    seen = [100 * v for r in story.results if r.final is not None for _, v in r.curve]
    axis.set_ylim(max(0.0, min(seen) - 5), min(100.0, max(seen) + 5))
    axis.xaxis.set_major_locator(MaxNLocator(integer=True))
    axis.set_xlabel("update")
    axis.set_ylabel("panel success, %")
    axis.set_title("Means over seeds (thin: single seeds); bands: 95 % t interval of each mean",
                   fontsize=9)  # fmt: skip
    axis.legend(fontsize=8, frameon=False)
    return figure


def _forest(story: Story) -> Any:
    """Paired differences in final success with their intervals, a dot a seed."""
    rows = [c for c in story.comparisons if c.metric == "final" and c.found.num_pairs]
    if not rows:
        return None
    figure, axis = _figure(7.0, 1.4 + 0.5 * len(rows))
    for y, c in enumerate(reversed(rows)):
        colour = _colour(story, c.arm)
        axis.scatter([100 * d for d in c.differences], [y - 0.18] * len(c.differences), s=12,
                     color=colour, alpha=0.5, linewidths=0)  # fmt: skip
        if c.found.interval is not None:
            low, high = c.found.interval
            axis.hlines(y, 100 * low, 100 * high, color=colour, linewidth=2)
        axis.scatter([100 * (c.found.mean or 0)], [y], s=45, marker="D", color=colour, zorder=3)
    axis.axvline(0, color="#222222", linewidth=1)
    axis.set_yticks(range(len(rows)), [f"{c.arm} ({c.found.num_pairs})" for c in reversed(rows)])
    axis.set_ylim(-0.6, len(rows) - 0.4)
    axis.set_xlabel(f"difference from {story.baseline} in panel success, points")
    few = "" if min(c.found.num_pairs for c in rows) >= LEAST_PAIRS else "; too few for a verdict"
    axis.set_title(f"Mean paired difference and 95 % paired t interval (pairs){few}", fontsize=9)
    return figure


def _half(values: Sequence[float]) -> float:
    return t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
