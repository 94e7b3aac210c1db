"""Judge: from the columns of one update to advantages and weights.

Pure arithmetic over the whole update (never a mini-batch), in float64. Reads as the paper does:
Eq. 1's advantages, Eq. 4's selection, Eq. 10's group weights, Eq. 11's transition weights.

Our readings: R(tau) in Eq. 10 is the task return without penalties. An algorithm without groups of
its own (PPO) makes each trajectory its own group in Eqs. 10 and 11.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import AlgorithmConfig, PawConfig
from paw.errors import RunFailure
from paw.train.advantages import ALGORITHMS
from paw.train.outcomes import same_returns
from paw.train.prediction.schedule import scheduled
from paw.train.prediction.select import select
from paw.train.prediction.weight import WEIGHTS
from paw.types import Columns, Judgement, Scores


@dataclass(frozen=True, slots=True)
class Rules:
    """By what an update is judged."""

    algorithm: AlgorithmConfig
    paw: PawConfig
    max_return: float
    """R_max of the environment"""
    updates: int = 1
    """of the whole run, for `weight = "decay"`"""


def judge(
    columns: Columns, scores: Scores, rules: Rules, update: int, generator: torch.Generator
) -> Judgement:
    """Advantages and weights of one update.

    Args:
        columns: P transitions.
        scores: their entropies (Eq. 4's score) and, for PPO, the critic's values.
        rules: algorithm, prediction term, R_max.
        update: its number, for schedules; the first is 1.
        generator: randomness of the `random` selection control.

    Raises:
        RunFailure: entropies or values that are not finite: the model's weights are broken.
    """
    _check_finite(scores, update)
    settings, paw = rules.algorithm, rules.paw
    algorithm = ALGORITHMS[settings.name]
    advantages = algorithm.advantages(columns, scores.values, settings)  # Eq. 1

    trajectory_group, group = columns.trajectory_group, columns.group
    if algorithm.needs_critic:
        trajectory_group, group = torch.arange(len(columns.returns)), columns.trajectory
    adaptive = objective.group_weights(
        columns.returns, trajectory_group, rules.max_return, paw.clamp
    )  # Eq. 10
    left = 1 - (update - 1) / rules.updates
    group_weights = WEIGHTS[paw.weight](adaptive, paw.constant, left)
    trains_prediction, trains_policy = scheduled(paw, update)
    candidates = columns.candidates & trains_prediction
    selected = select(scores.entropy, candidates, paw, generator)  # Eq. 4
    weights = objective.transition_weights(selected, group, group_weights)  # Eq. 11
    return Judgement(
        advantages=advantages.advantages,
        value_targets=advantages.value_targets,
        action_weights=trains_policy * action_weights(columns, settings.aggregation),
        zero_advantage=same_returns(columns)[columns.group],
        selected=selected,
        group_weights=group_weights,
        transition_weights=paw.coefficient * weights,
        group=group,
    )


def action_weights(columns: Columns, aggregation: str) -> Tensor:
    """[P] weight of each token of a transition's action, so that the policy loss is

    `token`: the mean over all action tokens of the update; `sequence`: the mean over each
    trajectory's action tokens, then over trajectories.
    """
    lengths = columns.num_action_tokens.double()
    if aggregation == "token":
        return torch.full_like(lengths, 1 / max(float(lengths.sum()), 1))
    per_trajectory = columns.returns.new_zeros(len(columns.returns))
    per_trajectory = per_trajectory.index_add(0, columns.trajectory, lengths).clamp(min=1)
    return 1 / (len(per_trajectory) * per_trajectory)[columns.trajectory]


def _check_finite(scores: Scores, update: int) -> None:
    entropies = (("entropy", scores.entropy), ("entropy", scores.other_entropy))
    for name, numbers in (*entropies, ("values", scores.values)):
        if numbers is not None and not bool(torch.isfinite(numbers).all()):
            raise RunFailure(
                f"update {update}: the model's {name} at the sampled actions is not finite; the "
                "weights have diverged: lower the learning rate"
            )
