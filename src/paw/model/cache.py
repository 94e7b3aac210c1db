"""Keys and values of many conversations, kept between turns.

Each conversation (slot) owns one row of [rows, kv_heads, T, d] tensors, one pair a layer. A call
works on the first rows: `place` brings the wanted slots there, so that a decode step reads
contiguous views and copies nothing.
"""

from collections.abc import Sequence

import torch
from torch import Tensor


class SlotCache:
    """Key-value cache addressed by slot.

    Attributes:
        tokens: per slot, the token ids whose keys and values its row holds.
        rows: per slot, its row.
        length: tokens that a row has room for.
        moves: how often the tensors have been allocated anew; until then they stay where they are.
    """

    def __init__(self) -> None:
        self.moves = 0
        self.reset()

    @property
    def num_bytes(self) -> int:
        """Of memory that it holds."""
        return sum(x.nbytes for pair in self._layers.values() for x in pair)

    def forget(self) -> None:
        """Forget every conversation and keep the memory for others."""
        self.tokens: dict[int, list[int]] = {}
        self.rows: dict[int, int] = {}
        self._slots: list[int] = []

    def reset(self) -> None:
        """Forget everything and free the memory."""
        self.forget()
        self.moves += 1
        self._num_rows = 0
        self.length = 0
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
        here, there = self._index(front), self._index(back)
        for keys, values in self._layers.values():
            for tensor in (keys, values):
                kept = tensor[here, :, :length]
                tensor[here, :, :length] = tensor[there, :, :length]
                tensor[there, :, :length] = kept
        for a, b in zip(front, back, strict=True):
            self._slots[a], self._slots[b] = self._slots[b], self._slots[a]
            self.rows[self._slots[a]], self.rows[self._slots[b]] = a, b

    def reserve(self, length: int, num_rows: int = 0) -> None:
        """Make room for `length` tokens in every row, by half again when it runs out, and for
        `num_rows` rows, those of slots included."""
        num_rows = max(num_rows, len(self._slots))
        if num_rows <= self._num_rows and length <= self.length:
            return
        self.moves += 1
        if length > self.length:
            self.length = max(length, self.length * 3 // 2)
        self._num_rows = max(self._num_rows, num_rows)
        for layer in list(self._layers):  # one at a time: never more than one layer stands twice
            keys, values = self._layers.pop(layer)
            self._layers[layer] = self._grown(keys), self._grown(values)

    def copy(self, sources: Sequence[int], targets: Sequence[int], start: int) -> None:
        """Give each slot of `targets` the tokens of its slot of `sources`, one or more; they share
        the first `start`."""
        stop = max(len(self.tokens[slot]) for slot in sources)
        there, here = (self._index([self.rows[slot] for slot in x]) for x in (sources, targets))
        for keys, values in self._layers.values():
            for tensor in (keys, values):
                tensor[here, :, start:stop] = tensor[there, :, start:stop]
        for source, target in zip(sources, targets, strict=True):
            self.tokens[target] = self.tokens[source].copy()

    def write(
        self, layer: int, rows: Tensor, positions: Tensor, key: Tensor, value: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Store key and value [1, kv_heads, N, d] at (rows[N], positions[N]).

        Returns:
            The layer's keys and values, [rows, kv_heads, T, d] each.
        """
        if layer not in self._layers:
            shape = (self._num_rows, key.shape[1], self.length)
            # Zeros: attention multiplies masked entries by 0, and 0 x NaN would be NaN.
            self._layers[layer] = (
                key.new_zeros(*shape, key.shape[3]),
                value.new_zeros(*shape, value.shape[3]),
            )
        keys, values = self._layers[layer]
        keys[rows, :, positions] = key[0].transpose(0, 1)
        values[rows, :, positions] = value[0].transpose(0, 1)
        return keys, values

    def _index(self, rows: Sequence[int]) -> Tensor:
        """`rows` where the layers are: a list would go to the GPU again for each of them, and
        wait for it each time."""
        place = next((keys.device for keys, _ in self._layers.values()), None)
        return torch.tensor(rows, dtype=torch.long, device=place)

    def _grown(self, tensor: Tensor) -> Tensor:
        rows, heads, length, size = tensor.shape
        grown = tensor.new_zeros(self._num_rows, heads, self.length, size)
        grown[:rows, :, :length] = tensor
        return grown
