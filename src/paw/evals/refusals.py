"""What a chat endpoint's refusal means: which parameter it does not take, and what it says."""

import json
import re
from collections.abc import Iterator
from typing import Any

CODES = ("unsupported_", "unknown_", "unrecognized_", "unexpected_")
"""How the `code` of a refusal begins that is about a parameter's being there at all, or about any
value of it but the default."""
CONTENT_FILTER = re.compile(r"content_filter|ResponsibleAIPolicyViolation|content management pol")
"""In the refusal of a prompt for what stands in it (Azure)."""

_NEAR = r"[^.;{}]{0,80}?"
_REFUSING = "|".join(
    (
        r"(?:\bnot|n't|\bcannot(?: be)?) (?:\w+ )?(?:support|permit|allow|recogni|accept|available"
        r"|known|specif|set\b|modif|chang|configur|adjust)\w*",
        r"not (?:a )?valid (?:param|arg|field|option|key|prop)\w*",
        r"unsupported|unrecogni[sz]ed|unknown|unexpected|extraneous|deprecated|forbidden",
        r"extra (?:inputs|fields)|only supports?",
    )
)
_ONE_VALUE = (
    r"only (?:be )?(?:set to|the default|-?[\d.]+ (?:is|are) (?:allow|support|permit|accept))"
)
_RANGE = re.compile(
    r"\b(?:between|at (?:most|least)|up to|(?:less|greater|more|larger) than|range|exceed\w*"
    r"|maximum|minimum|too (?:large|small|high|low|long|many)|must be)\b|<=|>=",
    re.IGNORECASE,
)
"""A value that is out of bounds: the parameter itself is known."""


def refuses(text: str, name: str) -> bool:
    """Does the body of a refusal say that parameter `name` is not taken, or only at its default?

    Known are the wordings of OpenAI, Azure, Anthropic, Google, Mistral, Groq and Moonshot, of
    LiteLLM and OpenRouter, and of vLLM, SGLang, llama.cpp and TGI. A value that is out of range
    is no such refusal: it is the asker's mistake.
    """
    for found in _objects(text):
        place, code = str(found.get("param")), str(found.get("code"))
        if place.rpartition(".")[2] == name and code.startswith(CODES):
            return True
    plain = text.replace("\\", "").replace("extra_forbidden", "extra fields")
    word = rf"(?<!\w){re.escape(name)}(?!\w)"
    before = f"(?:{_REFUSING}){_NEAR}{word}|only {word}"
    behind = f"{word}{_NEAR}(?:{_REFUSING}|{_ONE_VALUE})"
    found = re.search(f"{before}|{behind}", plain, re.IGNORECASE)
    return found is not None and not _RANGE.search(plain)


def said(text: str) -> str:
    """What an error body says, in one short line."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        data = text
    data = data[0] if isinstance(data, list) and len(data) == 1 else data
    for key in ("error", "message", "detail"):
        if isinstance(data, dict) and data.get(key):
            data = data[key]
    shown = data if isinstance(data, str) else json.dumps(data) if data else ""
    shown = " ".join(shown.split())
    return shown if len(shown) <= 300 else shown[:300] + " …"


def _objects(text: str) -> Iterator[dict[str, Any]]:
    """Every JSON object in a body, those in strings of it too (a gateway quotes its provider)."""
    try:
        queue: list[Any] = [json.loads(text)]
    except (ValueError, RecursionError):
        return
    while queue:
        value = queue.pop()
        if isinstance(value, dict):
            yield value
            queue += value.values()
        elif isinstance(value, list):
            queue += value
        elif isinstance(value, str) and value.lstrip().startswith(("{", "[")):
            yield from _objects(value)
