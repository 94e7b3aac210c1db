"""Paired differences: worked by hand, and held against scipy and against all sign flips."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from paw.evals.paired import (
    Difference,
    difference,
    holm,
    least_pairs,
    pairs_needed,
    sign_flip_p,
    smallest_p,
    t_quantile,
    verdict,
)

DIFFERENCES = st.lists(st.integers(-8, 8).map(float), min_size=2, max_size=8)


def test_by_hand():
    """1, 2, 3: mean 2, deviation 1, t_0.975 of 2 degrees 4.303, half 4.303 / sqrt 3 = 2.484. Of the
    eight sign flips only +++ and --- have a sum as far from 0 as 6: p = 2 / 8."""
    found = difference([1.0, 2.0, 3.0])
    assert (found.num_pairs, found.mean, found.deviation) == (3, 2.0, 1.0)
    assert found.interval == pytest.approx((2 - 2.4841, 2 + 2.4841), abs=1e-4)
    assert found.p_value == pytest.approx(0.25)


def test_five_pairs_of_the_readme():
    """The household's differences in points: mean 1.4, interval [-10.4, 13.2]."""
    found = difference([9.0, 14.0, -4.0, -7.5, -4.5])
    assert found.mean == pytest.approx(1.4)
    assert found.interval == pytest.approx((-10.4, 13.2), abs=0.05)


@given(DIFFERENCES)
def test_sign_flips_are_all_counted(values: list[float]):
    whole = abs(sum(values))
    flips = itertools.product((1, -1), repeat=len(values))
    sums = [abs(sum(s * v for s, v in zip(signs, values, strict=True))) for signs in flips]
    share = sum(s >= whole - 1e-9 for s in sums) / len(sums)
    assert sign_flip_p(values) == pytest.approx(share)


@given(DIFFERENCES)
def test_interval_is_that_of_scipy(values: list[float]):
    found = difference(values)
    if not found.deviation:
        assert found.interval == (found.mean, found.mean)
        return
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert found.interval == pytest.approx((expected.low, expected.high))


def test_few_pairs_and_none():
    assert difference([]) == Difference(0, None, None, None, None, None)
    assert difference([0.1]) == Difference(1, 0.1, None, None, None, None)
    assert difference([0.0, 0.0]).p_value == 1.0
    assert difference([0.5, 0.5, 0.5]).p_value == 0.25  # +++ and --- of eight
    assert smallest_p(5) == 0.0625 and smallest_p(6) == 0.03125 and smallest_p(1) == 1.0


def test_no_verdict_below_six_pairs():
    clear = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15]
    for count in range(7):
        found = difference(clear[:count])
        expected = "higher" if count == 6 else None
        assert verdict(found, found.p_value) == expected
    lower = difference([-v for v in clear])
    assert verdict(lower, lower.p_value) == "lower"
    assert verdict(lower, 0.06) == "no difference shown"


def test_arms_that_share_the_correction_take_more_pairs():
    """k x 2 / 2^n below 0.05: 1 x 2/64 = 0.031, 3 x 2/128 = 0.047, 6 x 2/256 = 0.047, 7 x 2/512 =
    0.027; one pair fewer gives twice as much."""
    assert [least_pairs(k) for k in (1, 2, 3, 4, 6, 7, 12)] == [6, 7, 7, 8, 8, 9, 9]
    clear = [0.10, 0.11, 0.12, 0.13, 0.14, 0.15, 0.16]
    for arms, expected in ((1, "higher"), (3, "higher"), (4, None)):
        found = difference(clear)
        assert verdict(found, holm([found.p_value] * arms)[0], arms) == expected
    six = difference(clear[:6])
    assert verdict(six, 0.2, 1) == "no difference shown" and verdict(six, 0.2, 2) is None


def test_holm_by_hand():
    """0.01 x 3 = 0.03; 0.03 x 2 = 0.06; 0.04 x 1 = 0.04, not below 0.06; one that is missing."""
    found = holm([0.01, 0.04, None, 0.03])
    assert found[2] is None and found[:2] + found[3:] == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.6, 0.9]) == [1.0, 1.0]


def test_pairs_for_power():
    """An effect of one deviation takes 10 pairs for 80 % (a table of the paired t test: 0.803)."""
    assert pairs_needed(1.0, 1.0) == 10
    assert pairs_needed(-0.5, 1.0) == 34  # the same table
    assert pairs_needed(0.0, 1.0) is None and pairs_needed(1e-6, 1.0) is None
    assert t_quantile(4) == pytest.approx(2.776, abs=1e-3)
    assert math.isclose(t_quantile(9, 0.9), 1.833, abs_tol=1e-3)
