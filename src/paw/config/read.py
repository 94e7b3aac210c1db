"""Reads the configuration: layers and flags -> a checked `Config`, and back to TOML."""

import dataclasses
import functools
import re
import typing
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from paw.config.parse import Table, check_key, check_table, parse_flags, read_toml
from paw.config.presets import NEW_MODEL, PRESETS, trained
from paw.config.tree import Config, MayChange, Only
from paw.config.words import (
    TABLES,
    annotation,
    beside,
    broken_rule,
    condition,
    keys_of,
    near,
    plain,
    shown,
    toml_key,
    toml_value,
    wanted,
)
from paw.errors import UserError

CHANGEABLE = frozenset(
    f"{table}.{key}" for table in TABLES for key in keys_of(table) if beside(table, key, MayChange)
)
"""Keys that a run which goes on may change."""

IMITATION_CHANGEABLE = frozenset(
    f"{table}.{key}"
    for table in TABLES
    for key in keys_of(table)
    if table in ("algorithm", "paw", "optimizer") or beside(table, key, MayChange, own=True)
) - {"paw.max_observation_tokens", "optimizer.tokens_per_micro_batch"}
"""Keys that an imitation which goes on may change: what it learns does not depend on them."""

FLAGS = "flags"


class BadValue(UserError):
    """A value of the wrong type or out of range; `key` is its `table.key`."""

    def __init__(self, key: str, message: str):
        super().__init__(message)
        self.key = key


@dataclass(frozen=True)
class Layer:
    """Some keys, and where they come from."""

    name: str
    table: Mapping[str, Mapping[str, Any]]
    by_hand: bool = False
    """A file or the flags: the user means these keys for this very run."""

    @property
    def where(self) -> str:
        """What stands before a key in a message."""
        return "--" if self.name == FLAGS else f"{self.name}: "


@dataclass(frozen=True)
class Resolved:
    """A configuration, and where its values come from."""

    config: Config
    layers: tuple[Layer, ...]
    """In their order; a later one wins. What none says is at the tree's own default."""
    card: Table
    """The whole card of the policy, what does not hold here included."""

    @functools.cached_property
    def origin(self) -> dict[str, Layer]:
        """`table.key` -> the layer that said it last, in the order of the tree."""
        said = {f"{t}.{key}": x for x in self.layers for t, keys in x.table.items() for key in keys}
        order = [*self.values, *said]
        return {key: said[key] for key in dict.fromkeys(order) if key in said}

    @functools.cached_property
    def values(self) -> dict[str, Any]:
        """`table.key` -> its value, an environment's options among them."""
        return flat(self.config)

    def given(self, *keys: str) -> bool:
        """Is any of these keys in a file or a flag?"""
        return any(key in self.origin and self.origin[key].by_hand for key in keys)


def resolve(
    files: Sequence[str | Path], flags: Sequence[str] = (), card: Table | None = None
) -> Config:
    """The configuration of `overlay`, without the protocols of environments."""
    return overlay(files, flags, card).config


def overlay(
    files: Sequence[str | Path],
    flags: Sequence[str] = (),
    card: Table | None = None,
    protocol: Callable[[str], Mapping[str, Mapping[str, Any]]] = lambda env: {},
    counts: Callable[[str], bool] = lambda key: True,
    on_top: Layer | None = None,
) -> Resolved:
    """Overlay protocol, preset, card, `files` left to right, `flags`, `on_top`; check; convert.

    Args:
        files: TOML files.
        flags: `--table.key value`.
        card: of the policy that training starts from.
        protocol: how an environment's benchmark is played, by its name.
        counts: which `table.key` of the files is taken: a recipe may say more than one command
            asks; what it does not ask is not even checked, but for its name.
        on_top: keys that win over all others.

    Raises:
        UserError: unknown table or key (with the nearest known one and the file), wrong type, a
            value out of its range, an unreadable file.
    """
    given = [Layer(str(file), only(counts, read_toml(file)), by_hand=True) for file in files]
    given.append(Layer(FLAGS, parse_flags(flags), by_hand=True))
    given += [] if on_top is None else [on_top]
    card = card or {}
    last = _merged([Layer("", card), *given])
    name, what = last.get("env", {}).get("name", Config().env.name), trained(last)
    rules = protocol(name) if isinstance(name, str) else {}
    for table, keys in rules.items():
        check_table(table, f"protocol of {name}: ")
        for key in keys:
            check_key(table, key, f"protocol of {name}: ")
    below = [Layer(f"protocol of {name}", rules)]
    below += [Layer(f"preset for {what}", PRESETS[what])] if what else []
    layers = (*below, Layer("card", _fitting(card, name, rules, what)), *given)
    try:
        return Resolved(convert(_merged(layers)), layers, card)
    except BadValue as error:
        table, _, key = error.key.partition(".")
        where = next((x.where for x in reversed(layers) if key in x.table.get(table, {})), "")
        raise UserError(f"{where}{error}") from None


def only(
    counts: Callable[[str], bool], table: Mapping[str, Mapping[str, Any]]
) -> dict[str, dict[str, Any]]:
    """The keys of `table` that count."""
    return {
        name: {key: value for key, value in keys.items() if counts(f"{name}.{key}")}
        for name, keys in table.items()
    }


def _merged(layers: Iterable[Layer]) -> Table:
    merged: Table = {}
    for layer in layers:
        for table, keys in layer.table.items():
            merged.setdefault(table, {}).update(keys)
    return merged


def _fitting(
    card: Table, env: str, protocol: Mapping[str, Iterable[str]], what: str | None
) -> Table:
    """What of a card holds here: what to play on and how long is of the environment it names,
    learning rates are of what it says was trained, and a new model's environment has no card."""
    leave: set[tuple[str, str]] = set()
    if card.get("env", {}).get("name") != env:
        if what == NEW_MODEL:
            return {}
        leave |= {(table, key) for table in ("env", "run") for key in card.get(table, {})}
        leave |= {("eval", key) for key in ("split", "episodes", "max_turns")}
        leave |= {(table, key) for table, keys in protocol.items() for key in keys}
    if "lora_rank" in card.get("model", {}) and what != trained({"model": card["model"]}):
        leave |= {("optimizer", "learning_rate"), ("imitate", "learning_rate")}
    return {
        table: {key: value for key, value in keys.items() if (table, key) not in leave}
        for table, keys in card.items()
    }


def ignored(resolved: Resolved) -> list[str]:
    """What is given in a file or a flag and changes nothing, as another key's value makes it
    meaningless: one line each."""
    lines, values, usual = [], flat(resolved.config), flat(Config())
    for key, layer in resolved.origin.items():
        table, _, name = key.partition(".")
        if not layer.by_hand or name not in keys_of(table) or values[key] == usual[key]:
            continue
        for only in beside(table, name, Only):
            if only.key != key and values[only.key] not in only.values:
                lines.append(
                    f"{layer.where}{key} = {shown(values[key])} changes nothing that is learned: "
                    f"it counts only {condition(only)}"
                )
                break
    return lines


def convert(tables: Table) -> Config:
    """Tables of known keys as a `Config`, types and ranges checked. Raises BadValue."""
    data = {name: dict(table) for name, table in tables.items()}
    for name, table in data.items():
        for key, value in table.items():
            if isinstance(value, str) and "\0" in value:  # no file system takes it
                raise BadValue(f"{name}.{key}", f"{name}.{key} = {value!a}: not readable text")
    env = data.get("env", {})
    own = keys_of("env")
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
        raise _bad_value(where[1], where[2], data[where[1]][where[2]]) from None
    check(config)
    return config


def _bad_value(table: str, key: str, value: Any) -> BadValue:
    """Of the wrong type, or out of its range?"""
    kind = plain(table, key)
    try:
        msgspec.convert(value, kind)
        rule = broken_rule(value, annotation(table, key))
    except msgspec.ValidationError:
        rule = f"must be {wanted(kind)}{near(value, kind)}"
    return BadValue(f"{table}.{key}", f"{table}.{key} = {shown(value)}: {rule}")


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
                f"{table}.{key} = {shown(value)}: must be {wanted(kind)}{near(value, kind)}"
            ) from None
        except TypeError:
            continue  # a type that msgspec does not know


def environment_options(config: Config) -> dict[str, Any]:
    """`env.*` beyond name and split, as the environment's factory takes them."""
    folder = {} if config.env.data_dir is None else {"data_dir": config.env.data_dir}
    return folder | config.env.options


def check(config: Config) -> None:
    """Combinations that no single key can say. Raises BadValue."""
    rollout, paw, imitate = config.rollout, config.paw, config.imitate
    if config.optimizer.mini_batches > rollout.groups * rollout.group_size:
        raise BadValue(
            "optimizer.mini_batches",
            f"optimizer.mini_batches = {config.optimizer.mini_batches}: more than the "
            f"{rollout.groups * rollout.group_size} trajectories of an update",
        )
    if paw.weight == "matched_constant" and not paw.match:
        raise BadValue(
            "paw.weight", 'paw.weight = "matched_constant" needs paw.match = RUN, the adaptive run'
        )
    if paw.horizon > 1 and (paw.target, paw.condition) != ("next", "action"):
        other = "target" if paw.target != "next" else "condition"
        raise BadValue(
            "paw.horizon",
            f"paw.horizon = {paw.horizon}: predicts what really followed the action, so not with "
            f"paw.{other} = {shown(getattr(paw, other))}",
        )
    if imitate.hidden_size % imitate.num_heads or imitate.num_heads % imitate.num_kv_heads:
        raise BadValue(
            "imitate.num_heads",
            f"imitate.num_heads = {imitate.num_heads}: must divide imitate.hidden_size "
            f"({imitate.hidden_size}) and be a multiple of imitate.num_kv_heads "
            f"({imitate.num_kv_heads})",
        )


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
    return f"{toml_key(key)} = {toml_value(value)}"


def changes(old: Config, new: Config, ignore: Iterable[str]) -> list[str]:
    """`table.key: old -> new` for every key that differs, but for those in `ignore`."""
    before, after = flat(old), flat(new)
    return [
        f"{key}: {shown(before.get(key))} -> {shown(after.get(key))}"
        for key in dict.fromkeys([*before, *after])
        if key not in ignore and before.get(key) != after.get(key)
    ]


def flat(config: Config) -> dict[str, Any]:
    """`table.key` -> value, the environment's options among them."""
    return {
        f"{name}.{key}": value
        for name, table in dataclasses.asdict(config).items()
        for key, value in {**table, **table.pop("options", {})}.items()
        if key != "options"
    }
