"""How the weight of a group's prediction is shared among its transitions (Eq. 9, and beyond).

Eq. 9 gives each transition of S_alpha,g the same. A share is a multiple of that, 1 on average over
the group, so that the group's term stays lambda_g / G times a mean whatever the sharing. Shares of
equal sizes are exactly 1: nothing changes where there is nothing to share otherwise.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from math import fsum

from paw.config.tree import PawConfig
from paw.types import Transition

SIZES: dict[str, Callable[[int], float]] = {
    "transition": lambda num_tokens: 1.0,
    "token": float,
}
"""Number of target tokens -> what a transition's share is in proportion to."""
PARTS: dict[str, Callable[[float, int, Sequence[int]], float]] = {
    "transition": lambda weight, length, lengths: weight / len(lengths) / length,
    "token": lambda weight, length, lengths: weight / sum(lengths),
}
"""(weight of a transition, length of one of its targets, lengths of all of them) -> weight of each
token of that one."""


def shares(
    lengths: Mapping[int, Sequence[int]],
    transitions: Sequence[Transition],
    group: Sequence[int],
    paw: PawConfig,
) -> dict[int, float]:
    """What each transition weighs, as a multiple of the mean over its group.

    Args:
        lengths: number of tokens of the targets of each transition with a weight, by its index.
        transitions: [P] of the update.
        group: [P] in which group each counts.
        paw: `normalise` and `dedup`.
    """
    sizes = {i: SIZES[paw.normalise](sum(n)) for i, n in lengths.items()}
    if paw.dedup:
        seen = Counter(_what(transitions[i]) for i in sizes)
        sizes = {i: size / seen[_what(transitions[i])] for i, size in sizes.items()}
    members: defaultdict[int, list[float]] = defaultdict(list)
    for i, size in sizes.items():
        members[group[i]].append(size)
    mean = {g: fsum(found) / len(found) for g, found in members.items()}
    return {i: size / mean[group[i]] for i, size in sizes.items()}


def _what(transition: Transition) -> tuple[str, str, str | None]:
    """What makes two transitions of an update the same, in whatever group and after whatever
    history."""
    return transition.observation, transition.command, transition.next_observation
