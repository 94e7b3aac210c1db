"""What an agent loop tells the trainer of a row beside its tokens. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from paw.text.dialogue import Serializer
from paw.types import Role, Transition


@dataclass(frozen=True, slots=True)
class TurnRecord:
    """A transition within a row's response."""

    start: int
    """First token of the action"""
    end: int
    """One past its last"""
    reward: float
    penalty: float
    """<= 0"""
    observation: str
    """o_t, the anchor of GiGPO"""
    current_ids: tuple[int, ...]
    """Tokens of o_t"""
    target_ids: tuple[int, ...]
    """[O] tokens of o_{t+1}; () where nothing can be predicted"""
    target_start: int | None
    """`append`: where they stand in the response; None: they may be put behind its end"""
    header_ids: tuple[int, ...]
    """The header before o_{t+1}; () the usual one"""


@dataclass(frozen=True, slots=True)
class RowRecord:
    """A row: one transition (`window`), or an episode (`append`). Its last token is the last
    action's: o_{t+1} comes behind it only after rewards, values and advantages have been made."""

    first_turn: int
    """Number of its first turn in the episode"""
    turns: tuple[TurnRecord, ...]
    return_: float
    """R(tau) of the whole episode, without penalties"""
    roles: tuple[int, ...]
    """[R] a Role of each token of the response"""


@dataclass(frozen=True, slots=True)
class PlayedRow:
    """A row as it was played."""

    prompt_ids: tuple[int, ...]
    response_ids: tuple[int, ...]
    """[R]"""
    logprobs: tuple[float, ...]
    """[R] of the sampler at actions; 0 elsewhere"""
    record: RowRecord


def rows_of(transitions: Sequence[Transition], serializer: Serializer) -> list[PlayedRow]:
    """The rows of an episode of at least one turn."""
    return_ = sum(t.reward for t in transitions)
    if serializer.append:
        return [_row(0, transitions, return_, serializer)]
    return [_row(i, [t], return_, serializer) for i, t in enumerate(transitions)]


def _row(
    first: int, transitions: Sequence[Transition], return_: float, serializer: Serializer
) -> PlayedRow:
    ids: list[int] = []
    roles: list[int] = []
    logprobs: list[float] = []
    turns: list[TurnRecord] = []
    for i, transition in enumerate(transitions):
        if i:  # what was read since the action before
            ids += transition.context_ids
            roles += transition.context_roles
            logprobs += [0.0] * len(transition.context_ids)
        start, action = len(ids), transition.action
        ids += action.token_ids
        roles += [int(Role.ACTION)] * len(action.token_ids)
        logprobs += action.logprobs
        target, place = transition.next_observation_ids, None
        if target and i + 1 < len(transitions):
            following = transitions[i + 1]
            offset = _find(target, following.context_ids, following.context_roles)
            if offset is None:  # the prompt limit cut it
                target = ()
            else:
                place = len(ids) + offset
        current = serializer.encode(transition.observation)
        turns.append(
            TurnRecord(
                start=start,
                end=len(ids),
                reward=transition.reward,
                penalty=transition.penalty,
                observation=transition.observation,
                current_ids=current[: serializer.max_observation_tokens],
                target_ids=target,
                target_start=place,
                header_ids=transition.next_header_ids,
            )
        )
    record = RowRecord(first, tuple(turns), return_, tuple(roles))
    return PlayedRow(transitions[0].context_ids, tuple(ids), tuple(logprobs), record)


def _find(target: tuple[int, ...], ids: tuple[int, ...], roles: tuple[int, ...]) -> int | None:
    """Where the observation among some context begins with `target`, if it does."""
    observation = int(Role.OBSERVATION)
    if observation not in roles:
        return None
    first = roles.index(observation)
    place = slice(first, first + len(target))
    stands = ids[place] == target and roles[place] == (observation,) * len(target)
    return first if stands else None
