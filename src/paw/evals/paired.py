"""What paired numbers say: one difference a seed, two arms that share everything but their name.

An interval is the paired t interval, p the exact sign-flip test; both are scipy's. A percentile
bootstrap covers 87 % at five pairs where 95 % is said; an exact sign flip of fewer than six pairs
(more where several arms are corrected for) cannot give p < 0.05: no verdict then. Reference: Colas
et al. 2018, "How many random seeds?"; Patterson et al. 2024, JMLR 25, "Empirical design in
reinforcement learning".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from typing import Any

from paw.errors import UserError

EXACT_PAIRS = 16
"""Up to which all 2^n sign flips are counted; beyond it 2^16 random ones."""
POWER, ALPHA = 0.8, 0.05


@dataclass(frozen=True, slots=True)
class Difference:
    """Of paired numbers: what the mean difference is worth."""

    num_pairs: int
    mean: float | None
    """None without pairs"""
    deviation: float | None
    """Of a single difference (ddof 1); None with fewer than two pairs"""
    interval: tuple[float, float] | None
    """Paired t, of the level asked for; None with fewer than two pairs"""
    p_value: float | None
    """Two-sided exact sign flip"""
    pairs_needed: int | None
    """For a power of 80 % at 5 %, were the difference and its spread as seen; None where no number
    of pairs below 10,000 would do"""


def difference(values: Sequence[float], level: float = 0.95) -> Difference:
    """What the differences of n pairs say about their mean.

    Args:
        values: [n], one a pair.
        level: of the interval.
    """
    stats = _scipy()
    count = len(values)
    if not count:
        return Difference(0, None, None, None, None, None)
    mean = math.fsum(values) / count
    if count == 1:
        return Difference(1, mean, None, None, None, None)
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    if deviation == 0:
        p_value = 1.0 if mean == 0 else 2.0 ** (1 - count)
        return Difference(count, mean, 0.0, (mean, mean), p_value, None if mean == 0 else 2)
    found = stats.ttest_1samp(values, 0.0).confidence_interval(level)
    return Difference(
        count,
        mean,
        deviation,
        (float(found.low), float(found.high)),
        sign_flip_p(values),
        pairs_needed(mean, deviation),
    )


def sign_flip_p(values: Sequence[float]) -> float:
    """Two-sided p of "the sign of each difference is a coin's": [n] values, n of at least two."""
    stats = _scipy()
    found = stats.permutation_test(
        (list(values),),
        lambda x, axis: x.mean(axis),
        permutation_type="samples",
        n_resamples=2**EXACT_PAIRS,
        alternative="two-sided",
        vectorized=True,
        rng=0,
    )
    return float(found.pvalue)


def smallest_p(count: int, comparisons: int = 1) -> float:
    """The smallest two-sided p that an exact sign flip of so many pairs can give, as Holm corrects
    the smallest of so many comparisons."""
    return min(1.0, comparisons * 2.0 ** (1 - count))


def least_pairs(comparisons: int = 1) -> int:
    """The fewest pairs with which that is below 0.05: 6 for one comparison (2 / 2^6 = 0.031), 7 for
    two or three, 8 for up to six, 9 for up to twelve."""
    return next(n for n in range(1, 100) if smallest_p(n, comparisons) < ALPHA)


def pairs_needed(mean: float, deviation: float) -> int | None:
    """Pairs for a power of 80 % of the two-sided paired t test at 5 %, by the noncentral t."""
    stats = _scipy()
    if mean == 0:
        return None
    effect = abs(mean) / deviation

    def power(count: int) -> float:
        bound = stats.t.ppf(1 - ALPHA / 2, count - 1)
        return float(stats.nct.sf(bound, count - 1, effect * math.sqrt(count)))

    low, high = 1, 2
    while not power(high) >= POWER:
        low, high = high, 2 * high
        if high > 10_000:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power(middle) >= POWER else (middle, high)
    return high


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values of several comparisons, corrected by Holm's step-down procedure (scipy has none).

    Reference: Holm 1979, "A simple sequentially rejective multiple test procedure".
    """
    order = sorted((p, i) for i, p in enumerate(p_values) if p is not None)
    corrected: list[float | None] = [None] * len(p_values)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p))
        corrected[i] = largest
    return corrected


def verdict(found: Difference, corrected_p: float | None, comparisons: int = 1) -> str | None:
    """ "higher" | "lower" | "no difference shown"; None with fewer than `least_pairs`, where
    nothing that could be seen would be called a difference.

    Args:
        found: one of `comparisons`.
        corrected_p: its p, corrected over them.
        comparisons: arms that are compared with the same baseline.
    """
    if found.num_pairs < least_pairs(comparisons) or corrected_p is None or found.mean is None:
        return None
    if corrected_p >= ALPHA:
        return "no difference shown"
    return "higher" if found.mean > 0 else "lower"


def t_quantile(freedom: int, level: float = 0.95) -> float:
    """Half width of a `level` t interval in standard errors."""
    return float(_scipy().t.ppf(0.5 + level / 2, freedom))


def need_scipy() -> None:
    """Raises UserError where scipy or matplotlib is missing: before hours of work."""
    missing = [name for name in ("scipy", "matplotlib") if find_spec(name) is None]
    if missing:
        raise UserError(f"{' and '.join(missing)} must be installed: pip install 'paw-rl[compare]'")


def _scipy() -> Any:
    need_scipy()
    from scipy import stats

    return stats
