"""Plays episodes: sampler x environments -> groups of trajectories."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from paw.envs.base import Observation, StepResult
from paw.rollout.pool import Failure
from paw.rollout.sampler import Sampler, SampleRequest
from paw.text.dialogue import Dialogue, Prompt, Serializer
from paw.text.parse import Parsed
from paw.types import Group, SampledAction, Task, Trajectory, Transition


@dataclass(frozen=True, slots=True)
class Limits:
    """How episodes are played."""

    max_turns: int
    max_response_tokens: int
    temperature: float
    invalid_penalty: float
    """Taken off the RL reward of an invalid turn."""
    refused_is_invalid: bool
    """A well-formed command that the environment refuses counts as invalid."""
    conversations: int = 0
    """Most that are played side by side; 0: all."""


@dataclass(frozen=True, slots=True)
class Plan:
    """One episode to play."""

    task: Task
    group: int
    index: int
    environment_seed: int
    sample_seed: tuple[int, ...]
    """The trajectory's own randomness; the turn is appended."""


class Environments(Protocol):
    """What `collect` needs of the environment pool."""

    def open(
        self, requests: Sequence[tuple[int, Task, int]]
    ) -> Mapping[int, Observation | Failure]: ...
    def step(self, commands: Mapping[int, str]) -> Mapping[int, StepResult | Failure]: ...
    def close_slots(self, slots: Sequence[int]) -> None: ...


@dataclass(frozen=True, slots=True)
class Move:
    """What the policy did at one turn, and what came of it."""

    action: SampledAction
    response: str
    """The action decoded."""
    command: str
    """What the environment was given."""
    result: StepResult
    valid: bool
    penalty: float
    """<= 0"""


@dataclass(slots=True)
class _Episode:
    plan: Plan
    dialogue: Dialogue
    observation: Observation
    transitions: list[Transition] = field(default_factory=list)
    success: bool = False
    terminated: bool = False
    score: float | None = None
    failure: str | None = None
    prompt_limit: bool = False

    def record(self, transition: Transition, move: Move) -> None:
        """A turn was played."""
        result = move.result
        self.transitions.append(transition)
        self.observation = result.observation
        self.dialogue.act(move.action, move.command)
        self.dialogue.observe(result.observation.text, result.observation.commands)
        self.success = bool(result.success)
        self.terminated = result.terminated
        self.score = result.score

    def trajectory(self) -> Trajectory:
        return Trajectory(
            task=self.plan.task,
            group=self.plan.group,
            index=self.plan.index,
            transitions=tuple(self.transitions),
            success=self.success,
            terminated=self.terminated,
            score=self.score,
            failure=self.failure,
            prompt_limit=self.prompt_limit,
        )


def collect(
    plans: Sequence[Plan],
    sampler: Sampler,
    environments: Environments,
    serializer: Serializer,
    limits: Limits,
    *,
    on_turn: Callable[[int, int], None] = lambda turn, num_active: None,
) -> list[Trajectory]:
    """Play every plan to its end, `limits.conversations` side by side, one turn of all at a time.

    An episode ends when its task does (`terminated`), after `max_turns`, when the conversation has
    no room for another response, or when its environment fails (`failure`). `on_turn` is told the
    turn and how many episodes have not ended.

    Returns:
        One trajectory per plan, in order.
    """
    played: list[Trajectory] = []
    size = limits.conversations or max(len(plans), 1)
    for start in range(0, len(plans), size):
        part = plans[start : start + size]
        later = len(plans) - start - len(part)

        def told(turn: int, num_active: int, later: int = later) -> None:
            on_turn(turn, num_active + later)

        try:
            played += _play(part, sampler, environments, serializer, limits, on_turn=told)
        finally:
            sampler.reset()  # the next conversations are others, and learning wants the memory
    return played


def _play(
    plans: Sequence[Plan],
    sampler: Sampler,
    environments: Environments,
    serializer: Serializer,
    limits: Limits,
    *,
    on_turn: Callable[[int, int], None],
) -> list[Trajectory]:
    """Play every plan to its end, all side by side."""
    episodes = _open(plans, environments, serializer)
    active = [slot for slot, episode in enumerate(episodes) if episode.failure is None]
    for turn in range(limits.max_turns):
        prompts = {slot: episodes[slot].dialogue.prompt() for slot in active}
        full = {s for s in active if not has_room(prompts[s], serializer)}
        for slot in full:
            episodes[slot].prompt_limit = True
        environments.close_slots(sorted(full))
        active = [s for s in active if s not in full]
        if not active:
            break
        on_turn(turn, len(active))
        requests = [
            SampleRequest(s, prompts[s].token_ids, (*episodes[s].plan.sample_seed, turn))
            for s in active
        ]
        actions = sampler.sample(
            requests, temperature=limits.temperature, max_tokens=limits.max_response_tokens
        )
        responses = {s: serializer.response(a) for s, a in zip(active, actions, strict=True)}
        parsed = {s: serializer.parse(r) for s, r in responses.items()}
        results = environments.step({s: p.command for s, p in parsed.items()})
        for slot, action in zip(active, actions, strict=True):
            result = results[slot]
            if isinstance(result, Failure):
                episodes[slot].failure = result.reason
                continue
            move = make_move(action, responses[slot], parsed[slot], result, limits)
            episode = episodes[slot]
            episode.record(
                make_transition(serializer, prompts[slot], episode.observation, move), move
            )
        ended = {s for s in active if _ended(results[s])}
        environments.close_slots(sorted(ended))
        active = [s for s in active if s not in ended]
    environments.close_slots(active)
    return [episode.trajectory() for episode in episodes]


def _open(
    plans: Sequence[Plan], environments: Environments, serializer: Serializer
) -> list[_Episode]:
    """Every plan's environment opened and its first observation read."""
    opened = environments.open([(i, p.task, p.environment_seed) for i, p in enumerate(plans)])
    episodes = []
    for slot, plan in enumerate(plans):
        first = opened[slot]
        failure = first.reason if isinstance(first, Failure) else None
        observation = Observation("") if isinstance(first, Failure) else first
        episode = _Episode(plan, serializer.dialogue(plan.task), observation, failure=failure)
        episode.dialogue.observe(observation.text, observation.commands)
        episodes.append(episode)
    return episodes


def make_move(
    action: SampledAction, response: str, parsed: Parsed, result: StepResult, limits: Limits
) -> Move:
    """What an action did, and whether it was a valid one."""
    valid = parsed.well_formed and (result.valid or not limits.refused_is_invalid)
    penalty = 0.0 if valid else -limits.invalid_penalty
    return Move(action, response, parsed.command, result, valid, penalty)


def make_transition(
    serializer: Serializer, prompt: Prompt, observation: Observation, move: Move
) -> Transition:
    """The record of one turn; an empty next observation is none."""
    text, commands = move.result.observation.text, move.result.observation.commands
    target, num_cut = serializer.target(text, commands) if text else ((), 0)
    return Transition(
        context_ids=prompt.context_ids,
        context_roles=prompt.context_roles,
        action=move.action,
        response=move.response,
        command=move.command,
        reward=move.result.reward,
        penalty=move.penalty,
        valid=move.valid,
        observation=observation.text,
        next_observation=text or None,
        next_observation_ids=target,
        next_header_ids=serializer.header(text, commands) if target else (),
        num_cut_tokens=num_cut,
        prompt_cut_tokens=prompt.num_cut_tokens,
        commands=observation.commands,
    )


def group_trajectories(trajectories: Sequence[Trajectory]) -> list[Group]:
    """Trajectories of one update by their group, in order."""
    members: dict[int, list[Trajectory]] = {}
    for trajectory in trajectories:
        members.setdefault(trajectory.group, []).append(trajectory)
    return [Group(m[0].task, tuple(m)) for _, m in sorted(members.items())]


def _ended(result: StepResult | Failure) -> bool:
    return isinstance(result, Failure) or result.terminated or result.truncated


def has_room(prompt: Prompt, serializer: Serializer) -> bool:
    """A growing conversation ends where it passes the prompt limit; windows are cut to fit."""
    return not serializer.append or len(prompt.token_ids) <= serializer.max_prompt_tokens
