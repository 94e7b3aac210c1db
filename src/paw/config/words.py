"""Keys, values, types and ranges of the configuration in words."""

import collections.abc
import dataclasses
import functools
import json
import math
import re
import types
import typing
from collections.abc import Iterator
from typing import Any

import msgspec

from paw.config.tree import Config, Only
from paw.errors import nearest

TABLES: dict[str, type] = {f.name: f.default_factory for f in dataclasses.fields(Config)}  # type: ignore[misc]

NAMES = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Any: "a value",
}


def keys_of(table: str) -> list[str]:
    """The keys of a table, in their order."""
    return [f.name for f in dataclasses.fields(TABLES[table])]


@functools.cache
def _annotations(kind: type) -> dict[str, Any]:
    return typing.get_type_hints(kind, include_extras=True)


def annotation(table: str, key: str) -> Any:
    """The type of a key with what stands beside it."""
    return _annotations(TABLES[table])[key]


@functools.cache
def plain(table: str, key: str) -> Any:
    """The type of a key alone."""
    return typing.get_type_hints(TABLES[table])[key]


def beside(table: str, key: str, mark: type, *, own: bool = False) -> list[Any]:
    """What of type `mark` stands beside the type of a key, or (not for its `own` alone) beside that
    of its whole table."""
    kinds = (() if own else (_annotations(Config)[table],)) + (annotation(table, key),)
    return [m for kind in kinds for m in getattr(kind, "__metadata__", ()) if isinstance(m, mark)]


def wanted(kind: Any) -> str:
    """A type in words."""
    if kind in NAMES:
        return NAMES[kind]
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, parts))
    if origin in (list, tuple, collections.abc.Sequence):
        if origin is tuple and ... not in parts:
            return f"a list of {len(parts)}, each {wanted(parts[0])}"
        return f"a list, each element {wanted(parts[0])}"
    if origin is dict:
        return "a table"
    return " or ".join(wanted(p) for p in parts if p is not type(None)) or str(kind)


def near(value: Any, kind: Any) -> str:
    """`"; did you mean 'x'?"` where the type is a choice and the value nearly one."""
    for part in typing.get_args(kind) if isinstance(value, list) else ():
        if hint := next((h for v in value if (h := near(v, part))), ""):
            return hint
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    hint = nearest(value, choices) if isinstance(value, str) and choices else ""
    return hint if "did you mean" in hint else ""


def _ranges(kind: Any) -> Iterator[msgspec.Meta]:
    """Of a number, or of each element of a list."""
    for part in typing.get_args(kind):
        if typing.get_origin(kind) in (typing.Annotated, typing.Union, types.UnionType, tuple):
            yield from _ranges(part)
    yield from (m for m in getattr(kind, "__metadata__", ()) if isinstance(m, msgspec.Meta))


def broken_rule(value: Any, kind: Any) -> str:
    """The rule of its range that a value of the right type breaks."""
    numbers = value if isinstance(value, (list, tuple)) else [value]
    if not all(math.isfinite(x) for x in numbers):
        return "must be a finite number"
    ranges = list(_ranges(kind))
    reason = next((f": {m.description}" for m in ranges if m.description), "")
    for meta in ranges:
        for x in numbers:
            if meta.gt is not None and not x > meta.gt:
                return f"must be greater than {number(meta.gt)}{reason}"
            if meta.ge is not None and not x >= meta.ge:
                least = "must not be negative" if meta.ge == 0 else None
                return f"{least or f'must be at least {number(meta.ge)}'}{reason}"
            if meta.lt is not None and not x < meta.lt:
                return f"must be less than {number(meta.lt)}{reason}"
            if meta.le is not None and not x <= meta.le:
                return f"must be at most {number(meta.le)}{reason}"
    return f"must be {shown_range(kind)}"


def shown_range(kind: Any) -> str:
    """A key's range or choices, as `paw keys` shows them; empty for one without."""
    if choices := [p for p in _parts(kind) if typing.get_origin(p) is typing.Literal]:
        return " | ".join(map(str, typing.get_args(choices[0])))
    for meta in _ranges(kind):
        low = f"greater than {number(meta.gt)}" if meta.gt is not None else number(meta.ge or 0)
        if meta.lt is not None or meta.le is not None:
            high = number(meta.le) if meta.le is not None else f"less than {number(meta.lt)}"
            return f"{low} to {high}" if meta.gt is None else f"{low}, at most {high}"
    return ""


def condition(only: Only) -> str:
    """`with paw.weight = "constant"`."""
    if only.values == (None,):
        return f"without {only.key}"
    return f"with {only.key} = " + " or ".join(toml_value(v) for v in only.values)


def _parts(kind: Any) -> Iterator[Any]:
    yield kind
    if typing.get_origin(kind) is not typing.Literal:
        for part in typing.get_args(kind):
            yield from _parts(part)


def number(value: float | None) -> str:
    """A bound: 1,000,000 or 1e+30."""
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def shown(value: Any) -> str:
    """A value as a file would hold it."""
    return toml_value(value) if isinstance(value, (str, bool, int, float, list)) else str(value)


def toml_value(value: Any) -> str:
    """A value as TOML."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(toml_value(v) for v in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{toml_key(k)} = {toml_value(v)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    return repr(value)


def toml_key(key: str) -> str:
    """A key as TOML."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else toml_value(key)
