"""Serialise: from judged transitions to rows of tokens with a weight on every token.

Denominators go into the weights here, once, over the whole update; the learner only sums. A row's
target stands in the row where it can: behind the action (`window`), or already in the conversation
(`append`). A target that cannot (a placebo, or a prediction without the action) gets a row of its
own, which trains nothing else. A transition of weight 0 appends no token at all.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import reduce

from paw.types import Judgement, Role, Row, Scores, Target, Targets, TrainingSample


def serialise(
    rows: Sequence[Row],
    scores: Scores,
    judgement: Judgement,
    targets: Targets,
    with_action: bool = True,
) -> list[TrainingSample]:
    """Rows with weights; then the rows that only predict.

    Args:
        rows: the base rows of the update.
        scores: old (and reference) log-probs; the critic's old values.
        judgement: advantages, weights of actions.
        targets: by transition.
        with_action: the prediction reads the action; False gives every target a row of its own.
    """
    columns = _Lists(scores, judgement)
    samples, own_rows = [], []
    for row in rows:
        sample = _base_sample(row, columns)
        placed, left = _place(sample, row, targets, with_action)
        samples.append(placed)
        own_rows += [_own_row(sample, row, i, left[i], with_action) for i in left]
    return samples + own_rows


class _Lists:
    """The columns as lists: reading a tensor element by element is slow."""

    def __init__(self, scores: Scores, judgement: Judgement) -> None:
        self.advantages = judgement.advantages.tolist()
        self.action_weights = judgement.action_weights.tolist()
        self.zero_advantage = judgement.zero_advantage.tolist()
        targets, values = judgement.value_targets, scores.values
        self.value_targets = None if targets is None else targets.tolist()
        self.values = None if values is None else values.tolist()
        self.logprobs, self.ref_logprobs = scores.logprobs, scores.ref_logprobs
        self.importance = scores.importance


def _base_sample(row: Row, columns: _Lists) -> TrainingSample:
    """A row as the baseline trains on it."""
    length = len(row.token_ids)
    weights, advantages, old, ref = ([0.0] * length for _ in range(4))
    for i, start, end in zip(row.transitions, row.action_starts, row.action_ends, strict=True):
        weights[start:end] = [columns.action_weights[i]] * (end - start)
        if columns.importance is not None:
            weights[start:end] = [columns.action_weights[i] * w for w in columns.importance[i]]
        advantages[start:end] = [columns.advantages[i]] * (end - start)
        old[start:end] = columns.logprobs[i]
        if columns.ref_logprobs is not None:
            ref[start:end] = columns.ref_logprobs[i]
    sample = TrainingSample(
        token_ids=row.token_ids,
        roles=row.roles,
        old_logprobs=tuple(old),
        advantages=tuple(advantages),
        policy_weights=tuple(weights),
        target_weights=(0.0,) * length,
        base_length=length,
        transitions=row.transitions,
        zero_advantage=columns.zero_advantage[row.transitions[0]],
        ref_logprobs=tuple(ref) if columns.ref_logprobs is not None else (),
    )
    if columns.value_targets is None or columns.values is None:
        return sample
    return replace(
        sample,
        value_positions=tuple(start - 1 for start in row.action_starts),
        value_targets=tuple(columns.value_targets[i] for i in row.transitions),
        old_values=tuple(columns.values[i] for i in row.transitions),
    )


def _place(
    sample: TrainingSample, row: Row, targets: Targets, with_action: bool
) -> tuple[TrainingSample, dict[int, Target]]:
    """Put weights on the targets that stand in the row, or just behind its end; return the rest."""
    weights = list(sample.target_weights)
    left: dict[int, Target] = {}
    appended = sample
    next_starts = [*row.action_starts[1:], None]
    for i, end, following in zip(row.transitions, row.action_ends, next_starts, strict=True):
        target = targets.by_transition.get(i)
        if target is None:
            continue
        if not with_action:
            left[i] = target
        elif following is None:
            appended = _append(sample, target)
        else:
            place = _find(row, target.token_ids, end, following)
            if place is None:
                left[i] = target
            else:
                weights[place] = [target.weight] * len(target.token_ids)
    weights += appended.target_weights[len(weights) :]
    return replace(appended, target_weights=tuple(weights)), left


def _find(row: Row, ids: tuple[int, ...], start: int, stop: int) -> slice | None:
    """Where the observation of `row` between `start` and `stop` begins with `ids`, if it does."""
    observation = int(Role.OBSERVATION)  # plain: comparing with the enum's member is slower
    if observation not in row.roles[start:stop]:
        return None
    first = row.roles.index(observation, start, stop)
    place = slice(first, first + len(ids))
    stands = row.token_ids[place] == ids and row.roles[place].count(observation) == len(ids)
    return place if stands else None


def _append(sample: TrainingSample, target: Target) -> TrainingSample:
    """`sample` with a target behind its last token, and behind that the later ones."""
    between, scaffold, count = target.between, target.scaffold, len(target.token_ids)
    unweighted = (0.0,) * (len(between) + len(scaffold))
    zeros = unweighted + (0.0,) * count
    roles = (int(Role.CONTEXT),) * len(between) + (int(Role.SCAFFOLD),) * len(scaffold)
    whole = replace(
        sample,
        token_ids=sample.token_ids + between + scaffold + target.token_ids,
        roles=sample.roles + roles + (int(Role.OBSERVATION),) * count,
        old_logprobs=sample.old_logprobs + zeros,
        advantages=sample.advantages + zeros,
        ref_logprobs=sample.ref_logprobs and sample.ref_logprobs + zeros,
        policy_weights=sample.policy_weights + zeros,
        target_weights=sample.target_weights + unweighted + (target.weight,) * count,
    )
    return reduce(_append, target.later, whole)


def _own_row(
    sample: TrainingSample, row: Row, index: int, target: Target, with_action: bool
) -> TrainingSample:
    """A row for one target alone: h_t [a_t] scaffold target."""
    at = row.transitions.index(index)
    end = row.action_ends[at] if with_action else row.action_starts[at]
    zeros = (0.0,) * end
    prefix = TrainingSample(
        token_ids=row.token_ids[:end],
        roles=row.roles[:end],
        old_logprobs=zeros,
        advantages=zeros,
        policy_weights=zeros,
        target_weights=zeros,
        base_length=end,
        ref_logprobs=sample.ref_logprobs and zeros,
        transitions=(index,),
        predicts_only=True,
    )
    whole = _append(prefix, target)
    return replace(whole, base_length=len(whole.token_ids))
