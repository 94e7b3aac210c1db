"""The turns of TRL's rows: which tokens are actions, and which are the environment's text. Pure."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

PROBES = ("0 a", "Z\n9")
"""Contents of a tool message that begin and end otherwise."""


@dataclass(frozen=True, slots=True)
class Turn:
    """A transition within a completion."""

    start: int
    """First token of the action"""
    end: int
    """One past its last"""
    stop: int
    """One past the last token of what follows it, template scaffold included; `end`: nothing"""
    target: tuple[int, ...]
    """[O] positions of o_{t+1}'s own tokens; () where there is none"""


def turns_of(
    model_mask: Sequence[int],
    token_ids: Sequence[int],
    spans: dict[tuple[int, ...], tuple[int, ...]],
    observation_mask: Sequence[float] | None = None,
) -> list[Turn]:
    """The turns of one row: an action, and the run of tokens behind it that is not the model's.

    Args:
        model_mask: [C] 1 for tokens of the model, 0 for others.
        token_ids: [C].
        spans: positions of the environment's text within a run, by the tokens of the run.
        observation_mask: [C] 1 for the environment's text, where a `rollout_func` says it.

    Without either, all of a run counts as the environment's text. A run at the beginning is read
    only: no action is before it.
    """
    turns: list[Turn] = []
    position = 0
    for is_model, group in groupby(model_mask):
        start, position = position, position + len(list(group))
        if is_model:
            turns.append(Turn(start, position, position, ()))
        elif turns:
            places = range(start, position)
            if observation_mask is not None:
                target = tuple(p for p in places if observation_mask[p])
            else:
                run = tuple(token_ids[start:position])
                target = tuple(start + p for p in spans.get(run, range(len(run))))
            turns[-1] = Turn(turns[-1].start, turns[-1].end, position, target)
    return turns


def text_positions(
    messages: Sequence[dict[str, Any]],
    render: Callable[[list[dict[str, Any]]], Sequence[int]],
    notices: Sequence[str] = (),
) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The tokens of some tool messages, and which of them are the messages' own text.

    Each message is rendered with two other contents: what all three begin and end with is the
    template's. A token that holds both counts as text.

    Args:
        messages: as TRL gives them.
        render: messages -> tokens.
        notices: contents that no environment said.

    Returns:
        (token ids [S], positions).
    """
    ids = tuple(render(list(messages)))
    found: list[int] = []
    for i, message in enumerate(messages):
        content = message["content"]
        if not isinstance(content, str) or not content or content in notices:
            continue  # images, or nothing said
        others = [
            tuple(render([*messages[:i], {**message, "content": probe}, *messages[i + 1 :]]))
            for probe in PROBES
        ]
        head = _common(ids, *others)
        tail = _common(ids[::-1], *(other[::-1] for other in others))
        found += range(head, len(ids) - tail)
    return ids, tuple(found)


def _common(*sequences: Sequence[int]) -> int:
    """Length of what all begin with."""
    for i, column in enumerate(zip(*sequences, strict=False)):
        if any(token != column[0] for token in column):
            return i
    return min(map(len, sequences))
