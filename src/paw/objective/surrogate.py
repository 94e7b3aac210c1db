"""Losses of the base algorithms per element: policy surrogate and its importance weights, KL
estimate, value loss."""

import math

import torch
from torch import Tensor

from paw.objective._inputs import as_float, check_same_shape, constant


def clipped_surrogate(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """PPO's clipped surrogate per token, as a loss.

        ratio = exp(logprob - old_logprob)
        loss = -min(ratio * A, clip(ratio, 1 - clip_low, 1 + clip_high) * A)

    Gradient with respect to the log-prob: -A * ratio, exactly 0 where the clip holds (ratio above
    1 + clip_high with A > 0, or below 1 - clip_low with A < 0) and where A = 0, finite there
    whatever the log-probs. With A < 0 the loss grows with the ratio without bound.

    Args:
        logprobs: [...] of the sampled tokens under the policy.
        old_logprobs: [...] under the policy that sampled them; no gradient.
        advantages: [...] one per token; no gradient. Shapes must be equal: nothing broadcasts.
        clip_low: in [0, 1].
        clip_high: >= 0; inf for no upper clip.

    Returns:
        [...] loss per token, at least float32; -A at ratio 1.

    Raises:
        ValueError: shapes differ, clip_low outside [0, 1] or clip_high < 0.

    Reference: Schulman et al. 2017, arXiv 1707.06347, Eq. 7; two clip values: Yu et al. 2025,
    arXiv 2503.14476.
    """
    check_same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    _check_clip(clip_low, clip_high)
    advantages = constant(advantages)
    log_ratio = (as_float(logprobs) - constant(old_logprobs)).masked_fill(advantages == 0, 0.0)
    # For A > 0 only the upper clip can hold, for A < 0 only the lower. The upper one clips the
    # logarithm: a ratio that overflows would put inf times a gradient of 0 into the graph.
    upper = torch.full_like(log_ratio, math.inf)
    upper = upper.masked_fill(advantages > 0, math.log1p(clip_high))
    ratio = log_ratio.clamp(max=upper).exp()
    ratio = torch.where(advantages < 0, ratio.clamp(min=1 - clip_low), ratio)
    return -advantages * ratio


def clipped_actions(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    clip_low: float,
    clip_high: float,
) -> Tensor:
    """Which tokens `clipped_surrogate` leaves without gradient; the mean is the clipped fraction.

        ratio > 1 + clip_high with A > 0, or ratio < 1 - clip_low with A < 0

    Args:
        as `clipped_surrogate`.

    Returns:
        [...] bool, without gradient.

    Raises:
        ValueError: as `clipped_surrogate`.

    Reference: Schulman et al. 2017, arXiv 1707.06347, Eq. 7.
    """
    check_same_shape(logprobs=logprobs, old_logprobs=old_logprobs, advantages=advantages)
    _check_clip(clip_low, clip_high)
    ratio = (constant(logprobs) - constant(old_logprobs)).exp()
    too_low, too_high = ratio < 1 - clip_low, ratio > 1 + clip_high
    return too_low & (advantages < 0) | too_high & (advantages > 0)


def truncated_importance(logprobs: Tensor, sampler_logprobs: Tensor, cap: float) -> Tensor:
    """Weight of each token's policy loss where another engine sampled it than the one that scored
    it, both with the same weights.

        min(exp(logprob - sampler_logprob), cap)

    The expectation of loss times weight over what the sampler draws is that over the scored policy,
    but for the cap, which bounds the variance.

    Args:
        logprobs: [...] of the sampled tokens by the scoring pass; no gradient.
        sampler_logprobs: [...] by the sampler that drew them; no gradient.
        cap: > 0; inf for none.

    Returns:
        [...] at least float32, in [0, cap], without gradient.

    Raises:
        ValueError: shapes differ, or cap <= 0.

    Reference: Ionides 2008, "Truncated importance sampling"; for two engines: Yao et al. 2025,
    "Your efficient RL framework secretly brings you off-policy RL training".
    """
    check_same_shape(logprobs=logprobs, sampler_logprobs=sampler_logprobs)
    if not cap > 0:
        raise ValueError(f"cap must be > 0, got {cap}")
    return (constant(logprobs) - constant(sampler_logprobs)).exp().clamp(max=cap)


def kl_estimate(logprobs: Tensor, ref_logprobs: Tensor) -> Tensor:
    """Low-variance estimate ("k3") of KL(policy || reference) per token, in nats.

        exp(d) - d - 1,    d = ref_logprob - logprob

    Non-negative, unbiased for tokens sampled from the policy. As a loss its gradient with respect
    to the log-prob is 1 - exp(d).

    Args:
        logprobs: [...] of the sampled tokens under the policy.
        ref_logprobs: [...] under the reference; no gradient.

    Returns:
        [...] at least float32; 0 where both agree, inf where the reference is -inf, nan where the
        policy is (such a token cannot have been sampled).

    Raises:
        ValueError: shapes differ.

    Reference: Schulman 2020, "Approximating KL divergence"; as a loss in arXiv 2402.03300, Eq. 4.
    """
    check_same_shape(logprobs=logprobs, ref_logprobs=ref_logprobs)
    difference = constant(ref_logprobs) - as_float(logprobs)
    return torch.expm1(difference) - difference


def value_loss(values: Tensor, returns: Tensor, old_values: Tensor, clip: float | None) -> Tensor:
    """Squared error of the critic per element, with PPO's value clipping.

        0.5 * max((V - R)^2, (V_clip - R)^2),   V_clip = V_old + clamp(V - V_old, -clip, clip)

    With clip=None, 0.5 * (V - R)^2. The half and the maximum are the public trainers' convention.

    Args:
        values: [...] the critic's V.
        returns: [...] targets; no gradient.
        old_values: [...] V at the start of the update; no gradient.
        clip: >= 0 in the units of the return, or None for no clipping.

    Returns:
        [...] at least float32. The gradient is V - R, and 0 where the clipped error is the larger.

    Raises:
        ValueError: shapes differ or clip < 0.

    Reference: Schulman et al. 2016, arXiv 1506.02438, Section 5; clipping as in the public PPO
    code, Huang et al. 2022, "The 37 implementation details of PPO", detail 9.
    """
    check_same_shape(values=values, returns=returns, old_values=old_values)
    if clip is not None and not clip >= 0:
        raise ValueError(f"clip must be >= 0 or None, got {clip}")
    values, returns, old_values = as_float(values), constant(returns), constant(old_values)
    losses = (values - returns).square()
    if clip is not None:
        clipped = old_values + (values - old_values).clamp(-clip, clip)
        losses = torch.maximum(losses, (clipped - returns).square())
    return 0.5 * losses


def _check_clip(clip_low: float, clip_high: float) -> None:
    if not (0 <= clip_low <= 1 and clip_high >= 0):
        raise ValueError(
            f"clip_low must be in [0, 1] and clip_high >= 0, got {clip_low} and {clip_high}"
        )
