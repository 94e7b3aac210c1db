"""Reads the configuration: TOML layers and flags -> a checked `Config`, and back to TOML."""

import ast
import collections.abc
import dataclasses
import functools
import inspect
import itertools
import json
import math
import re
import tomllib
import typing
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec

from paw.config import tree
from paw.config.ranges import AT_MOST, NOT_NEGATIVE, POSITIVE, SHARES
from paw.config.tree import Config
from paw.errors import UserError, nearest

Table = dict[str, dict[str, Any]]

CARD_NOTE = """
Defaults are the paper's. A policy's card (paw.toml beside its weights) may set others: the shipped
household is trained for 80 updates at a learning rate of 3e-4."""

WORDS = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    Any: "a value",
}

TABLES: dict[str, type] = {f.name: f.default_factory for f in dataclasses.fields(Config)}  # type: ignore[misc]


class BadValue(UserError):
    """A value of the wrong type or out of range; `key` is its `table.key`."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key = key


def resolve(
    files: Sequence[str | Path], flags: Sequence[str] = (), card: Table | None = None
) -> Config:
    """Overlay `card`, then `files` left to right, then `flags`; check; convert.

    Raises:
        UserError: unknown table or key (with the nearest known one and the file), wrong type, a
            value out of its range, an unreadable file.
    """
    given = [(f"{file}: ", read_toml(file)) for file in files] + [("--", parse_flags(flags))]
    card = {name: dict(table) for name, table in (card or {}).items()}
    names = [layer["env"]["name"] for _, layer in given if "name" in layer.get("env", {})]
    if names and names[-1] != card.get("env", {}).get("name"):
        card.pop("env", None)  # options of another environment, and its split
        card.get("eval", {}).pop("split", None)
    merged: Table = {}
    origin: dict[str, str] = {}
    for where, layer in [("the policy's card: ", card), *given]:
        for name, table in layer.items():
            merged.setdefault(name, {}).update(table)
            origin |= {f"{name}.{key}": where for key in table}
    try:
        return convert(merged)
    except BadValue as error:
        raise UserError(f"{origin.get(error.key, '')}{error}") from None


def read_toml(file: str | Path) -> Table:
    """One TOML file as tables of known keys."""
    try:
        text = Path(file).read_text(encoding="utf-8-sig")  # editors of Windows begin with a mark
    except FileNotFoundError:
        raise UserError(f"{file}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot read it: {error}") from None
    try:
        data = tomllib.loads(text, parse_float=_number)
    except ValueError as error:
        raise UserError(f"{file}: not valid TOML: {error}") from None
    for name, table in data.items():
        _check_table(name, f"{file}: ")
        if not isinstance(table, dict):
            raise UserError(f"{file}: {name} must be a table: write [{name}] and its keys below it")
        for key in table:
            _check_key(name, key, f"{file}: ")
    return data


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
        _check_table(table, "--")
        _check_key(table, key, "--")
        if not equals:
            if not queue or queue[0].startswith("--"):
                raise UserError(f"--{name} needs a value")
            value = queue.pop(0)
        if not value.isprintable():
            raise UserError(f"--{name} {value!a}: not readable text")
        tables.setdefault(table, {})[key] = _flag_value(table, key, value)
    return tables


def convert(tables: Table) -> Config:
    """Tables of known keys as a `Config`, types and ranges checked. Raises BadValue."""
    data = {name: dict(table) for name, table in tables.items()}
    for name, table in data.items():
        for key, value in table.items():
            if isinstance(value, str) and "\0" in value:  # no file system takes it
                raise BadValue(f"{name}.{key}", f"{name}.{key} = {value!a}: not readable text")
    env = data.get("env", {})
    own = {f.name for f in _fields(tree.EnvConfig)}
    options = env.pop("options", {})
    if not isinstance(options, dict):
        raise BadValue("env.options", f"env.options = {options!r}: must be a table")
    options = options | {k: env.pop(k) for k in list(env) if k not in own}
    if options:
        env["options"] = options
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        where = re.search(r"\$\.(\w+)\.(\w+)", str(error))
        if where is None:
            raise UserError(f"configuration: {error}") from None
        raise _wrong_type(where[1], where[2], data[where[1]][where[2]]) from None
    check(config)
    return config


def _wrong_type(table: str, key: str, value: Any) -> BadValue:
    kind = typing.get_type_hints(TABLES[table])[key]
    name = f"{table}.{key}"
    return BadValue(name, f"{name} = {_shown(value)}: must be {_wanted(kind)}{_near(value, kind)}")


def _shown(value: Any) -> str:
    return _toml_value(value) if isinstance(value, (str, bool, int, float, list)) else str(value)


def _wanted(kind: Any) -> str:
    """A type in words."""
    if kind in WORDS:
        return WORDS[kind]
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Literal:
        return "one of " + ", ".join(map(str, parts))
    if origin in (list, tuple, collections.abc.Sequence):
        if origin is tuple and ... not in parts:
            return f"a list of {len(parts)}, each {_wanted(parts[0])}"
        return f"a list, each element {_wanted(parts[0])}"
    if origin is dict:
        return "a table"
    return " or ".join(_wanted(p) for p in parts if p is not type(None)) or str(kind)


def _near(value: Any, kind: Any) -> str:
    choices = typing.get_args(kind) if typing.get_origin(kind) is typing.Literal else ()
    hint = nearest(value, choices) if isinstance(value, str) and choices else ""
    return hint if "did you mean" in hint else ""


def check_options(factory: Callable[..., Any], config: Config) -> None:
    """Types of the environment's own options, by its factory's annotations. Raises UserError."""
    check_types(factory, config.env.options, "env")  # `paw.envs.make` names unknown options


def check_types(function: Callable[..., Any], options: dict[str, Any], table: str) -> None:
    """Types of the options that a function knows, by its annotations. Raises UserError."""
    try:
        hints = typing.get_type_hints(function.__init__ if isinstance(function, type) else function)
    except (NameError, TypeError):
        return  # annotations that cannot be read at run time say nothing
    for key, value, kind in [(k, v, hints[k]) for k, v in options.items() if k in hints]:
        try:
            msgspec.convert(value, kind)
        except msgspec.ValidationError:
            raise UserError(
                f"{table}.{key} = {_shown(value)}: must be {_wanted(kind)}{_near(value, kind)}"
            ) from None
        except TypeError:
            continue  # a type that msgspec does not know


def environment_options(config: Config) -> dict[str, Any]:
    """`env.*` beyond name and split, as the environment's factory takes them."""
    folder = {} if config.env.data_dir is None else {"data_dir": config.env.data_dir}
    return folder | config.env.options


def check(config: Config) -> None:
    """Ranges and combinations that types cannot say. Raises BadValue."""

    def require(keys: Iterable[str], holds: Callable[[Any], bool], rule: str) -> None:
        for key in keys:
            value = functools.reduce(getattr, key.split("."), config)
            for x in value if isinstance(value, tuple) else (value,):
                if x is not None and not holds(x):
                    raise BadValue(key, f"{key} = {_shown(value)}: {rule}")

    numbers = [
        f"{table}.{f.name}"
        for table, kind in TABLES.items()
        for f in _fields(kind)
        if isinstance(functools.reduce(getattr, (table, f.name), config), (float, tuple))
    ]
    require(
        numbers, lambda x: not isinstance(x, float) or math.isfinite(x), "must be a finite number"
    )
    require(POSITIVE, lambda x: x > 0, "must be greater than 0")
    require(NOT_NEGATIVE, lambda x: x >= 0, "must not be negative")
    for key, most in AT_MOST.items():
        require([key], lambda x, most=most: x <= most, f"must be at most {_bound(most)}")
    require(SHARES, lambda x: 0 <= x <= 1, "must lie between 0 and 1")
    require(["optimizer.betas"], lambda x: 0 <= x < 1, "must lie in [0, 1)")
    require(["run.seed"], lambda x: 0 <= x < 2**31, "must lie between 0 and 2147483647")
    rollout, paw, imitate = config.rollout, config.paw, config.imitate
    if rollout.temperature == 0:
        raise BadValue(
            "rollout.temperature", "rollout.temperature = 0: training needs sampling; use 1.0"
        )
    if config.optimizer.mini_batches > rollout.groups * rollout.group_size:
        raise BadValue(
            "optimizer.mini_batches",
            f"optimizer.mini_batches = {config.optimizer.mini_batches}: more than the "
            f"{rollout.groups * rollout.group_size} trajectories of an update",
        )
    if paw.schedule == "alternate" and paw.alternate_every < 2:
        raise BadValue(
            "paw.alternate_every",
            f"paw.alternate_every = {paw.alternate_every}: every update would train the prediction "
            "alone; use 2 or more",
        )
    if paw.weight == "matched_constant" and not paw.match:
        raise BadValue(
            "paw.weight", 'paw.weight = "matched_constant" needs paw.match = RUN, the adaptive run'
        )
    if imitate.hidden_size % imitate.num_heads or imitate.num_heads % imitate.num_kv_heads:
        raise BadValue(
            "imitate.num_heads",
            f"imitate.num_heads = {imitate.num_heads}: must divide imitate.hidden_size "
            f"({imitate.hidden_size}) and be a multiple of imitate.num_kv_heads "
            f"({imitate.num_kv_heads})",
        )


def _bound(value: float) -> str:
    return f"{value:,}" if isinstance(value, int) else f"{value:g}"


def to_toml(config: Config) -> str:
    """The resolved tree as TOML; `resolve` reads it back to an equal tree."""
    lines: list[str] = []
    for name, table in dataclasses.asdict(config).items():
        lines.append(f"[{name}]")
        options = table.pop("options", {})
        for key, value in {**table, **options}.items():
            if value is None:
                continue  # TOML has no null; the default of these keys is None
            lines.append(toml_line(key, value))
        lines.append("")
    return "\n".join(lines)


def toml_line(key: str, value: Any) -> str:
    """`key = value` as TOML."""
    return f"{_toml_key(key)} = {_toml_value(value)}"


def changes(old: Config, new: Config, ignore: Iterable[str]) -> list[str]:
    """`table.key: old -> new` for every key that differs, but for those in `ignore`."""
    before, after = _flat(old), _flat(new)
    return [
        f"{key}: {_shown(before.get(key))} -> {_shown(after.get(key))}"
        for key in dict.fromkeys([*before, *after])
        if key not in ignore and before.get(key) != after.get(key)
    ]


def _flat(config: Config) -> dict[str, Any]:
    """`table.key` -> value, the environment's options among them."""
    return {
        f"{name}.{key}": value
        for name, table in dataclasses.asdict(config).items()
        for key, value in {**table, **table.pop("options", {})}.items()
        if key != "options"
    }


def flag_names() -> list[str]:
    """Every `--table.key`."""
    return [f"--{t}.{f.name}" for t, kind in TABLES.items() for f in _fields(kind)]


def describe(tables: Sequence[str] = ()) -> str:
    """Every key of `tables` (default: all) with its default and meaning, for `paw keys`."""
    for name in tables:
        _check_table(name, "keys ")
    lines = []
    for name, kind in TABLES.items():
        if tables and name not in tables:
            continue
        lines.append(f"[{name}]")
        docs = _field_docs(kind)
        for f in _fields(kind):
            default = f.default if f.default is not dataclasses.MISSING else {}
            shown = "" if default is None else f" = {_toml_value(default)}"
            lines.append(f"  {f.name}{shown}")
            if f.name in docs:
                lines.append(f"      {' '.join(docs[f.name].split())}")
    return "\n".join([*lines, CARD_NOTE])


def _fields(kind: type) -> tuple[dataclasses.Field, ...]:
    return dataclasses.fields(kind)


def _check_table(name: str, where: str) -> None:
    if name not in TABLES:
        raise UserError(f"{where}{name}: no such table{nearest(name, TABLES)}")


def _check_key(table: str, key: str, where: str) -> None:
    known = [f.name for f in _fields(TABLES[table])]
    if key not in known and table != "env":  # the environment checks its own options
        raise UserError(f"{where}{table}.{key}: no such key{nearest(key, known)}")


def _flag_value(table: str, key: str, value: str) -> Any:
    """TOML syntax where it parses, else the bare text: `--env.name alfworld` needs no quotes."""
    kinds = {f.name: f.type for f in _fields(TABLES[table])}
    if kinds.get(key) in (str, str | None):
        return value
    try:
        parsed = tomllib.loads(f"v = {value}", parse_float=_number)["v"]
    except tomllib.TOMLDecodeError:
        parsed = value
    except ValueError as error:
        raise UserError(f"--{table}.{key} {value}: {error}") from None
    if kinds.get(key) is float and isinstance(parsed, int) and not isinstance(parsed, bool):
        return float(parsed)
    return parsed


def _number(text: str) -> float:
    """A TOML float; ValueError for one that would silently become 0."""
    number = float(text)
    if number == 0 and re.search("[1-9]", text.lower().partition("e")[0]):
        raise ValueError(f"{text} is too small for a number and would be 0")
    return number


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    if isinstance(value, dict):
        pairs = (f"{_toml_key(k)} = {_toml_value(v)}" for k, v in value.items())
        return "{" + ", ".join(pairs) + "}"
    return repr(value)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else _toml_value(key)


def _field_docs(kind: type) -> dict[str, str]:
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
