"""Which transitions of the update are predicted (Eq. 4), and the controls."""

from collections.abc import Callable

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import PawConfig

SCORES: dict[str, Callable[[Tensor, torch.Generator], Tensor]] = {
    "entropy": lambda entropy, generator: entropy,
    "lowest": lambda entropy, generator: -entropy,
    "random": lambda entropy, generator: torch.rand(
        len(entropy), dtype=entropy.dtype, generator=generator
    ),
    "all": lambda entropy, generator: torch.zeros_like(entropy),
}
"""(entropy [P], generator) -> [P]: the transitions of highest score are kept."""


def select(
    entropy: Tensor, candidates: Tensor, paw: PawConfig, generator: torch.Generator
) -> Tensor:
    """S_alpha of Eq. 4, or a control that keeps as many: [P] bool."""
    scores = SCORES[paw.select](entropy, generator)
    fraction = 1.0 if paw.select == "all" else paw.selection_fraction
    return objective.select_top_fraction(scores, candidates, fraction)
