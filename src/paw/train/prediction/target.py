"""What is predicted: o_{t+1}, or a placebo."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from zlib import crc32

import torch

from paw.config.tree import PawConfig
from paw.text.dialogue import Serializer
from paw.train.prediction.horizon import in_their_places, one_behind_the_other, reach
from paw.train.prediction.share import PARTS, shares
from paw.train.prediction.weight import random_signs
from paw.types import NO_ACTION, Columns, Judgement, SampledAction, Target, Targets, Transition

TokenIds = tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Texts:
    """What a placebo may be made of, besides the true next observations."""

    current: Callable[[int], TokenIds]
    """o_t of a transition of the update"""
    vocabulary: Callable[[], TokenIds]
    """Tokens that a text may have, whether the update has them or not"""


def choose_targets(
    transitions: Sequence[Transition],
    columns: Columns,
    judgement: Judgement,
    paw: PawConfig,
    serializer: Serializer,
    *,
    generator: torch.Generator,
) -> Targets:
    """The targets of every transition with a weight. Signs are drawn last: an arm with them has the
    selection and targets of the arm without."""
    weights = judgement.transition_weights.tolist()
    true = {i: transitions[i].next_observation_ids for i, w in enumerate(weights) if w != 0}

    def current(index: int) -> TokenIds:
        return serializer.encode(transitions[index].observation)[: paw.max_observation_tokens]

    texts = Texts(current, lambda: serializer.vocabulary)
    ids = TARGETS[paw.target](true, texts, generator)
    if paw.random_sign:
        signs = random_signs(len(weights), generator)
        weights = [s * w for s, w in zip(signs, weights, strict=True)]
    steps = reach(transitions, columns.trajectory.tolist(), paw.horizon)
    ahead = {i: [ids[i]] for i in ids}
    for i, targets in ahead.items():  # later ones are true: `read.check`
        targets += [t.next_observation_ids for t in transitions[i + 1 : i + steps[i]]]
    lengths = {i: [len(target) for target in targets] for i, targets in ahead.items()}
    share = shares(lengths, transitions, judgement.group.tolist(), paw)
    headers = {t.next_observation_ids: t.next_header_ids for t in transitions}

    def target_of(i: int, j: int, token_ids: TokenIds) -> Target:
        """Of transition i, the one behind the action of transition j."""
        action = transitions[j].action if paw.condition == "action" else NO_ACTION
        own = token_ids == transitions[j].next_observation_ids
        header = transitions[j].next_header_ids if own else headers.get(token_ids, ())
        scaffold = scaffold_before(action, header, serializer)
        weight = PARTS[paw.normalise](weights[i] * share[i], len(token_ids), lengths[i])
        return Target(token_ids, weight, scaffold)

    parts = {
        i: [target_of(i, j, target) for j, target in enumerate(targets, start=i)]
        for i, targets in ahead.items()
    }
    if paw.horizon > 1 and serializer.append:
        placed = in_their_places(parts)
    else:
        placed = one_behind_the_other(parts, transitions, serializer)
    changed = sum(ids[i] != true[i] for i in true)
    return Targets(placed, changed / len(true) if true else 0.0)


def scaffold_before(
    action: SampledAction, header: TokenIds, serializer: Serializer
) -> tuple[int, ...]:
    """What stands between an action and a target with that header; () is the usual one."""
    return serializer.to_user(action, header) if header else serializer.to_user(action)


def shuffled(
    true: Mapping[int, TokenIds], texts: Texts, generator: torch.Generator
) -> dict[int, TokenIds]:
    """Each transition trades its observation with another of different text and near length.

    A permutation that changes as many texts as any can: none meets itself unless one makes up more
    than half of them; then as few stay as can be.
    """
    # By length; equal lengths in an order that has nothing to do with what the texts say.
    order = sorted(true, key=lambda i: (len(true[i]), crc32(repr(true[i]).encode()), true[i], i))
    pairs: list[tuple[int, int]] = []
    waiting: list[int] = []  # of one text always
    for i in order:
        if waiting and true[waiting[-1]] != true[i]:
            pairs.append((waiting.pop(), i))
        else:
            waiting.append(i)
    result = dict(true)
    for a, b in pairs:
        result[a], result[b] = true[b], true[a]
    if not waiting:
        return result
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
            result[first], result[second] = true[a], true[b]
            result[a] = result[b] = text
        else:  # a cycle of three
            result[first], result[a], result[b] = true[a], true[b], text
    return result


def random_tokens(
    true: Mapping[int, TokenIds], texts: Texts, generator: torch.Generator
) -> dict[int, TokenIds]:
    """As many tokens, drawn from those that occur in the update's targets."""
    vocabulary = sorted({token for target in true.values() for token in target})
    return _drawn(true, vocabulary, generator)


def vocabulary_tokens(
    true: Mapping[int, TokenIds], texts: Texts, generator: torch.Generator
) -> dict[int, TokenIds]:
    """As many tokens, drawn from all that a text may have."""
    return _drawn(true, texts.vocabulary(), generator)


def _drawn(
    true: Mapping[int, TokenIds], vocabulary: Sequence[int], generator: torch.Generator
) -> dict[int, TokenIds]:
    result = {}
    for i, target in true.items():
        draw = torch.randint(len(vocabulary), (len(target),), generator=generator)
        result[i] = tuple(vocabulary[j] for j in draw.tolist())
    return result


TARGETS: dict[
    str,
    Callable[[Mapping[int, TokenIds], Texts, torch.Generator], dict[int, TokenIds]],
] = {
    "next": lambda true, texts, generator: dict(true),
    "shuffled": shuffled,
    "random": random_tokens,
    "vocabulary": vocabulary_tokens,
    "repeat_current": lambda true, texts, generator: {i: texts.current(i) or true[i] for i in true},
}
"""(o_{t+1} by transition, texts, generator) -> targets by transition."""
