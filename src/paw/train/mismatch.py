"""What a sampler with kernels of its own says of its tokens, beside the scoring pass.

The same weights in another engine give other log-probs: by rounding alone, or because something
is wrong with what it was handed.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import chain

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import AlgorithmConfig
from paw.types import Row, Scores, Transition

FAR = 0.1
"""Nats from which on a token counts as off."""

Score = Callable[[Sequence[Transition], Sequence[Row]], Scores]
"""[P] transitions and the rows in which they stand -> what models say of them"""


def against_sampler(score: Score, algorithm: AlgorithmConfig) -> Score:
    """`score`, and beside the scoring pass that it makes, if any, what the sampler said."""
    cap = algorithm.importance_cap

    def compared(transitions: Sequence[Transition], rows: Sequence[Row]) -> Scores:
        scores = score(transitions, rows)
        drawn = [list(t.action.logprobs) for t in transitions]
        weights = None if cap is None else importance(scores.logprobs, drawn, cap)
        return replace(scores, sampler_logprobs=drawn, importance=weights)

    return compared if algorithm.old_logprobs == "score" else score


def importance(
    scored: Sequence[Sequence[float]], sampled: Sequence[Sequence[float]], cap: float
) -> list[list[float]]:
    """[P] of [A] truncated importance weights."""
    pairs = zip(scored, sampled, strict=True)
    return [objective.truncated_importance(_column(a), _column(b), cap).tolist() for a, b in pairs]


def mismatch(scores: Scores) -> dict[str, float]:
    """How far sampler and scoring pass are apart; nothing where only one of them is known."""
    if scores.sampler_logprobs is None:
        return {}
    sampled, scored = (
        _column(list(chain.from_iterable(x))) for x in (scores.sampler_logprobs, scores.logprobs)
    )
    off = (scored - sampled).abs()
    return {
        "sampler/logprob_difference_mean": float(off.mean()),
        "sampler/logprob_difference_max": float(off.max()),
        "sampler/logprob_difference_fraction": float((off > FAR).double().mean()),
    }


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
