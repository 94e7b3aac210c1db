"""Any environment of paw-rl as a taskset of verifiers 0.4.

    vf-eval paw-envs-verifiers -n 2 --env.taskset.env alfworld --env.taskset.data_dir DIR

The environment is the player's user: it opens with the task and the first observation, and answers
each command with what is observed then. Prompts and commands are read as `paw eval` reads them.
"""

import asyncio
from collections.abc import Iterator
from functools import cached_property
from typing import Any

import verifiers.v1 as vf
from pydantic import Field

from paw import envs
from paw.envs.base import Observation, StepResult, TaskSource
from paw.rollout.worker import checked
from paw.text import prompts
from paw.text.parse import parse_response

__all__ = ["PawEnv", "PawTaskset"]

MAX_TURNS = 50
"""Where the benchmark's protocol says none."""


class PawTasksetConfig(vf.TasksetConfig):
    env: str = "household"
    """household, alfworld, webshop, search_qa, a registered name or module:factory."""
    split: str | None = None
    """None: the environment's training split."""
    data_dir: str | None = None
    """Folder of the benchmark's files; None: the environment's own variable."""
    options: dict[str, Any] = Field(default_factory=dict)
    """Of that environment."""
    max_turns: int | None = Field(None, ge=1)
    """Turns of an episode; None: the benchmark's."""


class PawTaskData(vf.TaskData):
    place: int
    """Of the task in its split."""


class PawTask(vf.Task[PawTaskData, vf.State, vf.TaskConfig]):
    """A game, a shopping goal, a question."""


class PawTaskset(vf.Taskset[PawTask, PawTasksetConfig]):
    """The tasks of a split, in its order."""

    @cached_property
    def source(self) -> TaskSource:
        """The tasks themselves."""
        config = self.config
        folder = {} if config.data_dir is None else {"data_dir": config.data_dir}
        return envs.make(config.env, split=config.split, **folder, **config.options)

    @property
    def max_turns(self) -> int:
        """Of an episode."""
        protocol = self.source.style.protocol.get("rollout", {})
        return self.config.max_turns or int(protocol.get("max_turns", MAX_TURNS))

    def load(self) -> Iterator[PawTask]:
        for place, task in enumerate(self.source):
            data = PawTaskData(id=task.id, name=task.id, description=task.instruction, place=place)
            yield PawTask(data, self.config.task)


class PawEnvConfig(vf.EnvConfig):
    player: vf.AgentConfig = vf.AgentConfig(harness={"id": "null"})


class PawEnv(vf.Env[PawEnvConfig]):
    """Plays one episode and records its return as the reward `return`.

    An environment that fails, or gives a reward or score that is no finite number, raises:
    verifiers counts the episode as failed, not as lost.
    """

    async def run(self, task: PawTask, agents: Any) -> None:
        taskset: Any = self.taskset
        source: TaskSource = taskset.source
        style, asked = source.style, source[task.data.place]
        game = await asyncio.to_thread(source.open, asked, 0)
        steps: list[StepResult] = []
        try:
            seen = checked(await asyncio.to_thread(game.reset), Observation)
            spans = prompts.opening(style, True, asked, seen.text, seen.commands)
            async with agents.player.interaction(task) as player:
                for _ in range(taskset.max_turns):
                    segment = await player.turn("".join(span.text for span in spans))
                    if segment.terminated:
                        break
                    parsed = parse_response(segment.last_reply, "tags", style)
                    result = await asyncio.to_thread(game.step, parsed.command)
                    steps.append(checked(result, StepResult))
                    if steps[-1].terminated or steps[-1].truncated:
                        break
                    seen = steps[-1].observation
                    spans = prompts.turn(style, True, seen.text, seen.commands)
        finally:
            game.close()
        _record(player.trace, steps)


def _record(trace: Any, steps: list[StepResult]) -> None:
    trace.record_reward("return", sum(step.reward for step in steps), 1.0)
    trace.record_metric("won", float(bool(steps) and bool(steps[-1].success)))
    trace.record_metric("turns", float(len(steps)))
    trace.record_metric("valid_actions", sum(s.valid for s in steps) / max(len(steps), 1))
    if steps and (score := steps[-1].score) is not None:
        trace.record_metric("score", score)
