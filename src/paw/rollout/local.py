"""Sampling in this process, with the policy's own weights.

What costs time is reading prompts again, so each conversation keeps its keys and values between
turns and only what is new in its prompt is computed; equal prompts (a group's first turn) are
computed once. Token ids, log-probabilities and full-distribution entropies come out of one pass.
"""

from collections.abc import Collection, Sequence

import numpy as np
import torch
from torch import Tensor

from paw.model.cache import SlotCache
from paw.model.decode import PrefillAttention, uniform_numbers
from paw.model.memory import PREFILL_TOKENS
from paw.model.policy import Policy
from paw.rollout.decoding import Decoder, RaggedDecoder, Wanted
from paw.rollout.fixed import FixedDecoder
from paw.rollout.sampler import SampleRequest, check_slots, response_limit
from paw.types import SampledAction

KEPT_SHARE = 0.05
"""Of a GPU's memory, which the cache may keep while others compute: what was recorded for it is
used again in the next update."""


class LocalSampler:
    """A `Sampler` on the weights of a `Policy`."""

    returns_entropy = True

    def __init__(
        self,
        policy: Policy,
        end_ids: Collection[int],
        max_length: int | None = None,
        *,
        fixed_shapes: bool | None = None,
    ):
        """A sampler.

        Args:
            policy: its weights are read at every call; `load` it again after changing them.
            end_ids: tokens that end a response and belong to it.
            max_length: longest conversation in tokens; by default what the model can compute.
            fixed_shapes: decode by `FixedDecoder`; by default on a GPU.
        """
        self.policy = policy
        self.end_ids = frozenset(end_ids)
        self.max_length: int | None = max_length or policy.positions.limit
        self._cache = SlotCache()
        on_gpu = policy.device.type == "cuda"
        self._may_keep = 0
        if on_gpu:
            self._may_keep = int(KEPT_SHARE * torch.cuda.mem_get_info(policy.device)[1])
        if fixed_shapes is None:
            fixed_shapes = on_gpu
        self._decoder: Decoder = (
            FixedDecoder(self.end_ids, policy.device)
            if fixed_shapes
            else RaggedDecoder(self.end_ids)
        )

    def load(self, policy: Policy, version: int) -> None:
        """Sample from `policy` as it is now: what older weights computed is dropped."""
        if policy is not self.policy:
            self._free()
        self.policy = policy
        self.reset()

    def reset(self) -> None:
        """Forget every conversation and free its memory, unless it is little."""
        if self._cache.num_bytes <= self._may_keep:
            self._cache.forget()
        else:
            self._free()

    def _free(self) -> None:
        self._cache.reset()
        self._decoder.reset()

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
        check_slots(requests)
        slots = [request.slot for request in requests]
        limits = [response_limit(request, self.max_length, max_tokens) for request in requests]
        # One context for the whole call, so that autocast converts each weight once.
        with self.policy.autocast():
            self._cache.place(slots)
            longest = max(len(r.prompt_ids) + n for r, n in zip(requests, limits, strict=True))
            self._cache.reserve(*self._decoder.room(longest, len(slots)))
            hidden = self._prefill(requests)
            uniforms = uniform_numbers([r.seed for r in requests], max(limits))
            wanted = Wanted(slots, hidden, uniforms.to(hidden.device), limits, temperature)
            return self._decoder.decode(self.policy, self._cache, wanted)

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
            new = torch.tensor(new_ids, device=self.policy.device)
            hidden = self.policy.hidden(new, attend.position_ids, attend)
            ends = np.cumsum([stop - start for _, start, stop in blocks]) - 1
            last.append(hidden[torch.from_numpy(ends).to(hidden.device)])

        sources, others = [], []
        for leader, members in zip(leaders, equal.values(), strict=True):
            tokens[requests[leader].slot] = list(requests[leader].prompt_ids)
            others += [i for i in members if i != leader]
            sources += [requests[leader].slot] * (len(members) - 1)
        if others:
            targets = [requests[i].slot for i in others]
            self._cache.copy(sources, targets, min(reused[i] for i in others))
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
