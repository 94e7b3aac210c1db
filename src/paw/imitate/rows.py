"""Demonstrations as rows of tokens with weights, and the order in which they are learned."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import replace

from paw.config.tree import Config
from paw.imitate.demonstrations import Demonstration
from paw.text.dialogue import Serializer
from paw.types import NO_ACTION, Role, SampledAction, TrainingSample


def demonstration_rows(
    serializer: Serializer, demonstration: Demonstration, config: Config
) -> list[TrainingSample]:
    """The rows of one episode (`append`: one, `window`: one a turn), with weight 1 on imitated
    action tokens and `observation_weight` on observation tokens."""
    dialogue = serializer.dialogue(demonstration.task)
    share = config.imitate.observation_weight
    ids: list[int] = []
    roles: list[int] = []
    weights: list[float] = []
    rows = []
    action = NO_ACTION
    turns = zip(
        demonstration.observations, demonstration.responses, demonstration.imitated, strict=False
    )
    for observation, response, imitated in turns:
        dialogue.observe(observation.text, observation.commands)
        prompt = dialogue.prompt()
        tokens = serializer.format.response(response)
        action = SampledAction(tokens, (), None, finished=True)
        ids += prompt.context_ids
        roles += prompt.context_roles
        weights += [share if role == Role.OBSERVATION else 0.0 for role in prompt.context_roles]
        ids += tokens
        roles += [int(Role.ACTION)] * len(tokens)
        weights += [1.0 if imitated else 0.0] * len(tokens)
        dialogue.act(action, serializer.parse(response).command)
        if not serializer.append:
            rows.append(_sample(ids, roles, weights))
            ids, roles, weights = [], [], []
    if not serializer.append:
        return rows
    last = demonstration.observations[-1]
    if share and last.text:
        target = serializer.encode(last.text)
        scaffold = serializer.to_user(action, serializer.header(last.text))
        ids += [*scaffold, *target]
        roles += [int(Role.SCAFFOLD)] * len(scaffold) + [int(Role.OBSERVATION)] * len(target)
        weights += [0.0] * len(scaffold) + [share] * len(target)
    return [_sample(ids, roles, weights)]


def batches(
    samples: Sequence[list[TrainingSample]], config: Config
) -> Iterator[list[TrainingSample]]:
    """`imitate.steps` batches of whole episodes, over a fresh shuffle in each epoch."""
    rng, order = random.Random(config.run.seed), []
    for _ in range(config.imitate.steps):
        batch: list[TrainingSample] = []
        for _ in range(min(config.imitate.batch_episodes, len(samples))):
            if not order:
                order = list(range(len(samples)))
                rng.shuffle(order)
            batch += samples[order.pop()]
        yield batch


def _sample(ids: Sequence[int], roles: Sequence[int], weights: Sequence[float]) -> TrainingSample:
    zeros = (0.0,) * len(ids)
    return TrainingSample(
        token_ids=tuple(ids),
        roles=tuple(roles),
        old_logprobs=zeros,
        advantages=zeros,
        policy_weights=zeros,
        target_weights=(0.0, *weights[1:]),  # nothing precedes the first token
        base_length=len(ids),
    )


def normalised(batch: Sequence[TrainingSample]) -> list[TrainingSample]:
    """Weights of a batch divided by their sum: a weighted mean over its tokens."""
    total = sum(sum(s.target_weights) for s in batch)
    return [replace(s, target_weights=tuple(w / total for w in s.target_weights)) for s in batch]
