"""Sampling in this process, with the policy's own weights.

What costs time is reading prompts again, so each conversation keeps its keys and values between
turns and only what is new in its prompt is computed; equal prompts (a group's first turn) are
computed once. Token ids, log-probabilities and full-distribution entropies come out of one pass.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from paw.errors import UserError
from paw.model.cache import SlotCache
from paw.model.decode import DecodeAttention, PrefillAttention, draw, uniform_numbers
from paw.model.memory import PREFILL_TOKENS
from paw.model.policy import Policy
from paw.rollout.sampler import SampleRequest
from paw.types import SampledAction


class LocalSampler:
    """A `Sampler` on the weights of a `Policy`."""

    returns_entropy = True

    def __init__(self, policy: Policy, end_ids: Collection[int], max_length: int | None = None):
        """A sampler.

        Args:
            policy: its weights are read at every call; `load` it again after changing them.
            end_ids: tokens that end a response and belong to it.
            max_length: longest conversation in tokens; by default what the model allows.
        """
        self.policy = policy
        self.end_ids = frozenset(end_ids)
        self.max_length: int = max_length or policy.config.max_position_embeddings
        self._cache = SlotCache()

    def load(self, policy: Policy, version: int) -> None:
        """Sample from `policy` as it is now: what older weights computed is dropped."""
        self.policy = policy
        self.reset()

    def reset(self) -> None:
        """Forget every conversation and free its memory."""
        self._cache.reset()

    @torch.inference_mode()
    def sample(
        self, requests: Sequence[SampleRequest], *, temperature: float, max_tokens: int
    ) -> list[SampledAction]:
        """One response per request, in order; see `Sampler`.

        A request's tokens depend on its prompt and seed alone, not on who shares the batch (up to
        float rounding of the logits).

        Raises:
            UserError: a prompt leaves no room within `max_length`.
            ValueError: an empty prompt, or two requests of one slot.
        """
        if not requests:
            return []
        slots = [request.slot for request in requests]
        if len(set(slots)) < len(slots):
            raise ValueError("two requests of one slot in a call")
        limits = [min(max_tokens, self._room(request)) for request in requests]
        # One context for the whole call, so that autocast converts each weight once.
        with self.policy.autocast():
            self._cache.place(slots)
            self._cache.reserve(
                max(len(r.prompt_ids) + n for r, n in zip(requests, limits, strict=True))
            )
            hidden = self._prefill(requests)
            return self._decode(requests, hidden, limits, temperature)

    def _room(self, request: SampleRequest) -> int:
        if not request.prompt_ids:
            raise ValueError("an empty prompt")
        room = self.max_length - len(request.prompt_ids)
        if room < 1:
            raise UserError(
                f"a prompt of {len(request.prompt_ids)} tokens leaves no room for a response: the "
                f"policy reads at most {self.max_length}; lower rollout.max_prompt_tokens"
            )
        return room

    def _prefill(self, requests: Sequence[SampleRequest]) -> Tensor:
        """Compute what the cache lacks of each prompt; hidden states [n, H] of the last tokens."""
        tokens = self._cache.tokens
        reused = [_common_prefix(tokens[r.slot], r.prompt_ids) for r in requests]
        equal: dict[tuple[int, ...], list[int]] = {}
        for i, request in enumerate(requests):
            equal.setdefault(request.prompt_ids, []).append(i)
        leaders = [max(members, key=lambda i: reused[i]) for members in equal.values()]

        last: list[Tensor] = []
        for chunk in self._chunks(requests, leaders, reused):
            blocks = []
            new_ids: list[int] = []
            for i in chunk:
                prompt = requests[i].prompt_ids
                blocks.append((self._cache.rows[requests[i].slot], reused[i], len(prompt)))
                new_ids += prompt[reused[i] :]
            attend = PrefillAttention(self._cache, blocks, self.policy.device)
            hidden = self._forward(torch.tensor(new_ids, device=self.policy.device), attend)
            ends = np.cumsum([stop - start for _, start, stop in blocks]) - 1
            last.append(hidden[torch.from_numpy(ends).to(hidden.device)])

        for leader, members in zip(leaders, equal.values(), strict=True):
            source = requests[leader].slot
            tokens[source] = list(requests[leader].prompt_ids)
            others = [i for i in members if i != leader]
            if others:
                start = min(reused[i] for i in others)
                self._cache.copy(source, [requests[i].slot for i in others], start)
        place = {prompt: k for k, prompt in enumerate(equal)}
        return torch.cat(last)[[place[request.prompt_ids] for request in requests]]

    def _chunks(
        self, requests: Sequence[SampleRequest], leaders: list[int], reused: list[int]
    ) -> list[list[int]]:
        """Split the leaders, in order, into forward passes of about `PREFILL_TOKENS` tokens."""
        chunks: list[list[int]] = [[]]
        size = 0
        for i in leaders:
            num_new = len(requests[i].prompt_ids) - reused[i]
            if chunks[-1] and size + num_new > PREFILL_TOKENS:
                chunks.append([])
                size = 0
            chunks[-1].append(i)
            size += num_new
        return chunks

    def _decode(
        self,
        requests: Sequence[SampleRequest],
        hidden: Tensor,
        limits: list[int],
        temperature: float,
    ) -> list[SampledAction]:
        cache, device = self._cache, self.policy.device
        uniforms = uniform_numbers([r.seed for r in requests], max(limits)).to(device)
        sampled: list[list[int]] = [[] for _ in requests]
        numbers: list[Tensor] = []
        order: list[int] = []
        active = list(range(len(requests)))
        while True:
            step = len(numbers)
            logits = self.policy.logits(hidden)
            chosen, logprobs, entropies = draw(logits, uniforms[active, step], temperature)
            numbers.append(torch.stack((logprobs, entropies)))
            order += active
            for i, token in zip(active, chosen.tolist(), strict=True):
                sampled[i].append(token)
            going = [
                k
                for k, i in enumerate(active)
                if sampled[i][-1] not in self.end_ids and step + 1 < limits[i]
            ]
            if not going:
                break
            active = [active[k] for k in going]
            if 4 * len(active) <= 1 + max(cache.rows[requests[i].slot] for i in active):
                cache.place([requests[i].slot for i in active])
            by_row = sorted(range(len(active)), key=lambda k: cache.rows[requests[active[k]].slot])
            active = [active[k] for k in by_row]
            going = [going[k] for k in by_row]
            rows = [cache.rows[requests[i].slot] for i in active]
            positions = [len(cache.tokens[requests[i].slot]) for i in active]
            hidden = self._forward(chosen[going], DecodeAttention(cache, rows, positions, device))
            for i in active:
                cache.tokens[requests[i].slot].append(sampled[i][-1])
        return self._actions(sampled, torch.cat(numbers, 1).tolist(), order)

    def _actions(
        self, sampled: list[list[int]], numbers: list[list[float]], order: list[int]
    ) -> list[SampledAction]:
        """Sort the steps' numbers by request; `order` names the request of each column."""
        logprobs: list[list[float]] = [[] for _ in sampled]
        entropies: list[list[float]] = [[] for _ in sampled]
        for i, logprob, entropy in zip(order, *numbers, strict=True):
            logprobs[i].append(logprob)
            entropies[i].append(entropy)
        return [
            SampledAction(tuple(ids), tuple(lp), tuple(h), finished=ids[-1] in self.end_ids)
            for ids, lp, h in zip(sampled, logprobs, entropies, strict=True)
        ]

    def _forward(self, token_ids: Tensor, attend: PrefillAttention | DecodeAttention) -> Tensor:
        return self.policy.hidden(token_ids, attend.position_ids, attend)


def _common_prefix(cached: list[int], prompt: tuple[int, ...]) -> int:
    """Length of the common prefix, short of the prompt's last token, which must be computed."""
    low, high = 0, min(len(cached), len(prompt) - 1)
    ids = list(prompt[:high])
    if cached[:high] == ids:
        return high
    # Bisection on slices: equal up to `low`, different within `high`.
    while high - low > 1:
        middle = (low + high) // 2
        if cached[low:middle] == ids[low:middle]:
            low = middle
        else:
            high = middle
    return low
