import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paw.objective as P


def test_group_weights_worked_numbers():
    # R_max 10. Group 0 wins 1 of 4: 1 - 2.5/10 = 0.75; group 1 always wins: 0; group 2 never: 1;
    # group 3 is one trajectory with return 4: 0.6.
    returns = torch.tensor([10.0, 0, 0, 0, 10, 10, 0, 0, 4])
    group = torch.tensor([0, 0, 0, 0, 1, 1, 2, 2, 3])
    torch.testing.assert_close(
        P.group_weights(returns, group, 10.0), torch.tensor([0.75, 0.0, 1.0, 0.6])
    )


def test_clamp():
    # Mean return -2 of 10: lambda = 1.2, clamped to 1; mean 12 of 10: -0.2, clamped to 0.
    returns, group = torch.tensor([-1.0, -3.0, 12.0]), torch.tensor([0, 0, 1])
    torch.testing.assert_close(
        P.group_weights(returns, group, 10.0, clamp=False), torch.tensor([1.2, -0.2])
    )
    assert P.group_weights(returns, group, 10.0).tolist() == [1.0, 0.0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("clamp", [True, False])
def test_a_group_that_always_wins_weighs_exactly_nothing(dtype, clamp):
    """Also where R_max is no binary fraction: 1 - (0.1 + ... + 0.1) / 6 / 0.1 is 1e-16."""
    for highest, size in ((0.1, 6), (0.7, 7), (0.3, 11)):
        returns = torch.full((size,), highest, dtype=dtype)
        weights = P.group_weights(returns, torch.zeros(size, dtype=torch.long), highest, clamp)
        assert weights.tolist() == [0.0]


def test_integer_returns_are_taken_as_float():
    weights = P.group_weights(torch.tensor([1, 0]), torch.tensor([0, 0], dtype=torch.int32), 1)
    assert weights.dtype == torch.float32 and weights.tolist() == [0.5]


def test_group_weights_carry_no_gradient_and_keep_float64():
    returns = torch.ones(2, dtype=torch.float64, requires_grad=True)
    weights = P.group_weights(returns, torch.tensor([0, 1]), 2.0)
    assert not weights.requires_grad and weights.dtype == torch.float64


def test_group_weights_of_no_trajectories():
    assert P.group_weights(torch.zeros(0), torch.zeros(0, dtype=torch.long), 1.0).shape == (0,)


@pytest.mark.parametrize(
    "returns, group, max_return, message",
    [
        ([1.0, 1.0], [0, 2], 1.0, r"no trajectory in group 1"),
        ([1.0], [-1], 1.0, "group must be in"),
        ([1.0], [0, 0], 1.0, r"returns \[1\], group \[2\]"),
        ([[1.0]], [[0]], 1.0, "expected vectors"),
        ([1.0], [0.0], 1.0, "group must hold integers"),
        ([math.nan], [0], 1.0, "returns must be finite"),
        ([1.0], [0], 0.0, "max_return must be positive"),
        ([1.0], [0], math.inf, "max_return must be positive"),
    ],
)
def test_group_weights_bad_input(returns, group, max_return, message):
    with pytest.raises(ValueError, match=message):
        P.group_weights(torch.tensor(returns), torch.tensor(group), max_return)


def test_transition_weights_worked_numbers():
    # G = 3. Group 0: two of three selected, 0.75 / (3 * 2) = 0.125 each. Group 1 has nothing
    # selected and still counts in G. Group 2: one selected, 1 / (3 * 1).
    selected = torch.tensor([True, False, True, False, True])
    group = torch.tensor([0, 0, 0, 1, 2])
    weights = P.transition_weights(selected, group, torch.tensor([0.75, 0.5, 1.0]))
    torch.testing.assert_close(weights, torch.tensor([0.125, 0, 0.125, 0, 1 / 3]))


def test_transition_weights_nothing_selected():
    weights = P.transition_weights(
        torch.zeros(3, dtype=torch.bool), torch.zeros(3).long(), torch.ones(2)
    )
    assert weights.tolist() == [0.0, 0.0, 0.0]
    none = torch.zeros(0)
    assert P.transition_weights(none.bool(), none.long(), none).shape == (0,)


def test_zero_group_weight_is_exactly_zero():
    weights = P.transition_weights(torch.tensor([True]), torch.tensor([0]), torch.zeros(1))
    assert weights.tolist() == [0.0]


def test_transition_weights_carry_no_gradient():
    lambdas = torch.ones(1, requires_grad=True)
    assert not P.transition_weights(torch.tensor([True]), torch.tensor([0]), lambdas).requires_grad


@pytest.mark.parametrize(
    "selected, group, lambdas, message",
    [
        ([True], [1], [1.0], r"group must be in 0\.\.0, got 1\.\.1"),
        ([True], [0, 0], [1.0], r"selected \[1\], group \[2\]"),
        ([1], [0], [1.0], "selected must be a bool mask"),
        ([True], [0], [[1.0]], r"group_weights \[1, 1\]"),
        ([True], [0.0], [1.0], "group must hold integers"),
    ],
)
def test_transition_weights_bad_input(selected, group, lambdas, message):
    with pytest.raises(ValueError, match=message):
        P.transition_weights(torch.tensor(selected), torch.tensor(group), torch.tensor(lambdas))


transitions = st.lists(
    st.tuples(st.integers(0, 2), st.booleans(), st.floats(0, 1)), min_size=1, max_size=12
)


@settings(deadline=None, max_examples=50)
@given(transitions, st.randoms())
def test_any_split_of_the_update_gives_the_same_sum(rows, rng):
    group = torch.tensor([g for g, _, _ in rows])
    selected = torch.tensor([s for _, s, _ in rows])
    losses = torch.tensor([x for _, _, x in rows], dtype=torch.float64)
    lambdas = torch.tensor([0.2, 0.7, 1.0], dtype=torch.float64)
    weights = P.transition_weights(selected, group, lambdas)
    whole = P.weighted_sum(losses, weights)
    part = torch.tensor([rng.randrange(3) for _ in rows])
    split = sum(P.weighted_sum(losses[part == k], weights[part == k]) for k in range(3))
    torch.testing.assert_close(split, whole, rtol=1e-12, atol=1e-12)
    # And it is the formula: mean over all G groups of lambda_g times the mean over S_g.
    means = [losses[selected & (group == g)] for g in range(3)]
    formula = sum(w * m.mean() for w, m in zip(lambdas, means, strict=True) if m.numel()) / 3
    torch.testing.assert_close(whole, torch.as_tensor(formula, dtype=torch.float64))
    # Another order of the transitions permutes the weights; unselected padding changes none.
    order = torch.tensor(rng.sample(range(len(rows)), len(rows)))
    assert torch.equal(P.transition_weights(selected[order], group[order], lambdas), weights[order])
    padded = P.transition_weights(
        torch.cat([selected, torch.tensor([False])]), torch.cat([group, group[:1]]), lambdas
    )
    assert torch.equal(padded[:-1], weights) and padded[-1] == 0
