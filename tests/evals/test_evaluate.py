from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paw.envs.household import Household
from paw.evals.play import summarise
from paw.evals.statistics import macro_average, summary, wilson_interval
from paw.types import SampledAction, Task, Trajectory, Transition

TURN = Transition(
    context_ids=(1,),
    context_roles=(0,),
    action=SampledAction((2,), (-0.1,), (0.2,), finished=True),
    response="look",
    command="look",
    reward=0.0,
    penalty=0.0,
    valid=True,
    observation="a room",
    next_observation="a room",
    next_observation_ids=(3,),
)


def episode(kind="heat", success=False, turns=(TURN,), failure=None, score=None):
    task = Task(f"valid/{kind}", kind, "heat a mug.")
    return Trajectory(task, 0, 0, tuple(turns), success, success, score, failure)


def test_wilson_interval_by_hand():
    """8 of 10, z = 2: p = 0.8, z^2 = 4, centre (0.8 + 0.2) / 1.4 = 5/7, spread
    2 sqrt(0.026) / 1.4 = 0.23035022; a normal interval would reach above 1."""
    low, high = wilson_interval(8, 10, z=2.0)
    assert low == pytest.approx(5 / 7 - 0.23035022)
    assert high == pytest.approx(5 / 7 + 0.23035022)


def test_wilson_interval_at_the_ends():
    """0 of n: [0, z^2 / (n + z^2)]; n of n is its mirror image; no trials say nothing."""
    assert wilson_interval(0, 12, z=2.0) == pytest.approx((0.0, 0.25))
    assert wilson_interval(12, 12, z=2.0) == pytest.approx((0.75, 1.0))
    assert wilson_interval(0, 0) == (0.0, 1.0)


@given(st.integers(1, 500).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_wilson_interval_holds_the_rate(pair):
    successes, trials = pair
    low, high = wilson_interval(successes, trials)
    assert 0 <= low <= successes / trials + 1e-12 and successes / trials - 1e-12 <= high <= 1


def test_summary_counts_failures_apart():
    """Two usable episodes, one won; the third failed in its environment: 1 of 2, not 1 of 3."""
    won = episode(success=True, turns=(replace(TURN, reward=10.0),), score=1.0)
    lost = episode(turns=(TURN, replace(TURN, valid=False)), score=0.5)
    broken = episode(failure="no answer within 60 s")
    result = summary([won, lost, broken])
    assert (result["num_episodes"], result["num_failures"]) == (2, 1)
    assert result["success_rate"] == 0.5
    assert result["return_mean"] == 5.0
    assert result["score_mean"] == 0.75
    assert result["turns_mean"] == 1.5
    assert result["valid_action_rate"] == pytest.approx(2 / 3)


def test_evaluation_by_kind_and_episode():
    played = [episode("heat", True), episode("heat"), episode("cool", True)]
    result = summarise(played, Household("valid"), env="household", temperature=1.0, seed=3)
    assert {k: v["success_rate"] for k, v in result["by_kind"].items()} == {
        "cool": 1.0,
        "heat": 0.5,
    }
    assert [e["success"] for e in result["episodes"]] == [True, False, True]
    assert result["success_rate"] == pytest.approx(2 / 3)
    assert (result["split"], result["num_tasks"]) == ("valid", 200)
    assert result["source"] == Household("valid").facts()
    assert result["macro_average"]["success_rate"] == pytest.approx(0.75)  # (1 + 1/2) / 2


def test_what_the_prompt_limit_ended_and_cut_is_counted():
    """2 usable episodes, the limit ended one; 1 of their 3 prompts was cut. The failed one does not
    count."""
    cut = replace(TURN, prompt_cut_tokens=4)
    ended = replace(episode(turns=(cut,)), prompt_limit=True)
    broken = replace(episode(turns=(cut,), failure="x"), prompt_limit=True)
    played = [ended, episode(turns=(TURN, TURN)), broken]
    result = summarise(played, Household("valid"), env="household", temperature=1.0, seed=3)
    assert result["prompt_limit_fraction"] == 1 / 2
    assert result["prompt_cut_fraction"] == pytest.approx(1 / 3)
    assert result["by_kind"]["heat"]["prompt_limit_fraction"] == 1 / 2
    rows = [(e["prompt_limit"], e["num_cut_prompts"]) for e in result["episodes"]]
    assert rows == [(True, 1), (False, 0), (True, 1)]


def test_reasons_of_failure_are_counted():
    played = [episode(failure="x"), episode(), episode(failure="y"), episode(failure="x")]
    result = summarise(played, Household("valid"), env="household", temperature=1.0, seed=3)
    assert (result["num_episodes"], result["num_failures"]) == (1, 3)
    assert result["failures"] == {"x": 2, "y": 1}


def test_macro_average_by_hand():
    """Rates 0.8 and 0: mean 0.4, whatever the numbers of episodes. Lower limits 0.3 and 0 below:
    0.3 / 2; upper limits 0.1 and 0.3 above: sqrt(0.1) / 2 = 0.15811388. A kind without a usable
    episode says nothing."""
    rows = {
        "nq": {
            "num_episodes": 10, "success_rate": 0.8, "interval": (0.5, 0.9), "score_mean": 0.9,
        },
        "musique": {
            "num_episodes": 99, "success_rate": 0.0, "interval": (0.0, 0.3), "score_mean": 0.2,
        },
        "popqa": {
            "num_episodes": 0, "success_rate": 0.0, "interval": (0.0, 1.0), "score_mean": None,
        },
    }  # fmt: skip
    average = macro_average(rows)
    assert average["num_kinds"] == 2
    assert average["success_rate"] == pytest.approx(0.4)
    assert average["interval"] == pytest.approx((0.25, 0.55811388))
    assert average["score_mean"] == pytest.approx(0.55)
    assert macro_average({})["interval"] == (0.0, 1.0)


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 30)), min_size=1, max_size=7))
def test_macro_average_of_one_kind_is_that_kind_and_of_many_lies_between(pairs):
    rows = {}
    for number, (wins, count) in enumerate(pairs):
        wins = min(wins, count)
        rows[str(number)] = {
            "num_episodes": count, "success_rate": wins / count, "score_mean": None,
            "interval": wilson_interval(wins, count),
        }  # fmt: skip
    average = macro_average(rows)
    low, high = average["interval"]
    assert low <= average["success_rate"] <= high
    if len(rows) == 1:
        assert (low, high) == pytest.approx(rows["0"]["interval"])
    assert high - low <= max(r["interval"][1] - r["interval"][0] for r in rows.values()) + 1e-12
