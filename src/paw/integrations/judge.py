"""Which transitions of a foreign trainer's update are predicted, and what each token weighs. Pure.

The whole batch from which it learns is one update, over all processes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import PawConfig
from paw.errors import UserError
from paw.train.prediction.select import select
from paw.train.prediction.share import PARTS, shares
from paw.train.prediction.target import TARGETS, Texts
from paw.train.prediction.weight import WEIGHTS, random_signs

Ids = tuple[int, ...]


def check_fixed(paw: PawConfig, trainer: str, fixed: Mapping[str, tuple[Any, str]]) -> None:
    """Raises UserError where a key has another value than the one that a trainer leaves room for.

    Args:
        paw: `[paw]`.
        trainer: its name.
        fixed: key -> (its value, why).
    """
    for key, (value, why) in fixed.items():
        if (given := getattr(paw, key)) != value:
            raise UserError(f"paw.{key} = {given!r}: cannot be done in {trainer}; {why}")


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a turn; processes may tell it each other."""

    entropy: float
    """Mean over its action's tokens"""
    target_ids: Ids
    """[O] tokens of o_{t+1}; () where nothing follows"""
    current_ids: Ids = ()
    """Tokens of o_t"""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is learned of the turns of all trajectories; each list by trajectory and turn."""

    token_weights: list[list[float]]
    """Of each target token; 0 where nothing is predicted"""
    targets: list[list[Ids]]
    """What is predicted: o_{t+1} or a placebo; () where nothing is"""
    selected: list[list[bool]]
    """S_alpha of Eq. 4"""
    group_weights: Tensor
    """[G] lambda_g, of groups with a usable trajectory"""
    num_candidates: int
    changed_fraction: float
    """Share of the targets that are not the true next observation; 0 without any"""

    def metrics(self) -> dict[str, float]:
        """`wm/*`, as in the run directory."""
        selected = sum(sum(turns) for turns in self.selected)
        weighted = sum(weight != 0 for turns in self.token_weights for weight in turns)
        num_groups = max(len(self.group_weights), 1)
        return {
            "wm/group_weight_mean": float(self.group_weights.sum()) / num_groups,
            "wm/selected_transitions": float(selected),
            "wm/selected_fraction": selected / max(self.num_candidates, 1),
            "wm/weighted_transitions": float(weighted),
            "wm/changed_target_fraction": self.changed_fraction,
        }


def judge(
    trajectories: Sequence[Sequence[Measured]],
    returns: Sequence[float],
    group: Sequence[int],
    paw: PawConfig,
    *,
    max_return: float,
    left: float,
    generator: torch.Generator,
    vocabulary: Sequence[int] = (),
) -> Judged:
    """Eqs. 4, 10 and 11 over an update.

    Args:
        trajectories: [N] turns of each.
        returns: [N]; nan where nothing gave a reward: the trajectory is left out, as in a failed
            environment.
        group: [N] of each trajectory, any numbers.
        max_return: R_max.
        left: share of the run's updates that is left, for `weight = "decay"`.
        generator: randomness of controls.
        vocabulary: tokens that a text may have, for `target = "vocabulary"`.
    """
    usable = [n for n, value in enumerate(returns) if not math.isnan(value)]
    numbers = {g: i for i, g in enumerate(dict.fromkeys(group[n] for n in usable))}
    places = [(n, t) for n in usable for t in range(len(trajectories[n]))]
    turns = [trajectories[n][t] for n, t in places]
    turn_group = torch.tensor([numbers[group[n]] for n, _ in places], dtype=torch.long)
    candidates = torch.tensor([len(turn.target_ids) > 0 for turn in turns], dtype=torch.bool)
    entropy = torch.tensor([turn.entropy for turn in turns], dtype=torch.float64)
    adaptive = objective.group_weights(
        torch.tensor([returns[n] for n in usable], dtype=torch.float64),
        torch.tensor([numbers[group[n]] for n in usable], dtype=torch.long),
        max_return,
        paw.clamp,
    )  # Eq. 10
    group_weights = WEIGHTS[paw.weight](adaptive, paw.constant, left)
    selected = select(entropy, candidates, paw, generator)  # Eq. 4
    weights = objective.transition_weights(selected, turn_group, group_weights)  # Eq. 11
    weights = (paw.coefficient * weights).tolist()

    true = {i: turns[i].target_ids for i, weight in enumerate(weights) if weight}
    texts = Texts(lambda i: turns[i].current_ids, lambda: tuple(vocabulary))
    targets = TARGETS[paw.target](true, texts, generator)
    share = shares({i: [len(ids)] for i, ids in targets.items()}, (), turn_group.tolist(), paw)
    if paw.random_sign:
        signs = random_signs(len(weights), generator)
        weights = [s * w for s, w in zip(signs, weights, strict=True)]
    changed = sum(targets[i] != true[i] for i in true)
    judged = Judged(
        token_weights=[[0.0] * len(row) for row in trajectories],
        targets=[[()] * len(row) for row in trajectories],
        selected=[[False] * len(row) for row in trajectories],
        group_weights=group_weights,
        num_candidates=int(candidates.sum()),
        changed_fraction=changed / len(true) if true else 0.0,
    )
    for i, (n, t) in enumerate(places):
        judged.selected[n][t] = bool(selected[i])
        if i in targets:
            length = len(targets[i])
            weight = PARTS[paw.normalise](weights[i] * share[i], length, [length])
            judged.token_weights[n][t], judged.targets[n][t] = weight, targets[i]
    return judged
