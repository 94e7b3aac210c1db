"""An episode of any environment of ours as verl's agent loop."""

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar
from uuid import uuid4

from verl.experimental.agent_loop.agent_loop import (
    AgentLoopBase,
    AgentLoopMetrics,
    AgentLoopOutput,
    register,
)
from verl.utils.profiler import simple_timer

from paw.config.tree import Config
from paw.envs.base import Environment, Observation, StepResult, TaskSource
from paw.errors import first_line
from paw.integrations.verl.records import PlayedRow, rows_of
from paw.integrations.verl.settings import open_tasks, read_settings
from paw.rollout.actor import make_serializer
from paw.rollout.collect import Limits, has_room, make_move, make_transition
from paw.rollout.worker import checked
from paw.text.dialogue import Serializer
from paw.types import SampledAction, Task, Transition

logger = logging.getLogger(__name__)
T = TypeVar("T")

PLAYER = ThreadPoolExecutor(max_workers=1, thread_name_prefix="paw-environments")
"""Plays the environments of this process one at a time, beside the event loop: no source of tasks
has to take several threads."""


@dataclass(slots=True)
class Shared:
    """What the episodes of a process have in common."""

    settings: Config
    serializer: Serializer
    limits: Limits
    sources: dict[str, TaskSource]
    """By split"""

    def begin(self, split: str, index: int, seed: int) -> tuple[Task, Environment, Observation]:
        """A task, its environment and the first observation."""
        if split not in self.sources:
            self.sources[split] = open_tasks(self.settings, split)
        task = self.sources[split][index]
        environment = self.sources[split].open(task, seed=seed)
        return task, environment, checked(environment.reset(), Observation)


_shared: dict[str, Shared] = {}


def _share(settings: Config, tokenizer: Any) -> Shared:
    """A loop is made for every episode; reading data and the chat template is done once."""
    key = repr((settings, id(tokenizer)))
    if key not in _shared:
        rollout = settings.rollout
        limits = Limits(
            max_turns=rollout.max_turns,
            max_response_tokens=rollout.max_response_tokens,
            temperature=1.0,  # verl's own sampling parameters count
            invalid_penalty=rollout.invalid_penalty,
            refused_is_invalid=rollout.validity == "accepted",
        )
        _shared[key] = Shared(settings, make_serializer(settings, tokenizer), limits, {})
    return _shared[key]


@dataclass(slots=True)
class Episode:
    """What came of an episode."""

    transitions: list[Transition]
    last: StepResult | None
    """None where no turn was played"""
    steps: list[int]
    """Versions of the weights that sampled, where the server says them"""
    num_preempted: int


@register("paw")
class PawAgentLoop(AgentLoopBase):
    """Plays one episode with verl's server: a row a turn (`window`) or one row (`append`).

    The reward of every row is the episode's return and its penalties, and `reward_extra_info` has
    `acc` (won or not). What the trainer has to know beside the tokens, roles among it, is the
    `RowRecord` in `extra_fields["paw"]`. A row ends with an action, so that verl puts the reward on
    the action's last token. An environment that fails gives no rows.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._shared = _share(read_settings(self.config.get("paw")), self.tokenizer)

    async def run(self, sampling_params: dict[str, Any], **kwargs: Any) -> list[AgentLoopOutput]:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Play task `index` of `split`.

        Args:
            sampling_params: of verl.
            kwargs: the data set's row.
        """
        times: dict[str, float] = {"generate_sequences": 0.0, "tool_calls": 0.0}
        try:
            episode = await self._play(sampling_params, times, **kwargs)
        except _Failed as failure:
            logger.warning("task %s: the environment failed: %s", kwargs["index"], failure)
            return []
        if not episode.transitions:
            return []
        rows = rows_of(episode.transitions, self._shared.serializer)
        shared = self._of_episode(episode)
        metrics = AgentLoopMetrics(**times, num_preempted=episode.num_preempted)
        return [_output(row, sampling_params, metrics, dict(shared)) for row in rows]

    async def _play(
        self, sampling_params: dict[str, Any], times: dict[str, float], **row: Any
    ) -> Episode:
        shared, serializer = self._shared, self._shared.serializer
        seed = int(self.data_config.get("seed") or 0)
        task, environment, observation = await self._environment(
            partial(shared.begin, str(row["split"]), int(row["index"]), seed), times
        )
        dialogue, episode = serializer.dialogue(task), Episode([], None, [], 0)
        request = uuid4().hex  # the same for all turns: they meet the server that has the prefix
        asked = {**sampling_params, "max_tokens": shared.limits.max_response_tokens}
        try:
            for _ in range(shared.limits.max_turns):
                dialogue.observe(observation.text, observation.commands)
                prompt = dialogue.prompt()
                if not has_room(prompt, serializer):
                    break
                with simple_timer("generate_sequences", times):
                    sampled = await self.server_manager.generate(
                        request_id=request,
                        prompt_ids=list(prompt.token_ids),
                        sampling_params=dict(asked),
                    )
                if not sampled.token_ids:
                    break
                _note(episode, sampled)
                action = SampledAction(
                    tuple(sampled.token_ids),
                    tuple(sampled.log_probs or [0.0] * len(sampled.token_ids)),
                    None,
                    finished=sampled.token_ids[-1] in serializer.format.end_ids,
                )
                response = serializer.response(action)
                parsed = serializer.parse(response)
                step = partial(_step, environment, parsed.command)
                result = await self._environment(step, times)
                move = make_move(action, response, parsed, result, shared.limits)
                transition = make_transition(serializer, prompt, observation, move)
                episode.transitions.append(transition)
                dialogue.act(action, move.command)
                episode.last, observation = result, result.observation
                if result.terminated or result.truncated:
                    break
        finally:
            await self._environment(environment.close, {})
        return episode

    async def _environment(self, call: Callable[[], T], times: dict[str, float]) -> T:
        """A call of the environment, in the thread that plays."""
        try:
            with simple_timer("tool_calls", times):
                return await self.loop.run_in_executor(PLAYER, call)
        except Exception as error:
            raise _Failed(f"{type(error).__name__}: {first_line(error)}") from error

    def _of_episode(self, episode: Episode) -> dict[str, Any]:
        """Fields that all rows of an episode share."""
        transitions, last = episode.transitions, episode.last
        won = last is not None and bool(last.success)
        valid = sum(t.valid for t in transitions) / len(transitions)
        score = sum(t.reward + t.penalty for t in transitions)
        fields: dict[str, Any] = {
            "score": score,
            "num_turns": 2 * len(transitions),
            "reward_extra_info": {"acc": float(won), "valid_actions": valid},
        }
        if episode.steps:
            fields |= {
                "min_global_steps": min(episode.steps),
                "max_global_steps": max(episode.steps),
            }
        return fields


class _Failed(Exception):
    """The environment failed."""


def _step(environment: Environment, command: str) -> StepResult:
    return checked(environment.step(command), StepResult)


def _note(episode: Episode, sampled: Any) -> None:
    """What verl counts of a sampled response."""
    episode.num_preempted += max(sampled.num_preempted or 0, 0)
    for key in ("min_global_steps", "max_global_steps"):
        if (step := sampled.extra_fields.get(key)) is not None:
            episode.steps.append(int(step))


def _output(
    row: PlayedRow,
    sampling_params: dict[str, Any],
    metrics: AgentLoopMetrics,
    fields: dict[str, Any],
) -> AgentLoopOutput:
    """A row as verl takes it."""
    score, num_turns = fields.pop("score"), fields.pop("num_turns")
    mask = [0] * len(row.response_ids)
    for turn in row.record.turns:
        mask[turn.start : turn.end] = [1] * (turn.end - turn.start)
    return AgentLoopOutput(
        prompt_ids=list(row.prompt_ids),
        response_ids=list(row.response_ids),
        response_mask=mask,
        response_logprobs=list(row.logprobs) if sampling_params.get("logprobs") else None,
        reward_score=score,
        num_turns=num_turns,
        metrics=metrics,
        extra_fields={"turn_scores": [], "tool_rewards": [], "paw": row.record, **fields},
    )
