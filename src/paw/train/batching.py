"""Mini- and micro-batches. Nothing is dropped, duplicated or padded: weights make any split exact."""

from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch

from paw.types import TrainingSample


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


def micro_batches(
    samples: Sequence[TrainingSample], max_tokens: int
) -> Iterator[list[TrainingSample]]:
    """Consecutive samples of at most `max_tokens` base tokens together, at least one each."""
    batch: list[TrainingSample] = []
    tokens = 0
    for sample in samples:
        if batch and tokens + sample.base_length > max_tokens:
            yield batch
            batch, tokens = [], 0
        batch.append(sample)
        tokens += sample.base_length
    if batch:
        yield batch
