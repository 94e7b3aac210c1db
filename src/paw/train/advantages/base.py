"""What an algorithm declares, and what those with groups share."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import AlgorithmConfig
from paw.types import Columns


@dataclass(frozen=True, slots=True, eq=False)
class Advantages:
    """What an algorithm makes of an update."""

    advantages: Tensor
    """[P]"""
    value_targets: Tensor | None = None
    """[P] what the critic learns"""


@dataclass(frozen=True, slots=True)
class Algorithm:
    """A base algorithm: Eq. 1's advantages and what they need."""

    advantages: Callable[[Columns, Tensor | None, AlgorithmConfig], Advantages]
    """(columns, values [P] or None, [algorithm]) -> advantages"""
    needs_critic: bool = False
    """Reads values; without groups of its own, each trajectory is its own group in Eqs. 10, 11."""
    learns_alone: str | None = None
    """What a group of one teaches it; None: as much as any."""


def group_statistic(
    statistic: Callable[[Tensor, Tensor], Tensor], columns: Columns, settings: AlgorithmConfig
) -> Tensor:
    """[P] advantages that a trajectory's turns share: `statistic(returns, group)` of a group.

    With `penalty = "turn"` and trajectory statistics a turn's penalty, less the mean penalty of the
    group's turns, is added to its advantage, so that it never enters the group's deviation (0 in an
    all-fail group, which would blow it up).
    """
    penalties = columns.penalties
    if settings.penalty == "episode":
        returns = columns.returns.index_add(0, columns.trajectory, penalties)
        on_turn = torch.zeros_like(penalties)
    else:
        returns, on_turn = columns.returns, penalties
    if settings.statistics == "turn":
        return statistic(returns[columns.trajectory] + on_turn, columns.group)
    usual = objective.segment_mean(on_turn, columns.group, columns.num_groups)
    shared = statistic(returns, columns.trajectory_group)[columns.trajectory]
    return shared + on_turn - usual[columns.group]
