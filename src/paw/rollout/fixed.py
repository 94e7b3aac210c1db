"""Decoding with tensors of fixed shapes and places, read back every few tokens: for a GPU.

A step reads tokens, positions and chances from tensors on the device and writes the next ones
there, its log-probabilities and entropies too, so that it can be recorded as a CUDA graph, one for
each bucket of rows and lengths, and several steps follow one another without a word from Python. A
response that has ended runs on until the next read-back, as far as its limit: what it draws and
what its row holds then is not read again. Rows without a response write to the last column of the
cache, which stays free: no response's last token is computed. Draws, and what they depend on, are
those of `RaggedDecoder` up to rounding.
"""

from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from paw.model.cache import SlotCache
from paw.model.decode import FixedDecodeAttention, draw
from paw.model.graphs import StepGraphs
from paw.model.policy import Policy
from paw.rollout.decoding import Responses, Wanted
from paw.types import SampledAction

READ_EVERY = 8
"""Steps between two read-backs: a response that has ended costs half as many on average."""
SHORTEST = 64
"""Bucket of the shortest conversations."""


def bucket(number: int, least: int = 1) -> int:
    """The smallest of least x (1, 1.5, 2, 3, 4, 6, 8, ...) that is whole and not below `number`."""
    size = least
    while size < number:
        if size % 2 == 0 and size * 3 // 2 >= number:
            return size * 3 // 2
        size *= 2
    return size


@dataclass(eq=False)
class _Board:
    """What a step reads and writes: R rows and responses, one more for rows without a response,
    and S tokens a response."""

    table: Tensor
    """[4, R] long, a row of the cache each: the token to be read, its position, how many tokens may
    still be drawn (0: the row is idle), the response."""
    step: Tensor
    """[1] long: number of the token that is drawn."""
    uniforms: Tensor
    """[R + 1, S]"""
    tokens: Tensor
    """[R + 1, S] long"""
    numbers: Tensor
    """[2, R + 1, S] log-probabilities and entropies."""

    @classmethod
    def make(cls, rows: int, steps: int, like: Tensor) -> "_Board":
        """Empty, with numbers of the type of `like` and on its device."""

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=like.device)

        return cls(
            zeros(4, rows),
            zeros(1),
            zeros(rows + 1, steps, dtype=torch.float32),
            zeros(rows + 1, steps),
            zeros(2, rows + 1, steps, dtype=like.dtype),
        )

    def fits(self, rows: int, steps: int) -> bool:
        """Is there room?"""
        return rows < len(self.tokens) and steps <= self.tokens.shape[1]


class FixedDecoder:
    """A `Decoder` whose passes have a token for every row of a bucket."""

    def __init__(self, end_ids: Collection[int], device: torch.device) -> None:
        self.end_ids = end_ids
        self.graphs = StepGraphs(device)
        self._board: _Board | None = None
        self._places: tuple[int, ...] = ()

    def reset(self) -> None:
        """See `Decoder`."""
        self.graphs.reset()
        self._board = None

    def room(self, length: int, num_rows: int) -> tuple[int, int]:
        """See `Decoder`: buckets."""
        return bucket(length, SHORTEST), bucket(num_rows)

    def decode(self, policy: Policy, cache: SlotCache, wanted: Wanted) -> list[SampledAction]:
        """See `Decoder`."""
        count = len(wanted.slots)
        responses = Responses(cache, wanted, self.end_ids)
        first = draw(policy.logits(wanted.hidden), wanted.uniforms[:, 0], wanted.temperature)
        board = self._prepared(policy, cache, wanted, first[1])
        board.tokens[:count, 0] = first[0]
        board.numbers[:, :count, 0] = torch.stack(first[1:])

        drawn, active = 1, list(range(count))
        active = _taken(responses, active, board.tokens[:count, :1].tolist())
        while active:
            responses.gather(active)
            steps = min(READ_EVERY, max(wanted.limits[i] for i in active) - drawn)
            self._advance(policy, responses, active, drawn, steps)
            new = board.tokens[:count, drawn : drawn + steps].tolist()
            active = _taken(responses, active, new)
            drawn += steps
        rows = ([x[: len(ids)] for x, ids in zip(numbers, responses.ids, strict=True)]
                for numbers in board.numbers[:, :count, :drawn].tolist())  # fmt: skip
        return responses.actions(*rows)

    def _prepared(self, policy: Policy, cache: SlotCache, wanted: Wanted, like: Tensor) -> _Board:
        """The board with the chances of `wanted`; graphs that name tensors which have moved go."""
        count, steps = wanted.uniforms.shape
        if self._board is None or not self._board.fits(bucket(count), steps):
            self._board = _Board.make(bucket(count), steps, like)
            self.graphs.reset()
        places = (cache.moves, *policy.places())
        if self._places != places:
            self._places = places
            self.graphs.reset()
        self._board.uniforms[:count, :steps] = wanted.uniforms
        return self._board

    def _advance(
        self, policy: Policy, responses: Responses, active: list[int], drawn: int, steps: int
    ) -> None:
        """Make `steps` steps of the responses `active`, which have `drawn` tokens each."""
        cache, wanted, board = responses.cache, responses.wanted, self._board
        assert board is not None
        rows = [cache.rows[wanted.slots[i]] for i in active]
        positions = [len(cache.tokens[wanted.slots[i]]) for i in active]
        size = bucket(1 + max(rows))
        table = [(0, 0, 0, len(board.tokens) - 1)] * size
        reach = 0
        for i, row, position in zip(active, rows, positions, strict=True):
            left = wanted.limits[i] - drawn
            table[row] = (responses.ids[i][-1], position, left, i)
            reach = max(reach, position + min(steps, left))
        board.table[:, :size] = torch.tensor(table).T.to(board.table.device)
        board.step.fill_(drawn)
        length = bucket(reach, SHORTEST)

        def step() -> None:
            # Conversions of weights that are kept would be gone when a graph is replayed.
            with policy.autocast(keep=False if self.graphs.records else None):
                self._step(policy, cache, size, length, wanted.temperature)

        for _ in range(steps):
            self.graphs.run((size, length, wanted.temperature), step)

    def _step(
        self, policy: Policy, cache: SlotCache, size: int, length: int, temperature: float
    ) -> None:
        """Read a token a row and draw the next; nothing here may depend on a value."""
        board = self._board
        assert board is not None
        tokens, positions, left, responses = board.table[:, :size]
        columns = torch.where(left > 0, positions, cache.length - 1)
        attend = FixedDecodeAttention(cache, positions, columns, length)
        logits = policy.logits(policy.hidden(tokens, positions, attend))
        uniforms = board.uniforms[responses, board.step]
        chosen, logprobs, entropies = draw(logits, uniforms, temperature)
        board.tokens[responses, board.step] = chosen
        board.numbers[:, responses, board.step] = torch.stack((logprobs, entropies))
        going = left > 1
        tokens.copy_(torch.where(going, chosen, tokens))
        positions += going
        left.copy_(torch.where(going, left - 1, 0))
        board.step += 1


def _taken(responses: Responses, active: list[int], new: list[list[int]]) -> list[int]:
    """Add new tokens, [n] rows, to the responses `active`, up to where each ends; those that go
    on."""
    return [i for i in active if all(responses.add(i, token) for token in new[i])]
