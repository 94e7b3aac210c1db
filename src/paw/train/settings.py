"""Reads the configuration: TOML layers and flags -> a checked `Config`, and back to TOML."""

import ast
import dataclasses
import inspect
import json
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from paw.errors import UserError, nearest
from paw.train import config as tree
from paw.train.config import Config

Table = dict[str, dict[str, Any]]

TABLES: dict[str, type] = {f.name: f.default_factory for f in dataclasses.fields(Config)}  # type: ignore[misc]


def resolve(
    files: Sequence[str | Path], flags: Sequence[str] = (), card: Table | None = None
) -> Config:
    """Overlay `card`, then `files` left to right, then `flags`; check; convert.

    Raises:
        UserError: unknown table or key (with the nearest known one and the file), wrong type, a
            value out of its range, an unreadable file.
    """
    given = parse_flags(flags)
    merged: Table = {}
    for layer in [card or {}, *(read_toml(file) for file in files), given]:
        _overlay(merged, layer)
    return convert(merged)


def read_toml(file: str | Path) -> Table:
    """One TOML file as tables of known keys."""
    try:
        text = Path(file).read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"{file}: no such configuration file") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: cannot read it: {error}") from None
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"{file}: not valid TOML: {error}") from None
    for name, table in data.items():
        _check_table(name, f"{file}: ")
        if not isinstance(table, dict):
            raise UserError(f"{file}: {name} must be a table: write [{name}] and its keys below it")
        for key in table:
            _check_key(name, key, f"{file}: ")
    return data


def parse_flags(flags: Sequence[str]) -> Table:
    """`--table.key value` or `--table.key=value` pairs as tables; values as in TOML, or bare text."""
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
            if not queue:
                raise UserError(f"--{name} needs a value")
            value = queue.pop(0)
        tables.setdefault(table, {})[key] = _flag_value(table, key, value)
    return tables


def convert(tables: Table) -> Config:
    """Tables of known keys as a `Config`, types and ranges checked."""
    data = {name: dict(table) for name, table in tables.items()}
    env = data.get("env", {})
    own = {f.name for f in _fields(tree.EnvConfig)}
    options = dict(env.pop("options", {}))
    for key in [k for k in env if k not in own]:
        options[key] = env.pop(key)
    if options:
        data.setdefault("env", env)["options"] = options
    try:
        config = msgspec.convert(data, Config)
    except msgspec.ValidationError as error:
        what, _, where = str(error).partition(" - at `$.")
        raise UserError(f"{where.rstrip('`') or 'configuration'}: {what}") from None
    check(config)
    return config


def check(config: Config) -> None:
    """Ranges and combinations that types cannot say. Raises UserError."""
    rollout, algorithm, paw, optimizer = (
        config.rollout,
        config.algorithm,
        config.paw,
        config.optimizer,
    )
    positive = {
        "rollout.groups": rollout.groups,
        "rollout.group_size": rollout.group_size,
        "rollout.max_turns": rollout.max_turns,
        "rollout.max_prompt_tokens": rollout.max_prompt_tokens,
        "rollout.max_response_tokens": rollout.max_response_tokens,
        "rollout.step_seconds": rollout.step_seconds,
        "run.checkpoint_every": config.run.checkpoint_every,
        "run.keep_checkpoints": config.run.keep_checkpoints,
        "paw.max_observation_tokens": paw.max_observation_tokens,
        "paw.alternate_every": paw.alternate_every,
        "optimizer.mini_batches": optimizer.mini_batches,
        "optimizer.tokens_per_micro_batch": optimizer.tokens_per_micro_batch,
        "optimizer.max_grad_norm": optimizer.max_grad_norm,
        "eval.episodes": config.eval.episodes,
        "imitate.steps": config.imitate.steps,
        "imitate.batch_episodes": config.imitate.batch_episodes,
    }
    for key, value in positive.items():
        if not value > 0:
            raise UserError(f"{key} = {value}: must be greater than 0")
    not_negative = {
        "run.updates": config.run.updates,
        "rollout.history_turns": rollout.history_turns,
        "rollout.temperature": rollout.temperature,
        "rollout.invalid_penalty": rollout.invalid_penalty,
        "rollout.workers": rollout.workers,
        "paw.coefficient": paw.coefficient,
        "paw.constant": paw.constant,
        "algorithm.clip_low": algorithm.clip_low,
        "algorithm.clip_high": algorithm.clip_high,
        "algorithm.kl_coefficient": algorithm.kl_coefficient,
        "optimizer.learning_rate": optimizer.learning_rate,
        "optimizer.weight_decay": optimizer.weight_decay,
        "optimizer.warmup_steps": optimizer.warmup_steps,
        "eval.every": config.eval.every,
        "eval.temperature": config.eval.temperature,
    }
    for key, value in not_negative.items():
        if not value >= 0:
            raise UserError(f"{key} = {value}: must not be negative")
    shares = {
        "paw.selection_fraction": paw.selection_fraction,
        "paw.probability_cap": paw.probability_cap,
        "algorithm.discount": algorithm.discount,
        "algorithm.gae_discount": algorithm.gae_discount,
        "algorithm.gae_lambda": algorithm.gae_lambda,
    }
    for key, value in shares.items():
        if not 0 <= value <= 1:
            raise UserError(f"{key} = {value}: must lie between 0 and 1")
    if rollout.temperature == 0:
        raise UserError("rollout.temperature = 0: training needs sampling; use 1.0")
    if optimizer.mini_batches > rollout.groups * rollout.group_size:
        raise UserError(
            f"optimizer.mini_batches = {optimizer.mini_batches}: more than the "
            f"{rollout.groups * rollout.group_size} trajectories of an update"
        )
    if paw.weight == "matched_constant" and not paw.match:
        raise UserError('paw.weight = "matched_constant" needs paw.match = RUN, the adaptive run')
    if rollout.sampler == "vllm" and algorithm.old_logprobs == "rollout" and paw.entropy == "full":
        raise UserError(
            'rollout.sampler = "vllm" returns no full-distribution entropy: set '
            'algorithm.old_logprobs = "score" or paw.entropy = "sampled"'
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
            lines.append(f"{key} = {_toml_value(value)}")
        lines.append("")
    return "\n".join(lines)


def changes(old: Config, new: Config, ignore: Iterable[str]) -> list[str]:
    """`table.key: old -> new` for every key that differs, but for those in `ignore`."""
    before, after = dataclasses.asdict(old), dataclasses.asdict(new)
    return [
        f"{table}.{key}: {before[table][key]!r} -> {value!r}"
        for table, keys in after.items()
        for key, value in keys.items()
        if f"{table}.{key}" not in ignore and before[table][key] != value
    ]


def flag_names() -> list[str]:
    """Every `--table.key`."""
    return [f"--{t}.{f.name}" for t, kind in TABLES.items() for f in _fields(kind)]


def describe(tables: Sequence[str] = ()) -> str:
    """Every key of `tables` (default: all) with its default and meaning, for `paw keys`."""
    lines = []
    for name in tables:
        _check_table(name, "keys ")
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
    return "\n".join(lines)


def _overlay(base: Table, layer: Mapping[str, Mapping[str, Any]]) -> None:
    for name, table in layer.items():
        base.setdefault(name, {}).update(table)


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
        parsed = tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        parsed = value
    if kinds.get(key) is float and isinstance(parsed, int) and not isinstance(parsed, bool):
        return float(parsed)
    return parsed


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        return "[" + ", ".join(_toml_value(v) for v in value) + "]"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k} = {_toml_value(v)}" for k, v in value.items()) + "}"
    return repr(value)


def _field_docs(kind: type) -> dict[str, str]:
    """The string literal under each field of a dataclass."""
    body = ast.parse(inspect.getsource(kind)).body[0].body  # type: ignore[attr-defined]
    docs: dict[str, str] = {}
    for line, following in zip(body, body[1:], strict=False):
        if (
            isinstance(line, ast.AnnAssign)
            and isinstance(following, ast.Expr)
            and isinstance(following.value, ast.Constant)
        ):
            docs[line.target.id] = following.value.value  # type: ignore[union-attr]
    return docs
