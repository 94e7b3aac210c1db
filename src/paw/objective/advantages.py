"""Advantages of the base algorithms, per trajectory [N] or per transition [P].

Rewards are the RL's own (penalties included, where the trainer adds them). Results carry no
gradient, lie on the device of the inputs and are at least float32; integer inputs are taken as the
default float. Transitions may come in any order: `turn` gives their order within a trajectory.
"""

import torch
from torch import Tensor

from paw.objective._inputs import (
    check_finite,
    check_indices,
    check_unit_interval,
    check_vectors,
    constant,
)

EPSILON = 1e-6
"""Added to the standard deviation, as the public GRPO and GiGPO trainers do."""


def group_relative_advantages(returns: Tensor, group: Tensor, scale_by_std: bool = True) -> Tensor:
    """GRPO: each return against the mean of its group.

        A_i = (R_i - mean_g) / (std_g + 1e-6)      std unbiased (n - 1)
        A_i = R_i - mean_g                         scale_by_std=False

    Args:
        returns: [N] return of each trajectory.
        group: [N] integers; equal numbers are one group, the numbers themselves mean nothing.
        scale_by_std: divide by the group's standard deviation.

    Returns:
        [N]. Exactly 0 for a group of one and for a group whose returns are all equal.

    Raises:
        ValueError: shapes differ, `group` holds no integers, returns not finite.

    The same over anchors instead of groups is GiGPO's step advantage, and over one entry per
    transition (returns[trajectory], group[trajectory]) the statistics per turn.

    Reference: Shao et al. 2024, arXiv 2402.03300, Section 4.1; without the standard deviation
    Liu et al. 2025, arXiv 2503.20783.
    """
    deviations, index, counts = _deviations(returns, group)
    if not scale_by_std:
        return deviations
    squares = torch.zeros_like(counts).index_add(0, index, deviations.square())
    std = (squares / (counts - 1).clamp(min=1)).sqrt()
    return deviations / (std + EPSILON)[index]


def leave_one_out_advantages(returns: Tensor, group: Tensor) -> Tensor:
    """RLOO: each return against the mean of the others of its group.

        A_i = R_i - (sum_{j in g} R_j - R_i) / (n - 1) = n / (n - 1) (R_i - mean_g)

    Args:
        returns: [N] return of each trajectory.
        group: [N] integers; equal numbers are one group.

    Returns:
        [N]. Exactly 0 for a group of one and for a group whose returns are all equal.

    Raises:
        ValueError: shapes differ, `group` holds no integers, returns not finite.

    Reference: Ahmadian et al. 2024, arXiv 2402.14740; Kool et al. 2019.
    """
    deviations, index, counts = _deviations(returns, group)
    return deviations * (counts / (counts - 1).clamp(min=1))[index]


def discounted_returns(
    rewards: Tensor, trajectory: Tensor, turn: Tensor, discount: float
) -> Tensor:
    """Discounted return from each turn on.

        R_t = r_t + discount * R_{t+1},    R = 0 after the last turn

    Args:
        rewards: [P] reward of each transition.
        trajectory: [P] integers; equal numbers are one trajectory.
        turn: [P] integers, distinct within a trajectory: the order of its transitions. A gap is
            not a turn (nothing is discounted for it).
        discount: gamma in [0, 1].

    Returns:
        [P]; r_t itself for a trajectory of one turn.

    Raises:
        ValueError: shapes differ, a turn that stands twice in a trajectory, no integers where
            integers are due, rewards not finite, discount outside [0, 1].

    Reference: Sutton and Barto, 2nd edition, Eq. 3.9.
    """
    check_vectors(rewards=rewards, trajectory=trajectory, turn=turn)
    check_unit_interval(discount=discount)
    rewards = constant(rewards)
    check_finite(rewards=rewards)
    grid = _TurnGrid(trajectory, turn)
    return grid.gather(_backward_sum(grid.scatter(rewards), discount))


def step_advantages(
    rewards: Tensor,
    trajectory: Tensor,
    turn: Tensor,
    group: Tensor,
    anchor: Tensor,
    discount: float,
    scale_by_std: bool,
) -> Tensor:
    """GiGPO's second comparison: discounted step returns among the turns of one anchor.

        A_step = `group_relative_advantages` of `discounted_returns` over (group, anchor)

    Args:
        rewards: [P] reward of each transition.
        trajectory: [P] integers; equal numbers are one trajectory.
        turn: [P] integers, distinct within a trajectory.
        group: [P] integers, the group of each transition.
        anchor: [P] integers; equal numbers within a group are one anchor (see `anchor_labels`).
        discount: gamma in [0, 1] of the step returns (GiGPO: 0.95).
        scale_by_std: divide by the standard deviation among the turns of the anchor.

    Returns:
        [P]. Exactly 0 for an anchor that stands once and where all its step returns are equal.

    Raises:
        ValueError: as `group_relative_advantages` and `discounted_returns`.

    Reference: Feng et al. 2025, arXiv 2505.10978.
    """
    check_vectors(rewards=rewards, group=group, anchor=anchor)
    check_indices(group=group, anchor=anchor)
    returns = discounted_returns(rewards, trajectory, turn, discount)
    pairs = torch.stack([group.long(), anchor.long()])
    _, step_group = torch.unique(pairs, dim=1, return_inverse=True)
    return group_relative_advantages(returns, step_group, scale_by_std)


def gigpo_advantages(
    returns: Tensor,
    rewards: Tensor,
    trajectory: Tensor,
    turn: Tensor,
    group: Tensor,
    anchor: Tensor,
    discount: float,
    step_weight: float,
    scale_by_std: bool,
) -> Tensor:
    """GiGPO: the trajectory's advantage in its group plus the step's among equal observations.

        A = A_episode + step_weight * A_step

    A_episode is `group_relative_advantages` of the returns over the trajectories of a group, A_step
    `step_advantages`.

    Args:
        returns: [N] return of each trajectory.
        rewards: [P] reward of each transition.
        trajectory: [P] integers 0..N-1, the trajectory of each transition.
        turn: [P] integers, distinct within a trajectory.
        group: [N] integers, the group of each trajectory.
        anchor: [P] integers; equal numbers within a group are one anchor (see `anchor_labels`).
        discount: gamma in [0, 1] of the step returns (GiGPO: 0.95).
        step_weight: omega (GiGPO: 1; 0 gives GRPO).
        scale_by_std: divide both by their standard deviation.

    Returns:
        [P]. A_step is exactly 0 for an anchor that stands once and where all its step returns are
        equal; A_episode as in `group_relative_advantages`.

    Raises:
        ValueError: as `group_relative_advantages` and `discounted_returns`, or a trajectory
            outside 0..N-1.

    Reference: Feng et al. 2025, arXiv 2505.10978.
    """
    check_vectors(rewards=rewards, trajectory=trajectory, turn=turn, anchor=anchor)
    check_indices(returns.numel(), trajectory=trajectory)
    check_indices(anchor=anchor)
    trajectory = trajectory.long()
    episode = group_relative_advantages(returns, group, scale_by_std)[trajectory]
    step = step_advantages(
        rewards, trajectory, turn, group[trajectory], anchor, discount, scale_by_std
    )
    return episode + step_weight * step


def generalized_advantages(
    rewards: Tensor,
    values: Tensor,
    trajectory: Tensor,
    turn: Tensor,
    discount: float,
    gae_lambda: float,
) -> tuple[Tensor, Tensor]:
    """Generalised advantage estimation over the turns of each trajectory.

        delta_t = r_t + discount * V_{t+1} - V_t
        A_t = delta_t + discount * gae_lambda * A_{t+1}
        return_t = A_t + V_t                      the critic's target

    V and A are 0 after the last turn. For a trajectory that a limit cut, a bootstrap of one's own
    goes into the last reward: r + discount * V(final).

    Args:
        rewards: [P] reward of each transition.
        values: [P] the critic's V(h_t); no gradient flows into it.
        trajectory: [P] integers; equal numbers are one trajectory.
        turn: [P] integers, distinct within a trajectory.
        discount: gamma in [0, 1].
        gae_lambda: in [0, 1]; 0 gives the one-step error, 1 the discounted return minus the value.

    Returns:
        (advantages [P], returns [P]); not normalised.

    Raises:
        ValueError: shapes differ, a turn that stands twice in a trajectory, no integers where
            integers are due, rewards or values not finite, discount or gae_lambda outside [0, 1].

    Reference: Schulman et al. 2016, arXiv 1506.02438, Eq. 16.
    """
    check_vectors(rewards=rewards, values=values, trajectory=trajectory, turn=turn)
    check_unit_interval(discount=discount, gae_lambda=gae_lambda)
    rewards, values = constant(rewards), constant(values)
    check_finite(rewards=rewards, values=values)
    dtype = torch.promote_types(rewards.dtype, values.dtype)
    rewards, values = rewards.to(dtype), values.to(dtype)
    grid = _TurnGrid(trajectory, turn)
    value_grid = grid.scatter(values)
    next_values = torch.nn.functional.pad(value_grid[:, 1:], (0, 1))[:, : value_grid.shape[1]]
    deltas = grid.scatter(rewards) + discount * next_values - value_grid
    advantages = grid.gather(_backward_sum(deltas, discount * gae_lambda))
    return advantages, advantages + values


def _deviations(returns: Tensor, group: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(R_i - mean of its group [N], group index [N], group sizes [G] as float)."""
    check_vectors(returns=returns, group=group)
    check_indices(group=group)
    returns = constant(returns)
    check_finite(returns=returns)
    numbers, index = torch.unique(group, return_inverse=True)
    counts = returns.new_zeros(numbers.numel()).index_add(0, index, torch.ones_like(returns))
    # Measured from the group's least return, equal returns are exactly 0 and so is their mean:
    # otherwise rounding (three times 0.1 is not 0.3) would leave a small advantage.
    least = torch.zeros_like(counts).scatter_reduce(0, index, returns, "amin", include_self=False)
    shifted = returns - least[index]
    means = torch.zeros_like(counts).index_add(0, index, shifted) / counts
    return shifted - means[index], index, counts


class _TurnGrid:
    """[P] values to and from [trajectories, turns], short trajectories padded with 0 at the end."""

    def __init__(self, trajectory: Tensor, turn: Tensor) -> None:
        check_indices(trajectory=trajectory, turn=turn)
        order = torch.argsort(turn, stable=True)
        order = order[torch.argsort(trajectory[order], stable=True)]
        trajectory, turn = trajectory[order], turn[order]
        repeated = (trajectory[1:] == trajectory[:-1]) & (turn[1:] == turn[:-1])
        if bool(repeated.any()):
            first = int(repeated.nonzero()[0])
            raise ValueError(
                f"turn must be distinct within a trajectory: turn {int(turn[first])} stands twice "
                f"in trajectory {int(trajectory[first])}"
            )
        _, row, counts = torch.unique_consecutive(
            trajectory, return_inverse=True, return_counts=True
        )
        starts = counts.cumsum(0) - counts
        column = torch.arange(row.numel(), device=row.device) - starts[row]
        inverse = torch.argsort(order)
        self.cell = (row[inverse], column[inverse])
        self.shape = (counts.numel(), int(counts.max()) if counts.numel() else 0)

    def scatter(self, values: Tensor) -> Tensor:
        return values.new_zeros(self.shape).index_put(self.cell, values)

    def gather(self, grid: Tensor) -> Tensor:
        return grid[self.cell]


def _backward_sum(terms: Tensor, decay: float) -> Tensor:
    """[N, T] running sums s_t = terms_t + decay * s_{t+1} from the last turn back."""
    sums = terms.clone()
    for t in range(terms.shape[1] - 2, -1, -1):
        sums[:, t] += decay * sums[:, t + 1]
    return sums
