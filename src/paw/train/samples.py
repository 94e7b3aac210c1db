"""Serialise: from judged transitions to rows of tokens with a weight on every token.

Denominators go into the weights here, once, over the whole update; the learner only sums. A row's
target stands in the row where it can: behind the action (`window`), or already in the conversation
(`append`). A target that cannot (a placebo, or a prediction without the action) gets a row of its
own, which trains nothing else. A transition of weight 0 appends no token at all.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from zlib import crc32

import torch

from paw.config.tree import AlgorithmConfig, PawConfig
from paw.train.judge import Judgement, TransitionPool
from paw.types import Role, SampledAction, TrainingSample, Transition

ToUser = Callable[[SampledAction], tuple[int, ...]]
"""The scaffold between an action and the next user text."""


@dataclass(frozen=True, slots=True)
class Row:
    """One sample's tokens before any weight: what the baseline would train on."""

    token_ids: tuple[int, ...]
    """[L]"""
    roles: tuple[int, ...]
    """[L]"""
    turns: tuple[int, ...]
    """[turns] pool index of each transition whose action stands here"""
    action_starts: tuple[int, ...]
    """[turns] first token of each action"""
    action_ends: tuple[int, ...]
    """[turns] one past its last token"""

    @property
    def base_length(self) -> int:
        """Its tokens; nothing is appended to a base row."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Target:
    """What one selected transition shall predict."""

    token_ids: tuple[int, ...]
    weight: float
    """transition weight / |o|, per token"""


def base_rows(pool: TransitionPool, append: bool) -> list[Row]:
    """`window`: a row per transition. `append`: a row per trajectory."""
    if not append:
        return [_row([i], [t]) for i, t in enumerate(pool.transitions)]
    members: list[list[int]] = [[] for _ in range(len(pool.returns))]
    for i, trajectory in enumerate(pool.trajectory.tolist()):
        members[trajectory].append(i)
    return [_row(m, [pool.transitions[i] for i in m]) for m in members]


def choose_targets(
    pool: TransitionPool,
    judgement: Judgement,
    paw: PawConfig,
    encode: Callable[[str], tuple[int, ...]],
    generator: torch.Generator,
) -> tuple[dict[int, Target], float]:
    """The target of every transition with a weight, and the share of them that differ from o_{t+1}.

    `shuffled` permutes the observations among these transitions: each trades its text with another
    of different text and near length. No text meets itself unless one makes up more than half of
    them; then as few stay as can be.
    """
    weights = judgement.transition_weights.tolist()
    chosen = [i for i, w in enumerate(weights) if w != 0]
    true = {i: pool.transitions[i].next_observation_ids for i in chosen}
    if paw.target == "shuffled":
        ids = _shuffle(true)
    elif paw.target == "random":
        vocabulary = sorted({token for target in true.values() for token in target})
        ids = {}
        for i, target in true.items():
            draw = torch.randint(len(vocabulary), (len(target),), generator=generator)
            ids[i] = tuple(vocabulary[j] for j in draw.tolist())
    elif paw.target == "repeat_current":
        limit = paw.max_observation_tokens
        ids = {i: encode(pool.transitions[i].observation)[:limit] or true[i] for i in chosen}
    else:
        ids = true
    changed = sum(ids[i] != true[i] for i in chosen)
    targets = {i: Target(ids[i], weights[i] / len(ids[i])) for i in chosen}
    return targets, changed / len(chosen) if chosen else 0.0


def make_samples(
    pool: TransitionPool,
    rows: Sequence[Row],
    judgement: Judgement,
    targets: dict[int, Target],
    old_logprobs: Sequence[Sequence[float]],
    values: Sequence[float] | None,
    ref_logprobs: Sequence[Sequence[float]] | None,
    to_user: ToUser,
    algorithm: AlgorithmConfig,
    paw: PawConfig,
) -> list[TrainingSample]:
    """Rows with weights; then the rows that only predict.

    Args:
        pool: P transitions.
        rows: the base rows of `pool`.
        judgement: advantages and weights.
        targets: by pool index.
        old_logprobs: [P] of [A], log-probs of each action's tokens at the start of the update.
        values: [P] critic values at the start of the update, for PPO.
        ref_logprobs: [P] of [A] under the reference policy, for the KL loss.
        to_user: scaffold before a target.
        algorithm: for the aggregation of the policy loss.
        paw: for the condition of the prediction.
    """
    token_weight = _token_weights(pool, judgement.policy_scale, algorithm)
    advantages = judgement.advantages.tolist()
    returns = None if judgement.value_targets is None else judgement.value_targets.tolist()
    samples, forks = [], []
    for row in rows:
        length = len(row.token_ids)
        policy, advantage, old, ref = ([0.0] * length for _ in range(4))
        for i, start, end in zip(row.turns, row.action_starts, row.action_ends, strict=True):
            policy[start:end] = [token_weight[i]] * (end - start)
            advantage[start:end] = [advantages[i]] * (end - start)
            old[start:end] = old_logprobs[i]
            if ref_logprobs is not None:
                ref[start:end] = ref_logprobs[i]
        sample = TrainingSample(
            token_ids=row.token_ids,
            roles=row.roles,
            old_logprobs=tuple(old),
            advantages=tuple(advantage),
            policy_weights=tuple(policy),
            wm_weights=(0.0,) * length,
            base_length=length,
            turns=row.turns,
            idle=bool(judgement.idle[row.turns[0]]),
            ref_logprobs=tuple(ref) if ref_logprobs is not None else (),
        )
        if returns is not None and values is not None:
            sample = replace(
                sample,
                value_positions=tuple(start - 1 for start in row.action_starts),
                value_targets=tuple(returns[i] for i in row.turns),
                old_values=tuple(values[i] for i in row.turns),
            )
        sample, left = _place(sample, row, pool, targets, to_user, paw)
        samples.append(sample)
        forks += [_fork(row, i, pool.transitions[i], t, to_user, paw) for i, t in left.items()]
    return samples + forks


def _token_weights(pool: TransitionPool, scale: float, algorithm: AlgorithmConfig) -> list[float]:
    """[P] policy weight of each token of a transition's action, by `algorithm.aggregation`."""
    trajectory = pool.trajectory.tolist()
    lengths = [len(t.action.token_ids) for t in pool.transitions]
    if algorithm.aggregation == "token":
        return [scale / max(sum(lengths), 1)] * len(lengths)
    per_trajectory = [0] * len(pool.returns)
    for t, length in zip(trajectory, lengths, strict=True):
        per_trajectory[t] += length
    return [scale / (len(per_trajectory) * max(per_trajectory[t], 1)) for t in trajectory]


def _row(indices: Sequence[int], transitions: Sequence[Transition]) -> Row:
    ids: list[int] = []
    roles: list[int] = []
    starts, ends = [], []
    for transition in transitions:
        action = transition.action.token_ids
        ids += transition.context_ids
        roles += transition.context_roles
        starts.append(len(ids))
        ids += action
        roles += [int(Role.ACTION)] * len(action)
        ends.append(len(ids))
    return Row(tuple(ids), tuple(roles), tuple(indices), tuple(starts), tuple(ends))


def _place(
    sample: TrainingSample,
    row: Row,
    pool: TransitionPool,
    targets: dict[int, Target],
    to_user: ToUser,
    paw: PawConfig,
) -> tuple[TrainingSample, dict[int, Target]]:
    """Put weights on the targets that stand in the row, or just behind its end; return the rest."""
    wm = list(sample.wm_weights)
    left: dict[int, Target] = {}
    appended = sample
    next_starts = [*row.action_starts[1:], None]
    for i, end, following in zip(row.turns, row.action_ends, next_starts, strict=True):
        target = targets.get(i)
        if target is None:
            continue
        if paw.condition == "no_action":
            left[i] = target
        elif following is None:
            scaffold = to_user(pool.transitions[i].action)
            appended = _append(sample, scaffold, target)
        else:
            place = _find(row, target.token_ids, end, following)
            if place is None:
                left[i] = target
            else:
                wm[place] = [target.weight] * len(target.token_ids)
    wm += appended.wm_weights[len(wm) :]
    return replace(appended, wm_weights=tuple(wm)), left


def _find(row: Row, ids: tuple[int, ...], start: int, stop: int) -> slice | None:
    """Where the observation of `row` between `start` and `stop` begins with `ids`, if it does."""
    observation = int(Role.OBSERVATION)  # plain: comparing with the enum's member is slower
    if observation not in row.roles[start:stop]:
        return None
    first = row.roles.index(observation, start, stop)
    place = slice(first, first + len(ids))
    stands = row.token_ids[place] == ids and row.roles[place].count(observation) == len(ids)
    return place if stands else None


def _append(sample: TrainingSample, scaffold: tuple[int, ...], target: Target) -> TrainingSample:
    """`sample` with a target behind its last token."""
    count, length = len(target.token_ids), len(scaffold) + len(target.token_ids)
    zeros = (0.0,) * length
    roles = (int(Role.SCAFFOLD),) * len(scaffold) + (int(Role.OBSERVATION),) * count
    return replace(
        sample,
        token_ids=sample.token_ids + scaffold + target.token_ids,
        roles=sample.roles + roles,
        old_logprobs=sample.old_logprobs + zeros,
        advantages=sample.advantages + zeros,
        ref_logprobs=sample.ref_logprobs and sample.ref_logprobs + zeros,
        policy_weights=sample.policy_weights + zeros,
        wm_weights=sample.wm_weights + (0.0,) * len(scaffold) + (target.weight,) * count,
    )


def _fork(
    row: Row, index: int, transition: Transition, target: Target, to_user: ToUser, paw: PawConfig
) -> TrainingSample:
    """A row of its own for one target: h_t [a_t] header target; it trains nothing else."""
    at = row.turns.index(index)
    nothing = SampledAction((), (), None, finished=False)
    with_action = paw.condition == "action"
    end = row.action_ends[at] if with_action else row.action_starts[at]
    zeros = (0.0,) * end
    prefix = TrainingSample(
        token_ids=row.token_ids[:end],
        roles=row.roles[:end],
        old_logprobs=zeros,
        advantages=zeros,
        policy_weights=zeros,
        wm_weights=zeros,
        base_length=end,
        ref_logprobs=zeros,
        turns=(index,),
        predicts_only=True,
    )
    fork = _append(prefix, to_user(transition.action if with_action else nothing), target)
    return replace(fork, base_length=len(fork.token_ids))


def _shuffle(true: dict[int, tuple[int, ...]]) -> dict[int, tuple[int, ...]]:
    """A permutation that changes as many texts as any can, between near lengths where it may."""
    # By length; equal lengths in an order that has nothing to do with what the texts say.
    order = sorted(true, key=lambda i: (len(true[i]), crc32(repr(true[i]).encode()), true[i], i))
    pairs: list[tuple[int, int]] = []
    waiting: list[int] = []  # of one text always
    for i in order:
        if waiting and true[waiting[-1]] != true[i]:
            pairs.append((waiting.pop(), i))
        else:
            waiting.append(i)
    shuffled = dict(true)
    for a, b in pairs:
        shuffled[a], shuffled[b] = true[b], true[a]
    if not waiting:
        return shuffled
    # What waits has one text: it trades with the pairs that this text is no part of.
    text = true[waiting[0]]
    foreign = [pair for pair in pairs if text not in (true[pair[0]], true[pair[1]])]
    foreign.sort(key=lambda pair: abs(len(true[pair[0]]) - len(text)))
    for a, b in foreign:
        if not waiting:
            break
        first = waiting.pop()
        if waiting:  # two for two
            second = waiting.pop()
            shuffled[first], shuffled[second] = true[a], true[b]
            shuffled[a] = shuffled[b] = text
        else:  # a cycle of three
            shuffled[first], shuffled[a], shuffled[b] = true[a], true[b], text
    return shuffled
