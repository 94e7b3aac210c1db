"""By which loss a token of the next observation is predicted (Eqs. 5, 7, 8)."""

from collections.abc import Callable

from torch import Tensor

from paw import objective

LOSSES: dict[str, Callable[[Tensor, float], Tensor]] = {
    "cmae": objective.clipped_mae,
    "mae": lambda logprobs, probability_cap: objective.mean_absolute_error(logprobs),
    "ce": lambda logprobs, probability_cap: objective.cross_entropy(logprobs),
}
"""(log-probs [S], rho) -> [S]."""
