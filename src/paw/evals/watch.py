"""A policy plays one task, turn by turn, for a person to watch."""

from collections.abc import Iterator

from paw.envs.base import StepResult, TaskSource
from paw.evals.play import EVALUATION_SEEDS
from paw.rollout.actor import Actor
from paw.rollout.collect import Limits, has_room, make_move, make_transition
from paw.rollout.sampler import SampleRequest
from paw.types import Transition


def watch(
    actor: Actor, source: TaskSource, task_index: int, seed: int, limits: Limits
) -> Iterator[tuple[Transition, StepResult]]:
    """Play a task with the sampling seeds of `paw eval`, in this process; yields every turn.

    It ends with the task, after `limits.max_turns`, or where the prompt has no more room.
    """
    task = source[task_index]
    serializer, dialogue = actor.serializer, actor.serializer.dialogue(task)
    environment = source.open(task)
    try:
        actor.sampler.reset()
        observation = environment.reset()
        for turn in range(limits.max_turns):
            dialogue.observe(observation.text, observation.commands)
            prompt = dialogue.prompt()
            if not has_room(prompt, serializer):
                return
            request = SampleRequest(0, prompt.token_ids, (seed, EVALUATION_SEEDS, task_index, turn))
            (action,) = actor.sampler.sample(
                [request], temperature=limits.temperature, max_tokens=limits.max_response_tokens
            )
            response = serializer.response(action)
            parsed = serializer.parse(response)
            result = environment.step(parsed.command)
            move = make_move(action, response, parsed, result, limits)
            yield make_transition(serializer, prompt, observation, move), result
            if result.terminated or result.truncated:
                return
            dialogue.act(action, parsed.command)
            observation = result.observation
    finally:
        environment.close()
