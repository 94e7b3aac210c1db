"""Lists and objects that an export to CSV or Parquet has turned into strings."""

import ast
import re
import warnings
from typing import Any

import msgspec

_STRING = r"""'(?:[^'\\]|\\.)*'|"(?:[^"\\]|\\.)*\""""
_TOKEN = re.compile(rf"({_STRING})((\s*)(?=['\"]))?", re.DOTALL)
"""A string; group 2 where another stands right behind it: NumPy's `['a' 'b']`, which Python would
join."""
_ARRAY = re.compile(r"\barray\((\[[^\[\]]*\])(?:,\s*dtype=\w+)?\)")
_LIKE_A_LIST = re.compile(r"\[\s*['\"].*\]", re.DOTALL)


def unpacked(value: Any) -> Any:
    """The list or object that a string is, in JSON or as Python and NumPy print it; any other
    value, a text that merely begins with a bracket among them, as it is."""
    if not isinstance(value, str):
        return value
    text = value.strip()
    if text[:1] + text[-1:] not in ("[]", "{}") and not _ARRAY.fullmatch(text):
        return value
    try:
        return msgspec.json.decode(text)
    except (msgspec.DecodeError, RecursionError):
        pass
    text = _ARRAY.sub(r"\1", text)
    if any(found[3] == "" for found in _TOKEN.finditer(text)):
        return value  # 'a''b': two, or one with a quote in it?
    try:
        with warnings.catch_warnings(action="ignore"):  # a backslash that escapes nothing
            found = ast.literal_eval(_TOKEN.sub(_with_comma, text))
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value
    return found if isinstance(found, list | dict) else value


def _with_comma(found: re.Match[str]) -> str:
    return found[1] + ("" if found[2] is None else ",")


def looks_like_a_list(text: str) -> bool:
    """A text that is probably a list of strings, though `unpacked` cannot read it."""
    return _LIKE_A_LIST.fullmatch(text.strip()) is not None and unpacked(text) is text
