import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paw.objective as P


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def ints(*values):
    return torch.tensor(values, dtype=torch.long)


def test_grpo_worked_numbers():
    # Group 0, returns 10, 0, 0, 0: mean 2.5, variance (7.5^2 + 3 * 2.5^2) / 3 = 25, std 5:
    # 7.5/5 = 1.5 and -2.5/5 = -0.5, with 5 + 1e-6 below. Group 1: one trajectory, 0.
    returns, group = f64(10, 0, 0, 0, 7), ints(0, 0, 0, 0, 1)
    expected = f64(7.5, -2.5, -2.5, -2.5, 0)
    torch.testing.assert_close(
        P.group_relative_advantages(returns, group), expected / (5 + 1e-6), rtol=1e-12, atol=0
    )
    torch.testing.assert_close(P.group_relative_advantages(returns, group, False), expected)


def test_rloo_worked_numbers():
    # 10 against the mean 0 of the others: 10; 0 against 10/3: -10/3; a group of one: 0.
    actual = P.leave_one_out_advantages(f64(10, 0, 0, 0, 7), ints(0, 0, 0, 0, 1))
    torch.testing.assert_close(actual, f64(10, -10 / 3, -10 / 3, -10 / 3, 0))


@pytest.mark.parametrize("value", [0.0, 0.1, 10.0, -0.1, 1e8])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_equal_returns_give_exactly_zero(value, size, dtype):
    # The mean of three times 0.1 is not 0.1 in floating point; divided by 1e-6 it would show.
    returns, group = torch.full((size,), value, dtype=dtype), torch.zeros(size).long()
    for advantages in (
        P.group_relative_advantages(returns, group),
        P.group_relative_advantages(returns, group, False),
        P.leave_one_out_advantages(returns, group),
    ):
        assert advantages.tolist() == [0.0] * size and advantages.dtype == dtype


def test_integers_half_precision_and_gradients():
    group = ints(0, 0)
    for f in (P.group_relative_advantages, P.leave_one_out_advantages):
        assert torch.equal(f(ints(1, 0), group), f(torch.tensor([1.0, 0.0]), group))
        assert f(torch.tensor([1.0, 0.0]).bfloat16(), group).dtype == torch.float32
        assert not f(torch.ones(2, requires_grad=True), group).requires_grad
        assert f(torch.zeros(0), ints()).shape == (0,)


def test_group_numbers_mean_nothing():
    returns = f64(1, 2, 5, 3)
    dense = P.group_relative_advantages(returns, ints(0, 1, 1, 0))
    assert torch.equal(P.group_relative_advantages(returns, ints(-7, 99, 99, -7)), dense)


# Trajectory 0: rewards 1, 2, 4 at turns 0, 1, 2; trajectory 1: reward 8 at turn 0. Shuffled.
REWARDS, TRAJECTORY, TURN = f64(4, 8, 1, 2), ints(0, 1, 0, 0), ints(2, 0, 0, 1)


def test_discounted_returns_worked_numbers():
    # Discount 1/2: turn 2: 4; turn 1: 2 + 4/2 = 4; turn 0: 1 + 4/2 = 3; trajectory 1: 8.
    assert P.discounted_returns(REWARDS, TRAJECTORY, TURN, 0.5).tolist() == [4, 8, 3, 4]
    assert P.discounted_returns(REWARDS, TRAJECTORY, TURN, 0.0).tolist() == [4, 8, 1, 2]
    assert P.discounted_returns(REWARDS, TRAJECTORY, TURN, 1.0).tolist() == [4, 8, 7, 6]


def test_turns_and_trajectories_need_only_an_order():
    actual = P.discounted_returns(REWARDS, TRAJECTORY * 100 - 5, TURN * 3 + 1, 0.5)
    assert actual.tolist() == [4, 8, 3, 4]


def test_gae_worked_numbers():
    # Discount 1/2, lambda 1/2 (decay 1/4), values 1, 2, 3 at turns 0, 1, 2 of trajectory 0.
    #  delta_2 = 4 - 3 = 1                 A_2 = 1                    return 4
    #  delta_1 = 2 + 3/2 - 2 = 1.5         A_1 = 1.5 + 1/4 = 1.75     return 3.75
    #  delta_0 = 1 + 2/2 - 1 = 1           A_0 = 1 + 1.75/4 = 1.4375  return 2.4375
    # Trajectory 1, value 5: A = 8 - 5 = 3, return 8: no value after the last turn.
    advantages, returns = P.generalized_advantages(
        REWARDS, f64(3, 5, 1, 2), TRAJECTORY, TURN, 0.5, 0.5
    )
    assert advantages.tolist() == [1, 3, 1.4375, 1.75]
    assert returns.tolist() == [4, 8, 2.4375, 3.75]


def test_gae_ends_of_lambda():
    values = f64(3, 5, 1, 2)
    # lambda 1: the discounted return minus the value; lambda 0: the one-step error.
    advantages, returns = P.generalized_advantages(REWARDS, values, TRAJECTORY, TURN, 0.5, 1.0)
    torch.testing.assert_close(returns, P.discounted_returns(REWARDS, TRAJECTORY, TURN, 0.5))
    advantages, _ = P.generalized_advantages(REWARDS, values, TRAJECTORY, TURN, 0.5, 0.0)
    assert advantages.tolist() == [1, 3, 1, 1.5]


def test_gae_dtypes_gradient_and_nothing():
    values = torch.zeros(4, dtype=torch.float32, requires_grad=True)
    advantages, returns = P.generalized_advantages(
        REWARDS.long(), values, TRAJECTORY, TURN, 1.0, 1.0
    )
    assert advantages.dtype == returns.dtype == torch.float32
    assert not advantages.requires_grad and not returns.requires_grad
    mixed, _ = P.generalized_advantages(REWARDS, values, TRAJECTORY, TURN, 1.0, 1.0)
    assert mixed.dtype == torch.float64
    none = torch.zeros(0)
    advantages, returns = P.generalized_advantages(none, none, ints(), ints(), 1.0, 1.0)
    assert advantages.shape == returns.shape == (0,)
    assert P.discounted_returns(none, ints(), ints(), 1.0).shape == (0,)


def test_gigpo_worked_numbers():
    # One group, two trajectories, returns 10 and 0, discount 1/2, no scaling.
    #  episode: 10 - 5 = 5 and -5.
    #  tau 0: turn 0 at anchor 0, turn 1 (reward 10) at anchor 1: step returns 5, 10.
    #  tau 1: turn 0 at anchor 0, turn 1 (reward 0) at anchor 2: step returns 0, 0.
    #  anchor 0 holds 5 and 0: A_step = 2.5, -2.5; anchors 1 and 2 stand once: 0.
    arguments = (f64(10, 0), f64(0, 10, 0, 0), ints(0, 0, 1, 1), ints(0, 1, 0, 1), ints(0, 0))
    anchor = ints(0, 1, 0, 2)
    assert P.gigpo_advantages(*arguments, anchor, 0.5, 1.0, False).tolist() == [7.5, 5, -7.5, -5]
    assert P.gigpo_advantages(*arguments, anchor, 0.5, 2.0, False).tolist() == [10, 5, -10, -5]
    assert P.gigpo_advantages(*arguments, anchor, 0.5, 0.0, False).tolist() == [5, 5, -5, -5]
    # Scaled, two values a and b give +-(a - b)/2 over |a - b|/sqrt(2), that is +-sqrt(1/2), twice.
    actual = P.gigpo_advantages(*arguments, anchor, 0.5, 1.0, True)
    root = math.sqrt(0.5)
    torch.testing.assert_close(actual, f64(2 * root, root, -2 * root, -root), rtol=1e-6, atol=0)


def test_gigpo_anchor_numbers_are_read_within_a_group():
    # Two groups of one trajectory that carry the same anchor number: nothing to compare.
    actual = P.gigpo_advantages(
        f64(10, 0), f64(10, 0), ints(0, 1), ints(0, 0), ints(0, 1), ints(0, 0), 1.0, 1.0, True
    )
    assert actual.tolist() == [0.0, 0.0]


def test_gigpo_compares_repeats_within_a_trajectory():
    # One trajectory that stands twice before anchor 0: step returns 1 and 2, mean 1.5.
    actual = P.gigpo_advantages(
        f64(2), f64(0, 2), ints(0, 0), ints(0, 1), ints(0), ints(0, 0), 0.5, 1.0, False
    )
    assert actual.tolist() == [-0.5, 0.5]


@pytest.mark.parametrize("scale", [True, False])
def test_gigpo_all_win_alike_gives_zero(scale):
    actual = P.gigpo_advantages(
        f64(0.1, 0.1, 0.1), f64(0.1, 0.1, 0.1), ints(0, 1, 2), ints(0, 0, 0), ints(0, 0, 0),
        ints(0, 0, 0), 0.95, 1.0, scale,
    )  # fmt: skip
    assert actual.tolist() == [0.0] * 3


# A trajectory is a list of (reward, anchor).
steps = st.tuples(st.sampled_from([0.0, -0.1, 1.0, 0.3]), st.integers(0, 1))
pool = st.lists(st.lists(steps, min_size=1, max_size=4), min_size=1, max_size=5)


@settings(deadline=None, max_examples=50)
@given(pool, st.randoms())
def test_order_of_transitions_and_shift_of_returns(trajectories, rng):
    rows = [(n, t, *step) for n, steps in enumerate(trajectories) for t, step in enumerate(steps)]
    trajectory, turn, rewards, anchor = map(torch.tensor, zip(*rows, strict=True))
    rewards = rewards.double()
    returns = f64(*(sum(r for r, _ in steps) for steps in trajectories))
    group = ints(*(n % 2 for n in range(len(trajectories))))
    values = torch.linspace(-1, 1, len(rows), dtype=torch.float64)
    order = torch.tensor(rng.sample(range(len(rows)), len(rows)))

    def everything(order):
        arguments = rewards[order], trajectory[order], turn[order]
        gigpo = P.gigpo_advantages(returns, *arguments, group, anchor[order], 0.9, 1.0, True)
        gae, targets = P.generalized_advantages(
            rewards[order], values[order], trajectory[order], turn[order], 0.9, 0.8
        )
        return torch.stack([P.discounted_returns(*arguments, 0.9), gigpo, gae, targets], -1)

    torch.testing.assert_close(everything(order), everything(torch.arange(len(rows)))[order])
    advantages = P.group_relative_advantages(returns, group)
    torch.testing.assert_close(P.group_relative_advantages(returns + 3, group), advantages)
    torch.testing.assert_close(advantages[group == 0].sum(), f64(0)[0])
    torch.testing.assert_close(P.leave_one_out_advantages(returns, group).sum(), f64(0)[0])


@pytest.mark.parametrize(
    "returns, group, message",
    [
        ([1.0], [0, 0], r"returns \[1\], group \[2\]"),
        ([[1.0]], [[0]], "expected vectors of one length"),
        ([1.0], [0.0], "group must hold integers"),
        ([math.inf], [0], "returns must be finite"),
    ],
)
def test_group_statistics_bad_input(returns, group, message):
    for f in (P.group_relative_advantages, P.leave_one_out_advantages):
        with pytest.raises(ValueError, match=message):
            f(torch.tensor(returns), torch.tensor(group))


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"turn": ints(0, 0)}, "turn 0 stands twice in trajectory 0"),
        ({"turn": ints(0)}, r"turn \[1\]"),
        ({"turn": f64(0, 1)}, "turn must hold integers"),
        ({"trajectory": torch.tensor([True, True])}, "trajectory must hold integers"),
        ({"rewards": f64(0, math.nan)}, "rewards must be finite"),
        ({"discount": 1.5}, r"discount must be in \[0, 1\]"),
        ({"values": f64(0, math.inf)}, "values must be finite"),
        ({"values": f64(0)}, r"values \[1\]"),
        ({"gae_lambda": -0.1}, r"gae_lambda must be in \[0, 1\]"),
        ({"anchor": f64(0, 0)}, "anchor must hold integers"),
        ({"trajectory": ints(1, 1)}, r"trajectory must be in 0\.\.0, got 1\.\.1"),
    ],
)
def test_turn_functions_bad_input(changed, message):
    good = {"rewards": f64(0, 1), "trajectory": ints(0, 0), "turn": ints(0, 1), "discount": 1.0}
    name = next(iter(changed))
    if name == "anchor" or "must be in 0" in message:
        gigpo = {"returns": f64(1), "group": ints(0), "anchor": ints(0, 0)}
        arguments = {**good, **gigpo, "step_weight": 1.0, "scale_by_std": True, **changed}
        function = P.gigpo_advantages
    elif name in ("values", "gae_lambda"):
        arguments = {**good, "values": f64(0, 0), "gae_lambda": 1.0, **changed}
        function = P.generalized_advantages
    else:
        arguments = {**good, **changed}
        function = P.discounted_returns
    with pytest.raises(ValueError, match=message):
        function(**arguments)


def test_step_advantages_compare_turns_of_one_anchor_within_a_group():
    """gamma = 0.5. Trajectory 0: rewards 0, 10, step returns 5, 10; trajectory 1: 0; trajectory 2,
    of the other group: 4. Anchor 7 is that of turns 0, 2 and 3: 5 and 0 are compared, 4 stands
    alone in its group, and so does anchor 8.

    Mean 2.5, deviations +-2.5, unbiased deviation 2.5 sqrt 2: +-1 / sqrt 2.
    """
    rewards = torch.tensor([0.0, 10.0, 0.0, 4.0], dtype=torch.float64)
    trajectory, turn = torch.tensor([0, 0, 1, 2]), torch.tensor([0, 1, 0, 0])
    group, anchor = torch.tensor([0, 0, 0, 1]), torch.tensor([7, 8, 7, 7])
    found = P.step_advantages(rewards, trajectory, turn, group, anchor, 0.5, True)
    half = math.sqrt(0.5)
    assert found.tolist() == pytest.approx([half, 0, -half, 0], abs=1e-5)
    plain = P.step_advantages(rewards, trajectory, turn, group, anchor, 0.5, False)
    assert plain.tolist() == [2.5, 0, -2.5, 0]


@given(st.integers(0, 2**32))
def test_gigpo_is_the_episodes_advantage_plus_the_steps(seed):
    """What trains is the sum of two exported parts; omega weighs the second."""
    generator = torch.Generator().manual_seed(seed)
    trajectory = torch.tensor([0, 0, 0, 1, 1, 2, 3, 3])
    turn = torch.tensor([0, 1, 2, 0, 1, 0, 0, 1])
    group = torch.tensor([0, 0, 1, 1])
    rewards = torch.randn(8, generator=generator, dtype=torch.float64)
    anchor = torch.randint(3, (8,), generator=generator)
    returns = torch.zeros(4, dtype=torch.float64).index_add(0, trajectory, rewards)
    whole = P.gigpo_advantages(returns, rewards, trajectory, turn, group, anchor, 0.95, 0.3, True)
    step = P.step_advantages(rewards, trajectory, turn, group[trajectory], anchor, 0.95, True)
    episode = P.group_relative_advantages(returns, group)[trajectory]
    assert torch.equal(whole, episode + 0.3 * step)
