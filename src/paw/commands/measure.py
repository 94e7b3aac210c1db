"""How long an update takes here: a few episodes are played, and a micro-batch is learned from.

The real model plays ever more episodes side by side until one more try would take too long; then
one forward and backward pass runs over rows of what it played. Weights stay as they are. Episodes
that are not played to their end give an upper bound: every turn played.
"""

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from transformers import PreTrainedTokenizerBase

from paw.config.tree import Config
from paw.envs.base import Observation, StepResult, TaskSource
from paw.errors import UserError
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.model.spans import micro_batches
from paw.rollout.actor import Actor, make_serializer, open_pool
from paw.rollout.collect import Environments, Limits, Plan, collect, group_trajectories
from paw.rollout.pool import Failure
from paw.rollout.sampler import SampleRequest
from paw.text.dialogue import Serializer
from paw.train.judge import Rules, judge
from paw.train.prediction.target import choose_targets
from paw.train.score import flatten, make_rows
from paw.train.serialise import serialise
from paw.types import Scores, Task, TrainingSample, Trajectory

PLAY_SECONDS = 4.0
"""For the episodes of one try; the next has GROWTH times as many."""
GROWTH = 8
LEARN_SECONDS = 4.0
PROBE_TOKENS = 8
LEAST_TOKENS = 16
WARM_UP_TOKENS = 64
FORWARD = 1 / 3
"""Share of a pass without gradient in one with it."""


@dataclass(frozen=True, slots=True)
class Played:
    """Some episodes, and how fast responses were sampled."""

    trajectories: list[Trajectory]
    tokens_per_second: float
    """Of the largest try; resetting and stepping environments included"""
    stopped: bool
    """Time was up before the last of `trajectories` ended"""
    response_limit: int
    """Tokens after which a response was cut, for the time that it takes"""


@dataclass(frozen=True, slots=True)
class Pace:
    """What an update is expected to take, in seconds."""

    act: float
    learn: float
    episodes: int
    """That were played for it"""
    at_most: bool
    """As if every episode had all its turns, or every response all its tokens"""


class _Hurried:
    """Environments whose episodes end at the first step after `deadline`."""

    def __init__(self, environments: Environments, deadline: float) -> None:
        self._environments, self._deadline = environments, deadline
        self.stopped = False

    def open(
        self, requests: Sequence[tuple[int, Task, int]]
    ) -> Mapping[int, Observation | Failure]:
        return self._environments.open(requests)

    def step(self, commands: Mapping[int, str]) -> Mapping[int, StepResult | Failure]:
        results = self._environments.step(commands)
        if time.perf_counter() < self._deadline:
            return results
        going = [r for r in results.values() if isinstance(r, StepResult) and not r.terminated]
        self.stopped = self.stopped or bool(going)
        return {
            slot: replace(r, truncated=True) if isinstance(r, StepResult) else r
            for slot, r in results.items()
        }

    def close_slots(self, slots: Sequence[int]) -> None:
        self._environments.close_slots(slots)


def measure_update(
    config: Config, policy: Policy, tokenizer: PreTrainedTokenizerBase, source: TaskSource
) -> Pace:
    """Play episodes of `source` and learn from them, in about 20 s.

    Raises:
        UserError: no environment came through a turn.
    """
    played = play(config, Actor(config, policy, tokenizer), source)
    usable = [t for t in played.trajectories if t.failure is None and t.transitions]
    if not usable:
        reasons = sorted({str(t.failure) for t in played.trajectories})
        raise UserError(f"{config.env.name}: every environment failed: {reasons[0]}")
    samples = samples_of(usable, config, source.max_return, make_serializer(config, tokenizer))
    seconds = seconds_per_token(policy, samples, config.optimizer.tokens_per_micro_batch)
    return pace_of(config, played, samples, seconds)


def play(config: Config, actor: Actor, source: TaskSource) -> Played:
    """As many episodes side by side, at most an update's, as PLAY_SECONDS seem to allow."""
    rollout = config.rollout
    wanted, num = rollout.groups * rollout.group_size, 1
    limits = actor.limits(rollout.temperature)
    limit = _response_limit(actor, source, limits.max_response_tokens)
    limits = replace(limits, max_response_tokens=limit)
    with open_pool(config) as environments:

        def attempt(num: int, limits: Limits) -> tuple[list[Trajectory], float, bool]:
            seed = config.run.seed
            plans = [Plan(source[i % len(source)], i, 0, seed, (seed, i)) for i in range(num)]
            start = time.perf_counter()
            hurried = _Hurried(environments, start + PLAY_SECONDS)
            found = collect(plans, actor.sampler, hurried, actor.serializer, limits)
            return found, time.perf_counter() - start, hurried.stopped

        attempt(1, replace(limits, max_turns=1))  # workers start
        enough = time.perf_counter() + 2 * PLAY_SECONDS
        found, seconds, stopped = attempt(1, limits)
        played = Played(found, num_sampled(found) / seconds, stopped, limit)
        while num < wanted and not stopped and time.perf_counter() < enough:
            num = min(num * GROWTH, wanted)
            found, seconds, stopped = attempt(num, limits)
            rate = num_sampled(found) / seconds
            whole = played.trajectories if stopped else found
            played = replace(played, trajectories=whole, tokens_per_second=rate)
    return played


def num_sampled(trajectories: Sequence[Trajectory]) -> int:
    """Tokens of all responses."""
    return sum(len(turn.action.token_ids) for t in trajectories for turn in t.transitions)


def _response_limit(actor: Actor, source: TaskSource, limit: int) -> int:
    """Tokens of a response for which a quarter of PLAY_SECONDS does, by the time of a few."""
    dialogue = actor.serializer.dialogue(source[0])
    dialogue.observe(source[0].instruction, ())
    request = SampleRequest(0, dialogue.prompt().token_ids, (0,))
    seconds = 0.0
    for _ in range(2):  # the first warms up
        actor.sampler.reset()
        start = time.perf_counter()
        (action,) = actor.sampler.sample([request], temperature=1.0, max_tokens=PROBE_TOKENS)
        seconds = (time.perf_counter() - start) / max(len(action.token_ids), 1)
    actor.sampler.reset()
    return min(limit, max(LEAST_TOKENS, int(PLAY_SECONDS / 4 / seconds)))


def samples_of(
    trajectories: Sequence[Trajectory], config: Config, max_return: float, serializer: Serializer
) -> list[TrainingSample]:
    """What learning would pass through, by the stages of an update."""
    groups = group_trajectories(trajectories)
    transitions, columns = flatten(groups)
    rows = make_rows(transitions, columns, serializer.append)
    nothing = torch.zeros(len(transitions), dtype=torch.float64)
    old = [[0.0] * len(t.action.token_ids) for t in transitions]
    scores = Scores(old, nothing, nothing, None)
    generator = torch.Generator().manual_seed(config.run.seed)
    # Whatever the episodes won: a target of every transition that Eq. 4 may choose.
    paw = replace(config.paw, weight="constant", constant=1.0)
    rules = Rules(config.algorithm, paw, max_return)
    judgement = judge(columns, scores, rules, 1, generator)
    targets = choose_targets(transitions, columns, judgement, paw, serializer, generator=generator)
    return serialise(rows, scores, judgement, targets, paw.condition == "action")


def seconds_per_token(policy: Policy, samples: Sequence[TrainingSample], max_tokens: int) -> float:
    """Of a forward and backward pass over a micro-batch of `samples`, as long as time allows."""

    def run(limit: int) -> float:
        batch = next(micro_batches(samples, limit))
        packed = pack(
            [s.token_ids[:limit] for s in batch],
            policy.device,
            policy.share_prefixes,
            [min(s.base_length, limit) for s in batch],
        )
        positions = [
            offset + i
            for s, offset in zip(batch, packed.boundaries, strict=False)
            for i, weights in enumerate(zip(s.policy_weights, s.target_weights, strict=True))
            if any(weights) and i < limit
        ]
        start = time.perf_counter()
        logprobs, _ = policy.logprobs(packed, torch.tensor(positions, device=policy.device).long())
        logprobs.sum().backward()
        if policy.device.type == "cuda":
            torch.cuda.synchronize(policy.device)
        seconds = time.perf_counter() - start
        for parameter in policy.parameters():
            parameter.grad = None
        return seconds / len(packed.token_ids)

    run(WARM_UP_TOKENS)
    affordable = int(LEARN_SECONDS / run(WARM_UP_TOKENS))
    return run(max(min(affordable, max_tokens), WARM_UP_TOKENS))


def pace_of(
    config: Config, played: Played, samples: Sequence[TrainingSample], token_seconds: float
) -> Pace:
    """From what was played and learned to a whole update, by the tokens of both."""
    rollout = config.rollout
    usable = [t for t in played.trajectories if t.failure is None and t.transitions]
    actions = [turn.action for t in usable for turn in t.transitions]
    sampled = num_sampled(usable)
    cut = played.response_limit < rollout.max_response_tokens and any(
        not a.finished for a in actions
    )
    turns = rollout.max_turns if played.stopped else len(actions) / len(usable)
    response = rollout.max_response_tokens if cut else sampled / len(actions)
    num_turns = rollout.groups * rollout.group_size * turns
    # What is learned besides responses: prompts and targets, a turn.
    read = (sum(len(s.token_ids) for s in samples) - sampled) / len(actions)
    return Pace(
        act=num_turns * response / played.tokens_per_second,
        learn=num_turns * (read + response) * token_seconds * num_passes(config),
        episodes=len(usable),
        at_most=played.stopped or cut,
    )


def num_passes(config: Config) -> float:
    """Passes over an update's rows, those without gradient counted as a third: the policy's in each
    epoch, and where they are there a scoring pass, the reference's, and the critic's."""
    algorithm = config.algorithm
    critic = algorithm.name == "ppo"
    scoring = (algorithm.old_logprobs == "score") + (algorithm.kl_coefficient > 0) + critic
    return config.optimizer.epochs * (1 + critic) + FORWARD * scoring
