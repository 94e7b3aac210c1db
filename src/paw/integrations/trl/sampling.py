"""What the model said while TRL sampled: log-probs and entropies of the actions, without a pass."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from paw import objective

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Sampled:
    """One call of the sampler, for one row."""

    token_ids: Ids
    """[A] what followed the prompt"""
    logprobs: Sequence[float]
    """[A] at temperature 1"""
    entropies: Sequence[float]
    """[A] of the full distributions, nats"""


@dataclass(slots=True)
class Steps:
    """Forward passes of one call of `generate`, as they come."""

    entropies: list[Tensor] = field(default_factory=list)
    """[B] of each step"""
    logprobs: list[Tensor] = field(default_factory=list)
    """[B] of the token that was sampled in each step but the last"""
    last: Tensor | None = None
    """[B, V] log-probs of the newest step"""

    def see(self, module: Any, args: Any, kwargs: dict[str, Any], output: Any) -> None:
        """Forward hook of the model: the pass reads the token that the one before it sampled."""
        if self.last is not None:
            ids = kwargs["input_ids"] if "input_ids" in kwargs else args[0]
            self.logprobs.append(self.last.gather(1, ids[:, -1:]).squeeze(1))
        last = output.logits[:, -1].float().log_softmax(-1)
        self.entropies.append(objective.sampled_token_entropy(last).sum(-1))
        self.last = last

    def rows(self, completion_ids: Sequence[Sequence[int]]) -> list[Sampled]:
        """One value a row. More passes than tokens are those of other processes' rows."""
        longest = max(map(len, completion_ids), default=0)
        if longest > len(self.entropies) or self.last is None:
            raise RuntimeError(
                f"{len(self.entropies)} forward passes sampled {longest} tokens: this way of "
                'generating shows no entropies; set paw.select = "random" or "all"'
            )
        logprobs = list(self.logprobs)
        if len(logprobs) < longest:
            last = torch.tensor(
                [ids[longest - 1] if len(ids) == longest else 0 for ids in completion_ids],
                device=self.last.device,
            )
            logprobs.append(self.last.gather(1, last[:, None]).squeeze(1))
        # [T, B] -> [B, T] once: reading single elements of a device is slow.
        entropy = torch.stack(self.entropies[:longest]).T.tolist()
        chosen = torch.stack(logprobs[:longest]).T.tolist()
        return [
            Sampled(tuple(ids), chosen[b][: len(ids)], entropy[b][: len(ids)])
            for b, ids in enumerate(completion_ids)
        ]


@contextlib.contextmanager
def watching(model: Any) -> Iterator[Steps]:
    """Sees the logits of every forward pass of a model, after softcapping and scaling."""
    steps = Steps()
    base = model.get_base_model() if hasattr(model, "get_base_model") else model  # peft's inner
    handle = base.register_forward_hook(steps.see, with_kwargs=True)
    try:
        yield steps
    finally:
        handle.remove()


class Samples:
    """What was sampled in a generation batch, found again by what was read before."""

    def __init__(self) -> None:
        self._by_prompt: dict[Ids, list[Sampled]] = {}

    def add(self, prompt_ids: Sequence[int], sampled: Sampled) -> None:
        """After `prompt_ids` (a whole conversation so far) came `sampled`."""
        self._by_prompt.setdefault(tuple(prompt_ids), []).append(sampled)

    def find(self, prompt_ids: Ids, action_ids: Ids) -> Sampled | None:
        """What was sampled after `prompt_ids` and begins with `action_ids` (TRL may have cut it).
        Of several such, any: the same tokens after the same prompt have the same entropies."""
        length = len(action_ids)
        for found in self._by_prompt.get(prompt_ids, ()):
            if found.token_ids[:length] == action_ids:
                return Sampled(action_ids, found.logprobs[:length], found.entropies[:length])
        return None
