import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paw.objective as P


def test_weighted_sum_worked_numbers():
    # 0.5 * 2 + 0.25 * 4 = 2; the gradient is the weight.
    values = torch.tensor([2.0, 4.0], requires_grad=True)
    total = P.weighted_sum(values, torch.tensor([0.5, 0.25]))
    total.backward()
    assert total.item() == 2.0
    assert values.grad is not None and values.grad.tolist() == [0.5, 0.25]


def test_weight_zero_hides_inf_and_nan():
    values = torch.tensor([1.0, math.inf, math.nan, -math.inf], requires_grad=True)
    weights = torch.tensor([3.0, 0.0, 0.0, -0.0], requires_grad=True)
    total = P.weighted_sum(values, weights)
    total.backward()
    assert total.item() == 3.0
    assert values.grad is not None and values.grad.tolist() == [3.0, 0.0, 0.0, 0.0]
    assert weights.grad is None


def test_nan_with_a_weight_shows():
    assert P.weighted_sum(torch.tensor([math.nan]), torch.tensor([1.0])).isnan()


def test_nothing_still_gives_a_zero_gradient():
    for values in (torch.ones(3, requires_grad=True), torch.ones(0, requires_grad=True)):
        total = P.weighted_sum(values, torch.zeros_like(values))
        total.backward()
        assert total.item() == 0.0 and values.grad is not None and not values.grad.any()


def test_weighted_sum_precision():
    # 1,000 values of 0.001 would stick in a bfloat16 sum; float64 weights make a float64 sum.
    values = torch.full((1000,), 0.001).bfloat16()
    total = P.weighted_sum(values, torch.ones(1000))
    assert total.dtype == torch.float32
    torch.testing.assert_close(total, values.float().sum())
    assert P.weighted_sum(torch.ones(1), torch.ones(1).double()).dtype == torch.float64


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(st.floats(-5, 5), st.floats(-1, 1)), max_size=20), st.randoms())
def test_split_order_and_padding_do_not_matter(rows, rng):
    values = torch.tensor([v for v, _ in rows], dtype=torch.float64)
    weights = torch.tensor([w for _, w in rows], dtype=torch.float64)
    whole = P.weighted_sum(values, weights)
    order = torch.tensor(rng.sample(range(len(rows)), len(rows)), dtype=torch.long)
    cut = rng.randint(0, len(rows))
    parts = [order[:cut], order[cut:]]
    split = sum(P.weighted_sum(values[part], weights[part]) for part in parts)
    torch.testing.assert_close(split, whole, rtol=1e-12, atol=1e-12)
    padded = P.weighted_sum(
        torch.cat([values, torch.full((2,), math.nan)]), torch.cat([weights, torch.zeros(2)])
    )
    torch.testing.assert_close(padded, whole, rtol=1e-12, atol=1e-12)


def test_weighted_sum_bad_shapes():
    with pytest.raises(ValueError, match=r"values \[3\], weights \[3, 1\]"):
        P.weighted_sum(torch.zeros(3), torch.zeros(3, 1))


def test_segment_mean_worked_numbers():
    # Segment 0: (1 + 3) / 2; segment 1 is empty: 0; segment 2: one token, 5.
    values = torch.tensor([1.0, 5.0, 3.0], requires_grad=True)
    means = P.segment_mean(values, torch.tensor([0, 2, 0]), 3)
    assert means.tolist() == [2.0, 0.0, 5.0]
    means.sum().backward()
    assert values.grad is not None and values.grad.tolist() == [0.5, 1.0, 0.5]


def test_segment_mean_edges():
    none = torch.zeros(0)
    assert P.segment_mean(none, none.long(), 2).tolist() == [0.0, 0.0]
    assert P.segment_mean(none, none.long(), 0).shape == (0,)
    mean = P.segment_mean(torch.tensor([1, 2]), torch.tensor([0, 0], dtype=torch.int32), 1)
    assert mean.tolist() == [1.5]
    assert P.segment_mean(torch.ones(1).bfloat16(), torch.tensor([0]), 1).dtype == torch.float32


@pytest.mark.parametrize(
    "segment, message",
    [
        ([0, 2], r"segment must be in 0\.\.1, got 0\.\.2"),
        ([-1, 0], "segment must be in"),
        ([0], r"values \[2\], segment \[1\]"),
        ([0.0, 1.0], "segment must hold integers"),
    ],
)
def test_segment_mean_bad_input(segment, message):
    with pytest.raises(ValueError, match=message):
        P.segment_mean(torch.zeros(2), torch.tensor(segment), 2)
