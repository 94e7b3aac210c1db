"""docs/EVIDENCE.md says what scipy says of the numbers in docs/evidence."""

import csv
import importlib.util
import re
from pathlib import Path

import pytest

stats = pytest.importorskip("scipy.stats", reason="needs scipy: pip install 'paw-rl[compare]'")

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "EVIDENCE.md").read_text(encoding="utf-8")
COMPARISONS = sorted((ROOT / "docs" / "evidence").glob("*/seeds.csv"))
POINTS = re.compile(r"([+-][\d.]+) \[([+-][\d.]+), ([+-][\d.]+)\]")


def columns(file: Path, metric: str) -> dict[str, dict[str, float]]:
    """{arm: {seed: value}} of finished runs."""
    found: dict[str, dict[str, float]] = {}
    with open(file, newline="", encoding="utf-8") as text:
        for row in csv.DictReader(text):
            if row[metric]:
                found.setdefault(row["arm"], {})[row["seed"]] = float(row[metric])
    return found


def table(name: str) -> dict[str, list[str]]:
    """{arm: its cells} of the page's table of that name."""
    match = re.search(rf"<!-- compare {name} -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    assert match, f"EVIDENCE.md has no table of {name}"
    lines = [line.strip("| ").split(" | ") for line in match[1].splitlines()[2:]]
    return {cells[0]: cells for cells in lines}


def test_there_is_evidence() -> None:
    assert COMPARISONS
    assert PAGE.count("<!-- compare ") == len(COMPARISONS)


@pytest.mark.parametrize("file", COMPARISONS, ids=lambda file: file.parent.name)
def test_page_agrees_with_scipy(file: Path) -> None:
    found = table(file.parent.name)
    p_values: dict[str, float] = {}
    for metric, cell in (("final", 3), ("late_window", 7), ("area", 8)):
        by_arm = columns(file, metric)
        base = by_arm.pop("baseline")
        assert set(by_arm) == set(found) - {"baseline"}
        for arm, values in by_arm.items():
            seeds = [seed for seed in values if seed in base]
            a, b = [values[s] for s in seeds], [base[s] for s in seeds]
            match = POINTS.fullmatch(found[arm][cell].strip())
            assert match, found[arm][cell]
            test = stats.ttest_rel(a, b)
            low, high = test.confidence_interval(0.95)
            mean = sum(x - y for x, y in zip(a, b, strict=True)) / len(a)
            expected = [100 * mean, 100 * low, 100 * high]
            assert [float(x) for x in match.groups()] == pytest.approx(expected, abs=0.051)
            if metric == "final":
                assert int(found[arm][1]) == len(seeds)
                success = 100 * sum(values.values()) / len(values)
                assert float(found[arm][2]) == pytest.approx(success, abs=0.051)
                # both samples: their pairs change places, which is the sign flip of the difference
                flip = stats.permutation_test(
                    (a, b), lambda x, y, axis: (x - y).mean(axis), permutation_type="samples",
                    n_resamples=2**16, vectorized=True,
                )  # fmt: skip
                p_values[arm] = flip.pvalue
                assert float(found[arm][4]) == pytest.approx(flip.pvalue, abs=0.00051)
    # Holm: the k-th smallest of m times (m - k + 1), never below the one before
    largest, count = 0.0, len(p_values)
    for rank, arm in enumerate(sorted(p_values, key=p_values.__getitem__)):
        largest = max(largest, min(1.0, (count - rank) * p_values[arm]))
        assert float(found[arm][5]) == pytest.approx(largest, abs=0.0051)
        shown = found[arm][6]
        if int(found[arm][1]) < 6:
            assert shown == "none: too few pairs"
        else:
            assert (shown in ("higher", "lower")) == (largest < 0.05)


def test_tables_were_not_typed() -> None:
    """They are what recipes/evidence_tables.py writes from docs/evidence."""
    path = ROOT / "recipes" / "evidence_tables.py"
    spec = importlib.util.spec_from_file_location("evidence_tables", path)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.with_tables(PAGE, ROOT / "docs" / "evidence") == PAGE
