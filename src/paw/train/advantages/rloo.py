"""RLOO (arXiv 2402.14740): an episode's return less the mean of the others of its group."""

from torch import Tensor

from paw import objective
from paw.config.tree import AlgorithmConfig
from paw.train.advantages.base import Advantages, Algorithm, group_statistic
from paw.types import Columns


def advantages(columns: Columns, values: Tensor | None, settings: AlgorithmConfig) -> Advantages:
    """[P]; every turn of a trajectory shares its trajectory's, but for penalties."""
    return Advantages(group_statistic(objective.leave_one_out_advantages, columns, settings))


ALGORITHM = Algorithm(advantages, learns_alone="nothing from rewards")
