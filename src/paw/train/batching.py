"""Mini- and micro-batches: nothing dropped, duplicated or padded; weights make any split exact."""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol, TypeVar

import torch

from paw.types import TrainingSample


class HasLength(Protocol):
    """A row of tokens: a `TrainingSample`, or a `Row` before it has weights."""

    @property
    def base_length(self) -> int:
        """Its tokens, appended targets left out."""
        ...


T = TypeVar("T", bound=HasLength)


def mini_batches(
    samples: Sequence[TrainingSample], count: int, generator: torch.Generator
) -> list[list[TrainingSample]]:
    """Split an update into `count` optimizer steps.

    Samples that train actions are shuffled (not for count = 1) and cut into parts whose sizes
    differ by at most one; a row that only predicts goes where its transition's action goes. The
    split of the former does not depend on the latter.
    """
    base = [s for s in samples if not s.predicts_only]
    order = (
        torch.randperm(len(base), generator=generator).tolist() if count > 1 else range(len(base))
    )
    shuffled = [base[i] for i in order]
    bounds = [k * len(base) // count for k in range(count + 1)]
    parts = [shuffled[a:b] for a, b in pairwise(bounds)]
    part_of = {turn: k for k, part in enumerate(parts) for s in part for turn in s.turns}
    for sample in samples:
        if sample.predicts_only:
            parts[part_of[sample.turns[0]]].append(sample)
    return parts


def micro_batches(rows: Sequence[T], max_tokens: int) -> Iterator[list[T]]:
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
