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
