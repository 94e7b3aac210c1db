"""What passes between a client and the server, as OpenEnv's pydantic models."""

from typing import Any

from openenv.core.env_server import Action, Observation, State
from pydantic import Field

from paw.envs.openenv.wire import MAX_COMMAND_CHARS


class PawAction(Action):
    """One command."""

    command: str = Field(max_length=MAX_COMMAND_CHARS, description="As the environment reads it")


class PawObservation(Observation):
    """What the agent reads; `done` and `reward` (null of a reset) are OpenEnv's own.

    `metadata` of a reset holds `task` (id, kind, instruction, split, index, max_return), of a step
    the environment's extras, `score` where the benchmark has one.
    """

    text: str = Field(description="Raw text of the environment, without any prompt around it")
    commands: list[str] = Field(default_factory=list, description="Admissible now, where known")
    valid: bool = Field(default=True, description="The command was understood and accepted")
    success: bool | None = Field(default=None, description="Null until the episode ends")
    truncated: bool = Field(default=False, description="Done, for the environment gave up")


class PawState(State):
    """Where the session is; `episode_id` and `step_count` are OpenEnv's own."""

    split: str | None = None
    index: int | None = None
    seed: int | None = None
    done: bool = False
    task: dict[str, Any] | None = None
