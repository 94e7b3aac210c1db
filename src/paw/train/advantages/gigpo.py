"""GiGPO (arXiv 2505.10978): GRPO's, and a second comparison among turns of one anchor."""

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import AlgorithmConfig
from paw.train.advantages import grpo
from paw.train.advantages.base import Advantages, Algorithm
from paw.types import Columns


def advantages(columns: Columns, values: Tensor | None, settings: AlgorithmConfig) -> Advantages:
    """[P] A_episode + omega A_step; step returns hold each penalty on its own turn."""
    episode = grpo.advantages(columns, values, settings).advantages
    anchors = objective.anchor_labels(
        columns.observations, columns.group.tolist(), settings.anchor_similarity
    )
    step = objective.step_advantages(
        columns.rewards + columns.penalties,
        columns.trajectory,
        columns.turn,
        columns.group,
        torch.tensor(anchors),
        settings.discount,
        settings.scale_by_std,
    )
    return Advantages(episode + settings.step_weight * step)


ALGORITHM = Algorithm(
    advantages,
    learns_alone="from rewards only where an episode comes back to an observation",
)
