"""One update in full: its trajectory file. Pure."""

import itertools
from collections.abc import Sequence

from paw.runs.format import TrajectoryRecord, TurnRecord
from paw.train.score import is_usable
from paw.types import Group, Judgement, Targets, Transition


def records(
    update: int, groups: Sequence[Group], judgement: Judgement, targets: Targets
) -> list[TrajectoryRecord]:
    """Every trajectory, failed ones too, with what was decided about each turn."""
    number = itertools.count()
    advantages, selected = judgement.advantages.tolist(), judgement.selected.tolist()

    def turn(transition: Transition, at: int | None) -> TurnRecord:
        action = transition.action
        target = None if at is None else targets.by_transition.get(at)
        return TurnRecord(
            observation=transition.observation,
            commands=transition.commands,
            response=transition.response,
            command=transition.command,
            reward=transition.reward,
            penalty=transition.penalty,
            valid=transition.valid,
            next_observation=transition.next_observation,
            context_ids=transition.context_ids,
            context_roles=transition.context_roles,
            action_ids=action.token_ids,
            sampler_logprobs=tuple(round(x, 5) for x in action.logprobs),
            entropies=action.entropies and tuple(round(x, 4) for x in action.entropies),
            finished=action.finished,
            num_cut_tokens=transition.num_cut_tokens,
            prompt_cut_tokens=transition.prompt_cut_tokens,
            advantage=None if at is None else advantages[at],
            selected=at is not None and selected[at],
            transition_weight=0.0 if target is None else target.weight * len(target.token_ids),
            target_ids=None if target is None else target.token_ids,
        )

    return [
        TrajectoryRecord(
            update=update,
            group=t.group,
            index=t.index,
            task=t.task,
            return_=t.return_,
            success=t.success,
            terminated=t.terminated,
            score=t.score,
            failure=t.failure,
            prompt_limit=t.prompt_limit,
            turns=tuple(turn(x, next(number) if is_usable(t) else None) for x in t.transitions),
        )
        for g in groups
        for t in g.trajectories
    ]
