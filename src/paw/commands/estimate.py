"""How many tokens an update takes, from the configuration alone, and what they take of memory.

    N = groups x group_size trajectories, T = max_turns, P, A, O = the limits of prompt, response
    and target tokens

Nothing is loaded or run. Tokens are upper bounds: every turn played, every limit reached. The bytes
are `paw.model.memory`'s.
"""

import math
from dataclasses import dataclass

from paw.config.tree import Config
from paw.model.memory import MOST_TOKENS, Memory, ModelShape, Work, bytes_of
from paw.rollout.fit import BATCH, precision_in_bytes

SCAFFOLD_TOKENS = 16
"""Allowance for the template's tokens between an action and the target behind it (Qwen: 5)."""


@dataclass(frozen=True, slots=True)
class Tokens:
    """Upper bounds for one update."""

    read: int
    """Prompt tokens that the sampler computes"""
    sampled: int
    trained: int
    """Tokens of all rows that the learner passes through, targets included"""
    predicted: int
    """Those of them that are there for the prediction alone"""
    micro_batch: int
    """Tokens of a forward and backward pass whose rows reach their limits"""


def tokens_of(config: Config) -> Tokens:
    """Upper bounds of an update's tokens.

    `window`: N T rows of P + A tokens; each of the ceil(alpha N T) selected transitions (Eq. 4)
    appends at most O. `append`: N rows of P + A (a longer conversation ends), in which the targets
    stand already; only the last one of each is appended. A target that cannot stand behind its
    action (`paw.condition = "no_action"`; placebos in `append`) makes a row of its own.
    """
    rollout, paw = config.rollout, config.paw
    num = rollout.groups * rollout.group_size
    turns = num * rollout.max_turns
    prompt, response = rollout.max_prompt_tokens, rollout.max_response_tokens
    length, target = prompt + response, SCAFFOLD_TOKENS + paw.max_observation_tokens
    append = rollout.context == "append"
    rows = num if append else turns
    predicts = paw.enabled and paw.coefficient > 0 and paw.selection_fraction > 0
    share = 1.0 if paw.select == "all" else paw.selection_fraction
    selected = math.ceil(share * turns - 1e-9) if predicts else 0
    alone = paw.condition == "no_action" or (append and paw.target != "next")
    appended = 0 if paw.condition == "no_action" else min(selected, rows)
    own_row = (prompt if paw.condition == "no_action" else length) + target
    predicted = appended * target + (selected * own_row if alone else 0)
    trained = rows * length + predicted
    allowed = config.optimizer.tokens_per_micro_batch or MOST_TOKENS
    fitting = max(allowed // length, 1)
    micro_batch = max(fitting * length, min(allowed, trained))
    if appended:  # micro-batches are cut by the rows' base tokens
        micro_batch += fitting * target
    if alone:
        micro_batch = max(micro_batch, own_row)
    # A mini-batch holds this many rows at most, and never more than all of them together.
    of_mini_batch = math.ceil(rows / config.optimizer.mini_batches) * (length + target * predicts)
    return Tokens(
        read=num * prompt if append else turns * prompt,
        sampled=num * min(rollout.max_turns * response, length) if append else turns * response,
        trained=trained,
        predicted=predicted,
        micro_batch=micro_batch if alone else min(micro_batch, of_mini_batch),
    )


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
