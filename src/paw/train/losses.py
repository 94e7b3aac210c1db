"""The three losses that the learner sums, chosen by the configuration once.

Each takes what the model says at chosen tokens and the streams at those tokens, and returns a loss
per token with sums for the statistics. Weights are not their business.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import AlgorithmConfig, PawConfig
from paw.train.batching import ActionStream
from paw.train.prediction.loss import LOSSES

Sums = dict[str, Tensor]
"""What is added up over an update, by name."""


@dataclass(frozen=True, slots=True)
class Losses:
    """Per-token losses; all log-probs at temperature 1."""

    policy: Callable[[Tensor, ActionStream], tuple[Tensor, Sums]]
    """(log-probs [S] of action tokens, their streams) -> ([S], sums)"""
    prediction: Callable[[Tensor, Tensor], tuple[Tensor, Sums]]
    """(log-probs [S] of target tokens, their roles [S], on the CPU) -> ([S], sums)"""
    value: Callable[[Tensor, Tensor, Tensor], Tensor]
    """(values [S], return targets [S], old values [S]) -> [S]"""


def choose_losses(algorithm: AlgorithmConfig, paw: PawConfig) -> Losses:
    """As [algorithm] and [paw] say."""
    low, high, kl_coefficient = algorithm.clip_low, algorithm.clip_high, algorithm.kl_coefficient
    token_loss, cap = LOSSES[paw.loss], paw.probability_cap

    def policy(logprobs: Tensor, actions: ActionStream) -> tuple[Tensor, Sums]:
        old, advantages = actions.old_logprobs, actions.advantages
        losses = objective.clipped_surrogate(logprobs, old, advantages, low, high)
        sums = {}
        if actions.ref_logprobs is not None:
            kl = objective.kl_estimate(logprobs, actions.ref_logprobs)
            losses = losses + kl_coefficient * kl
            sums["ref_kl"] = kl.sum()
        with torch.no_grad():
            drift = objective.kl_estimate(old, logprobs)  # KL(old || policy)
        sums["kl"] = drift.sum()
        sums["clipped"] = objective.clipped_actions(logprobs, old, advantages, low, high).sum()
        sums["zero_advantage_kl"] = drift[actions.zero_advantage].sum()
        sums["zero_advantage_tokens"] = actions.zero_advantage.sum()
        return losses, sums

    def prediction(logprobs: Tensor, roles: Tensor) -> tuple[Tensor, Sums]:
        masked = objective.clipped_tokens(logprobs, cap)
        return token_loss(logprobs, cap), {
            "masked_targets": masked.sum(),
            "target_nll": -logprobs.sum(),
        }

    def value(values: Tensor, targets: Tensor, old_values: Tensor) -> Tensor:
        return objective.value_loss(values, targets, old_values, algorithm.value_clip)

    return Losses(policy, prediction, value)
