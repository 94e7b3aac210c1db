"""Runs without a signal: an update's numbers in, what is wrong with it in words out. Pure."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

CONFUSED = 0.1
"""Share of responses that write an observation of their own, from which role confusion is said."""
ONE_TARGET = 0.7
"""Share of the targets that are one and the same observation. The household's "Nothing happens."
makes up 0.3 to 0.6 of a weak policy's."""
FEW_TARGETS = 16
"""Below so many targets one of them is often most of them."""
STRANGE = 8.0
"""Nats a target token from which (clipped) MAE has next to no gradient: p (1 - p) of p = e^-8 is
0.0003. A policy that knows no text but its own commands has 10."""
WELL = 5
"""Updates in a row without a problem after which it is over."""

Metrics = Mapping[str, Any]
CHECKS: dict[str, Callable[[Metrics], bool]] = {
    "no valid action": lambda m: _is(m, "rollout/valid_action_rate", 0),
    "every response was cut at rollout.max_response_tokens": lambda m: _is(
        m, "rollout/unfinished_fraction", 1
    ),
    # A critic learns from differences between tasks as well.
    "no group with a difference in return": lambda m: (
        _is(m, "rollout/groups_with_difference", 0) and "critic/loss" not in m
    ),
    "role confusion: responses write the observation themselves": lambda m: (
        _number(m, "wm/role_confusion_rate") >= CONFUSED
    ),
    "one observation makes up most targets of the prediction": lambda m: (
        _number(m, "wm/most_common_target_fraction") >= ONE_TARGET
        and _number(m, "wm/weighted_transitions") >= FEW_TARGETS
    ),
}
"""What is wrong by whether it is, from the metrics of one update."""
NOTHING_SELECTED = "nothing selected: no turn has a next observation to predict"
NO_HOLD = (
    "observations are next to impossible to the policy, where MAE has no gradient: start from a "
    "model that has seen such texts"
)


def health(metrics: Metrics, *, predicts: bool = True, by_mae: bool = False) -> list[str]:
    """What keeps an update from learning, each in a few words; empty where nothing does.

    Args:
        metrics: of one update; what is not there or None is no problem.
        predicts: the update trains the prediction.
        by_mae: of true next observations, by MAE, clipped or not.
    """
    found = [problem for problem, is_there in CHECKS.items() if is_there(metrics)]
    if predicts and _is(metrics, "wm/selected_transitions", 0):
        found.append(NOTHING_SELECTED)
    if predicts and by_mae and _number(metrics, "wm/nll") >= STRANGE:
        found.append(NO_HOLD)
    return found


class HealthLines:
    """One line when a problem begins and one when it is over, `WELL` updates without it later."""

    def __init__(self) -> None:
        self._last: dict[str, int] = {}
        """The last update of each problem that is not over."""

    def of(self, update: int, problems: Sequence[str]) -> list[str]:
        """The lines to print after an update."""
        lines = [f"update {update}: {p}" for p in problems if p not in self._last]
        self._last |= dict.fromkeys(problems, update)
        for problem, last in list(self._last.items()):
            if update - last >= WELL:
                del self._last[problem]
                lines.append(f"update {update}: over since update {last + 1}: {problem}")
        return lines


def _number(metrics: Metrics, name: str) -> float:
    value = metrics.get(name)
    return -1.0 if value is None else value


def _is(metrics: Metrics, name: str, value: float) -> bool:
    return metrics.get(name) == value
