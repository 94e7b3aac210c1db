"""From a response to the command that the environment gets."""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass
from functools import cache

from paw.style import Style

THINK_TAG = re.compile(
    # <think>, </think >, <thinking effort="low">, <seed:think>, <|END_THINKING|>, ◁/think▷
    r"[<◁]\|?\s*+(?:(?P<end>/|end_(?:of_)?)|(?:start|begin)_(?:of_)?)?\s*+(?:\w++:)?"
    r"(?P<kind>think(?:ing)?|thoughts?|reason(?:ing)?)(?:\s[^<>]*)?(?<!/)\|?[>▷]"
    r"|\[(?P<end_>/?)(?-i:(?P<kind_>THINK))\]"  # small ones are a shop's buttons
    r"|<\|channel\|?>\s*(?P<channel>analysis|commentary|thought)\b(?:<\|message\|>)?"
    r"|(?P<end_channel><\|channel\|>\s*final\b(?:<\|message\|>)?|<channel\|>)",
    re.IGNORECASE,
)
"""The edges of a block of reasoning, as models mark it; `edge_of` reads them."""
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


@dataclass(frozen=True, slots=True)
class Thought:
    """What of a response is reasoning, and what is not."""

    said: tuple[str, ...]
    """The pieces behind the first think block that stand in none; the whole response where there
    is no block."""
    closed: bool
    """There is a block, and it was closed."""
    is_open: bool
    """The last block was not closed: what follows it is reasoning to the end."""


def edge_of(tag: re.Match[str]) -> tuple[str, bool]:
    """What kind of block a `THINK_TAG` is an edge of, and whether it closes it."""
    found = tag.groupdict()
    kind = found["kind"] or found["kind_"] or "channel"
    return kind.lower(), bool(found["end"] or found["end_"] or found["end_channel"])


def read_thought(response: str, opened: bool = False) -> Thought:
    """Find the think blocks of a response, nested ones and those that were cut too.

    A closing tag without an opening one ends a block that began before the response. Inside a block
    tags of other kinds are text.

    Args:
        response: as the policy wrote it.
        opened: the prompt ended inside a block.
    """
    said: list[str] = []
    depth, start, seen, closed = int(opened), 0, opened, False
    inside = ""  # the kind of the block that goes on, where it is known
    for tag in THINK_TAG.finditer(response):
        kind, closes = edge_of(tag)
        if opened and not closes and not response[: tag.start()].strip():
            continue  # the prompt's tag once more
        if depth and kind != (inside or kind):
            continue
        inside = kind
        if closes and not depth:
            said = []
        elif seen and not depth:
            said.append(response[start : tag.start()])
        depth = max(depth - 1, 0) if closes else 1 if kind == "channel" else depth + 1
        closed |= closes and not depth
        start, seen = tag.end(), True
    if not depth:
        said.append(response[start:])
    return Thought(tuple(said), closed, is_open=depth > 0)


def parse_response(
    response: str, response_format: str, style: Style, opened: bool = False
) -> Parsed:
    """Read the command out of a response. Nothing inside a think block is one, closed or not.

    `tags`: the first complete pair of the style's tags behind the reasoning, which the style may
    require; in the paper's format <think>…</think> then <action>…</action>. `command`: all that
    stands behind the reasoning, stripped; the whole response where there is none.

    Args:
        response: as the policy wrote it.
        response_format: "tags" or "command".
        style: of the environment.
        opened: the prompt ended inside a think block.
    """
    thought = read_thought(response, opened)
    if response_format == "command":
        return _parsed("".join(thought.said).strip(), style)
    if style.needs_reasoning and not thought.closed:
        return Parsed("", False)
    found = next(filter(None, map(_pair(style.tags).search, thought.said)), None)
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
    response: str,
    token_ids: Sequence[int],
    header_ids: Set[int] = frozenset(),
    header_text: str = "",
) -> bool:
    """Role confusion: the policy goes on with what only the environment says.

    Args:
        response: the action as text.
        token_ids: [A] the action as sampled.
        header_ids: control tokens of the header before an observation.
        header_text: that header, where it is text and no control token.
    """
    if not header_ids.isdisjoint(token_ids) or (header_text and header_text in response):
        return True
    return OTHERS_TEXT.search(response) is not None


@cache
def _pair(tags: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile(rf"<({'|'.join(tags)})>(.*?)</\1>", re.DOTALL)


def _parsed(command: str, style: Style) -> Parsed:
    return Parsed(command.lower() if style.lower_case else command, bool(command))
