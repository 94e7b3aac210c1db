"""What diagnostic updates measure besides: passes without gradient that no other update makes.

Every arm measures the same, whether it trains the prediction or not, so that arms compare.
"""

from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor

from paw import objective
from paw.model.policy import Policy
from paw.model.spans import micro_batches
from paw.rollout.ranks import ALONE, Ranks
from paw.text.dialogue import Serializer
from paw.train.batching import make_batch
from paw.train.forward import score_actions
from paw.train.judge import judge
from paw.train.outcomes import all_failed, same_returns
from paw.train.prediction.target import scaffold_before
from paw.train.serialise import serialise
from paw.train.session import Session
from paw.types import Columns, Row, Scores, Target, Targets, TrainingSample, Transition


def before_learning(
    session: Session,
    update: int,
    *,
    transitions: Sequence[Transition],
    columns: Columns,
    rows: Sequence[Row],
    scores: Scores,
) -> dict[str, float | None]:
    """How well the policy predicts true next observations, nats a token.

    `wm/next_observation_nll`: of all candidates. `wm/nll`: of those that an arm with these settings
    trains on whose prediction is on (Eqs. 4 and 10): what an arm without compares with.
    """
    paw = replace(session.rules.paw, enabled=True, coefficient=1.0, schedule="joint")
    generator = session.generator(update, stream=2)
    judgement = judge(columns, scores, replace(session.rules, paw=paw), update, generator)
    silent = replace(judgement, action_weights=torch.zeros_like(judgement.action_weights))
    serializer, learner = session.actor.serializer, session.learner

    def nll(chosen: Tensor) -> float | None:
        targets = true_targets(transitions, chosen, serializer)
        samples = serialise(rows, scores, silent, targets)
        return prediction_nll(session.player, samples, learner.limit.tokens, session.ranks)

    return {
        "wm/next_observation_nll": nll(columns.candidates),
        "wm/nll": nll(judgement.transition_weights != 0),
    }


def true_targets(
    transitions: Sequence[Transition], chosen: Tensor, serializer: Serializer
) -> Targets:
    """The true next observations of the chosen transitions [P] bool."""
    return Targets(
        {
            i: Target(
                t.next_observation_ids,
                1.0,
                scaffold_before(t.action, t.next_header_ids, serializer),
            )
            for i, t in enumerate(transitions)
            if chosen[i]
        },
        0.0,
    )


@torch.no_grad()
def prediction_nll(
    policy: Policy, samples: Sequence[TrainingSample], max_tokens: int, ranks: Ranks = ALONE
) -> float | None:
    """Mean NLL of the samples' targets, nats a token; None without any. Counts no forward pass."""

    def ask(own: list[TrainingSample]) -> list[tuple[float, int]]:
        found = []
        for members in micro_batches(own, max_tokens):
            batch = make_batch(members, policy.device, policy.share_prefixes)
            logprobs, _ = policy.logprobs(batch.packed, batch.positions)
            found.append((float(logprobs.double().sum()), len(logprobs)))
        return found

    weighted = [s for s in samples if s.has_weight]
    with policy.passes.uncounted():
        sums = ranks.spread(weighted, ask, lambda sample: sample.base_length)
    count = sum(number for _, number in sums)
    return -sum(total for total, _ in sums) / count if count else None


def drift(
    policy: Policy, rows: Sequence[Row], scores: Scores, columns: Columns, max_tokens: int,
    *, ranks: Ranks = ALONE,
) -> dict[str, float | None]:  # fmt: skip
    """After learning: how far the policy moved, where no reward drove it, and where all failed."""
    with policy.passes.uncounted():
        new, _ = score_actions(policy, rows, max_tokens, ranks)
    moved = [
        float(objective.kl_estimate(torch.tensor(old), torch.tensor(now)).mean())
        for old, now in zip(scores.logprobs, new, strict=True)
    ]

    def mean(groups: Tensor) -> float | None:
        of_them = groups[columns.group].tolist()
        there = [d for d, is_one in zip(moved, of_them, strict=True) if is_one]
        return sum(there) / len(there) if there else None

    return {
        "policy/kl_after": sum(moved) / len(moved),
        "policy/kl_after_zero_advantage": mean(same_returns(columns)),
        "policy/kl_after_all_failed": mean(all_failed(columns)),
    }
