"""GRPO (arXiv 2402.03300): an episode's return against mean and deviation of its group."""

from torch import Tensor

from paw import objective
from paw.config.tree import AlgorithmConfig
from paw.train.advantages.base import Advantages, Algorithm, group_statistic
from paw.types import Columns


def advantages(columns: Columns, values: Tensor | None, settings: AlgorithmConfig) -> Advantages:
    """[P]; every turn of a trajectory shares its trajectory's, but for penalties."""

    def statistic(returns: Tensor, group: Tensor) -> Tensor:
        return objective.group_relative_advantages(returns, group, settings.scale_by_std)

    return Advantages(group_statistic(statistic, columns, settings))


ALGORITHM = Algorithm(advantages, learns_alone="nothing from rewards")
