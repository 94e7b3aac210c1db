"""Keys and values of many conversations, kept between turns.

Each conversation (slot) owns one row of [rows, kv_heads, T, d] tensors, one pair a layer. A call
works on the first rows: `place` brings the wanted slots there, so that a decode step reads
contiguous views and copies nothing.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


class SlotCache:
    """Key-value cache addressed by slot.

    Attributes:
        tokens: per slot, the token ids whose keys and values its row holds.
        rows: per slot, its row.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        """Forget everything and free the memory."""
        self.tokens: dict[int, list[int]] = {}
        self.rows: dict[int, int] = {}
        self._slots: list[int] = []
        self._num_rows = 0
        self._length = 0
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}

    def place(self, slots: Sequence[int]) -> None:
        """Give new slots a row and bring all of `slots` to the first rows, in any order."""
        for slot in slots:
            if slot not in self.rows:
                self.rows[slot] = len(self._slots)
                self._slots.append(slot)
                self.tokens[slot] = []
        wanted = set(slots)
        front = [r for r in range(len(slots)) if self._slots[r] not in wanted]
        back = [self.rows[slot] for slot in slots if self.rows[slot] >= len(slots)]
        if not back:
            return
        self.reserve(0)
        length = max(len(self.tokens[self._slots[row]]) for row in front + back)
        for keys, values in self._layers.values():
            for tensor in (keys, values):
                kept = tensor[front, :, :length]
                tensor[front, :, :length] = tensor[back, :, :length]
                tensor[back, :, :length] = kept
        for a, b in zip(front, back, strict=True):
            self._slots[a], self._slots[b] = self._slots[b], self._slots[a]
            self.rows[self._slots[a]], self.rows[self._slots[b]] = a, b

    def reserve(self, length: int) -> None:
        """Make room for `length` tokens in every row, by half again when it runs out."""
        if len(self._slots) <= self._num_rows and length <= self._length:
            return
        if length > self._length:
            self._length = max(length, self._length * 3 // 2)
        self._num_rows = max(self._num_rows, len(self._slots))
        self._layers = {
            layer: (self._grown(keys), self._grown(values))
            for layer, (keys, values) in self._layers.items()
        }

    def copy(self, source: int, targets: Sequence[int], start: int) -> None:
        """Give slots `targets` the tokens of slot `source`; they share the first `start`."""
        stop = len(self.tokens[source])
        rows = [self.rows[slot] for slot in targets]
        for keys, values in self._layers.values():
            for tensor in (keys, values):
                tensor[rows, :, start:stop] = tensor[self.rows[source], :, start:stop]
        for slot in targets:
            self.tokens[slot] = self.tokens[source].copy()

    def write(
        self, layer: int, rows: Tensor, positions: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Store key and value [1, kv_heads, N, d] at (rows[N], positions[N]).

        Returns:
            The layer's keys and values, [rows, kv_heads, T, d] each.
        """
        if layer not in self._layers:
            shape = (self._num_rows, key.shape[1], self._length)
            # Zeros: attention multiplies masked entries by 0, and 0 x NaN would be NaN.
            self._layers[layer] = (
                key.new_zeros(*shape, key.shape[3]),
                value.new_zeros(*shape, value.shape[3]),
            )
        keys, values = self._layers[layer]
        keys[rows, :, positions] = key[0].transpose(0, 1)
        values[rows, :, positions] = value[0].transpose(0, 1)
        return keys, values

    def _grown(self, tensor: Tensor) -> Tensor:
        rows, heads, length, size = tensor.shape
        grown = tensor.new_zeros(self._num_rows, heads, self._length, size)
        grown[:rows, :, :length] = tensor
        return grown


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
        self._masks: list[Tensor | None] = []

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """See `Attend`."""
        keys, values = self.cache.write(layer, self.rows, self.position_ids, key, value)
        if not self._masks:
            self._masks = [self._mask(start, stop, query) for _, start, stop in self.blocks]
        grouped = query.shape[1] != key.shape[1]
        parts, at = [], 0
        for (row, start, stop), mask in zip(self.blocks, self._masks, strict=True):
            size = stop - start
            parts.append(
                F.scaled_dot_product_attention(
                    query[:, :, at : at + size],
                    keys[row : row + 1, :, :stop],
                    values[row : row + 1, :, :stop],
                    attn_mask=mask,
                    is_causal=start == 0,
                    scale=scaling,
                    enable_gqa=grouped,
                )
            )
            at += size
        return torch.cat(parts, 2).transpose(1, 2)

    @staticmethod
    def _mask(start: int, stop: int, query: Tensor) -> Tensor | None:
        if start == 0 or stop - start == 1:
            return None
        # Additive, because SDPA would convert a boolean mask in every layer.
        mask = query.new_full((stop - start, stop), -torch.inf)
        return mask.triu_(start + 1)


class DecodeAttention:
    """One new token a row attends to its row's cache."""

    def __init__(self, cache: SlotCache, rows: Sequence[int], positions: Sequence[int], device):
        """`rows` ascending; `positions`: where each row's new token goes."""
        self.cache = cache
        self.max_length = max(positions) + 1
        self.rows = torch.tensor(rows, device=device)
        self.position_ids = torch.tensor(positions, device=device)
        self.first, self.last = rows[0], rows[-1] + 1
        self.dense = len(rows) == self.last - self.first
        self._mask: Tensor | None = None

    def __call__(
        self, layer: int, query: Tensor, key: Tensor, value: Tensor, scaling: float
    ) -> Tensor:
        """See `Attend`."""
        keys, values = self.cache.write(layer, self.rows, self.position_ids, key, value)
        if self._mask is None:
            self._mask = self._build_mask(query)
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
            attn_mask=self._mask,
            scale=scaling,
        )
        if not self.dense:
            out = out[self.rows - self.first]
        return out.reshape(1, num_tokens, heads, -1)

    def _build_mask(self, query: Tensor) -> Tensor:
        """[rows, 1, 1, max_length], 0 or -inf; a row without a token may read anything."""
        last = self.position_ids.new_full((self.last - self.first,), self.max_length)
        last[self.rows - self.first] = self.position_ids
        masked = torch.arange(self.max_length, device=query.device) > last[:, None]
        mask = query.new_zeros(masked.shape).masked_fill_(masked, -torch.inf)
        return mask[:, None, None]
