"""Tells what a comparison found: compare.json, seeds.csv, compare.md.

compare.json and seeds.csv depend on the runs alone, so that a comparison that was stopped and gone
on with ends with the same; what was measured with a clock stands in compare.md.
"""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from paw.compare.analyse import LEVEL, METRICS, Comparison, compare, level_of, time_ratios
from paw.compare.arms import Arm
from paw.compare.results import MADE_WITH, THEN, Result
from paw.evals.paired import least_pairs, smallest_p
from paw.evals.statistics import wilson_interval
from paw.runs.files import write_atomically

TITLES = {
    "final": "Panel success after the last update",
    "late_window": "Success of the training episodes, last quarter of the updates",
    "area": "Mean height of the curve of panel success",
}


@dataclass(frozen=True, slots=True)
class Story:
    """Everything that is told of a comparison."""

    arms: Sequence[Arm]
    baseline: str
    results: Sequence[Result]
    comparisons: Sequence[Comparison]
    about: Mapping[str, Any]
    """Environment, model, updates, panel, version; commits, processors and torch of the runs"""
    level: float | None
    """Panel success that arms have to reach"""


def make_story(
    arms: Sequence[Arm],
    baseline: str,
    results: Sequence[Result],
    about: Mapping[str, Any],
    level: float | None,
) -> Story:
    """Compare, and choose the level where none is given: the baseline's mean final success."""
    names = [arm.name for arm in arms]
    level = level_of(results, baseline) if level is None else level
    about = {**about, **_makers(results)}
    return Story(arms, baseline, results, compare(results, names, baseline), about, level)


def _makers(results: Sequence[Result]) -> dict[str, str]:
    """Commit, processor and torch of all runs that have begun; several are all named."""
    begun = [run for run in results if run.curve]
    told = {}
    for name in MADE_WITH:
        values = {run.made_with.get(name) or "not known" for run in begun}
        told[name] = "; ".join(sorted(values)) or "none yet"
    return told


def write_story(story: Story, output: Path) -> None:
    """compare.json, seeds.csv and compare.md below `output`."""
    text = json.dumps(as_json(story), indent=1)
    write_atomically(output / "compare.json", text.encode() + b"\n")
    write_atomically(output / "seeds.csv", as_csv(story).encode())
    write_atomically(output / "compare.md", as_markdown(story).encode())


def as_json(story: Story) -> dict[str, Any]:
    """The object of compare.json."""
    return {
        **story.about,
        "baseline": story.baseline,
        "success_level": story.level,
        "arms": {arm.name: {"about": arm.about, **arm.table} for arm in story.arms},
        "runs": [_run(run, story.level) for run in story.results],
        "comparisons": [_comparison(c, story.baseline) for c in story.comparisons],
    }


def _run(run: Result, level: float | None) -> dict[str, Any]:
    reached = run.reaches(level) if level is not None else None
    return {
        "arm": run.arm,
        "seed": run.seed,
        "status": run.status,
        "reason": run.reason,
        "directory": run.directory,
        **{name: value(run) for name, value in METRICS.items()},
        "curve": [list(point) for point in run.curve],
        "updates_to_level": reached and reached[0],
        "tokens_to_level": reached and reached[1],
        "metrics": run.metrics,
        "digest": run.digest,
        "made_with": run.made_with,
    }


def _comparison(c: Comparison, baseline: str) -> dict[str, Any]:
    return {
        "arm": c.arm,
        "baseline": baseline,
        "metric": c.metric,
        "num_pairs": c.found.num_pairs,
        "seeds": c.seeds,
        "differences": c.differences,
        "mean_difference": c.found.mean,
        "deviation": c.found.deviation,
        "interval": c.found.interval,
        "level": LEVEL,
        "p_value": c.found.p_value,
        "holm_p_value": c.holm_p_value,
        "verdict": c.verdict,
        "pairs_needed": c.found.pairs_needed,
        "panel": asdict(c.panel),
    }


COLUMNS = ("arm", "seed", "status", "before", *METRICS, "digest")


def as_csv(story: Story) -> str:
    """One line a run: what the comparisons are made of."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for run in story.results:
        before = run.curve[0][1] if run.curve else None
        values = (value(run) for value in METRICS.values())
        row = (run.arm, run.seed, run.status, before, *values, run.digest)
        writer.writerow(["" if value is None else value for value in row])
    return text.getvalue()


def as_markdown(story: Story) -> str:
    """The tables that a person reads."""
    parts = [f"# {' / '.join(arm.name for arm in story.arms)}", _setting(story.about)]
    parts += [_not_finished(story.results), _mixed(story.results), _too_few(story)]
    for metric, title in TITLES.items():
        parts.append(f"## {title}\n\n{comparison_table(story, metric)}")
    parts += [f"## Every seed\n\n{_seeds_table(story)}"]
    parts += [f"## On the way\n\n{_metrics_table(story)}"]
    parts += ["## The arms\n\n" + "\n".join(f" - `{a.name}`: {a.about}" for a in story.arms)]
    return "\n\n".join(part for part in parts if part) + "\n"


def comparison_table(story: Story, metric: str) -> str:
    """Arms against the baseline by one metric, in points."""
    rows = [("arm", "pairs", "mean", "difference, points", "p", "p (Holm)", "verdict",
             "only it / only baseline won", "pairs for 80 % power")]  # fmt: skip
    own = _percent(_mean_of(story, story.baseline, metric))
    rows.append((story.baseline, "", own, "", "", "", "", "", ""))
    for c in (c for c in story.comparisons if c.metric == metric):
        f, panel = c.found, c.panel
        interval = f" [{_points(f.interval[0])}, {_points(f.interval[1])}]" if f.interval else ""
        won = f"{panel.arm_only:,} / {panel.baseline_only:,}" if metric == "final" else ""
        rows.append((
            c.arm, str(f.num_pairs), _percent(_mean_of(story, c.arm, metric)),
            f"{_points(f.mean)}{interval}", _p(f.p_value), _p(c.holm_p_value),
            c.verdict or "none: too few pairs", won,
            "" if f.pairs_needed is None else f"{f.pairs_needed:,}",
        ))  # fmt: skip
    return _table(rows)


def _mean_of(story: Story, arm: str, metric: str) -> float | None:
    return _present(METRICS[metric](run) for run in story.results if run.arm == arm)


def _seeds_table(story: Story) -> str:
    seeds = sorted({run.seed for run in story.results})
    runs = {(run.arm, run.seed): run for run in story.results}
    rows = [("seed", "before", *(arm.name for arm in story.arms))]
    for seed in seeds:
        found = [runs.get((arm.name, seed)) for arm in story.arms]
        start = next((run.curve[0][1] for run in found if run and run.curve), None)
        rows.append((str(seed), _percent(start), *(_cell(run) for run in found)))
    return _table(rows)


def _cell(run: Result | None) -> str:
    if run is None:
        return ""
    if run.final is None:
        return run.status
    count = len(run.panel)
    low, high = wilson_interval(round(run.final * count), count)
    return f"{_percent(run.final)} [{100 * low:.1f}, {100 * high:.1f}]"


def _metrics_table(story: Story) -> str:
    """Means over an arm's finished runs, of the last quarter of the updates."""
    done = [run for run in story.results if run.status == "finished"]
    ratios = time_ratios(story.results, [a.name for a in story.arms], story.baseline)
    names = list(done[0].metrics) if done else []
    rows = [("arm", *(name.replace("_", " ") for name in names),
             f"updates to {_percent(story.level)}", "tokens to it, million",
             "seconds an update / baseline's")]  # fmt: skip
    for arm in story.arms:
        own = [run for run in done if run.arm == arm.name]
        means = [_number(_present(run.metrics.get(name) for run in own)) for name in names]
        reached = [run.reaches(story.level) for run in own] if story.level is not None else []
        there = [r for r in reached if r is not None]
        updates = f"{fmean(u for u, _ in there):.0f} ({len(there)} of {len(own)})" if there else ""
        tokens = f"{fmean(t for _, t in there) / 1e6:.2f}" if there else ""
        ratio = f"{ratios[arm.name]:.3f}" if arm.name in ratios else ""
        rows.append((arm.name, *means, updates, tokens, ratio))
    return _table(rows)


def _present(values: Any) -> float | None:
    there = [v for v in values if v is not None]
    return fmean(there) if there else None


def _setting(about: Mapping[str, Any]) -> str:
    return "\n".join(f" - {key.replace('_', ' ')}: {value}" for key, value in about.items())


def _not_finished(results: Sequence[Result]) -> str:
    lines = [
        f" - {run.arm} seed {run.seed}: {run.status}{f' ({run.reason})' if run.reason else ''}"
        for run in results
        if run.status != "finished"
    ]
    return "Not finished, and in no pair:\n\n" + "\n".join(lines) if lines else ""


def _mixed(results: Sequence[Result]) -> str:
    """Which pairs were made by processors of several names."""
    processors: dict[int, set[str]] = {}
    for run in results:
        if run.made_with.get("processor"):
            names = str(run.made_with["processor"]).split(THEN)
            processors.setdefault(run.seed, set()).update(names)
    seeds = [seed for seed, names in sorted(processors.items()) if len(names) > 1]
    if not seeds:
        return ""
    return (
        f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}: not all arms were made by one "
        "kind of processor. Kinds round differently, so that runs part sooner than by their arm "
        "alone: a noisier pair, and none in the ratio of seconds."
    )


def _too_few(story: Story) -> str:
    fewest = min((c.found.num_pairs for c in story.comparisons), default=0)
    if fewest >= _needed(story):
        return ""
    arms = max(1, len(story.arms) - 1)
    bound = f"{smallest_p(fewest, arms):.2g}" if fewest else "1"
    of = f" of {arms} arms, corrected by Holm," if arms > 1 else ""
    return (
        f"{fewest} pairs are too few for a verdict: an exact sign flip of so few{of} cannot give p "
        f"below {bound}; it takes {_needed(story)}. Read the intervals."
    )


def _needed(story: Story) -> int:
    """Pairs that a verdict takes."""
    return least_pairs(max(1, len(story.arms) - 1))


def as_terminal(story: Story) -> str:
    """Final success of every arm, in columns."""
    rows = [("arm", "runs", "final", "difference, points", "p (Holm)", "verdict")]
    finals = {c.arm: c for c in story.comparisons if c.metric == "final"}
    for arm in story.arms:
        done = [r for r in story.results if r.arm == arm.name]
        count = f"{sum(r.status == 'finished' for r in done)}/{len(done)}"
        mean = _percent(_mean_of(story, arm.name, "final"))
        c = finals.get(arm.name)
        if c is None or c.found.mean is None:
            rows.append((arm.name, count, mean, "", "", ""))
            continue
        low_high = c.found.interval
        interval = f" [{_points(low_high[0])}, {_points(low_high[1])}]" if low_high else ""
        said = c.verdict or f"none: {c.found.num_pairs} pairs, it takes {_needed(story)}"
        rows.append((arm.name, count, mean, f"{_points(c.found.mean)}{interval}",
                     _p(c.holm_p_value), said))  # fmt: skip
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(f"{c:{w}}" for c, w in zip(row, widths, strict=True)) for row in rows]
    failed = [r for r in story.results if r.status == "failed"]
    lines += [f"failed: {r.arm} seed {r.seed}: {r.reason}" for r in failed]
    return "\n".join(line.rstrip() for line in lines)


def _table(rows: Sequence[Sequence[str]]) -> str:
    head, *body = rows
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in body])


def _percent(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f} %"


def _points(value: float | None) -> str:
    return "" if value is None else f"{100 * value:+.1f}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3g}"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"
