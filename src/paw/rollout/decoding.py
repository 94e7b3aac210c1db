"""Drawing responses token by token: what is asked, and the decoder whose shapes follow the work.

`RaggedDecoder` computes the conversations that go on and nothing else, and reads every token back
as it is drawn: right for a CPU. `rollout.fixed` has the one for a GPU.
"""

from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from paw.model.cache import SlotCache
from paw.model.decode import DecodeAttention, draw
from paw.model.policy import Policy
from paw.types import SampledAction


@dataclass(frozen=True, slots=True, eq=False)
class Wanted:
    """A response for each of n conversations whose prompts are in the cache."""

    slots: list[int]
    """[n]"""
    hidden: Tensor
    """[n, H] hidden states of the prompts' last tokens."""
    uniforms: Tensor
    """[n, longest limit] in [0, 1): the chance of each token."""
    limits: list[int]
    """[n] tokens of a response at most, at least 1."""
    temperature: float
    """Of the draw."""


class Decoder(Protocol):
    """Draws responses. Afterwards the cache holds all tokens of a conversation but the last."""

    def room(self, length: int, num_rows: int) -> tuple[int, int]:
        """Tokens a row and rows that the cache needs, for conversations of `length` at most in the
        first `num_rows`."""
        ...

    def decode(self, policy: Policy, cache: SlotCache, wanted: Wanted) -> list[SampledAction]:
        """Responses in order."""
        ...

    def reset(self) -> None:
        """The cache's memory has been freed: forget what was built on it."""
        ...


@dataclass(slots=True)
class Responses:
    """Responses as they grow, and with them the token lists of the cache."""

    cache: SlotCache
    wanted: Wanted
    end_ids: Collection[int]
    ids: list[list[int]] = field(init=False)

    def __post_init__(self) -> None:
        self.ids = [[] for _ in self.wanted.slots]

    def add(self, i: int, token: int) -> bool:
        """Response `i` goes on with `token`; does it go on after it?"""
        ids = self.ids[i]
        if ids:  # a token is read, and so in the cache, when the next one is drawn
            self.cache.tokens[self.wanted.slots[i]].append(ids[-1])
        ids.append(token)
        return token not in self.end_ids and len(ids) < self.wanted.limits[i]

    def gather(self, active: list[int]) -> bool:
        """Bring the rows of `active` to the front, where they are few among those that are read;
        were they moved?"""
        rows, slots = self.cache.rows, [self.wanted.slots[i] for i in active]
        few = 4 * len(active) <= 1 + max(rows[slot] for slot in slots)
        if few:
            self.cache.place(slots)
        return few

    def actions(
        self, logprobs: list[list[float]], entropies: list[list[float]]
    ) -> list[SampledAction]:
        """With the numbers of each token, as many as there are tokens."""
        return [
            SampledAction(tuple(ids), tuple(lp), tuple(h), finished=ids[-1] in self.end_ids)
            for ids, lp, h in zip(self.ids, logprobs, entropies, strict=True)
        ]


class RaggedDecoder:
    """A `Decoder` whose passes have a token for each conversation that goes on."""

    def __init__(self, end_ids: Collection[int]) -> None:
        self.end_ids = end_ids

    def reset(self) -> None:
        """Nothing is kept between calls."""

    def room(self, length: int, num_rows: int) -> tuple[int, int]:
        """See `Decoder`: no more than they fill."""
        return length, num_rows

    def decode(self, policy: Policy, cache: SlotCache, wanted: Wanted) -> list[SampledAction]:
        """See `Decoder`."""
        slots, hidden = wanted.slots, wanted.hidden
        responses = Responses(cache, wanted, self.end_ids)
        numbers: list[Tensor] = []
        order: list[int] = []
        active = list(range(len(slots)))
        while True:
            uniforms = wanted.uniforms[active, len(numbers)]
            logits = policy.logits(hidden)
            chosen, logprobs, entropies = draw(logits, uniforms, wanted.temperature)
            numbers.append(torch.stack((logprobs, entropies)))
            order += active
            tokens = enumerate(zip(active, chosen.tolist(), strict=True))
            going = [k for k, (i, token) in tokens if responses.add(i, token)]
            if not going:
                break
            active = [active[k] for k in going]
            responses.gather(active)
            by_row = sorted(range(len(active)), key=lambda k: cache.rows[slots[active[k]]])
            active = [active[k] for k in by_row]
            going = [going[k] for k in by_row]
            rows = [cache.rows[slots[i]] for i in active]
            positions = [len(cache.tokens[slots[i]]) for i in active]
            attend = DecodeAttention(cache, rows, positions, policy.device)
            hidden = policy.hidden(chosen[going], attend.position_ids, attend)
        return responses.actions(*_by_response(torch.cat(numbers, 1).tolist(), order, len(slots)))


def _by_response(
    numbers: list[list[float]], order: list[int], count: int
) -> tuple[list[list[float]], list[list[float]]]:
    """Sort log-probs and entropies by response; `order` names the response of each column."""
    logprobs: list[list[float]] = [[] for _ in range(count)]
    entropies: list[list[float]] = [[] for _ in range(count)]
    for i, logprob, entropy in zip(order, *numbers, strict=True):
        logprobs[i].append(logprob)
        entropies[i].append(entropy)
    return logprobs, entropies
