"""What a rollout asks of a sampler, whichever engine stands behind it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

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
        """Drop all caches: after every weight change and at the start of every rollout."""
        ...
