"""How far ahead a transition predicts: `paw.horizon`."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from paw.text.dialogue import Serializer
from paw.types import Target, Transition


def reach(transitions: Sequence[Transition], trajectory: Sequence[int], horizon: int) -> list[int]:
    """How many next observations follow each transition within its trajectory, at most `horizon`:
    [P]. The last one's own and fewer before it: near the end of an episode there are no more."""
    found = [0] * len(transitions)
    for i in reversed(range(len(transitions))):
        if transitions[i].next_observation_ids:
            goes_on = i + 1 < len(transitions) and trajectory[i + 1] == trajectory[i]
            found[i] = min(horizon, 1 + (found[i + 1] if goes_on else 0))
    return found


def in_their_places(parts: Mapping[int, Sequence[Target]]) -> dict[int, Target]:
    """`append`: every observation stands in the conversation, behind all that it is predicted from.
    Its weight is the sum of those that the transitions before it give.

    Args:
        parts: o_{t+1}, o_{t+2}, … of each transition t that predicts.
    """
    found: dict[int, Target] = {}
    for i, targets in parts.items():
        for j, target in enumerate(targets, start=i):
            weight = target.weight + (found[j].weight if j in found else 0.0)
            found[j] = replace(target, weight=weight)
    return {j: found[j] for j in sorted(found) if found[j].weight != 0}


def one_behind_the_other(
    parts: Mapping[int, Sequence[Target]],
    transitions: Sequence[Transition],
    serializer: Serializer,
) -> dict[int, Target]:
    """`window`: h_t a_t o_{t+1} a_{t+1} o_{t+2} …, where the actions between are only read."""

    def between(j: int) -> tuple[int, ...]:
        """From the end of the observation before a_j to the end of a_j."""
        return serializer.to_policy(transitions[j].observation) + transitions[j].action.token_ids

    return {
        i: replace(
            targets[0],
            later=tuple(
                replace(target, between=between(j))
                for j, target in enumerate(targets[1:], start=i + 1)
            ),
        )
        for i, targets in parts.items()
    }
