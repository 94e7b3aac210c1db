"""Which transitions of a generation batch are predicted, and how much each token weighs. Pure.

The whole generation batch is one update, over all processes; every process computes the same.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import PawConfig
from paw.train.prediction.select import select
from paw.train.prediction.share import PARTS, shares
from paw.train.prediction.target import TARGETS, Texts
from paw.train.prediction.weight import WEIGHTS, random_signs

Ids = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Measured:
    """What is known of a turn, as all processes tell each other."""

    entropy: float
    """Mean over its action's tokens"""
    target_ids: Ids
    """[O] tokens of o_{t+1}; () where nothing follows"""
    current_ids: Ids = ()
    """Tokens of o_t"""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is learned of the turns of all rows; each list by row and turn."""

    token_weights: list[list[float]]
    """Of each target token; 0 where nothing is predicted"""
    targets: list[list[Ids]]
    """What is predicted: o_{t+1} or a placebo; () where nothing is"""
    selected: list[list[bool]]
    """S_alpha of Eq. 4"""
    group_weights: Tensor
    """[G] lambda_g, of groups with a usable row"""
    num_candidates: int
    changed_fraction: float
    """Share of the targets that are not the true next observation; 0 without any"""


def judge(
    rows: Sequence[Sequence[Measured]],
    returns: Sequence[float],
    group_size: int,
    paw: PawConfig,
    *,
    max_return: float,
    left: float,
    generator: torch.Generator,
    vocabulary: Sequence[int] = (),
) -> Judged:
    """Eqs. 4, 10 and 11 over a generation batch.

    Args:
        rows: [N] turns of each trajectory, groups one behind the other.
        returns: [N]; nan where nothing gave a reward: the row is left out, as in a failed
            environment.
        group_size: trajectories of each group.
        max_return: R_max.
        left: share of the run's updates that is left, for `weight = "decay"`.
        generator: randomness of controls.
        vocabulary: tokens that a text may have, for `target = "vocabulary"`.
    """
    usable = [r for r, value in enumerate(returns) if not math.isnan(value)]
    numbers = {g: i for i, g in enumerate(dict.fromkeys(r // group_size for r in usable))}
    row_group = [numbers[r // group_size] for r in usable]
    places = [(r, t) for r in usable for t in range(len(rows[r]))]
    turns = [rows[r][t] for r, t in places]
    group = torch.tensor([numbers[r // group_size] for r, _ in places], dtype=torch.long)
    candidates = torch.tensor([len(turn.target_ids) > 0 for turn in turns], dtype=torch.bool)
    entropy = torch.tensor([turn.entropy for turn in turns], dtype=torch.float64)
    adaptive = objective.group_weights(
        torch.tensor([returns[r] for r in usable], dtype=torch.float64),
        torch.tensor(row_group, dtype=torch.long),
        max_return,
        paw.clamp,
    )  # Eq. 10
    group_weights = WEIGHTS[paw.weight](adaptive, paw.constant, left)
    selected = select(entropy, candidates, paw, generator)  # Eq. 4
    weights = objective.transition_weights(selected, group, group_weights)  # Eq. 11
    weights = (paw.coefficient * weights).tolist()

    true = {i: turns[i].target_ids for i, weight in enumerate(weights) if weight}
    texts = Texts(lambda i: turns[i].current_ids, lambda: tuple(vocabulary))
    targets = TARGETS[paw.target](true, texts, generator)
    share = shares({i: [len(ids)] for i, ids in targets.items()}, (), group.tolist(), paw)
    if paw.random_sign:
        signs = random_signs(len(weights), generator)
        weights = [s * w for s, w in zip(signs, weights, strict=True)]
    changed = sum(targets[i] != true[i] for i in true)
    judged = Judged(
        token_weights=[[0.0] * len(row) for row in rows],
        targets=[[()] * len(row) for row in rows],
        selected=[[False] * len(row) for row in rows],
        group_weights=group_weights,
        num_candidates=int(candidates.sum()),
        changed_fraction=changed / len(true) if true else 0.0,
    )
    for i, (r, t) in enumerate(places):
        judged.selected[r][t] = bool(selected[i])
        if i in targets:
            length = len(targets[i])
            weight = PARTS[paw.normalise](weights[i] * share[i], length, [length])
            judged.token_weights[r][t], judged.targets[r][t] = weight, targets[i]
    return judged
