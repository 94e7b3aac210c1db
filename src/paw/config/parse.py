"""TOML files and flags as tables of known keys."""

import re
import tomllib
import typing
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paw.config.words import TABLES, keys_of, plain
from paw.errors import UserError, nearest
from paw.utf8 import utf8

Table = dict[str, dict[str, Any]]


def read_toml(file: str | Path) -> Table:
    """One TOML file as tables of known keys."""
    data = load_toml(file)
    check_tables(data, f"{file}: ")
    return data


def load_toml(file: str | Path) -> dict[str, Any]:
    """What a TOML file says, whatever that is."""
    try:
        text = utf8(Path(file).read_bytes()).decode()
    except FileNotFoundError:
        raise UserError(f"{file}: no such configuration file") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot read it: {error}") from None
    try:
        return tomllib.loads(text, parse_float=_number)
    except ValueError as error:
        raise UserError(f"{file}: not valid TOML: {error}") from None


def check_tables(data: dict[str, Any], where: str) -> None:
    """Raises UserError for a table or key that there is not."""
    for name, table in data.items():
        check_table(name, where)
        if not isinstance(table, dict):
            raise UserError(f"{where}{name} must be a table: write [{name}] and its keys below it")
        for key in table:
            check_key(name, key, where)


def parse_flags(flags: Sequence[str]) -> Table:
    """`--table.key value` or `--table.key=value` as tables; values as in TOML, or bare text."""
    tables: Table = {}
    queue = list(flags)
    while queue:
        flag = queue.pop(0)
        if not flag.startswith("--") or "." not in flag:
            hint = nearest(flag, flag_names()) if flag.startswith("-") else ""
            raise UserError(f"unexpected argument {flag!r}{hint}")
        name, equals, value = flag[2:].partition("=")
        table, _, key = name.partition(".")
        key = key.replace("-", "_")
        check_table(table, "--")
        check_key(table, key, "--")
        if not equals:
            if not queue or queue[0].startswith("--"):
                raise UserError(f"--{name} needs a value")
            value = queue.pop(0)
        if not value.isprintable():
            raise UserError(f"--{name} {value!a}: not readable text")
        tables.setdefault(table, {})[key] = _flag_value(table, key, value)
    return tables


def flag_names() -> list[str]:
    """Every `--table.key`."""
    return [f"--{table}.{key}" for table in TABLES for key in keys_of(table)]


def check_table(name: str, where: str) -> None:
    """Raises UserError for a table that there is not."""
    if name not in TABLES:
        raise UserError(f"{where}{name}: no such table{nearest(name, TABLES)}")


def check_key(table: str, key: str, where: str) -> None:
    """Raises UserError for a key that its table does not have."""
    known = keys_of(table)
    if key not in known and table != "env":  # the environment checks its own options
        raise UserError(f"{where}{table}.{key}: no such key{nearest(key, known)}")


def _flag_value(table: str, key: str, value: str) -> Any:
    """TOML syntax where it parses, else the bare text: `--env.name alfworld` needs no quotes, and
    `--run.track tensorboard,wandb` no brackets."""
    kind = plain(table, key) if key in keys_of(table) else Any
    if kind in (str, str | None):
        return value
    try:
        parsed = _parsed(value)
        if typing.get_origin(kind) is tuple and not isinstance(parsed, list):
            return [_parsed(part.strip()) for part in value.split(",")]
    except ValueError as error:
        raise UserError(f"--{table}.{key} {value}: {error}") from None
    if kind is float and isinstance(parsed, int) and not isinstance(parsed, bool):
        return float(parsed)
    return parsed


def _parsed(text: str) -> Any:
    try:
        return tomllib.loads(f"v = {text}", parse_float=_number)["v"]
    except tomllib.TOMLDecodeError:
        return text


def _number(text: str) -> float:
    """A TOML float; ValueError for one that would silently become 0."""
    number = float(text)
    if number == 0 and re.search("[1-9]", text.lower().partition("e")[0]):
        raise ValueError(f"{text} is too small for a number and would be 0")
    return number
