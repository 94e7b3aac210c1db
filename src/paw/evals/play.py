"""A policy plays a fixed list of tasks, and what that says of it."""

from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from typing import Any

from paw.envs.base import TaskSource
from paw.evals.progress import Progress, Watched
from paw.evals.selection import chosen, described
from paw.evals.statistics import macro_average, summary
from paw.rollout.actor import Actor, on_split, open_pool, open_source
from paw.rollout.collect import Environments, Limits, Plan, collect
from paw.rollout.fit import BATCH
from paw.rollout.ranks import ALONE, Ranks
from paw.rollout.sampler import Sampler
from paw.text.dialogue import Serializer
from paw.types import Trajectory

EVALUATION_SEEDS = 1
"""Keeps the randomness of evaluation apart from that of training."""


def play_tasks(
    source: TaskSource,
    sampler: Sampler,
    environments: Environments,
    serializer: Serializer,
    limits: Limits,
    *,
    episodes: int,
    seed: int,
    progress: Progress = lambda finished, won, left: None,
    ranks: Ranks = ALONE,
) -> list[Trajectory]:
    """Play `episodes` tasks once each, those of `chosen`; past the end again with other seeds.

    A trajectory's `group` is the episode's number. `progress` is told at every turn how it stands.
    """
    plans = []
    for number in chosen(source, episodes):
        lap, index = divmod(number, len(source))
        seeds = (seed, EVALUATION_SEEDS, number)
        plans.append(Plan(source[index], number, 0, environment_seed=lap, sample_seed=seeds))
    watched = Watched(environments, len(ranks.mine(plans)), limits.max_turns, progress)

    def play(own: list[Plan]) -> list[Trajectory]:
        found: list[Trajectory] = []
        for start in range(0, len(own), BATCH):
            part = own[start : start + BATCH]
            found += collect(part, sampler, watched, serializer, limits)
        return found

    played = ranks.spread(plans, play)
    progress(len(played), sum(t.success for t in played), 0.0)
    return played


def summarise(
    trajectories: Sequence[Trajectory],
    source: TaskSource,
    *,
    env: str,
    temperature: float,
    seed: int,
) -> dict[str, Any]:
    """What a list of played tasks of `source` says, as one JSON-able object.

    Failed environments count neither as success nor as trial; `failures` says how many and why.
    `source` of the object is `TaskSource.facts()`.
    """
    by_kind: dict[str, list[Trajectory]] = defaultdict(list)
    for trajectory in trajectories:
        by_kind[trajectory.task.kind].append(trajectory)
    rows = {kind: summary(members) for kind, members in sorted(by_kind.items())}
    return {
        "env": env,
        "split": source.split,
        "num_tasks": len(source),
        "source": source.facts(),
        "temperature": temperature,
        "seed": seed,
        **summary(trajectories),
        "failures": dict(Counter(t.failure for t in trajectories if t.failure is not None)),
        "by_kind": rows,
        "macro_average": macro_average(rows),
        "episodes": [
            {
                "task": t.task.id,
                "kind": t.task.kind,
                "success": t.success,
                "return": t.return_,
                "score": t.score,
                "turns": len(t.transitions),
                "failure": t.failure,
                "prompt_limit": t.prompt_limit,
                "num_cut_prompts": sum(turn.prompt_cut_tokens > 0 for turn in t.transitions),
            }
            for t in trajectories
        ],
    }


def evaluate(
    actor: Actor,
    split: str | None,
    episodes: int,
    temperature: float,
    seed: int,
    progress: Progress = lambda finished, won, left: None,
    *,
    on_played: Callable[[Sequence[Trajectory]], None] = lambda trajectories: None,
    ranks: Ranks = ALONE,
) -> dict[str, Any]:
    """Play a split (None: the one on which the environment is evaluated); see `evaluation`.

    `on_played` gets the episodes.
    """
    config = on_split(actor.config, split)
    source = open_source(config)
    limits = actor.limits(temperature, config.eval.max_turns)
    with open_pool(config) as environments:
        played = play_tasks(
            source, actor.sampler, environments, actor.serializer, limits,
            episodes=episodes, seed=seed, progress=progress, ranks=ranks,
        )  # fmt: skip
    on_played(played)
    result = summarise(played, source, env=config.env.name, temperature=temperature, seed=seed)
    selection = described(source, [trajectory.group for trajectory in played])
    return result | {"selection": selection} | actor.protocol(limits)
