"""What `paw imitate` learns from: episodes of an environment's expert, or of a trajectory file."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from paw.config.read import check_types
from paw.config.tree import Config
from paw.envs.base import Observation, TaskSource
from paw.envs.expert import ExpertEpisode, play_expert, takes
from paw.errors import UserError
from paw.runs import read
from paw.runs.console import Progress
from paw.runs.format import TrajectoryRecord, TurnRecord
from paw.style import Style
from paw.text.parse import write_response
from paw.types import Task

NOISE, JUNK = 0.7, 0.12
"""`imitate.noise` and `imitate.junk` of an expert that takes them."""


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
    """Those of `expert_episodes` that the expert wins."""
    form = config.rollout.response_format
    episodes = expert_episodes(source, config, "set imitate.trajectories")
    demonstrations = []
    for number, (task, episode) in enumerate(episodes):
        if episode.success:
            responses = [write_response(c, form, source.style) for c in episode.commands]
            imitated = tuple(not junk for junk in episode.junk)
            demonstrations.append(
                Demonstration(task, episode.observations, tuple(responses), imitated)
            )
        if number % 100 == 99:
            progress(0, {"demonstrations": len(demonstrations)})
    if not demonstrations:
        raise UserError(f"paw imitate: the expert of {source.name} won none of its episodes")
    return demonstrations


def expert_episodes(
    source: TaskSource, config: Config, instead: str
) -> Iterator[tuple[Task, ExpertEpisode]]:
    """`imitate.demonstrations` episodes of the environment's expert over shuffled tasks, won or
    lost, in this process. `instead`: what to do where it has none."""
    settings, rng = config.imitate, random.Random(config.run.seed)
    options = expert_options(source, config)
    order: list[int] = []
    for _ in range(settings.demonstrations):
        if not order:
            order = list(range(len(source)))
            rng.shuffle(order)
        task, seed = source[order.pop()], rng.randrange(2**31)
        try:
            expert = source.expert(task, seed, **options)
        except NotImplementedError as error:
            raise UserError(f"{error}; {instead} instead") from error
        except TypeError as error:
            raise UserError(f"imitate.expert: {error}") from error
        yield task, play_expert(source, task, seed, expert, config.rollout.max_turns)


def expert_options(source: TaskSource, config: Config) -> dict[str, Any]:
    """What the expert is called with: `noise` and `junk` if it takes them, and `imitate.expert`.

    Raises:
        UserError: an option that was set and that it does not take, or of a wrong type.
    """
    settings, options = config.imitate, {}
    for name, value, default in (("noise", settings.noise, NOISE), ("junk", settings.junk, JUNK)):
        if takes(source, name):
            options[name] = default if value is None else value
        elif value is not None:
            raise UserError(
                f"imitate.{name} = {value}: the expert of {source.name} takes no {name}; leave it"
            )
    options |= settings.expert
    check_types(source.expert, options, "imitate.expert")
    return options


def read_demonstrations(path: str) -> list[Demonstration]:
    """The successful trajectories of a run's trajectory file."""
    try:
        trajectories = read.trajectories(path)
    except UserError as error:
        raise UserError(f"imitate.trajectories = {error}") from error
    won = [demonstration_of(t) for t in trajectories if t.success and t.turns]
    if not won:
        raise UserError(f"imitate.trajectories = {path!r}: no successful trajectory in it")
    return won


def record_of(demonstration: Demonstration) -> TrajectoryRecord:
    """What `demonstration_of` reads back."""
    seen = demonstration.observations
    turns = zip(seen, seen[1:], demonstration.responses, demonstration.imitated, strict=False)
    return TrajectoryRecord(
        task=demonstration.task,
        success=True,
        turns=tuple(
            TurnRecord(
                observation=before.text,
                commands=before.commands,
                response=response,
                valid=imitated,
                next_observation=after.text,
            )
            for before, after, response, imitated in turns
        ),
    )


def record_of_episode(
    task: Task, episode: ExpertEpisode, response_format: str, style: Style
) -> TrajectoryRecord:
    """An expert's episode as a run would have recorded it; its returns are not known."""
    seen = episode.observations
    turns = zip(seen, seen[1:], episode.commands, episode.accepted, strict=False)
    return TrajectoryRecord(
        task=task,
        success=episode.success,
        turns=tuple(
            TurnRecord(
                observation=before.text,
                commands=before.commands,
                response=write_response(command, response_format, style),
                command=command,
                valid=accepted,
                next_observation=after.text or None,
            )
            for before, after, command, accepted in turns
        ),
    )


def demonstration_of(trajectory: TrajectoryRecord) -> Demonstration:
    """An episode of a trajectory file as one to imitate."""
    turns = trajectory.turns
    seen = [Observation(t.observation, t.commands) for t in turns]
    return Demonstration(
        trajectory.task,
        (*seen, Observation(turns[-1].next_observation or "")),
        tuple(t.response for t in turns),
        tuple(t.valid for t in turns),
    )
