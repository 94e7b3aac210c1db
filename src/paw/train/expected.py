"""What the policy expected: the log-probs of target tokens, as the learner met them. Pure."""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from torch import Tensor

from paw.types import Role, TrainingSample

Met = tuple[Sequence[TrainingSample], Tensor]
"""Samples of a micro-batch, and [T] log-probs of their target tokens, end to end"""


def expected(met: Sequence[Met]) -> dict[int, list[float]]:
    """Log-probs at temperature 1 of the target tokens of each transition that has some, by its
    index in the update: before the optimizer step that learned from them, in the first pass."""
    found: dict[int, list[float]] = {}
    for samples, logprobs in met:
        if not samples[0].transitions:
            continue  # a demonstration's: nobody asks
        values = iter(logprobs.tolist())
        for sample in samples:
            own: dict[int, list[float]] = {}
            for transition in _transitions(sample):
                own.setdefault(transition, []).append(next(values))
            for transition, logprob in own.items():
                found.setdefault(transition, logprob)
    return found


def _transitions(sample: TrainingSample) -> list[int]:
    """The transition of each target token: that of the action before it. Earlier actions of a row
    that only predicts are no targets' own."""
    tokens = [p for p, weight in enumerate(sample.target_weights) if weight]
    if not tokens:
        return []
    if sample.predicts_only:
        return [sample.transitions[0]] * len(tokens)
    actions = [role == Role.ACTION for role in (Role.CONTEXT, *sample.roles)]
    begun = list(accumulate(now and not before for before, now in pairwise(actions)))
    return [sample.transitions[begun[p] - 1] for p in tokens]
