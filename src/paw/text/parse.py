"""From a response to the command that the environment gets."""

import re
from collections.abc import Sequence, Set
from dataclasses import dataclass

LOWER_CASE = frozenset({"household", "alfworld"})
"""Environments whose commands are lower case throughout (ALFWorld matches them exactly)."""

THINK = re.compile(r"<think>.*?</think>", re.DOTALL)
ACTION = re.compile(r"<action>(.*?)</action>", re.DOTALL)
QUERY = re.compile(r"<(search|answer)>.*?</\1>", re.DOTALL)
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


def parse_response(response: str, response_format: str, environment: str) -> Parsed:
    """Read the command out of a response.

    `tags`, the paper's format: <think>…</think> then <action>…</action>, both required; in
    search-QA <search>…</search> or <answer>…</answer>, reasoning or not. The first complete one
    behind the reasoning counts. `command`: the whole response, stripped.
    """
    if response_format == "command":
        command = response.strip()
        return Parsed(_case(command, environment), bool(command))
    thought = THINK.search(response)
    rest = response[thought.end() :] if thought else response
    if environment == "search_qa":
        query = QUERY.search(rest)
        return Parsed(query.group(0) if query else "", query is not None)
    action = ACTION.search(rest) if thought else None
    command = action.group(1).strip() if action else ""
    return Parsed(_case(command, environment), bool(command))


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


def _case(command: str, environment: str) -> str:
    return command.lower() if environment in LOWER_CASE else command
