"""What a chat endpoint answered: the text of a response, how it ended, what it used."""

import json
import re
from dataclasses import dataclass
from typing import Any

CUT = re.compile("length|max_|limit|context|incomplete")
"""In the reason for which a response ended at the limit of its tokens, as servers call it."""
FILTERED = ("content_filter", "safety", "refusal", "prohibited_content", "recitation")
"""Reasons for which a server or model stopped a response for what stands in it."""
REASONING_PARTS = ("thinking", "reasoning")


class Passing(Exception):
    """Worth another try. `pause`: seconds that the endpoint asked for, if it did."""

    def __init__(self, reason: str, pause: float | None = None, reached: bool = True) -> None:
        super().__init__(reason)
        self.pause = pause
        self.reached = reached


@dataclass(frozen=True, slots=True)
class Reply:
    """One response of the model."""

    text: str
    """Where the model refused in a field of its own, what it said there."""
    reasoning: str = ""
    """What the server took out of the text as the model's own reasoning, if it does that."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    counted: bool = True
    """False where the answer said nothing of the tokens used."""
    cut: bool = False
    """It ended at the limit of its tokens, reasoning included."""
    filtered: bool = False
    """The model refused, or a filter stopped it."""
    left_out: tuple[str, ...] = ()
    """Parameters that the endpoint refused, so that it was asked without them."""


def read_reply(answer: bytes, left_out: tuple[str, ...] = ()) -> Reply:
    """Raises Passing for an answer that is not in the protocol."""
    try:
        data = json.loads(answer)
    except (ValueError, RecursionError):
        raise Passing("the answer is no JSON") from None
    data = data if isinstance(data, dict) else {}
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices:
        raise Passing("the answer has no choices" + ("" if "error" not in data else ": an error"))
    choice = choices[0] if isinstance(choices[0], dict) else {}
    message = choice.get("message")
    if not isinstance(message, dict):
        raise Passing("the answer has no message")
    usage = data.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (c if isinstance(c, int) and c >= 0 else 0 for c in counts)
    refusal, ended = message.get("refusal"), str(choice.get("finish_reason")).lower()
    text, thought = _text(message.get("content"))
    apart = [message.get(name) for name in ("reasoning_content", *REASONING_PARTS)]
    apart = next((x for x in apart if x and isinstance(x, str | list | dict)), None)
    return Reply(
        text or (_clean(refusal) if isinstance(refusal, str) else ""),
        "".join(_text(apart)) or thought,
        prompt,
        completion,
        counted=all(isinstance(c, int) for c in counts),
        cut=CUT.search(ended) is not None,
        filtered=ended in FILTERED or bool(refusal),
        left_out=left_out,
    )


def _text(content: Any) -> tuple[str, str]:
    """Text and reasoning of a message's content: a string, a list of parts, or nothing."""
    if content is None:
        return "", ""
    if isinstance(content, str):
        return _clean(content), ""
    if not isinstance(content, list | dict):
        raise Passing("the message is no text")
    text, reasoning = "", ""
    for part in content if isinstance(content, list) else [content]:
        thinks = isinstance(part, dict) and (
            part.get("type") in REASONING_PARTS or part.get("thought") is True
        )
        if thinks:
            inner = next((part[k] for k in ("text", *REASONING_PARTS) if part.get(k)), None)
            reasoning += "".join(_text(inner))
        elif isinstance(part, dict):
            said = part.get("text") or part.get("refusal")
            text += _clean(said) if isinstance(said, str) else ""
        elif isinstance(part, str):
            text += _clean(part)
    return text, reasoning


def _clean(text: str) -> str:
    """Lone surrogates are replaced."""
    return text.encode("utf-8", "replace").decode()
