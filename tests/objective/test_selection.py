import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paw.objective as P

ALL5 = torch.ones(5, dtype=torch.bool)


def kept(scores, candidates, fraction):
    selected = P.select_top_fraction(torch.tensor(scores), torch.tensor(candidates), fraction)
    return selected.nonzero().squeeze(-1).tolist()


def test_worked_numbers():
    # 4 candidates, 0.75 * 4 = 3 kept: the three highest, not transition 0, which has no next
    # observation however high its entropy.
    assert kept([9.0, 0.1, 0.4, 0.2, 0.3], [False, True, True, True, True], 0.75) == [2, 3, 4]
    # ceil(0.75 * 5) = ceil(3.75) = 4.
    assert kept([5.0, 1.0, 4.0, 2.0, 3.0], [True] * 5, 0.75) == [0, 2, 3, 4]


def test_ties_go_to_the_lower_index():
    assert kept([1.0, 2.0, 1.0, 1.0, 2.0], [True] * 5, 0.6) == [0, 1, 4]
    assert kept([0.0, -0.0, 0.0, -0.0], [True] * 4, 0.5) == [0, 1]
    assert kept([0.5] * 1000, [True] * 1000, 0.3) == list(range(300))


def test_float_product_does_not_take_one_more():
    # 0.07 * 100 = 7.000000000000001 in floating point.
    assert 0.07 * 100 > 7
    assert len(kept([1.0] * 100, [True] * 100, 0.07)) == 7


@pytest.mark.parametrize("fraction, expected", [(0.0, 0), (1e-12, 0), (1e-3, 1), (1.0, 5)])
def test_ends_of_the_fraction(fraction, expected):
    assert int(P.select_top_fraction(torch.arange(5.0), ALL5, fraction).sum()) == expected


def test_degenerate():
    assert kept([1.0, 2.0], [False, False], 1.0) == []
    empty = torch.zeros(0)
    assert P.select_top_fraction(empty, empty.bool(), 0.5).shape == (0,)
    assert kept([math.inf, 0.0, -math.inf], [True] * 3, 0.3) == [0]
    assert kept([3, 1, 2], [True] * 3, 0.3) == [0]


def test_nan_counts_only_at_candidates():
    assert kept([math.nan, 1.0], [False, True], 1.0) == [1]
    with pytest.raises(ValueError, match="must not be nan"):
        kept([math.nan, 1.0], [True, True], 0.5)


def test_bad_input():
    for fraction in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=r"fraction must be in \[0, 1\]"):
            P.select_top_fraction(torch.zeros(5), ALL5, fraction)
    with pytest.raises(ValueError, match=r"scores \[4\], candidates \[5\]"):
        P.select_top_fraction(torch.zeros(4), ALL5, 0.5)
    with pytest.raises(ValueError, match="candidates must be a bool mask"):
        P.select_top_fraction(torch.zeros(5), ALL5.long(), 0.5)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.integers(0, 3), st.booleans()), max_size=30),
    st.floats(0, 1),
    st.randoms(),
)
def test_properties(rows, fraction, rng):
    scores = torch.tensor([float(s) for s, _ in rows])
    candidates = torch.tensor([c for _, c in rows], dtype=torch.bool)
    selected = P.select_top_fraction(scores, candidates, fraction)
    assert not (selected & ~candidates).any()
    left_out = candidates & ~selected
    if selected.any() and left_out.any():
        assert scores[selected].min() >= scores[left_out].max()
    # In another order, the same number of each score is kept.
    order = torch.tensor(rng.sample(range(len(rows)), len(rows)), dtype=torch.long)
    shuffled = P.select_top_fraction(scores[order], candidates[order], fraction)
    assert sorted(scores[order][shuffled].tolist()) == sorted(scores[selected].tolist())
    # Transitions that are no candidates change nothing.
    padded = P.select_top_fraction(
        torch.cat([scores, torch.full((3,), 99.0)]),
        torch.cat([candidates, torch.zeros(3, dtype=torch.bool)]),
        fraction,
    )
    assert padded.tolist() == [*selected.tolist(), False, False, False]
