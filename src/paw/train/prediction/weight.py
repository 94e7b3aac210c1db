"""How much each group's prediction weighs (Eq. 10), and the ablations and placebos."""

from collections.abc import Callable

import torch
from torch import Tensor

WEIGHTS: dict[str, Callable[[Tensor, float, float], Tensor]] = {
    "adaptive": lambda weights, constant, left: weights,
    "constant": lambda weights, constant, left: torch.full_like(weights, constant),
    "matched_constant": lambda weights, constant, left: torch.full_like(weights, constant),
    "decay": lambda weights, constant, left: torch.full_like(weights, constant * left),
}
"""(lambda_g of Eq. 10 [G], the constant, share of the run's updates that is left: 1 at the first,
1 / U at the last) -> [G]."""


def random_signs(count: int, generator: torch.Generator) -> list[float]:
    """+1 or -1, as likely, for each of `count` transitions."""
    return (2 * torch.randint(2, (count,), generator=generator) - 1).tolist()
