"""Losses per next-observation token (Eqs. 5 to 9), from the log-probs of the target tokens.

All take log-probs at temperature 1 whatever the sampling temperature, and compute in at least
float32. None reduces: weights and the division by |o| belong to `weighted_sum`.
"""

import torch
from torch import Tensor

from paw.objective._inputs import as_float, check_unit_interval


def cross_entropy(logprobs: Tensor) -> Tensor:
    """Negative log-likelihood per token, in nats: -log p.

    Gradient per target logit: -(1 - p), largest where the token is most surprising.

    Args:
        logprobs: [...] of the target tokens.

    Returns:
        [...] at least float32; +inf at log-prob -inf, 0 at p = 1.

    Reference: arXiv 2606.02388, Eq. 5.
    """
    return -as_float(logprobs)


def mean_absolute_error(logprobs: Tensor) -> Tensor:
    """Mean absolute error per token, half the L1 distance to the one-hot target: 1 - p.

    Gradient with respect to the log-prob: -p; per target logit: -p (1 - p), which vanishes for
    tokens the model finds impossible as well as for those it knows.

    Args:
        logprobs: [...] of the target tokens.

    Returns:
        [...] in [0, 1], at least float32; 1 with gradient 0 at log-prob -inf.

    Reference: arXiv 2606.02388, Eqs. 7 to 9 without the mask; Ghosh et al. 2017, arXiv 1712.09482.
    """
    return -torch.expm1(as_float(logprobs))


def clipped_tokens(logprobs: Tensor, probability_cap: float) -> Tensor:
    """Which tokens `clipped_mae` leaves out: p > rho. Its mean is the clipped-token fraction.

    Args:
        logprobs: [...] of the target tokens.
        probability_cap: rho in [0, 1].

    Returns:
        [...] bool, without gradient. p = exp(logprob) = rho is not clipped; nan is not, so that it
        shows.

    Reference: arXiv 2606.02388, Eq. 8.
    """
    check_unit_interval(probability_cap=probability_cap)
    return as_float(logprobs.detach()).exp() > probability_cap


def clipped_mae(logprobs: Tensor, probability_cap: float) -> Tensor:
    """Clipped mean absolute error per token: tokens already likely enough teach nothing more.

        l_i = m_i (1 - p_i),    m_i = 1[p_i <= rho] without gradient

    Gradient with respect to the log-prob: -p where p <= rho (per target logit -p (1 - p)), exactly
    0 above. The paper divides the sum by the full length |o| of the observation, clipped tokens
    included: a token's weight is transition_weight / |o|, to be given to `weighted_sum`.

    Args:
        logprobs: [...] of the target tokens.
        probability_cap: rho in [0, 1]; the paper's best is 0.2, 1 gives `mean_absolute_error`.

    Returns:
        [...] in [0, 1], at least float32; 1 with gradient 0 at log-prob -inf, 0 where clipped.

    Reference: arXiv 2606.02388, Eqs. 8 and 9.
    """
    errors = mean_absolute_error(logprobs)
    return errors.masked_fill(clipped_tokens(logprobs, probability_cap), 0.0)
