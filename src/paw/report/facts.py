"""What a run or an evaluation is, as lines of (what, value). Pure."""

from collections.abc import Iterator, Mapping
from dataclasses import fields
from typing import Any

from paw.config.tree import COEFFICIENTS, Config, PawConfig
from paw.runs.format import EnvironmentRecord, ResultRecord

Facts = tuple[tuple[str, str], ...]
Tables = Mapping[str, Mapping[str, Any]]
"""A configuration as it stands in the file: one of another version may have other keys"""

PREDICTION = ("coefficient", "loss", "probability_cap", "selection_fraction", "weight")
"""Keys of `[paw]` that are always told; the others where they are not the paper's."""
ALSO: dict[type, Any] = {float: int | float, tuple: list}
"""Types that TOML has for ours"""
PACKAGES = ("paw-rl", "torch", "transformers")


def readable(found: Mapping[str, Any]) -> tuple[Tables, list[str]]:
    """Of what a config.toml holds: values of the type that their key has in this version, and the
    names of those of another type. A key that there is not is another version's and stays."""
    usual, tables, wrong = Config(), {}, []
    for name, table in found.items():
        defaults = getattr(usual, name, None)
        if not isinstance(table, Mapping) or defaults is None:
            wrong.append(name)
            continue
        tables[name] = {}
        for key, value in table.items():
            default = getattr(defaults, key, None)
            if default is None or isinstance(value, ALSO.get(type(default), type(default))):
                tables[name][key] = value
            else:
                wrong.append(f"{name}.{key}")
    return tables, wrong


def prediction(tables: Tables) -> PawConfig | None:
    """How the run trains the next observation; None where it does not, or by a loss of another
    version."""
    known = {field.name for field in fields(PawConfig)}
    given = {key: value for key, value in tables.get("paw", {}).items() if key in known}
    if given.get("loss", PawConfig.loss) not in COEFFICIENTS:
        return None
    paw = PawConfig(**given)
    return paw if paw.enabled and paw.coefficient else None


def run_facts(tables: Tables, environment: EnvironmentRecord | None) -> Facts:
    """Of a run directory."""
    return tuple((what, value) for what, value in _run_facts(tables, environment) if value)


def _run_facts(tables: Tables, environment: EnvironmentRecord | None) -> Iterator[tuple[str, str]]:
    env, rollout, optimizer, run = (
        tables.get(name, {}) for name in ("env", "rollout", "optimizer", "run")
    )
    yield "environment", _joined(env.get("name"), env.get("split"))
    yield (
        "model",
        _joined(tables.get("model", {}).get("path"), tables.get("model", {}).get("dtype")),
    )
    yield "algorithm", _joined(tables.get("algorithm", {}).get("name"))
    yield "prediction", _prediction(tables)
    yield "context", _joined(rollout.get("context"), rollout.get("response_format"))
    if {"groups", "group_size", "max_turns"} <= rollout.keys():
        size = f"{rollout['groups']} x {rollout['group_size']} episodes an update"
        yield "episodes", f"{size}, at most {rollout['max_turns']} turns"
    yield "learning rate", _joined(optimizer.get("learning_rate"))
    yield "seed", _joined(run.get("seed"))
    if environment is None:
        return
    yield "commit", environment.commit or ""
    versions = environment.versions
    yield "versions", ", ".join(f"{p} {versions[p]}" for p in PACKAGES if versions.get(p))
    machine = environment.gpu or environment.processor
    yield "machine", _joined(machine, environment.cpus and f"{environment.cpus} cores")
    yield "begun with", "; ".join(map(_start, environment.earlier))
    yield "data", str(environment.data.get("data_dir") or "")
    yield "data digest", str(environment.data.get("listing_sha256") or "")
    yield "command", " ".join(("paw", *environment.command[1:]))


def _start(earlier: Mapping[str, str | None]) -> str:
    machine, torch = earlier.get("gpu") or earlier.get("processor"), earlier.get("torch")
    return _joined(machine, torch and f"torch {torch}", earlier.get("commit"))


def result_facts(record: ResultRecord) -> Facts:
    """Of a file of `paw eval -o`."""
    found = (
        ("environment", _joined(record.env, record.split)),
        ("model", record.model),
        ("episodes", _joined(record.num_episodes, f"at most {record.max_turns} turns")),
        ("temperature", _joined(record.temperature)),
        ("context", _joined(record.context, record.response_format)),
        ("seed", str(record.seed)),
        ("commit", record.commit or ""),
    )
    return tuple((what, value) for what, value in found if value)


def _prediction(tables: Tables) -> str:
    if prediction(tables) is None:
        return "off"
    usual = PawConfig()
    told = {key: value for key, value in tables.get("paw", {}).items() if key != "enabled"}
    others = [key for key in told if key not in PREDICTION]
    shown = [key for key in PREDICTION if key in told]
    shown += [key for key in others if told[key] != getattr(usual, key, None)]
    return ", ".join(f"{key} {told[key]}" for key in shown)


def _joined(*values: object) -> str:
    return ", ".join(str(value) for value in values if value not in (None, ""))
