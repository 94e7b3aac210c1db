"""How much each group's prediction weighs (Eq. 10), and the ablations."""

from collections.abc import Callable

import torch
from torch import Tensor

WEIGHTS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "adaptive": lambda weights, constant: weights,
    "constant": torch.full_like,
    "matched_constant": torch.full_like,
}
"""(lambda_g of Eq. 10 [G], the constant) -> [G]."""
