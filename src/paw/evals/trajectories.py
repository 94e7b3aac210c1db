"""Episodes of an evaluation as a file, in the format of a run's trajectory files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from paw.runs.run import write_atomically
from paw.types import Trajectory, Transition


def write_trajectories(path: Path, trajectories: Sequence[Trajectory]) -> None:
    """One episode a line, packed with zstandard.

    Raises:
        OSError: it cannot be written.
    """
    lines = b"".join(msgspec.json.encode(trajectory_record(t)) + b"\n" for t in trajectories)
    write_atomically(path, zstandard.ZstdCompressor(level=3).compress(lines))


def trajectory_record(trajectory: Trajectory) -> dict[str, Any]:
    """An episode from which nothing was learned: no advantage, no selection, no target."""
    return {
        "update": 0,
        "group": trajectory.group,
        "index": trajectory.index,
        "task": trajectory.task,
        "return": trajectory.return_,
        "success": trajectory.success,
        "terminated": trajectory.terminated,
        "score": trajectory.score,
        "failure": trajectory.failure,
        "prompt_limit": trajectory.prompt_limit,
        "turns": [_turn(transition) for transition in trajectory.transitions],
    }


def _turn(transition: Transition) -> dict[str, Any]:
    action = transition.action
    return {
        "observation": transition.observation,
        "commands": transition.commands,
        "response": transition.response,
        "command": transition.command,
        "reward": transition.reward,
        "penalty": transition.penalty,
        "valid": transition.valid,
        "next_observation": transition.next_observation,
        "context_ids": transition.context_ids,
        "context_roles": transition.context_roles,
        "action_ids": action.token_ids,
        "sampler_logprobs": [round(x, 5) for x in action.logprobs],
        "entropies": action.entropies and [round(x, 4) for x in action.entropies],
        "finished": action.finished,
        "num_cut_tokens": transition.num_cut_tokens,
        "prompt_cut_tokens": transition.prompt_cut_tokens,
        "advantage": None,
        "selected": False,
        "transition_weight": 0.0,
        "target_ids": None,
    }
