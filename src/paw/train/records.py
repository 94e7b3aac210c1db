"""One update in full: its trajectory file. Pure."""

import itertools
from collections.abc import Mapping, Sequence

from paw.runs.format import TrajectoryRecord, TurnRecord
from paw.runs.records import trajectory_record, turn_record
from paw.train.score import is_usable
from paw.types import Group, Judgement, Target, Targets, Transition


def records(
    update: int,
    groups: Sequence[Group],
    judgement: Judgement,
    targets: Targets,
    expected: Mapping[int, Sequence[float]],
) -> list[TrajectoryRecord]:
    """Every trajectory, failed ones too, with what was decided about each turn and what the policy
    `expected`: log-probs of the targets, by transition."""
    number = itertools.count()
    advantages, selected = judgement.advantages.tolist(), judgement.selected.tolist()

    def judged(transition: Transition) -> TurnRecord:
        at = next(number)
        target = targets.by_transition.get(at)
        return turn_record(
            transition,
            advantage=advantages[at],
            selected=selected[at],
            transition_weight=0.0 if target is None else target.transition_weight,
            target_ids=None if target is None else target.token_ids,
            target_logprobs=None if target is None else logprobs(at, target),
        )

    def logprobs(at: int, target: Target) -> tuple[float, ...] | None:
        """Of the target itself, without what is predicted behind it."""
        found = expected.get(at)
        return None if found is None else tuple(round(x, 4) for x in found[: len(target.token_ids)])

    return [
        trajectory_record(t, update, [judged(x) for x in t.transitions] if is_usable(t) else None)
        for g in groups
        for t in g.trajectories
    ]
