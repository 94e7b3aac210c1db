"""Sampling by an engine with weights of its own, whose answers are checked and never believed.

An engine holds a copy of the policy's weights and computes by other kernels, so much can go wrong
without a word: weights that were not taken over, responses that were cut, numbers that are none.
After every hand-over the log-probs of fixed rows are held against the learner's, and every
response is held against what was asked. What does not agree ends the run with one line.
"""

import contextlib
import math
import threading
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from paw.errors import RunFailure, warn
from paw.model.decode import seed_key
from paw.model.lora import merged_state_dict
from paw.model.policy import Policy
from paw.model.spans import SpanRow, score_spans
from paw.rollout.sampler import SampleRequest, check_slots, response_limit
from paw.types import SampledAction

LIMIT = 0.1
"""Nats by which the engine's log-probs of the fixed rows may differ from the learner's, in the
mean. Not the largest: two kernels in bf16 round a logit of 16 to 32 to steps of 0.125, while
weights that were not taken over move every token, by nats."""
NOTICED = 1e-3
"""Nats by which an update moves the learner's log-probs so that weights which the engine did not
take over show, however small the learning rate; rounding moves them by less."""
NUM_ROWS, ROW_TOKENS = 8, 32
LATE_SECONDS = 300.0
"""Without an answer, until a line says so."""
MOST = 1e-3
"""Above 0, which the logarithm of a probability may be by rounding."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One response that an engine shall draw."""

    prompt_ids: tuple[int, ...]
    """[C]"""
    seed: int
    """Of the response alone, 0 <= seed < 2**63"""
    max_tokens: int
    """At least 1"""


@dataclass(frozen=True, slots=True)
class Reply:
    """What an engine answered, as it came."""

    prompt_ids: Sequence[int]
    """[C] of the request that it answers"""
    token_ids: Sequence[int]
    """[A] the end token included"""
    logprobs: Sequence[float | None]
    """[A] at temperature 1; None where the engine gave none"""
    reason: str | None = None
    """Why it ended, in the engine's word"""


class Engine(Protocol):
    """Draws responses with weights of its own."""

    def take(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Take over weights, by their names in a model directory, and forget what others
        computed."""
        ...

    def logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float | None]]:
        """Log-probs of all tokens but the first of each row, at temperature 1."""
        ...

    def generate(self, asked: Sequence[Asked], temperature: float) -> list[Reply]:
        """A reply to each, in order; temperature 0 takes the most likely token."""
        ...

    def sleep(self) -> None:
        """Free the device's memory, as far as it can."""
        ...

    def wake(self) -> None:
        """Be ready again, with the weights from before."""
        ...


@dataclass(frozen=True, slots=True)
class _Seen:
    """Log-probs of the fixed rows after a hand-over that was seen."""

    version: int
    ours: list[float]
    theirs: list[float]


class EngineSampler:
    """A `Sampler` on an engine."""

    returns_entropy = False

    def __init__(
        self, engine: Engine, policy: Policy, end_ids: Collection[int], max_length: int
    ) -> None:
        """A sampler; the engine takes over the policy's weights before the first sample.

        Args:
            engine: awake; its weights may be any.
            policy: whose weights it shall have.
            end_ids: tokens that end a response and belong to it.
            max_length: longest conversation in tokens.
        """
        self.engine, self.policy = engine, policy
        self.end_ids = frozenset(end_ids)
        self.max_length = max_length
        unknown = policy.head.unknown
        ids = range(policy.head.embedding.weight.shape[0])
        self._known = frozenset(ids).difference([] if unknown is None else unknown.tolist())
        self._rows = _fixed_rows(sorted(self._known), min(ROW_TOKENS, max_length - 1))
        self._version: int | None = None
        self._seen: _Seen | None = None
        self._awake = True

    def load(self, policy: Policy, version: int) -> None:
        """Hand over the weights of `policy`, and see that the engine computes with them.

        Raises:
            RunFailure: it does not.
        """
        if self._version is not None and version < self._version:
            raise ValueError(f"weights of version {version} after those of {self._version}")
        self.policy = policy
        self._wake()
        self.engine.take(weights_of(policy))
        self._check(version)
        self._version = version
        self.reset()

    def reset(self) -> None:
        """Others want the memory."""
        if self._awake:
            self.engine.sleep()
        self._awake = False

    def _wake(self) -> None:
        if not self._awake:
            self.engine.wake()
        self._awake = True

    def sample(
        self, requests: Sequence[SampleRequest], *, temperature: float, max_tokens: int
    ) -> list[SampledAction]:
        """One response per request, in order; see `Sampler`.

        Raises:
            UserError: a prompt leaves no room within `max_length`.
            ValueError: an empty prompt, or two requests of one slot.
            RunFailure: a response is not what was asked for.
        """
        if not requests:
            return []
        check_slots(requests)
        asked = [
            Asked(
                request.prompt_ids,
                seed_key(request.seed) % 2**63,
                response_limit(request, self.max_length, max_tokens),
            )
            for request in requests
        ]
        if self._version is None:
            self.load(self.policy, 0)
        self._wake()
        with _late():
            replies = self.engine.generate(asked, temperature)
        if len(replies) != len(asked):
            raise _broken(f"{len(replies)} responses to {len(asked)} prompts")
        return [self._action(a, reply) for a, reply in zip(asked, replies, strict=True)]

    def _action(self, asked: Asked, reply: Reply) -> SampledAction:
        """The reply as an action, if it is one."""
        ids, logprobs = tuple(reply.token_ids), tuple(reply.logprobs)
        if tuple(reply.prompt_ids) != asked.prompt_ids:
            raise _broken("a response to another prompt than the one asked")
        if not ids:
            raise _broken(f"a response without a token (it ended by {reply.reason!r})")
        strange = [i for i in ids if i not in self._known]
        if strange:
            raise _broken(f"token {strange[0]}, which is none of the tokenizer's")
        if len(logprobs) != len(ids):
            raise _broken(f"{len(logprobs)} log-probs for {len(ids)} tokens")
        numbers = tuple(x for x in logprobs if x is not None and math.isfinite(x) and x <= MOST)
        if len(numbers) != len(ids):
            odd = next(x for x in logprobs if x is None or not (math.isfinite(x) and x <= MOST))
            raise _broken(f"{odd} as the log-prob of a token that it drew")
        ends = [k for k, i in enumerate(ids) if i in self.end_ids]
        if (ends and ends[0] < len(ids) - 1) or len(ids) > asked.max_tokens:
            raise _broken("a response that goes on behind its end")
        if not ends and len(ids) < asked.max_tokens:
            raise _broken(
                f"a response cut after {len(ids)} of {asked.max_tokens} tokens (it ended by "
                f"{reply.reason!r})"
            )
        return SampledAction(ids, numbers, None, finished=bool(ends))

    def _check(self, version: int) -> None:
        """Hold the engine's log-probs of the fixed rows against the learner's."""
        when = "at the start" if self._version is None else f"after update {version}"
        ours = _learners(self.policy, self._rows)
        theirs = [x for row in self.engine.logprobs(self._rows) for x in row]
        if len(theirs) != len(ours) or any(x is None for x in theirs):
            raise _broken(f"no log-probs of the rows that are compared {when}")
        found = [math.nan if x is None else x for x in theirs]
        off = _difference(found, ours)
        if not off <= LIMIT:
            raise RunFailure(
                f"{when} the sampler's log-probs differ from the learner's by {off:.2g} nats a "
                f"token (at most {LIMIT}): the engine has not taken over the weights, or computes "
                "this model otherwise (docs/vllm.md)"
            )
        seen = self._seen
        if seen is not None and _difference(ours, seen.ours) > NOTICED:
            same = found == seen.theirs
            if same or 10 * _difference(found, seen.ours) < off:
                raise RunFailure(
                    f"{when} the sampler still computes with the weights of update {seen.version}: "
                    "the hand-over did nothing (docs/vllm.md)"
                )
        # Else what is not taken over adds up; a GPU's own noise is no move.
        if seen is None or _difference(found, seen.theirs) > NOTICED:
            self._seen = _Seen(version, ours, found)


def weights_of(policy: Policy) -> Iterable[tuple[str, Tensor]]:
    """Weights by their names in a model directory, LoRA merged."""
    model = policy.model  # merged where it is asked for, which may be on one rank
    yield from (merged_state_dict(model) if policy.lora_rank else model.state_dict()).items()


def _fixed_rows(ids: Sequence[int], length: int) -> list[list[int]]:
    """Rows of tokens by chance, the same in every run."""
    generator = torch.Generator().manual_seed(0)
    chosen = torch.randint(len(ids), (NUM_ROWS, max(length, 2)), generator=generator)
    return [[ids[i] for i in row] for row in chosen.tolist()]


def _learners(policy: Policy, rows: Sequence[Sequence[int]]) -> list[float]:
    """The policy's log-probs of all tokens but the first of each row."""
    asked = [SpanRow(row, [(1, len(row))]) for row in rows]
    with policy.passes.uncounted():  # neither scoring nor learning
        found = list(score_spans(policy, asked, NUM_ROWS * ROW_TOKENS, share=False))
    return [x for spans in found for span in spans for x in span.logprobs]


def _difference(one: Sequence[float], other: Sequence[float]) -> float:
    """Mean absolute difference."""
    return sum(abs(a - b) for a, b in zip(one, other, strict=True)) / len(one)


def _broken(what: str) -> RunFailure:
    return RunFailure(f"the sampler's engine gave {what}: see docs/vllm.md")


@contextlib.contextmanager
def _late() -> Iterator[None]:
    """A line on stderr where what is inside takes long."""
    line = f"no answer of the sampler's engine for {LATE_SECONDS:g} s"
    timer = threading.Timer(LATE_SECONDS, lambda: warn(line, of_one=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
