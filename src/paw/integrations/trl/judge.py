"""Which transitions of a generation batch are predicted, and how much each token weighs. Pure.

The whole generation batch is one update, over all processes; every process computes the same.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import PawConfig
from paw.train.prediction.select import select
from paw.train.prediction.share import PARTS, shares
from paw.train.prediction.weight import WEIGHTS, random_signs

Measured = tuple[float, int]
"""(mean entropy of a turn's action, number of its target tokens; 0: nothing follows it)"""


@dataclass(frozen=True, slots=True)
class Judged:
    """What is learned of the turns of all rows."""

    token_weights: list[list[float]]
    """By row and turn: of each target token; 0 where nothing is predicted"""
    transition_weights: list[list[float]]
    """By row and turn: of all of them"""
    selected: list[list[bool]]
    """By row and turn: S_alpha of Eq. 4"""
    group_weights: Tensor
    """[G] lambda_g, of groups with a usable row"""
    num_candidates: int


def judge(
    rows: Sequence[Sequence[Measured]],
    returns: Sequence[float],
    group_size: int,
    paw: PawConfig,
    *,
    max_return: float,
    left: float,
    generator: torch.Generator,
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
    """
    usable = [r for r, value in enumerate(returns) if value == value]
    numbers = {g: i for i, g in enumerate(dict.fromkeys(r // group_size for r in usable))}
    row_group = [numbers[r // group_size] for r in usable]
    flat = [(g, turn) for g, r in zip(row_group, usable, strict=True) for turn in rows[r]]
    entropy = torch.tensor([turn[0] for _, turn in flat], dtype=torch.float64)
    lengths = [turn[1] for _, turn in flat]
    group = torch.tensor([g for g, _ in flat], dtype=torch.long)
    candidates = torch.tensor([n > 0 for n in lengths], dtype=torch.bool)
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
    share = shares({i: [lengths[i]] for i, w in enumerate(weights) if w}, (), group.tolist(), paw)
    if paw.random_sign:
        signs = random_signs(len(weights), generator)
        weights = [s * w for s, w in zip(signs, weights, strict=True)]
    per_token = [
        PARTS[paw.normalise](w * share[i], lengths[i], [lengths[i]]) if w else 0.0
        for i, w in enumerate(weights)
    ]
    token_weights, totals, chosen = ([[] for _ in rows] for _ in range(3))
    place = 0
    for r in usable:
        stop = place + len(rows[r])
        token_weights[r] = per_token[place:stop]
        totals[r] = [per_token[i] * lengths[i] for i in range(place, stop)]
        chosen[r] = selected[place:stop].tolist()
        place = stop
    for r in set(range(len(rows))) - set(usable):
        token_weights[r] = totals[r] = [0.0] * len(rows[r])
        chosen[r] = [False] * len(rows[r])
    return Judged(token_weights, totals, chosen, group_weights, int(candidates.sum()))
