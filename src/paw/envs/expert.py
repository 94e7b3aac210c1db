"""Episodes of an environment's expert, for demonstrations, the examples of agents and the check."""

import inspect
from dataclasses import dataclass

from paw.envs.base import Expert, Observation, TaskSource
from paw.errors import UserError
from paw.types import Task


@dataclass(frozen=True, slots=True)
class ExpertEpisode:
    """One episode that an expert played."""

    observations: tuple[Observation, ...]
    """[turns + 1] the last one, after the last command, may be empty."""
    commands: tuple[str, ...]
    """[turns]"""
    junk: tuple[bool, ...]
    """[turns] given to show what follows a bad command, and not to be imitated."""
    accepted: tuple[bool, ...]
    """[turns] by the environment: `StepResult.valid`"""
    success: bool


def takes(source: TaskSource, option: str) -> bool:
    """Does `source.expert` take this option?"""
    parameters = inspect.signature(source.expert).parameters
    return option in parameters or any(p.kind is p.VAR_KEYWORD for p in parameters.values())


def play_expert(
    source: TaskSource, task: Task, seed: int, expert: Expert, max_turns: int
) -> ExpertEpisode:
    """Play `task` to its end, or for `max_turns` turns.

    Raises:
        UserError: the expert gives something else than text.
    """
    environment = source.open(task, seed)
    commands, junk, accepted, success = [], [], [], False
    try:
        observations = [environment.reset()]
        for _ in range(max_turns):
            command = expert.act(observations[-1])
            if not isinstance(command, str):
                raise UserError(f"the expert of {source.name} gave {command!r}, not a command")
            result = environment.step(command)
            commands.append(command)
            junk.append(bool(getattr(expert, "last_was_junk", False)))
            accepted.append(result.valid)
            observations.append(result.observation)
            if result.terminated or result.truncated:
                success = bool(result.success)
                break
    finally:
        environment.close()
    return ExpertEpisode(
        tuple(observations), tuple(commands), tuple(junk), tuple(accepted), success
    )
