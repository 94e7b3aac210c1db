"""Brings what comparisons found into docs/EVIDENCE.md and docs/evidence.

    python recipes/evidence_tables.py DIR    # what `paw compare` and `paw wm-eval -o` wrote there
    python recipes/evidence_tables.py        # the tables again, from docs/evidence

Takes over from each DIR/NAME with a seeds.csv what finished runs showed, and once none is missing
that file, compare.md and two plots; from each DIR/wm/NAME.json the line of each model. Then writes
the tables between `<!-- compare NAME -->` or `<!-- wm NAME -->` and `<!-- end -->` in
docs/EVIDENCE.md, so that no number in them was typed.
"""

import csv
import json
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from paw.evals.paired import Difference, difference, holm, verdict

DOCS = Path(__file__).parents[1] / "docs"
KEPT = ("seeds.csv", "compare.md", "plots/forest.svg", "plots/curves.svg")
METRICS = ("final", "late_window", "area")
WORLD = ("model", "observations", "nats_per_observation", "difference", "low", "high", "top1",
         "command_saves", "changed_nats", "changed_top1", "changed_saves")  # fmt: skip
"""Columns of a model's line; files of before have none for the tokens that change."""
BLOCK = re.compile(r"(<!-- (compare|wm) (\S+) -->\n).*?(<!-- end -->)", re.DOTALL)

Row = Mapping[str, str]


def main() -> None:
    if len(sys.argv) > 2:
        sys.exit(str(__doc__))
    if len(sys.argv) == 2:
        take_over(Path(sys.argv[1]), DOCS / "evidence")
    page = DOCS / "EVIDENCE.md"
    text = with_tables(page.read_text(encoding="utf-8"), DOCS / "evidence")
    page.write_text(text, encoding="utf-8")


def take_over(found: Path, kept: Path) -> None:
    """Copies what is kept of every comparison and world-model evaluation below `found`."""
    for seeds in sorted(found.glob("*/seeds.csv")):
        target = kept / seeds.parent.name
        for result in sorted(seeds.parent.glob("runs/*/seed-*.json")):
            for file in (result, result.with_suffix(".toml")):
                copy = target / file.relative_to(seeds.parent)
                copy.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, copy)
        with open(seeds, newline="", encoding="utf-8") as text:
            whole = all(row["status"] != "missing" for row in csv.DictReader(text))
        for name in KEPT if whole else ():
            shutil.copy(seeds.parent / name, target / Path(name).name)
    for file in sorted(found.glob("wm/*.json")):
        rows = world_rows(json.loads(file.read_text(encoding="utf-8")))
        (kept / "wm").mkdir(parents=True, exist_ok=True)
        with open(kept / "wm" / f"{file.stem}.csv", "w", newline="", encoding="utf-8") as text:
            writer = csv.writer(text, lineterminator="\n")
            writer.writerows([WORLD, *rows])


def world_rows(found: Mapping[str, dict]) -> list[tuple[object, ...]]:
    """A line a model of the JSON of `paw wm-eval`."""
    rows = []
    for path, model in found["models"].items():
        less = model.get("against_first")
        interval = (less and less["interval"]) or ("", "")
        change = ("", *interval) if less is None else (less["difference"], *interval)
        every, changed, saves = model["all"], model["changed"], model["actions"]["other"]
        rows.append((_name(path), every["observations"], every["nats_per_observation"], *change,
                     every["top1_fraction"], saves["all"]["difference"],
                     changed["nats_per_observation"], changed["top1_fraction"],
                     saves["changed"]["difference"]))  # fmt: skip
    return rows


def _name(path: str) -> str:
    """The arm of a comparison's run, else the last part: nobody else has these folders."""
    parts = Path(path).parts
    return parts[-2] if parts[-1].startswith("seed-") else parts[-1]


def with_tables(text: str, kept: Path) -> str:
    """`text` with the tables of what stands in `kept`."""

    def table(match: re.Match[str]) -> str:
        head, kind, name, end = match.groups()
        if kind == "compare":
            return f"{head}{comparison_table(read(kept / name / 'seeds.csv'))}\n{end}"
        return f"{head}{world_table(read(kept / 'wm' / f'{name}.csv'))}\n{end}"

    return BLOCK.sub(table, text)


def read(file: Path) -> list[Row]:
    with open(file, newline="", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def comparison_table(rows: Sequence[Row], baseline: str = "baseline") -> str:
    """Each arm against the baseline, by three metrics, from the lines of seeds.csv."""
    arms = list(dict.fromkeys(row["arm"] for row in rows))
    others = [arm for arm in arms if arm != baseline]
    found = {
        (arm, metric): difference(_differences(rows, arm, baseline, metric))
        for arm in others
        for metric in METRICS
    }
    corrected = holm([found[arm, "final"].p_value for arm in others])
    lines = [
        "| arm | pairs | success after, % | difference, points | p | p (Holm) | verdict "
        "| of the last quarter's training | of the curve's height |",
        "|---|---|---|---|---|---|---|---|---|",
        f"| {baseline} | | {_mean(rows, baseline)} | | | | | | |",
    ]
    for arm, p in zip(others, corrected, strict=True):
        final = found[arm, "final"]
        cells = (arm, str(final.num_pairs), _mean(rows, arm), _points(final), _p(final.p_value),
                 _p(p), verdict(final, p, len(others)) or "none: too few pairs",
                 _points(found[arm, "late_window"]), _points(found[arm, "area"]))  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _differences(rows: Sequence[Row], arm: str, baseline: str, metric: str) -> list[float]:
    values = {(row["arm"], row["seed"]): float(row[metric]) for row in rows if row[metric]}
    seeds = [seed for name, seed in values if name == arm and (baseline, seed) in values]
    return [values[arm, seed] - values[baseline, seed] for seed in seeds]


def _mean(rows: Sequence[Row], arm: str) -> str:
    values = [float(row["final"]) for row in rows if row["arm"] == arm and row["final"]]
    return f"{100 * fmean(values):.1f}" if values else ""


def _points(found: Difference) -> str:
    if found.mean is None:
        return ""
    mean = f"{100 * found.mean:+.1f}"
    if found.interval is None:
        return mean
    return f"{mean} [{100 * found.interval[0]:+.1f}, {100 * found.interval[1]:+.1f}]"


def _p(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def world_table(rows: Sequence[Row]) -> str:
    """Prediction of frozen observations, a line a model."""
    parts = all(row.get("changed_nats") for row in rows)
    titles = ["model", "nats an observation", "less the first's", "top-1 tokens, %",
              "the true command saves, nats"]  # fmt: skip
    if parts:
        titles += ["of changed tokens: nats", "top-1, %", "the command saves"]
    lines = [f"| {' | '.join(titles)} |", "|---" * len(titles) + "|"]
    for row in rows:
        value = {name: float(text) for name, text in row.items() if name != "model" and text}
        less = ""
        if "difference" in value:
            less = f"{value['difference']:+.2f}"
        if "low" in value:
            less += f" [{value['low']:+.2f}, {value['high']:+.2f}]"
        cells = [row["model"], f"{value['nats_per_observation']:.2f}", less,
                 f"{100 * value['top1']:.1f}", f"{value['command_saves']:+.1f}"]  # fmt: skip
        if parts:
            cells += [f"{value['changed_nats']:.2f}", f"{100 * value['changed_top1']:.1f}",
                      f"{value['changed_saves']:+.1f}"]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
