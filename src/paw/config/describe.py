"""The configuration told: `paw keys`, and where the values of a run come from."""

import ast
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Sequence

from paw.config.parse import check_table
from paw.config.presets import PRESETS
from paw.config.read import Resolved
from paw.config.tree import Config, Only
from paw.config.words import (
    TABLES,
    annotation,
    beside,
    condition,
    keys_of,
    number,
    shown_range,
    toml_value,
)

CARD_NOTE = """
Defaults are the paper's. An environment's protocol and a policy's card (paw.toml beside its
weights) may set others: the shipped household is trained for 80 updates at a learning rate of
3e-4."""

SHORT = 40
"""Longest value that is told whole, in letters."""


def describe(tables: Sequence[str] = ()) -> str:
    """Every key of `tables` (default: all) with default, range and meaning, for `paw keys`.

    Raises:
        UserError: no such table.
    """
    for name in tables:
        check_table(name, "keys ")
    lines = []
    for name in tables or TABLES:
        lines.append(f"[{name}]")
        docs = field_docs(TABLES[name])
        for f in dataclasses.fields(TABLES[name]):
            default = f.default if f.default is not dataclasses.MISSING else {}
            value = "" if default is None else f" = {toml_value(default)}"
            allowed = shown_range(annotation(name, f.name))
            lines.append(f"  {f.name}{value}" + (f"    ({allowed})" if allowed else ""))
            text = " ".join([*docs.get(f.name, "").split(), *_besides(name, f.name)])
            lines += textwrap.wrap(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join([*lines, CARD_NOTE])


def _besides(table: str, key: str) -> list[str]:
    """Other defaults, and what the key needs to count."""
    told = [
        f"For {what}: {toml_value(preset[table][key])}."
        for what, preset in PRESETS.items()
        if key in preset.get(table, {})
    ]
    needs = [o for o in beside(table, key, Only) if o.key != f"{table}.{key}"]
    return told + [f"Counts only {condition(o)}." for o in needs if o.key != "paw.enabled"]


def origins(resolved: Resolved) -> list[str]:
    """What was taken from where, a text for each layer; only what differs from the defaults."""
    told: dict[str, list[str]] = {layer.name: [] for layer in resolved.layers}
    values, usual = resolved.values, Resolved(Config(), (), {}).values
    for key, layer in resolved.origin.items():
        known = not key.startswith("env.") or key[4:] in keys_of("env")
        if key != "env.options" and not (known and values[key] == usual[key]):
            told[layer.name].append(f"{key} = {_short(values[key])}")
    return [
        # No line ends within a key and its value.
        textwrap.fill(
            f"{name}: " + ", ".join(value.replace(" ", "\0") for value in values),
            88, subsequent_indent="    ", break_long_words=False, break_on_hyphens=False,
        ).replace("\0", " ")
        for name, values in told.items() if values
    ]  # fmt: skip


def _short(value: object) -> str:
    """A value, or how much there is of it."""
    text = f"{value:g}" if isinstance(value, float) else toml_value(value)
    if isinstance(value, (tuple, list, dict)) and len(text) > SHORT:
        return f"({number(len(value))} values)"
    return text


def field_docs(kind: type) -> dict[str, str]:
    """The string literal under each field of a dataclass."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    docs: dict[str, str] = {}
    for line, following in itertools.pairwise(body):
        if (
            isinstance(line, ast.AnnAssign)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[line.target.id] = following.value.value  # type: ignore[union-attr]
    return docs
