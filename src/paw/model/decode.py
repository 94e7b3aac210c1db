"""How new tokens attend to a cache, and how the next ones are drawn: tensors in, tensors out.

`PrefillAttention` and `DecodeAttention` are the `Attend` objects of the sampler's forward passes:
the first for blocks of prompt tokens, the second for one token a conversation.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from paw.model.cache import SlotCache
from paw.model.packing import flash_fits, flash_varlen, window_mask


@dataclass(frozen=True, eq=False)
class Sequences:
    """Where the whole sequences of some blocks stand in the cache, laid end to end: K tokens."""

    rows: Tensor
    """[K] long"""
    columns: Tensor
    """[K] long"""
    offsets: tuple[Tensor, Tensor]
    """[blocks + 1] int32 each: cumulative lengths of the new tokens and of the sequences."""
    longest: tuple[int, int]
    """Longest block of new tokens, longest sequence."""

    @classmethod
    def of(cls, blocks: Sequence[tuple[int, int, int]], device: torch.device) -> "Sequences":
        """Of blocks (row, start, stop): the first `stop` tokens of each row."""
        sizes = [stop - start for _, start, stop in blocks]
        stops = [stop for _, _, stop in blocks]
        rows = torch.tensor([row for row, _, _ in blocks]).repeat_interleave(torch.tensor(stops))
        columns = torch.cat([torch.arange(stop) for stop in stops])
        new, whole = (torch.tensor([0, *accumulate(n)], dtype=torch.int32) for n in (sizes, stops))
        return cls(
            rows.to(device),
            columns.to(device),
            (new.to(device), whole.to(device)),
            (max(sizes), max(stops)),
        )

    def gather(self, tensor: Tensor) -> Tensor:
        """[K, kv_heads, d] of a layer's keys or values [rows, kv_heads, T, d]."""
        return tensor[self.rows, :, self.columns]


class PrefillAttention:
    """Blocks of new tokens attend to their row's cache and to themselves, causally."""

    def __init__(self, cache: SlotCache, blocks: Sequence[tuple[int, int, int]], device):
        """`blocks`: (row, start, stop) of each block, in the order of the packed tokens."""
        self.cache = cache
        self.blocks = blocks
        self.max_length = max(stop for _, _, stop in blocks)
        sizes = torch.tensor([stop - start for _, start, stop in blocks])
        rows = torch.tensor([row for row, _, _ in blocks]).repeat_interleave(sizes)
        positions = torch.cat([torch.arange(start, stop) for _, start, stop in blocks])
        self.rows, self.position_ids = rows.to(device), positions.to(device)
        self._masks: dict[int | None, list[Tensor | None]] = {}
        self._sequences: Sequences | None = None

    def __call__(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        *,
        window: int | None = None,
    ) -> Tensor:
        """See `Attend`."""
        keys, values = self.cache.write(layer, self.rows, self.position_ids, key, value)
        if flash_fits(query, value):
            return self._flash(query, keys, values, scaling, window)
        if window not in self._masks:
            self._masks[window] = [
                self._mask(start, stop, window, query) for _, start, stop in self.blocks
            ]
        grouped = query.shape[1] != key.shape[1]
        parts, at = [], 0
        for (row, start, stop), mask in zip(self.blocks, self._masks[window], strict=True):
            size = stop - start
            parts.append(
                F.scaled_dot_product_attention(
                    query[:, :, at : at + size],
                    keys[row : row + 1, :, :stop],
                    values[row : row + 1, :, :stop],
                    attn_mask=mask,
                    is_causal=start == 0 and mask is None,
                    scale=scaling,
                    enable_gqa=grouped,
                )
            )
            at += size
        return torch.cat(parts, 2).transpose(1, 2)

    def _flash(
        self, query: Tensor, keys: Tensor, values: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        """All blocks in one call, over copies of their rows' keys and values laid end to end."""
        if self._sequences is None:
            self._sequences = Sequences.of(self.blocks, query.device)
        sequences = self._sequences
        out = flash_varlen(
            query[0].transpose(0, 1),
            sequences.gather(keys),
            sequences.gather(values),
            sequences.offsets,
            sequences.longest,
            scaling=scaling,
            window=window,
        )
        return out[None]

    @staticmethod
    def _mask(start: int, stop: int, window: int | None, query: Tensor) -> Tensor | None:
        whole = window is None or stop <= window
        if whole and (start == 0 or stop - start == 1):
            return None
        return window_mask(query, start, stop, window)


class DecodeAttention:
    """One new token a row attends to its row's cache."""

    def __init__(self, cache: SlotCache, rows: Sequence[int], positions: Sequence[int], device):
        """`rows` ascending; `positions`: where each row's new token goes."""
        self.cache = cache
        self.max_length = max(positions) + 1
        self.rows = torch.tensor(rows, device=device)
        self.position_ids = self.columns = torch.tensor(positions, device=device)
        self.first, self.last = rows[0], rows[-1] + 1
        self.dense = len(rows) == self.last - self.first
        self._masks: dict[int | None, Tensor] = {}

    def __call__(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        *,
        window: int | None = None,
    ) -> Tensor:
        """See `Attend`."""
        keys, values = self.cache.write(layer, self.rows, self.columns, key, value)
        if window not in self._masks:
            self._masks[window] = self._build_mask(query, window)
        _, heads, num_tokens, size = query.shape
        kv_heads = key.shape[1]
        # Query heads that share a key head become rows of one product: nothing is expanded.
        grouped = query[0].view(kv_heads, heads // kv_heads, num_tokens, size).permute(2, 0, 1, 3)
        if not self.dense:
            spread = grouped.new_zeros(self.last - self.first, *grouped.shape[1:])
            spread[self.rows - self.first] = grouped
            grouped = spread
        out = F.scaled_dot_product_attention(
            grouped,
            keys[self.first : self.last, :, : self.max_length],
            values[self.first : self.last, :, : self.max_length],
            attn_mask=self._masks[window],
            scale=scaling,
        )
        if not self.dense:
            out = out[self.rows - self.first]
        return out.reshape(1, num_tokens, heads, -1)

    def _build_mask(self, query: Tensor, window: int | None) -> Tensor:
        """[rows, 1, 1, max_length], 0 or -inf; a row without a token may read anything."""
        last = self.position_ids.new_full((self.last - self.first,), self.max_length)
        last[self.rows - self.first] = self.position_ids
        place = torch.arange(self.max_length, device=query.device)
        masked = place > last[:, None]
        if window is not None:
            masked |= place <= last[:, None] - window
        mask = query.new_zeros(masked.shape).masked_fill_(masked, -torch.inf)
        return mask[:, None, None]


class FixedDecodeAttention(DecodeAttention):
    """`DecodeAttention` of the first rows, with shapes that do not depend on where each stands."""

    def __init__(self, cache: SlotCache, positions: Tensor, columns: Tensor, length: int):
        """A row's token is number `positions[row]` of its conversation and is kept at
        `columns[row]`; all attend to the first `length` columns, later ones than theirs masked."""
        self.cache = cache
        self.max_length = length
        self.position_ids, self.columns = positions, columns
        self.rows = torch.arange(len(positions), device=positions.device)
        self.first, self.last, self.dense = 0, len(positions), True
        self._masks = {}


def seed_key(seed: tuple[int, ...]) -> int:
    """128 bits of randomness that a seed means, on any machine."""
    name = ",".join(map(str, seed)).encode()
    return int.from_bytes(hashlib.blake2b(name, digest_size=16).digest(), "little")


def uniform_numbers(seeds: Sequence[tuple[int, ...]], count: int) -> Tensor:
    """[n, count] uniform numbers in [0, 1), each row from its seed alone, on any machine."""
    rows = np.empty((len(seeds), count), dtype=np.float32)
    for row, seed in zip(rows, seeds, strict=True):
        np.random.Generator(np.random.Philox(key=seed_key(seed))).random(dtype=np.float32, out=row)
    return torch.from_numpy(rows)


def draw(logits: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor, Tensor]:
    """Tokens by inverse CDF.

    Args:
        logits: [n, V]
        uniforms: [n] in [0, 1).
        temperature: of the draw; 0 takes the most likely token.

    Returns:
        tokens, their log-probabilities and the entropies of the whole distribution: [n] each, the
        latter two at temperature 1.
    """
    logprobs = logits.log_softmax(-1)
    probs = logprobs.exp()
    entropies = -torch.linalg.vecdot(probs, logprobs)
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        if temperature != 1:
            probs = (logits / temperature).softmax(-1)
        cumulative = probs.cumsum(-1)
        # Scaled by the last entry, since fp32 probabilities sum to 1 only nearly; `right`, since
        # u = 0 must not choose a token of probability 0.
        thresholds = uniforms[:, None] * cumulative[:, -1:]
        tokens = torch.searchsorted(cumulative, thresholds, right=True).squeeze(1)
        tokens.clamp_(max=logits.shape[1] - 1)
    return tokens, logprobs.gather(1, tokens[:, None]).squeeze(1), entropies
