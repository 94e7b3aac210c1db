"""How much next-observation loss each group and each transition carries (Eqs. 10 and 11)."""

import torch
from torch import Tensor

from paw.objective._inputs import (
    as_float,
    check_bool,
    check_finite,
    check_indices,
    check_vectors,
    constant,
)


def group_weights(returns: Tensor, group: Tensor, max_return: float, clamp: bool = True) -> Tensor:
    """Adaptive weight of each group: the worse it does, the more it learns what its actions do.

        lambda_g = 1 - mean over tau in g of R(tau) / R_max

    Args:
        returns: [N] task return of each trajectory, without penalties, in the units of
            `max_return`; integers are taken as the default float.
        group: [N] integer group of each trajectory; groups are 0..G-1 with G = max + 1.
        max_return: R_max > 0, the largest attainable return (ALFWorld and WebShop 10, search 1).
        clamp: keep the result in [0, 1]; without it a negative return gives lambda > 1.

    Returns:
        [G] float, without gradient. 0 for a group that always wins, 1 for one that always loses;
        a group of one has its own return; [0] when there are no trajectories.

    Raises:
        ValueError: shapes differ, a group without trajectories (number the groups 0..G-1 anew when
            trajectories are left out), returns not finite, max_return not positive and finite.

    Reference: arXiv 2606.02388, Eq. 10. Without groups (PPO), each trajectory is its own.
    """
    check_vectors(returns=returns, group=group)
    if not 0 < max_return < float("inf"):
        raise ValueError(f"max_return must be positive and finite, got {max_return}")
    returns = constant(returns)
    check_finite(returns=returns)
    num_groups = int(group.max()) + 1 if group.numel() else 0
    check_indices(num_groups, group=group)
    group = group.long()
    sizes = torch.bincount(group, minlength=num_groups)
    if bool((sizes == 0).any()):
        raise ValueError(
            f"group must use every number of 0..{num_groups - 1}: no trajectory in "
            f"group {int((sizes == 0).nonzero()[0])}"
        )
    # The mean of what is missing, not what is missing to the mean: exactly 0 for max_return.
    missing = (max_return - returns) / max_return
    weights = returns.new_zeros(num_groups).index_add(0, group, missing) / sizes
    return weights.clamp(0, 1) if clamp else weights


def transition_weights(selected: Tensor, group: Tensor, group_weights: Tensor) -> Tensor:
    """Weight of each transition's loss in the update's objective.

        w_i = lambda_g / (G |S_g|) for i in S_g,  0 where not selected

    so that sum_i w_i l_i = (1/G) sum_g lambda_g mean_{i in S_g} l_i, however the sum is split into
    micro-batches, mini-batches or ranks.

    Args:
        selected: [P] bool, the transitions of S_alpha over the whole update.
        group: [P] integer group of each transition, 0..G-1.
        group_weights: [G] lambda_g.

    Returns:
        [P] in the dtype of `group_weights` (at least float32), without gradient. A group with
        nothing selected contributes nothing and still counts in G.

    Raises:
        ValueError: shapes differ, `selected` is no bool mask, a group outside 0..G-1.

    Reference: arXiv 2606.02388, Eq. 11 (the second term).
    """
    check_vectors(selected=selected, group=group)
    check_vectors(group_weights=group_weights)
    check_bool(selected=selected)
    num_groups = group_weights.numel()
    check_indices(num_groups, group=group)
    group = group.long()
    # 0 in a group with nothing selected: no transition of it is left after the mask.
    num_selected = torch.bincount(group[selected], minlength=num_groups)
    per_group = as_float(group_weights.detach()) / (num_groups * num_selected)
    return per_group[group].masked_fill(~selected, 0.0)
