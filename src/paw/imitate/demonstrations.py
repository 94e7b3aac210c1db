"""What `paw imitate` learns from: episodes of an environment's expert, or of a trajectory file."""

import random
from dataclasses import dataclass
from typing import Any

from paw.config.read import check_types
from paw.config.tree import Config
from paw.envs.base import Observation, TaskSource
from paw.errors import UserError
from paw.runs import read
from paw.runs.console import Progress
from paw.runs.format import TrajectoryRecord
from paw.text.parse import write_response
from paw.types import Task


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One episode to imitate: observation, response, observation, …"""

    task: Task
    observations: tuple[Observation, ...]
    """[turns + 1]; the last one, after the last response, may be empty"""
    responses: tuple[str, ...]
    """[turns]"""
    imitated: tuple[bool, ...]
    """[turns] False for junk"""


def expert_demonstrations(
    source: TaskSource, config: Config, progress: Progress = lambda step, metrics: None
) -> list[Demonstration]:
    """Episodes that the environment's expert wins, over shuffled tasks, in this process."""
    settings, rng = config.imitate, random.Random(config.run.seed)
    options = {"noise": settings.noise, "junk": settings.junk} | settings.expert
    check_types(source.expert, options, "imitate.expert")
    order: list[int] = []
    demonstrations = []
    for number in range(settings.demonstrations):
        if not order:
            order = list(range(len(source)))
            rng.shuffle(order)
        task, seed = source[order.pop()], rng.randrange(2**31)
        try:
            expert = source.expert(task, seed, **options)
        except NotImplementedError as error:
            raise UserError(f"paw imitate: {error}; set imitate.trajectories instead") from error
        except TypeError as error:
            raise UserError(f"imitate.expert: {error}") from error
        demonstration = _play(source, task, seed, expert, config)
        if demonstration is not None:
            demonstrations.append(demonstration)
        if number % 100 == 99:
            progress(0, {"demonstrations": len(demonstrations)})
    if not demonstrations:
        raise UserError(f"paw imitate: the expert of {source.name} won none of its episodes")
    return demonstrations


def read_demonstrations(path: str) -> list[Demonstration]:
    """The successful trajectories of a run's trajectory file."""
    try:
        trajectories = read.trajectories(path)
    except UserError as error:
        raise UserError(f"imitate.trajectories = {error}") from error
    won = [_demonstration(t) for t in trajectories if t.success and t.turns]
    if not won:
        raise UserError(f"imitate.trajectories = {path!r}: no successful trajectory in it")
    return won


def _demonstration(trajectory: TrajectoryRecord) -> Demonstration:
    turns = trajectory.turns
    seen = [Observation(t.observation, t.commands) for t in turns]
    return Demonstration(
        trajectory.task,
        (*seen, Observation(turns[-1].next_observation or "")),
        tuple(t.response for t in turns),
        tuple(t.valid for t in turns),
    )


def _play(
    source: TaskSource, task: Task, seed: int, expert: Any, config: Config
) -> Demonstration | None:
    """One expert episode; None if it is not won within `max_turns`."""
    environment = source.open(task, seed)
    observations, responses, imitated = [environment.reset()], [], []
    for _ in range(config.rollout.max_turns):
        command = expert.act(observations[-1])
        responses.append(write_response(command, config.rollout.response_format, source.style))
        imitated.append(not expert.last_was_junk)
        result = environment.step(command)
        observations.append(result.observation)
        if result.terminated:
            won = bool(result.success)
            environment.close()
            turns = (tuple(observations), tuple(responses), tuple(imitated))
            return Demonstration(task, *turns) if won else None
    environment.close()
    return None
