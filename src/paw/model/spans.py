"""What a policy says of spans of tokens, of whatever role, in rows of any number."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch

from paw.model.packing import pack
from paw.model.policy import Policy


class HasLength(Protocol):
    """A row of tokens, with or without weights."""

    @property
    def base_length(self) -> int:
        """Its tokens, appended targets left out."""
        ...


T = TypeVar("T", bound=HasLength)


@dataclass(frozen=True, slots=True)
class SpanRow:
    """A row of tokens, and which of them are asked for."""

    token_ids: Sequence[int]
    """[L]"""
    spans: Sequence[tuple[int, int]]
    """(first token, one past the last) of each; none begins with the row's first token"""

    @property
    def base_length(self) -> int:
        """L"""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class SpanScores:
    """What the policy says of the tokens of one span, at temperature 1."""

    logprobs: list[float]
    """nats, given all tokens before in the row"""
    entropies: list[float]
    """nats, of the full next-token distribution"""
    is_top: list[bool]
    """No token is more probable"""


def micro_batches(rows: Iterable[T], max_tokens: int) -> Iterator[list[T]]:
    """Consecutive rows of at most `max_tokens` base tokens together, at least one each."""
    batch: list[T] = []
    tokens = 0
    for row in rows:
        if batch and tokens + row.base_length > max_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(row)
        tokens += row.base_length
    if batch:
        yield batch


def score_spans(
    policy: Policy, rows: Iterable[SpanRow], max_tokens: int, *, share: bool
) -> Iterator[list[SpanScores]]:
    """The scores of each row's spans, row after row; a forward pass when they are asked for.

    Args:
        policy: asked without gradients.
        rows: taken as they are needed.
        max_tokens: of one forward pass.
        share: compute what rows of one pass have in common once.
    """
    for batch in micro_batches(rows, max_tokens):
        yield from _score(policy, batch, share)


@torch.no_grad()
def _score(policy: Policy, rows: Sequence[SpanRow], share: bool) -> list[list[SpanScores]]:
    packed = pack([row.token_ids for row in rows], policy.device, share)
    places = [
        range(offset + start, offset + stop)
        for row, offset in zip(rows, packed.boundaries, strict=False)
        for start, stop in row.spans
    ]
    positions = torch.tensor([p for place in places for p in place], dtype=torch.long)
    found = (x.tolist() for x in policy.scores(packed, positions.to(policy.device)))
    logprobs, entropies, is_top = found
    scores, at = [], 0
    for place in places:
        here = slice(at, at := at + len(place))
        scores.append(SpanScores(logprobs[here], entropies[here], is_top[here]))
    remaining = iter(scores)
    return [[next(remaining) for _ in row.spans] for row in rows]
