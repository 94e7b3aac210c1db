"""A row of TRL as an episode of ours: `Trajectory`, and what was decided about its turns."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any
from zlib import crc32

from transformers import PreTrainedTokenizerBase

from paw.envs.base import reaches
from paw.integrations.trl.environment import TextEnvironment
from paw.integrations.trl.update import RowOf, TurnOf
from paw.types import Role, SampledAction, Task, Trajectory, Transition


def trajectory_of(
    row: RowOf,
    environment: Any,
    tokenizer: PreTrainedTokenizerBase,
    *,
    return_: float,
    place: tuple[int, int],
    max_return: float | None,
) -> Trajectory:
    """One row as an episode. Texts are what the tokens say, so what the policy read and wrote.

    Args:
        environment: its instance; one of ours says commands, rewards and how the episode ended.
        return_: what TRL's rewards add up to; nan: none of them gave any.
        place: (group, index within the group).
        max_return: where no environment of ours says it, a return that is a success.
    """
    ours = environment if isinstance(environment, TextEnvironment) else None
    played = _Played(ours)
    failure = ours._failure if ours is not None else None
    if failure is None and math.isnan(return_):
        failure = "no reward function gave a reward"
    if failure is None and not row.turns:
        failure = "TRL masks it: mask_truncated_completions"
    transitions, observation = [], _first(row, ours, tokenizer)
    for i, turn in enumerate(row.turns):
        context = row.prompt_ids if i == 0 else _between(row, row.turns[i - 1])
        roles = (Role.CONTEXT,) * len(context) if i == 0 else _roles(row.turns[i - 1])
        target = tuple(row.token_ids[p] for p in turn.place.target)
        following = str(tokenizer.decode(list(target))) if target else None
        step = played.next(turn.answers, last=i == len(row.turns) - 1)
        ids = row.token_ids[turn.place.start : turn.place.end]
        sampled = turn.sampled
        transitions.append(
            Transition(
                context_ids=context,
                context_roles=tuple(int(r) for r in roles),
                action=SampledAction(
                    token_ids=ids,
                    logprobs=tuple(sampled.logprobs) if sampled is not None else (),
                    entropies=tuple(sampled.entropies) or None if sampled is not None else None,
                    finished=turn.place.stop > turn.place.end
                    or ids[-1:] == (tokenizer.eos_token_id,),
                ),
                response=str(tokenizer.decode(list(ids))),
                command=step[0],
                reward=step[1],
                penalty=0.0,
                valid=step[2],
                observation=observation,
                next_observation=following,
                next_observation_ids=target[: len(turn.target)],
                num_cut_tokens=len(target) - len(turn.target),
                commands=step[3],
            )
        )
        observation = following or ""
    transitions = _with_return(transitions, 0.0 if math.isnan(return_) else return_)
    last = ours._steps[-1] if ours is not None and ours._steps else None
    return Trajectory(
        task=ours._task if ours is not None else _task(row, tokenizer),
        group=place[0],
        index=place[1],
        transitions=tuple(transitions),
        success=bool(last.success)
        if ours is not None and last is not None
        else ours is None and max_return is not None and reaches(return_, max_return),
        terminated=last.terminated if last is not None else ours is None,
        score=last.score if last is not None else None,
        failure=failure,
    )


def decided(row: RowOf) -> list[dict[str, Any]]:
    """What was decided about each turn, as fields of a `TurnRecord`."""
    return [_decided(row, turn) for turn in row.turns]


def _decided(row: RowOf, turn: TurnOf) -> dict[str, Any]:
    logprobs = turn.logprobs if turn.predicted else None
    return {
        "advantage": row.advantage,
        "selected": turn.selected,
        "transition_weight": turn.token_weight * len(turn.predicted),
        "target_ids": turn.predicted or None,
        "target_logprobs": None if logprobs is None else tuple(round(x, 4) for x in logprobs),
    }


Step = tuple[str, float, bool, tuple[str, ...]]
"""(command, or those of a turn with several; reward; valid; commands admissible before it)"""


class _Played:
    """The steps of an episode of ours, in their order: each is of the turn that its answer follows.
    Several calls in one message are one turn."""

    def __init__(self, environment: TextEnvironment | None) -> None:
        self._environment, self._at = environment, 0

    def next(self, answers: Sequence[str], *, last: bool) -> Step:
        """The steps that a turn made; without one, nothing that the environment understood.

        Args:
            answers: what its tools said; those that are not of `act` are TRL's.
            last: is it the row's last turn? TRL drops the answers of its calls.
        """
        ours, begin = self._environment, self._at
        if ours is None:
            return "", 0.0, True, ()
        for answer in answers:
            self._at += self._at < len(ours._answers) and answer == ours._answers[self._at]
        if last:
            self._at = len(ours._answers)
        steps = ours._steps[begin : self._at]
        seen = ours._steps[:begin]
        known = seen[-1].observation if seen else ours._first
        return (
            "; ".join(ours._commands[begin : self._at]),
            sum(step.reward for step in steps),
            bool(steps) and all(step.valid for step in steps),
            known.commands,
        )


def _first(row: RowOf, ours: TextEnvironment | None, tokenizer: PreTrainedTokenizerBase) -> str:
    if ours is not None:
        return ours._first.text
    return str(tokenizer.decode(list(row.prompt_ids), skip_special_tokens=True))


def _task(row: RowOf, tokenizer: PreTrainedTokenizerBase) -> Task:
    text = str(tokenizer.decode(list(row.prompt_ids), skip_special_tokens=True))
    return Task(f"prompt-{crc32(text.encode()):08x}", "", text)


def _between(row: RowOf, turn: TurnOf) -> tuple[int, ...]:
    """What was read after an action and before the next one."""
    return row.token_ids[turn.place.end : turn.place.stop]


def _roles(turn: TurnOf) -> list[Role]:
    targets = set(turn.place.target)
    places = range(turn.place.end, turn.place.stop)
    return [Role.OBSERVATION if p in targets else Role.SCAFFOLD for p in places]


def _with_return(transitions: Sequence[Transition], return_: float) -> list[Transition]:
    """The environment's own rewards where they add up to what TRL trained on, else all of it at the
    last turn."""
    found = list(transitions)
    if found and not math.isclose(sum(t.reward for t in found), return_, abs_tol=1e-6):
        found = [replace(t, reward=0.0) for t in found]
        found[-1] = replace(found[-1], reward=return_)
    return found
