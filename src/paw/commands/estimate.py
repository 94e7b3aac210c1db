"""How many tokens an update takes, from the configuration alone, and what they take of memory.

    N = groups x group_size trajectories, T = max_turns, P, A, O = the limits of prompt, response
    and target tokens

Nothing is loaded or run. Transitions at their limits go through the functions that make and
serialise the rows of a real update, and what comes out is multiplied: tokens are upper bounds, with
every turn played and every limit reached. The bytes are `paw.model.memory`'s.
"""

from dataclasses import dataclass, replace

import torch

from paw import objective
from paw.config.tree import Config
from paw.model.memory import MOST_TOKENS, Memory, ModelShape, Work, bytes_of
from paw.model.spans import micro_batches
from paw.rollout.fit import BATCH, actions_between, precision_in_bytes
from paw.train.prediction.schedule import scheduled
from paw.train.score import flatten, make_rows
from paw.train.serialise import serialise
from paw.types import (
    Group,
    Judgement,
    Role,
    SampledAction,
    Scores,
    Target,
    Targets,
    Task,
    TrainingSample,
    Trajectory,
    Transition,
)

SCAFFOLD_TOKENS = 16
"""Allowance for the template's tokens between an action and the target behind it (Qwen: 5)."""


@dataclass(frozen=True, slots=True)
class TokenBounds:
    """Upper bounds for one update."""

    read: int
    """Prompt tokens that the sampler computes"""
    sampled: int
    trained: int
    """Tokens of all rows that the learner passes through in all epochs, targets included"""
    predicted: int
    """Those of them that are there for the prediction alone"""
    micro_batch: int
    """Tokens of a forward and backward pass whose rows reach their limits"""


def tokens_of(config: Config) -> TokenBounds:
    """Upper bounds of an update's tokens."""
    rollout, paw = config.rollout, config.paw
    num = rollout.groups * rollout.group_size
    turns = num * rollout.max_turns
    prompt, response = rollout.max_prompt_tokens, rollout.max_response_tokens
    append = rollout.context == "append"
    num_rows = num if append else turns
    selected = 0
    if scheduled(paw, paw.alternate_every)[0]:
        share = 1.0 if paw.select == "all" else paw.selection_fraction
        selected = objective.num_selected(turns, share)

    base, *own_rows = _rows(config, 1, predicts=selected > 0)
    if append and rollout.max_turns > 1:  # the targets of all turns but the last
        own_rows += _rows(config, 2, predicts=selected > 0)[1:]
    own = max(map(_length, own_rows), default=0)
    appended = _length(base) - base.base_length
    predicted = min(selected, num_rows) * appended + selected * own

    epochs = config.optimizer.epochs
    allowed = config.optimizer.tokens_per_micro_batch or MOST_TOKENS
    of_step = -(-num_rows // config.optimizer.mini_batches)
    rows = [base] * min(of_step, allowed // base.base_length + 1)
    first = next(micro_batches(rows, allowed))
    return TokenBounds(
        read=(num if append else turns) * prompt,
        sampled=num * min(rollout.max_turns * response, prompt + response)
        if append
        else turns * response,
        trained=epochs * (num_rows * base.base_length + predicted),
        predicted=epochs * predicted,
        micro_batch=max(sum(map(_length, first)), own),
    )


def _length(row: TrainingSample) -> int:
    return len(row.token_ids)


def _rows(config: Config, num_turns: int, predicts: bool) -> list[TrainingSample]:
    """One trajectory at its limits as training serialises it, with every target or none: a base
    row, then the rows that only predict."""
    paw, rollout = config.paw, config.rollout
    response, seen = (0,) * rollout.max_response_tokens, (0,) * paw.max_observation_tokens
    first = (0,) * rollout.max_prompt_tokens
    action = SampledAction(response, (0.0,) * len(response), None, finished=True)
    task = Task("", "", "")
    transitions = [
        Transition(
            context_ids=seen if turn else first,
            context_roles=(Role.OBSERVATION,) * len(seen) if turn else (Role.CONTEXT,) * len(first),
            action=action,
            response="",
            command="",
            reward=0.0,
            penalty=0.0,
            valid=True,
            observation="",
            next_observation="",
            next_observation_ids=seen,
        )
        for turn in range(num_turns)
    ]
    trajectory = Trajectory(task, 0, 0, tuple(transitions), success=False, terminated=False)
    transitions, columns = flatten([Group(task, (trajectory,))])
    nothing = torch.zeros(num_turns)
    scores = Scores([list(action.logprobs)] * num_turns, nothing, None, None)
    none = nothing > 0
    judgement = Judgement(nothing, None, nothing, none, none, nothing[:1], nothing, none.long())
    # A placebo is other tokens than those that stand in the conversation.
    ids = seen if paw.target == "next" else (1,) * len(seen)
    target = Target(ids, 1.0, (0,) * SCAFFOLD_TOKENS)
    further = replace(target, between=(0,) * (SCAFFOLD_TOKENS + len(response)))
    target = replace(target, later=(further,) * actions_between(config))
    targets = Targets(dict.fromkeys(range(num_turns), target) if predicts else {}, 0.0)
    rows = make_rows(transitions, columns, rollout.context == "append")
    return serialise(rows, scores, judgement, targets, paw.condition == "action")


def memory_of(config: Config, shape: ModelShape) -> Memory:
    """Bytes on the device while `config` trains a model of that shape."""
    rollout = config.rollout
    conversations = rollout.groups * rollout.group_size
    if config.eval.every:
        conversations = max(conversations, min(config.eval.episodes, BATCH))
    work = Work(
        micro_batch=tokens_of(config).micro_batch,
        conversations=min(conversations, rollout.conversations or conversations),
        length=rollout.max_prompt_tokens + rollout.max_response_tokens,
        critic=config.algorithm.name == "ppo",
        reference=config.algorithm.kl_coefficient > 0,
    )
    return bytes_of(shape, precision_in_bytes(config.model), work)
