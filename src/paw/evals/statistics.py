"""Rates and means of played episodes, with intervals."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paw.types import Trajectory

LEAST_UNITS = 10
"""Below it a percentile bootstrap covers less than 90 % where it says 95 %."""


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a rate (default 95 %); (0, 1) without trials.

    Reference: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not trials:
        return 0.0, 1.0
    rate, squared = successes / trials, z * z
    centre = rate + squared / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + squared / (4 * trials * trials))
    scale = 1 + squared / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def ratio_interval(
    sums: NDArray[np.float64], counts: NDArray[np.float64], seed: int, draws: int = 2000
) -> tuple[float, float] | None:
    """95 % percentile bootstrap of sum(sums) / sum(counts) over units, such as episodes.

    Units without a count say nothing and are left out; None for fewer than `LEAST_UNITS` others.
    Reference: Efron & Tibshirani 1993, "An introduction to the bootstrap", chapter 13.
    """
    sums, counts = sums[counts > 0], counts[counts > 0]
    if len(sums) < LEAST_UNITS:
        return None
    rng = np.random.default_rng(seed)
    ratios = []
    for _ in range(draws):
        drawn = rng.integers(len(sums), size=len(sums))
        ratios.append(sums[drawn].sum() / counts[drawn].sum())
    low, high = np.quantile(ratios, (0.025, 0.975))
    return float(low), float(high)


def summary(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Rates and means of some trajectories."""
    usable = [t for t in trajectories if t.failure is None]
    wins, count = sum(t.success for t in usable), len(usable)
    turns = [len(t.transitions) for t in usable]
    valid = [turn.valid for t in usable for turn in t.transitions]
    cut = [turn.prompt_cut_tokens > 0 for t in usable for turn in t.transitions]
    unfinished = [not turn.action.finished for t in usable for turn in t.transitions]
    scores = [t.score for t in usable if t.score is not None]
    return {
        "num_episodes": count,
        "num_failures": len(trajectories) - count,
        "success_rate": wins / count if count else 0.0,
        "interval": wilson_interval(wins, count),
        "return_mean": sum(t.return_ for t in usable) / count if count else 0.0,
        "score_mean": sum(scores) / len(scores) if scores else None,
        "turns_mean": sum(turns) / count if count else 0.0,
        "valid_action_rate": sum(valid) / len(valid) if valid else 0.0,
        "prompt_limit_fraction": sum(t.prompt_limit for t in usable) / count if count else 0.0,
        "prompt_cut_fraction": sum(cut) / len(cut) if cut else 0.0,
        "response_cut_fraction": sum(unfinished) / len(unfinished) if unfinished else 0.0,
    }


def macro_average(by_kind: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The unweighted mean over kinds, as Search-R1 averages over data sets.

    Kinds without a usable episode are left out; `num_kinds` says how many are in. The limits of
    the interval are those of the kinds combined: the mean -+ sqrt(sum of squared distances of the
    kinds' Wilson limits from their rates) / K (MOVER: Zou & Donner 2008, "Construction of
    confidence limits about effect measures").
    """
    rows = [row for row in by_kind.values() if row["num_episodes"]]
    count = len(rows)
    if not count:
        return {"num_kinds": 0, "success_rate": 0.0, "interval": (0.0, 1.0), "score_mean": None}
    rate = sum(row["success_rate"] for row in rows) / count
    low, high = (
        math.hypot(*(row["success_rate"] - row["interval"][side] for row in rows)) / count
        for side in (0, 1)
    )
    scores = [row["score_mean"] for row in rows if row["score_mean"] is not None]
    return {
        "num_kinds": count,
        "success_rate": rate,
        "interval": (max(0.0, rate - low), min(1.0, rate + high)),
        "score_mean": sum(scores) / len(scores) if scores else None,
    }
