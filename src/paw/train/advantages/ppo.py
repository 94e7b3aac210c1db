"""PPO (arXiv 1707.06347): generalized advantages over turns, from a critic."""

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import AlgorithmConfig
from paw.train.advantages.base import Advantages, Algorithm
from paw.types import Columns


def advantages(columns: Columns, values: Tensor | None, settings: AlgorithmConfig) -> Advantages:
    """[P] whitened over the update, and [P] the critic's targets, which are not."""
    assert values is not None
    advantages, returns = objective.generalized_advantages(
        columns.rewards + columns.penalties,
        values,
        columns.trajectory,
        columns.turn,
        settings.gae_discount,
        settings.gae_lambda,
    )
    whole = torch.zeros(len(advantages), dtype=torch.long)
    whitened = objective.group_relative_advantages(advantages, whole, scale_by_std=True)
    return Advantages(whitened, returns)


ALGORITHM = Algorithm(advantages, needs_critic=True)
