"""From results to comparisons and what is told of them."""

import json
from dataclasses import replace

import pytest

from paw.compare.analyse import compare, level_of, time_ratios
from paw.compare.arms import Arm
from paw.compare.results import Result
from paw.compare.tell import as_csv, as_json, as_markdown, as_terminal, make_story

ARMS = [Arm("baseline", "alone", {}), Arm("paw", "with", {}), Arm("placebo", "without sense", {})]


def run(arm: str, seed: int, wins: int, seconds: float = 2.0, status: str = "finished") -> Result:
    """Ten episodes, the first `wins` of them won, up from two."""
    panel = tuple(i < wins for i in range(10))
    curve = ((0, 0.2), (4, wins / 10))
    return Result(arm, seed, f"runs/{arm}/seed-{seed}", status, None, curve, (wins / 10,) * 4,
                  (100.0,) * 4, panel, {"turns": 5.0}, seconds)  # fmt: skip


def story_of(count: int):
    """PaW wins one to three more than the baseline, the placebo as many."""
    more = (1, 2, 3, 1, 2, 3)
    results = []
    for seed in range(count):
        results += [run("baseline", seed, 4), run("paw", seed, 4 + more[seed], 3.0)]
        results.append(run("placebo", seed, 4))
    return make_story(ARMS, "baseline", results, {"environment": "household"}, None)


def test_six_pairs_by_hand():
    """Differences 0.1 0.2 0.3 twice: mean 0.2, of six the exact p is 2 / 64; Holm doubles it."""
    story = story_of(6)
    final = {c.arm: c for c in story.comparisons if c.metric == "final"}
    paw, placebo = final["paw"], final["placebo"]
    assert paw.found.mean == pytest.approx(0.2) and paw.found.num_pairs == 6
    assert paw.found.p_value == pytest.approx(2 / 64)
    # No six pairs of two arms can be below 0.05: "no difference shown" would say more than that.
    assert paw.holm_p_value == pytest.approx(4 / 64) and paw.verdict is None
    assert placebo.found.p_value == placebo.holm_p_value == 1.0
    assert (paw.panel.both, paw.panel.arm_only, paw.panel.baseline_only) == (24, 12, 0)
    assert paw.panel.neither == 24
    alone = compare(
        [r for r in story.results if r.arm != "placebo"], ["baseline", "paw"], "baseline"
    )
    assert alone[0].verdict == "higher"
    assert level_of(story.results, "baseline") == pytest.approx(0.4)
    assert story.results[0].reaches(story.level or 1) == (4, 400.0)
    assert time_ratios(story.results, ["paw"], "baseline") == {"paw": 1.5}


def test_few_pairs_are_told_as_few():
    told = as_markdown(story_of(3))
    assert "3 pairs are too few for a verdict" in told and "p below 0.5; it takes 7" in told
    assert "of 2 arms, corrected by Holm," in told
    assert "none: 3 pairs, it takes 7" in as_terminal(story_of(3))
    assert all(c["verdict"] is None for c in as_json(story_of(3))["comparisons"])
    assert "6 pairs are too few" in as_markdown(story_of(6))
    alone = [r for r in story_of(6).results if r.arm != "placebo"]
    assert "too few" not in as_markdown(make_story(ARMS[:2], "baseline", alone, {}, None))


def test_where_runs_were_made_is_told():
    """Two commits, and a seed whose arms were made by different processors: in no ratio."""
    results = [run(arm, seed, 4, 3.0 + seed) for seed in range(3) for arm in ("baseline", "paw")]
    where = [("a1", "X"), ("a1", "X"), ("b2", "X"), ("b2", "Y"), (None, None), (None, None)]
    results = [
        replace(r, made_with={"commit": c, "processor": p, "torch": "2.13.0"} if c else {})
        for r, (c, p) in zip(results, where, strict=True)
    ]
    results[3] = replace(results[3], seconds=400.0)
    story = make_story(ARMS[:2], "baseline", results, {}, None)
    assert story.about["commit"] == "a1; b2; not known"
    assert story.about["processor"] == "X; Y; not known"
    told = as_markdown(story)
    assert "Seed 1: not all arms were made by one kind of processor" in told
    assert time_ratios(results, ["paw"], "baseline") == {"paw": 1.0}
    assert as_json(story)["runs"][3]["made_with"]["processor"] == "Y"
    assert "one kind of processor" not in as_markdown(story_of(3))
    moved = [replace(r, made_with=r.made_with | {"processor": "X, then Y"}) for r in results[:2]]
    story = make_story(ARMS[:2], "baseline", moved, {}, None)
    assert time_ratios(moved, ["paw"], "baseline") == {}
    assert "Seed 0: not all arms were made by one kind of processor" in as_markdown(story)


def test_what_is_missing_is_in_no_pair():
    results = [run("baseline", 0, 4), run("paw", 0, 5), run("baseline", 1, 4),
               run("paw", 1, 9, status="missing")]  # fmt: skip
    story = make_story(ARMS[:2], "baseline", results, {}, 0.45)
    assert story.comparisons[0].seeds == (0,) and story.comparisons[0].found.interval is None
    told = as_markdown(story)
    assert "paw seed 1: missing" in told
    runs = as_json(story)["runs"]
    assert [r["updates_to_level"] for r in runs] == [None, 4, None, 4]
    assert json.loads(json.dumps(as_json(story)))["success_level"] == 0.45
    assert as_csv(story).splitlines()[1] == "baseline,0,finished,0.2,0.4,0.4,0.30000000000000004,"
