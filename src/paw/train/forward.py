"""Passes without gradient: what the models say of the rows of an update, each rank of its share."""

from collections.abc import Sequence
from typing import TypeVar

import torch
from torch import Tensor

from paw.model.critic import Critic
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.model.spans import SpanRow, SpanScores, micro_batches, score_spans
from paw.rollout.ranks import ALONE, Ranks
from paw.types import Row

A = TypeVar("A")


def score_actions(
    policy: Policy, rows: Sequence[Row], max_tokens: int, ranks: Ranks = ALONE
) -> tuple[list[list[float]], list[list[float]]]:
    """Log-probs and full entropies of every action token: ([P] of [A], [P] of [A])."""

    def ask(own: list[Row]) -> list[SpanScores]:
        spans = (list(zip(r.action_starts, r.action_ends, strict=True)) for r in own)
        asked = [SpanRow(r.token_ids, s) for r, s in zip(own, spans, strict=True)]
        found = score_spans(policy, asked, max_tokens, share=policy.share_prefixes)
        return [score for of_row in found for score in of_row]

    with ranks.gathered(policy):
        scores = _by_transition(rows, ranks.spread(rows, ask, _length))
    return [score.logprobs for score in scores], [score.entropies for score in scores]


@torch.no_grad()
def score_prompts(
    critic: Critic, rows: Sequence[Row], max_tokens: int, ranks: Ranks = ALONE
) -> Tensor:
    """The critic's value of each transition's prompt: [P] float64."""

    def ask(own: list[Row]) -> list[float]:
        values: list[float] = []
        for batch in ranks.rounds(micro_batches(own, max_tokens), lambda: rows[0]):
            packed = pack([r.token_ids for r in batch], critic.device, critic.share_prefixes)
            offsets = zip(batch, packed.boundaries, strict=False)
            positions = [offset + start - 1 for r, offset in offsets for start in r.action_starts]
            values += critic.values(packed, torch.tensor(positions, device=critic.device)).tolist()
        return values[: sum(len(r.transitions) for r in own)]  # spare rows stand behind

    answers = _by_transition(rows, ranks.spread(rows, ask, _length))
    return torch.tensor(answers, dtype=torch.float64)


def _by_transition(rows: Sequence[Row], answers: Sequence[A]) -> list[A]:
    """Answers in the order of the rows' transitions, in that of the update."""
    places = [i for row in rows for i in row.transitions]
    return [answers[at] for at in sorted(range(len(places)), key=places.__getitem__)]


def _length(row: Row) -> int:
    return row.base_length
