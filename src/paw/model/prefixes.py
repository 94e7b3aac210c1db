"""Which tokens of a pack need no computing, because an earlier row begins with the same ones.

What a causal model says of a token depends on the tokens before it alone. So rows that begin alike
(the trajectories of a group, the prompts of one trajectory) are laid out as a tree:

    rows        A B C D E | A B C F | A B G          starts     0       3     2
    computed    A B C D E       F       G            places     0 1 2 3 4 | 0 1 2 5 | 0 1 6

A row's own tokens attend to all of its row, through the keys and values at its `places`; those of
a beginning get their gradient from all rows that have it, summed. That is the same sum in another
order: exact up to rounding.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain

import torch
from torch import Tensor

LEAST = 16
"""Tokens of a beginning below which sharing costs more than it saves."""


@dataclass(frozen=True, eq=False)
class Prefixes:
    """Which tokens of a pack are computed, and where the others are found."""

    starts: tuple[int, ...]
    """[rows] tokens of each row that an earlier row computes; less than its length"""
    computed: Tensor
    """[U] long, ascending: the tokens of the pack that pass through the model"""
    places: Tensor
    """[T] long: which of the computed ones each token of the pack is"""

    def to(self, device: torch.device | str) -> "Prefixes":
        """On that device."""
        return Prefixes(self.starts, self.computed.to(device), self.places.to(device))


def find_prefixes(rows: Sequence[Sequence[int]], base_lengths: Sequence[int]) -> Prefixes | None:
    """The longest beginning of each row that earlier rows have.

    Args:
        rows: of token ids, none empty.
        base_lengths: tokens of each row that may be shared, whatever stands behind them: an
            appended target does not change what is computed where.

    Returns:
        None where no beginning is long enough.
    """
    tree: dict[tuple[int, int], int] = {}  # (place of the token before, token) -> place
    starts, places, computed = [], [], []
    at = 0
    for row, limit in zip(rows, base_lengths, strict=True):
        known, last = [], -1
        for token in row[:limit]:
            place = tree.get((last, token))
            if place is None:
                break
            known.append(place)
            last = place
        # Each row computes a token, so that none is empty.
        start = min(len(known), len(row) - 1) if len(known) >= LEAST else 0
        path = known[:start] + list(range(len(computed), len(computed) + len(row) - start))
        for token, place in zip(row[len(known) : limit], path[len(known) :], strict=False):
            tree[last, token] = last = place
        starts.append(start)
        places.append(path)
        computed += range(at + start, at + len(row))
        at += len(row)
    if not any(starts):
        return None
    flat = list(chain.from_iterable(places))
    return Prefixes(tuple(starts), torch.tensor(computed), torch.tensor(flat))
