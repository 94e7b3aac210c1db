"""From a response to the command that the environment gets."""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cache

from paw.style import Style

THINK = re.compile(r"<think>.*?</think>", re.DOTALL)
OTHERS_TEXT = re.compile(
    r"<information>|^\s*(?:Observation|User|Environment)\s*:|^(?:user|tool|observation)\s*$",
    re.MULTILINE,
)


@dataclass(frozen=True, slots=True)
class Parsed:
    """What a response means."""

    command: str
    """For the environment; empty where the response is malformed."""
    well_formed: bool
    """A malformed response is an invalid turn, never an exception."""


def parse_response(response: str, response_format: str, style: Style) -> Parsed:
    """Read the command out of a response.

    `tags`: the first complete pair of the style's tags behind the reasoning, which the style may
    require; in the paper's format <think>…</think> then <action>…</action>. `command`: the whole
    response, stripped.
    """
    if response_format == "command":
        return _parsed(response.strip(), style)
    thought = THINK.search(response)
    if thought is None and style.needs_reasoning:
        return Parsed("", False)
    found = _pair(style.tags).search(response, thought.end() if thought else 0)
    if found is None:
        return Parsed("", False)
    return _parsed(found[0] if style.keeps_tags else found[2].strip(), style)


def write_response(command: str, response_format: str, style: Style) -> str:
    """A response that gives `command`, without a thought: what a demonstration says."""
    if response_format == "command":
        return command
    tag = style.tags[0]
    body = command if style.keeps_tags else f"<{tag}>{command}</{tag}>"
    return f"<think></think>{body}"


def writes_observation(
    response: str, token_ids: Sequence[int], header_ids: Set[int] = frozenset()
) -> bool:
    """Role confusion: the policy goes on with what only the environment says.

    Args:
        response: the action as text.
        token_ids: [A] the action as sampled.
        header_ids: control tokens of the header before an observation.
    """
    return not header_ids.isdisjoint(token_ids) or OTHERS_TEXT.search(response) is not None


@cache
def _pair(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"<({'|'.join(tags)})>(.*?)</\1>", re.DOTALL)


def _parsed(command: str, style: Style) -> Parsed:
    return Parsed(command.lower() if style.lower_case else command, bool(command))
