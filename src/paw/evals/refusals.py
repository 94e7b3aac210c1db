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
        r"(?:\bnot|n't|\bcannot(?: be)?|no longer) (?:\w+ )?(?:support|permit|allow|recogni|accept"
        r"|available|applicable|known|specif|set\b|used?\b|modif|chang|configur|adjust|overrid"
        r"|customi|implement)\w*",
        r"not (?:a )?valid (?:param|arg|field|option|key|prop)\w*",
        r"invalid (?:param|arg|field|option|key|prop)\w*|(?:is|are) invalid (?:for|with)|no such",
        r"unsupported|unrecogni[sz]ed|unknown|unexpected|extraneous|deprecated|forbidden",
        r"immutable|incompatible|disabled|removed?\b|(?:is|are) fixed|instead of|rather than",
        r"extra (?:inputs|fields)|only (?:support|accept)s?",
    )
)
_ONE_VALUE = (
    r"only (?:be )?(?:set to|the default|-?[\d.]+ (?:is|are) (?:allow|support|permit|accept))"
)
_RANGE = re.compile(
    r"\b(?:between|at (?:most|least)|up to|(?:less|greater|more|larger) than|range|exceed\w*"
    r"|maximum|minimum|too (?:large|small|high|low|long|many)|must be|should be|has to be"
    r"|(?:a|an|valid) (?:number|integer|float|string))\b|<=|>=",
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
    plain = re.sub(r"\\+[nrt]", " ", text)  # JSON's line breaks, in strings of strings too
    plain = plain.replace("\\", "").replace("extra_forbidden", "extra fields")
    word = rf"(?<!\w){re.escape(name)}(?!\w)(?:\W{{1,3}}[\d.]*\d)?"  # "temperature=0.4" too
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
