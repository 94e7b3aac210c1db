"""Pictures of a comparison: every seed a dot, curves with bands, a forest plot of differences."""

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from paw.compare.tell import Story
from paw.evals.paired import least_pairs, t_quantile

COLOURS = (
    "#555555", "#c2410c", "#1d4ed8", "#15803d", "#7e22ce", "#d4a106", "#0891b2", "#db2777",
    "#65a30d", "#78350f",
)  # fmt: skip
TOGETHER = 3
"""Arms of which one picture can hold the curves and their bands"""
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
    figure, axes = _grid(width, height, 1, 1)
    return figure, axes[0]


def _grid(width: float, height: float, rows: int, columns: int) -> tuple[Any, list[Any]]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    axes = figure.subplots(rows, columns, sharex=True, sharey=True, squeeze=False).flatten()
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.25)
    return figure, list(axes)


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
    """Panel success by update: means over seeds, bands of the t interval of the mean. Many arms
    have a picture each, with the baseline in it."""
    from matplotlib.ticker import MaxNLocator

    done = {r.arm for r in story.results if r.final is not None}
    arms = [a.name for a in story.arms if a.name in done]
    shown = [arms]
    if len(arms) > TOGETHER:
        first = [name for name in arms if name == story.baseline]
        shown = [[*first, name] for name in arms if name != story.baseline]
    columns = min(3, len(shown))
    rows = math.ceil(len(shown) / columns)
    size = (7.0, 4.2) if len(shown) == 1 else (3.2 * columns, 2.5 * rows + 0.5)
    figure, axes = _grid(*size, rows, columns)
    for axis, names in zip(axes, shown, strict=False):
        for name in names:
            _curve(axis, story, name)
        axis.legend(fontsize=8, frameon=False)
    for axis in axes[len(shown) :]:
        axis.set_visible(False)
    for axis in axes[len(shown) - columns : len(shown)]:  # the lowest of each column
        axis.tick_params(labelbottom=True)
    # Of what was measured: the band of two seeds would hide it.
    seen = [100 * v for r in story.results if r.final is not None for _, v in r.curve]
    axes[0].set_ylim(max(0.0, min(seen) - 5), min(100.0, max(seen) + 5))
    axes[0].xaxis.set_major_locator(MaxNLocator(integer=True))
    figure.supxlabel("update", fontsize=9)
    figure.supylabel("panel success, %", fontsize=9)
    figure.suptitle("Means over seeds (thin: single seeds); bands: 95 % t interval of each mean",
                    fontsize=9)  # fmt: skip
    return figure


def _curve(axis: Any, story: Story, arm: str) -> None:
    curves = [dict(r.curve) for r in story.results if r.arm == arm and r.final is not None]
    updates = sorted(set.intersection(*(set(curve) for curve in curves)))
    columns = [[100 * curve[u] for curve in curves] for u in updates]
    means = [fmean(column) for column in columns]
    colour = _colour(story, arm)
    label = f"{arm} ({len(curves)} seed{'s' if len(curves) > 1 else ''})"
    axis.plot(updates, means, "o-", markersize=3.5, color=colour, label=label, zorder=3)
    for curve in curves:
        axis.plot(updates, [100 * curve[u] for u in updates], color=colour, alpha=0.25, lw=0.7)
    if len(curves) > 1:
        halves = [_half(column) for column in columns]
        low = [m - h for m, h in zip(means, halves, strict=True)]
        high = [m + h for m, h in zip(means, halves, strict=True)]
        axis.fill_between(updates, low, high, color=colour, alpha=0.12, linewidth=0)


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
    enough = min(c.found.num_pairs for c in rows) >= least_pairs(len(rows))
    few = "" if enough else "; too few for a verdict"
    axis.set_title(f"Mean paired difference and 95 % paired t interval (pairs){few}", fontsize=9)
    return figure


def _half(values: Sequence[float]) -> float:
    return t_quantile(len(values) - 1) * stdev(values) / math.sqrt(len(values))
