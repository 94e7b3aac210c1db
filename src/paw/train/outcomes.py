"""Which groups of an update have no difference in return, and which no return at all."""

import torch
from torch import Tensor

from paw.types import Columns


def same_returns(columns: Columns) -> Tensor:
    """[G] bool: no two trajectories of the group differ in their task return."""
    return -_highest(columns, -columns.returns) == _highest(columns, columns.returns)


def all_failed(columns: Columns) -> Tensor:
    """[G] bool: no trajectory of the group was rewarded, so that its lambda is 1."""
    return _highest(columns, columns.returns) <= 0


def _highest(columns: Columns, values: Tensor) -> Tensor:
    """[G] of the values [N] of each group's trajectories."""
    lowest = torch.full((columns.num_groups,), -torch.inf, dtype=torch.float64)
    return lowest.scatter_reduce(0, columns.trajectory_group, values, "amax")
