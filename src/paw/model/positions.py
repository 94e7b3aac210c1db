"""How long a sequence may be, so that a token's position means the same whatever stands beside it.

Learned positions end with their table. Some rotary embeddings (`longrope`, `dynamic`) turn with the
longest sequence of a forward call: a long row would change the short ones in its pack, and keys in
the sampler's cache were computed before. Up to the length at which they change they are exact;
beyond it a model is refused before a run begins, never when a long row comes.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from paw.errors import UserError

FARTHEST = 2**24
"""Tokens beyond which nobody asks whether a rotary embedding changes."""


@dataclass(frozen=True, slots=True)
class Positions:
    """What a model says of lengths, in tokens."""

    made_for: int | None = None
    """Longest sequence in its training; it computes longer ones all the same"""
    limit: int | None = None
    """Longest sequence that it can compute, or compute exactly; None: any"""
    reason: str = ""
    """Why there is a limit"""


def positions_of(decoder: Any) -> Positions:
    """The lengths of a decoder; its weights may be on `meta`."""
    config = decoder.config.get_text_config(decoder=True)
    made_for = getattr(config, "max_position_embeddings", None)
    rotary = list(_rotary_embeddings(decoder))
    if not rotary:
        return Positions(made_for, made_for, f"it has {made_for} positions" if made_for else "")
    limits = {_first_change(module): module for module in rotary}
    limit = min(limits)
    if limit > FARTHEST:
        return Positions(made_for)
    name = limits[limit].rope_type
    kind = name if isinstance(name, str) else ", ".join(sorted(set(name.values())))
    return Positions(
        made_for,
        limit,
        f"beyond {limit} its rotary embedding ({kind}) turns all tokens by the longest sequence of "
        "a batch",
    )


def check_length(positions: Positions, length: int, what: str) -> None:
    """Hold the longest sequence of a run, `what` in words, against the model's positions.

    Raises:
        UserError: the model cannot compute it, or not exactly.
    """
    if positions.limit is not None and length > positions.limit:
        raise UserError(
            f"{what} = {length} tokens, of which the model reads at most {positions.limit}: "
            f"{positions.reason}; shorten that, or choose another model"
        )


def _rotary_embeddings(decoder: Any) -> Iterator[Any]:
    for module in decoder.modules():
        if any(name.endswith("inv_freq") for name, _ in module.named_buffers(recurse=False)):
            yield module


def _first_change(module: nn.Module) -> int:
    """The longest sequence that leaves the embeddings of its first tokens as they are."""
    # A new one: of real numbers where the model's are on `meta`, and with no history.
    fresh: Any = type(module)(module.config)  # type: ignore[operator]
    kinds = list(fresh.rope_type) if isinstance(getattr(fresh, "rope_type", ""), dict) else [None]
    low, high = 4, FARTHEST + 1
    if all(_same(fresh, kind, high) for kind in kinds):
        return high
    while high - low > 1:
        middle = (low + high) // 2
        if all(_same(fresh, kind, middle) for kind in kinds):
            low = middle
        else:
            high = middle
    return low


def _same(rotary: Any, kind: str | None, length: int) -> bool:
    """Are the first tokens of a sequence of `length` embedded as those of a short one?"""
    few = torch.arange(4)
    alone = _embed(rotary, few, kind)
    beside = _embed(rotary, torch.cat((few[:3], few.new_tensor([length - 1]))), kind)
    return all(
        torch.equal(a[..., :3, :], b[..., :3, :]) for a, b in zip(alone, beside, strict=True)
    )


@torch.no_grad()
def _embed(rotary: Any, positions: Tensor, kind: str | None) -> tuple[Tensor, ...]:
    """cos and sin (of some models one complex tensor), [..., T, d]."""
    named = {} if kind is None else {"layer_type": kind}
    # Models of images and text have three coordinates a token: equal ones for text.
    axes = 3 if hasattr(rotary, "mrope_section") else 0
    position_ids = positions.expand(3, 1, -1) if axes else positions[None]
    found = rotary(torch.zeros(1), position_ids, **named)
    return found if isinstance(found, tuple) else (found,)
