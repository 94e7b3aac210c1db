"""What diagnostic updates measure besides: passes without gradient that no other update makes,
and the norms of the two terms' gradients.

Every arm measures the same, whether it trains the prediction or not, so that arms compare.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from paw import objective
from paw.model.policy import Policy
from paw.text.dialogue import Serializer
from paw.train.batching import make_batch, micro_batches
from paw.train.score import score_actions
from paw.train.serialise import serialise
from paw.types import Judgement, Row, Scores, Target, Targets, TrainingSample, Transition


def true_observations(
    transitions: Sequence[Transition],
    rows: Sequence[Row],
    scores: Scores,
    judgement: Judgement,
    serializer: Serializer,
) -> list[TrainingSample]:
    """The update's rows with every true next observation as a target, and nothing else."""
    targets = {
        i: Target(t.next_observation_ids, 1.0, serializer.to_user(t.action))
        for i, t in enumerate(transitions)
        if t.next_observation_ids
    }
    silent = replace(judgement, action_weights=torch.zeros_like(judgement.action_weights))
    return serialise(rows, scores, silent, Targets(targets, 0.0))


@torch.no_grad()
def prediction_nll(
    policy: Policy, samples: Sequence[TrainingSample], max_tokens: int
) -> float | None:
    """Mean NLL of the samples' targets, nats a token; None without any. Counts no forward pass."""
    counted = policy.num_forwards, policy.num_rows
    total, count = 0.0, 0
    for members in micro_batches([s for s in samples if s.has_weight], max_tokens):
        batch = make_batch(members, policy.device)
        logprobs, _ = policy.logprobs(batch.packed, batch.positions)
        total, count = total - float(logprobs.double().sum()), count + len(logprobs)
    policy.num_forwards, policy.num_rows = counted
    return total / count if count else None


def drift(
    policy: Policy, rows: Sequence[Row], scores: Scores, judgement: Judgement, max_tokens: int
) -> dict[str, float | None]:
    """After learning: how far the policy moved, and how far where no reward drove it."""
    counted = policy.num_forwards, policy.num_rows
    new, _ = score_actions(policy, rows, max_tokens)
    policy.num_forwards, policy.num_rows = counted
    moved = [
        float(objective.kl_estimate(torch.tensor(old), torch.tensor(now)).mean())
        for old, now in zip(scores.logprobs, new, strict=True)
    ]
    without = [d for d, z in zip(moved, judgement.zero_advantage.tolist(), strict=True) if z]
    return {
        "policy/kl_after": sum(moved) / len(moved),
        "policy/kl_after_zero_advantage": sum(without) / len(without) if without else None,
    }


def gradient_norms(
    parameters: list[nn.Parameter], prediction: list[Tensor] | None
) -> dict[str, float]:
    """Norms of the two terms' gradients; the policy's is the difference to the sum."""
    whole = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    alone = prediction or [torch.zeros_like(p) for p in parameters]
    policy = [w - a for w, a in zip(whole, alone, strict=True)]

    def norm(gradient: list[Tensor]) -> float:
        return float(torch.stack([g.double().square().sum() for g in gradient]).sum().sqrt())

    return {"wm_gradient_norm": norm(alone), "policy_gradient_norm": norm(policy)}
