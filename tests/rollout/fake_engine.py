"""Engines in place of vLLM: an honest one, and such that go wrong as real ones have; and a tiny
policy, prompts and an update for them."""

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.model.spans import SpanRow, score_spans
from paw.rollout.engine import Asked, Reply
from paw.rollout.local import LocalSampler
from paw.rollout.sampler import SampleRequest

VOCAB, UNKNOWN, END_IDS = 60, 57, (0, 1)
LENGTH = 64


def make_policy() -> Policy:
    model = create_policy_model(
        vocab_size=VOCAB, hidden_size=32, num_layers=2, num_heads=4, num_kv_heads=2,
        intermediate_size=48, max_positions=LENGTH, seed=0,
    )  # fmt: skip
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # opinions
    found = Policy(model)
    found.head.forget({UNKNOWN})
    return found


def change(policy: Policy, size: float) -> None:
    """What an optimizer step may do: each weight moves by at most `size`."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(size * torch.empty_like(p).uniform_(-1, 1, generator=generator))


def requests(num: int = 4, length: int = 10) -> list[SampleRequest]:
    rows = torch.randint(2, UNKNOWN, (num, length), generator=torch.Generator().manual_seed(2))
    return [SampleRequest(i, tuple(row), (7, 0, i, 0, 3)) for i, row in enumerate(rows.tolist())]


def copy_of(policy: Policy) -> Policy:
    """A policy with weights of its own."""
    own = copy.copy(policy)
    own.model = copy.deepcopy(policy.model)
    own.head = type(policy.head)(own.model.get_output_embeddings())
    own.head.unknown = policy.head.unknown
    own.core = type(policy.core)(own.model, own.head)
    own.passes = type(policy.passes)()
    return own


class FakeEngine:
    """Keeps a copy of the weights and samples as the local sampler does. Notes what it is told."""

    def __init__(self, policy: Policy, end_ids: Iterable[int]) -> None:
        self.own, self.end_ids = copy_of(policy), frozenset(end_ids)
        self.told: list[str] = []
        self.asked: list[Asked] = []

    def take(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        self.told.append("take")
        self.set(dict(weights))

    def set(self, weights: dict[str, Tensor]) -> None:
        self.own.model.load_state_dict(weights)

    def logprobs(self, rows: Sequence[Sequence[int]]) -> Any:
        asked = [SpanRow(row, [(1, len(row))]) for row in rows]
        return [spans[0].logprobs for spans in score_spans(self.own, asked, 10_000, share=False)]

    def generate(self, asked: Sequence[Asked], temperature: float) -> list[Reply]:
        self.told.append("generate")
        self.asked += asked
        sampler = LocalSampler(self.own, self.end_ids)
        requests = [SampleRequest(i, x.prompt_ids, (x.seed,)) for i, x in enumerate(asked)]
        (limit,) = {x.max_tokens for x in asked}  # enough here
        drawn = sampler.sample(requests, temperature=temperature, max_tokens=limit)
        return [
            Reply(x.prompt_ids, a.token_ids, a.logprobs, "stop" if a.finished else "length")
            for x, a in zip(asked, drawn, strict=True)
        ]

    def sleep(self) -> None:
        self.told.append("sleep")

    def wake(self) -> None:
        self.told.append("wake")


class Deaf(FakeEngine):
    """Says that it takes weights over and keeps its first."""

    heard = False

    def set(self, weights: dict[str, Tensor]) -> None:
        if not self.heard:
            super().set(weights)
        self.heard = True


class Restless(Deaf):
    """The same with the noise of a GPU, whose sums differ from call to call."""

    noise = 0.0

    def logprobs(self, rows: Sequence[Sequence[int]]) -> Any:
        self.noise = 5e-5 - self.noise
        return [[x - self.noise for x in row] for row in super().logprobs(rows)]


class Behind(FakeEngine):
    """Computes with the weights of the hand-over before."""

    last: dict[str, Tensor] | None = None

    def set(self, weights: dict[str, Tensor]) -> None:
        super().set(self.last or weights)
        self.last = {name: tensor.clone() for name, tensor in weights.items()}


class Partial(FakeEngine):
    """Takes over all but the linear layers, which it had packed otherwise (seen in vLLM)."""

    def set(self, weights: dict[str, Tensor]) -> None:
        kept = self.own.model.state_dict()
        super().set({n: kept[n] if "proj" in n else x for n, x in weights.items()})


class Numberless(FakeEngine):
    """Has a `number` in place of each log-prob of a row."""

    number: float | None = None

    def logprobs(self, rows: Sequence[Sequence[int]]) -> Any:
        return [[self.number] * (len(row) - 1) for row in rows]


class Odd(FakeEngine):
    """Replies go through `change`."""

    def __init__(
        self,
        policy: Policy,
        end_ids: Iterable[int],
        change: Callable[[list[Reply]], list[Reply]] = lambda replies: replies,
    ) -> None:
        super().__init__(policy, end_ids)
        self.change = change

    def generate(self, asked: Sequence[Asked], temperature: float) -> list[Reply]:
        return self.change(super().generate(asked, temperature))


def first(change: Callable[[Reply], dict[str, Any]]) -> Callable[[list[Reply]], list[Reply]]:
    """Changes the first reply."""
    return lambda replies: [replace(replies[0], **change(replies[0])), *replies[1:]]


def numbered(number: float | None) -> Callable[[list[Reply]], list[Reply]]:
    """`number` in place of the first token's log-prob."""
    return first(lambda r: {"logprobs": (number, *r.logprobs[1:])})


def token(*ids: int) -> Callable[[list[Reply]], list[Reply]]:
    """`ids` in place of the first token."""
    return first(
        lambda r: {
            "token_ids": (*ids, *r.token_ids[1:]),
            "logprobs": (-1.0,) * (len(ids) + len(r.token_ids) - 1),
        }
    )
