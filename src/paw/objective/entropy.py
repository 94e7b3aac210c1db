"""Entropy of the policy at each token: what the selection of Eq. 4 averages over an action."""

import torch
from torch import Tensor

from paw.objective._inputs import as_float


def token_entropy(logits: Tensor) -> Tensor:
    """Shannon entropy of each next-token distribution, in nats.

        H = -sum_v q_v log q_v,    q = softmax(logits)

    Args:
        logits: [..., V] at temperature 1. An entry of -inf is a token that cannot be sampled.

    Returns:
        [...] in [0, log V], at least float32; differentiable. 0 for V = 1 and for a distribution on
        one token.

    Works on a float32 copy of `logits`: give it the action positions only, in chunks.

    Reference: arXiv 2606.02388, Eq. 4 as its prose has it: the entropy of token distributions.
    """
    if logits.dim() < 1 or logits.shape[-1] == 0:
        raise ValueError(f"logits must be [..., V] with V >= 1, got {list(logits.shape)}")
    logprobs = torch.log_softmax(as_float(logits), dim=-1)
    return sampled_token_entropy(logprobs).sum(dim=-1)


def sampled_token_entropy(logprobs: Tensor) -> Tensor:
    """The sampled token's own term of the entropy: Eq. 4's formula as printed, in nats.

        -q log q,    q = exp(logprob) the probability of the token that was sampled

    Args:
        logprobs: [...] of the sampled tokens at temperature 1.

    Returns:
        [...] in [0, 1/e], at least float32; differentiable. 0 at q = 0 (logprob -inf) and q = 1.

    Needs no distribution, only sampled log-probs; not monotone in q: a token of probability 0.01
    scores less (0.046) than one of 0.5 (0.347).

    Reference: arXiv 2606.02388, Eq. 4.
    """
    logprobs = as_float(logprobs)
    probs = logprobs.exp()
    # 0 * -inf is nan, in the value and in the gradient.
    return -probs * logprobs.masked_fill(probs == 0, 0.0)
