"""Success of a policy on a fixed list of tasks, with intervals, per kind."""

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from paw.envs.base import TaskSource
from paw.rollout.actor import Actor, on_split, open_pool, open_source
from paw.rollout.collect import Environments, Limits, Plan, collect
from paw.rollout.fit import BATCH
from paw.rollout.sampler import Sampler
from paw.text.dialogue import Serializer
from paw.types import Trajectory

STREAM = 1
"""Keeps the randomness of evaluation apart from that of training."""


def wilson_interval(successes: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """Wilson's score interval of a rate (default 95 %); (0, 1) without trials.

    Reference: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not trials:
        return 0.0, 1.0
    rate, squared = successes / trials, z * z
    centre = rate + squared / (2 * trials)
    spread = z * math.sqrt(rate * (1 - rate) / trials + squared / (4 * trials * trials))
    scale = 1 + squared / trials
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)


def play_tasks(
    source: TaskSource,
    sampler: Sampler,
    environments: Environments,
    serializer: Serializer,
    limits: Limits,
    *,
    episodes: int,
    seed: int,
    progress: Callable[[int], None] = lambda num_finished: None,
) -> list[Trajectory]:
    """Play `episodes` tasks once each, in order; past the end again with other seeds.

    `progress` is told at every turn how many episodes are finished.
    """
    plans = []
    for i in range(episodes):
        lap, index = divmod(i, len(source))
        plans.append(Plan(source[index], i, 0, environment_seed=lap, sample_seed=(seed, STREAM, i)))
    played: list[Trajectory] = []
    for start in range(0, len(plans), BATCH):
        part = plans[start : start + BATCH]
        ends = start + len(part)
        played += collect(
            part, sampler, environments, serializer, limits,
            on_turn=lambda turn, num_active, ends=ends: progress(ends - num_active),
        )  # fmt: skip
    progress(episodes)
    return [replace(t, group=i) for i, t in enumerate(played)]


def evaluation(
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


def macro_average(by_kind: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The unweighted mean over kinds, as Search-R1 averages over data sets.

    Kinds without a usable episode are left out; `num_kinds` says how many are in. The limits of
    the interval are those of the kinds combined: the mean -+ sqrt(sum of squared distances of the
    kinds' Wilson limits from their rates) / K (MOVER: Zou & Donner 2008, "Construction of
    confidence limits about effect measures").
    """
    rows = [row for row in by_kind.values() if row["num_episodes"]]
    count = len(rows)
    if not count:
        return {"num_kinds": 0, "success_rate": 0.0, "interval": (0.0, 1.0), "score_mean": None}
    rate = sum(row["success_rate"] for row in rows) / count
    low, high = (
        math.hypot(*(row["success_rate"] - row["interval"][side] for row in rows)) / count
        for side in (0, 1)
    )
    scores = [row["score_mean"] for row in rows if row["score_mean"] is not None]
    return {
        "num_kinds": count,
        "success_rate": rate,
        "interval": (max(0.0, rate - low), min(1.0, rate + high)),
        "score_mean": sum(scores) / len(scores) if scores else None,
    }


def summary(trajectories: Sequence[Trajectory]) -> dict[str, Any]:
    """Rates and means of some trajectories."""
    usable = [t for t in trajectories if t.failure is None]
    wins, count = sum(t.success for t in usable), len(usable)
    turns = [len(t.transitions) for t in usable]
    valid = [turn.valid for t in usable for turn in t.transitions]
    cut = [turn.prompt_cut_tokens > 0 for t in usable for turn in t.transitions]
    scores = [t.score for t in usable if t.score is not None]
    return {
        "num_episodes": count,
        "num_failures": len(trajectories) - count,
        "success_rate": wins / count if count else 0.0,
        "interval": wilson_interval(wins, count),
        "return_mean": sum(t.return_ for t in usable) / count if count else 0.0,
        "score_mean": sum(scores) / len(scores) if scores else None,
        "turns_mean": sum(turns) / count if count else 0.0,
        "valid_action_rate": sum(valid) / len(valid) if valid else 0.0,
        "prompt_limit_fraction": sum(t.prompt_limit for t in usable) / count if count else 0.0,
        "prompt_cut_fraction": sum(cut) / len(cut) if cut else 0.0,
    }


def evaluate(
    actor: Actor,
    split: str | None,
    episodes: int,
    temperature: float,
    seed: int,
    progress: Callable[[int], None] = lambda num_finished: None,
    *,
    on_played: Callable[[Sequence[Trajectory]], None] = lambda trajectories: None,
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
            episodes=episodes, seed=seed, progress=progress,
        )  # fmt: skip
    on_played(played)
    result = evaluation(played, source, env=config.env.name, temperature=temperature, seed=seed)
    return result | actor.protocol(limits)
