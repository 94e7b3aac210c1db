"""What a rollout asks of a sampler, whichever engine stands behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from paw.errors import UserError
from paw.model.policy import Policy
from paw.types import SampledAction


@dataclass(frozen=True, slots=True)
class SampleRequest:
    """One response to be sampled."""

    slot: int
    """Conversation whose cache may be reused; at most one request a slot in a call."""
    prompt_ids: tuple[int, ...]
    """[C] the full prompt so far, at least one token."""
    seed: tuple[int, ...]
    """The sample's own randomness: its trajectory's (`Plan.sample_seed`), then the turn."""


class Sampler(Protocol):
    """Draws responses from the policy."""

    @property
    def returns_entropy(self) -> bool:
        """Every action comes with the entropies of the whole next-token distribution."""
        ...

    def load(self, policy: Policy, version: int) -> None:
        """Take over the weights of `policy`; nothing computed with others is used again.

        Args:
            policy: as it is after update `version` (of a warm start: step). Called before the first
                sample and whenever the weights have changed.
            version: never smaller than the one before.
        """
        ...

    def sample(
        self, requests: Sequence[SampleRequest], *, temperature: float, max_tokens: int
    ) -> list[SampledAction]:
        """One response per request, in order.

        Args:
            requests: distinct slots.
            temperature: of sampling; 0 takes the most likely token. Returned log-probabilities
                and entropies are at temperature 1 whatever it is.
            max_tokens: tokens per response; a response that reaches it is not `finished`.
        """
        ...

    def reset(self) -> None:
        """The conversations have ended: forget them and free their memory."""
        ...


def check_slots(requests: Sequence[SampleRequest]) -> None:
    """Raises ValueError for two requests of one slot."""
    if len({request.slot for request in requests}) < len(requests):
        raise ValueError("two requests of one slot in a call")


def response_limit(request: SampleRequest, max_length: int | None, max_tokens: int) -> int:
    """Tokens of a response at most: `max_tokens`, or what `max_length` leaves.

    Raises:
        UserError: the prompt leaves no room within `max_length`.
        ValueError: an empty prompt.
    """
    if not request.prompt_ids:
        raise ValueError("an empty prompt")
    if max_length is None:
        return max_tokens
    room = max_length - len(request.prompt_ids)
    if room < 1:
        raise UserError(
            f"a prompt of {len(request.prompt_ids)} tokens leaves no room for a response: the "
            f"policy reads at most {max_length}; lower rollout.max_prompt_tokens"
        )
    return min(max_tokens, room)


def check_entropy(sampler: Sampler, old_logprobs: str, entropy: str) -> None:
    """Does the sampler return what the update is to be judged by?

    Args:
        sampler: of the run.
        old_logprobs: `algorithm.old_logprobs`, where log-probs and entropy come from.
        entropy: `paw.entropy`, whose.

    Raises:
        UserError: entropy of the whole distribution is wanted from a sampler that returns none.
    """
    if old_logprobs == "rollout" and entropy == "full" and not sampler.returns_entropy:
        raise UserError(
            'the sampler returns no entropy: set algorithm.old_logprobs = "score" or '
            'paw.entropy = "sampled"'
        )
