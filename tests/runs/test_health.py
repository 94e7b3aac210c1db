"""Updates without a signal, by numbers: one at the threshold and one beside it."""

from typing import Any

import pytest

from paw.runs.health import NO_HOLD, NOTHING_SELECTED, HealthLines, health

WELL: dict[str, Any] = {
    "rollout/valid_action_rate": 0.5,
    "rollout/unfinished_fraction": 0.0,
    "rollout/groups_with_difference": 3,
    "wm/role_confusion_rate": 0.0,
    "wm/selected_transitions": 40,
    "wm/weighted_transitions": 40,
    "wm/most_common_target_fraction": 0.4,
}


def test_a_healthy_update_has_no_problem():
    assert health(WELL) == []
    assert health({}) == []
    assert health(dict.fromkeys(WELL)) == []  # nothing measured


@pytest.mark.parametrize(
    ("name", "ill", "well", "part"),
    [
        ("rollout/valid_action_rate", 0.0, 0.001, "no valid action"),
        ("rollout/unfinished_fraction", 1.0, 0.999, "max_response_tokens"),
        ("rollout/groups_with_difference", 0, 1, "no group with a difference"),
        ("wm/role_confusion_rate", 0.1, 0.09, "role confusion"),
        ("wm/most_common_target_fraction", 0.7, 0.69, "one observation"),
    ],
)
def test_thresholds(name: str, ill: float, well: float, part: str):
    (problem,) = health(WELL | {name: ill})
    assert part in problem
    assert health(WELL | {name: well}) == []


def test_mae_has_no_hold_on_what_is_next_to_impossible():
    """p = e^-8: p (1 - p) = 0.0003, where cross-entropy's gradient is 1 - p = 0.9997."""
    strange = WELL | {"wm/nll": 8.0}
    assert health(strange, by_mae=True) == [NO_HOLD]
    assert health(strange) == health(strange, by_mae=True, predicts=False) == []
    assert health(WELL | {"wm/nll": 7.9}, by_mae=True) == []
    assert health(WELL | {"wm/nll": None}, by_mae=True) == []


def test_nothing_selected_is_a_problem_where_the_prediction_is_trained():
    none = WELL | {"wm/selected_transitions": 0, "wm/most_common_target_fraction": None}
    assert health(none) == [NOTHING_SELECTED]
    assert health(none, predicts=False) == []


def test_a_critic_learns_from_differences_between_tasks():
    assert health(WELL | {"rollout/groups_with_difference": 0, "critic/loss": 0.5}) == []


def test_one_of_few_targets_is_often_most_of_them():
    few = WELL | {"wm/most_common_target_fraction": 1.0, "wm/weighted_transitions": 15}
    assert health(few) == []
    assert len(health(few | {"wm/weighted_transitions": 16})) == 1


def test_a_problem_that_comes_and_goes_is_said_once():
    """There in 1, 3 and 4, gone for five updates with 9, back in 10."""
    lines, there = HealthLines(), {1, 3, 4, 10}
    said = {n: lines.of(n, ["x"] if n in there else []) for n in range(1, 11)}
    assert {n: found for n, found in said.items() if found} == {
        1: ["update 1: x"],
        9: ["update 9: over since update 5: x"],
        10: ["update 10: x"],
    }
