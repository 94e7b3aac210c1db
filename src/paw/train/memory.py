"""Going on with less memory: half the tokens in a pass after the device has run out of it, once."""

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch

from paw.errors import UserError, warn

T = TypeVar("T")


@dataclass(slots=True)
class TokenLimit:
    """Tokens of one forward and backward pass of a run."""

    tokens: int
    halved: bool = False
    """Memory ran out and half is left: `memory/halved` of the metrics."""


def with_less_memory(
    attempt: Callable[[], T], limit: TokenLimit, undo: Callable[[], None], *, may_retry: bool = True
) -> T:
    """What `attempt` returns; if memory runs out, once in a run, it is made again with half of
    `limit.tokens`.

    Args:
        attempt: a mini-batch's gradient and statistics, in passes of `limit.tokens`. It changes
            nothing that `undo` does not take back: the optimizer's step is no part of it.
        limit: halved where that was needed, and so for all that follows.
        may_retry: without it there is no second attempt.
        undo: drops what an attempt that failed halfway has added, so that nothing counts twice.

    Raises:
        UserError: memory ran out again.
    """
    with contextlib.suppress(torch.OutOfMemoryError):
        return attempt()
    # Here nothing holds the failed attempt's tensors any longer, the error's traceback included.
    undo()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    if limit.halved or limit.tokens < 2 or not may_retry:
        raise UserError(
            f"out of memory with {limit.tokens:,} tokens in a forward and backward pass: lower "
            "optimizer.tokens_per_micro_batch, or set model.gradient_checkpointing or "
            'parallel.mode = "shard" with more processes (a run that has begun may change these); '
            "else in a new run rollout.max_prompt_tokens, max_response_tokens or model.lora_rank"
        )
    warn(
        f"out of memory with {limit.tokens:,} tokens in a forward and backward pass: from here on "
        f"{limit.tokens // 2:,}; other bits, the same update up to rounding",
        of_one=True,
    )
    limit.tokens, limit.halved = limit.tokens // 2, True
    return with_less_memory(attempt, limit, undo, may_retry=may_retry)
