"""An evaluation beside those that the run made of itself: the same protocol, and what changed?"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from paw.errors import warn
from paw.runs import read

PROTOCOL = (
    "env", "split", "episodes", "temperature", "max_turns", "context", "history_turns",
    "response_format", "max_prompt_tokens", "max_response_tokens", "validity", "env_options",
)  # fmt: skip
"""What has to agree before two success rates may be compared, beside what `source` says of the
data."""


def print_change(result: dict[str, Any]) -> None:
    """Change of the success rate against the run's newest and first evaluation of this protocol.
    Warns where the run evaluated itself otherwise."""
    own = _own_evaluations(Path(result["model"]))
    if not own:
        return
    here, there = _protocol(result), _protocol(own[-1])
    if differing := [key for key in here | there if here.get(key) != there.get(key)]:
        told = "; ".join(f"{key} {there.get(key)} there, {here.get(key)} here" for key in differing)
        warn(f"the run's own evaluations are of another protocol, not to be compared: {told}")
    for line in changes_since([e for e in own if _protocol(e) == here], result):
        print(line)


def changes_since(own: Sequence[dict[str, Any]], result: dict[str, Any]) -> list[str]:
    """A line for the newest and one for the first of a run's evaluations, oldest first."""
    lines = []
    for number in dict.fromkeys([len(own) - 1, 0]) if own else ():
        update, before = own[number]["update"], own[number]["success_rate"]
        points = 100 * (result["success_rate"] - before)
        lines.append(f"change  {points:+.1f} points from update {update} ({before:.1%})")
    return lines


def _protocol(result: dict[str, Any]) -> dict[str, Any]:
    played = {"episodes": result["num_episodes"] + result["num_failures"]}
    seen = {key: result.get(key) for key in PROTOCOL} | played
    if seen["context"] == "append":
        seen["history_turns"] = None  # shows nothing in this mode
    seen["selection"] = "spread" if result.get("selection") == "spread" else None
    facts = {k: v for k, v in result.get("source", {}).items() if k not in ("name", "split")}
    return seen | {f"source.{key}": value for key, value in facts.items()}


def _own_evaluations(checkpoint: Path) -> list[dict[str, Any]]:
    """Of the run that a checkpoint belongs to, oldest first; none where it belongs to none."""
    return [msgspec.structs.asdict(e) for e in read.evaluations(checkpoint.resolve().parent.parent)]
