"""Episodes as the records of a trajectory file; `runs.format` says what stands in them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from paw.runs.files import write_atomically
from paw.runs.format import TrajectoryRecord, TurnRecord
from paw.types import Trajectory, Transition


def turn_record(transition: Transition, **decided: Any) -> TurnRecord:
    """One turn; `decided`: what an update decided about it, nothing in an evaluation."""
    action = transition.action
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
        **decided,
    )


def trajectory_record(
    trajectory: Trajectory, update: int, turns: Sequence[TurnRecord] | None = None
) -> TrajectoryRecord:
    """One episode; `turns`: its turns with what was decided, by default without."""
    if turns is None:
        turns = [turn_record(t) for t in trajectory.transitions]
    return TrajectoryRecord(
        update=update,
        group=trajectory.group,
        index=trajectory.index,
        task=trajectory.task,
        return_=trajectory.return_,
        success=trajectory.success,
        terminated=trajectory.terminated,
        score=trajectory.score,
        failure=trajectory.failure,
        prompt_limit=trajectory.prompt_limit,
        turns=tuple(turns),
    )


def write_trajectories(file: Path, records: Sequence[TrajectoryRecord], env: str) -> None:
    """One episode of the environment `env` a line, packed with zstandard: all of the file or none
    of it.

    Raises:
        OSError: it cannot be written.
    """
    named = (msgspec.structs.replace(record, env=env) for record in records)
    lines = b"".join(msgspec.json.encode(record) + b"\n" for record in named)
    write_atomically(file, zstandard.ZstdCompressor(level=3).compress(lines))
