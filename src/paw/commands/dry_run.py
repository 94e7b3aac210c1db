"""`paw train --dry-run`: everything that a run would need is looked at, and nothing is begun."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from paw.commands.estimate import TokenBounds, memory_of, tokens_of
from paw.commands.measure import Pace, measure_update
from paw.commands.preview import (
    Device,
    Rows,
    advise,
    check_files,
    check_permission,
    chosen_sizes,
    find_device,
    format_rows,
    model_rows,
    precision_of,
    progress_of,
    refusals,
    span,
    unmeasured,
)
from paw.config.tree import Config
from paw.envs.base import TaskSource
from paw.model.load import device_of, read_shape
from paw.model.memory import Memory, ModelShape
from paw.rollout.actor import load_policy, on_split, open_source
from paw.runs import read
from paw.runs.header import method, model_name
from paw.runs.layout import (
    newest_checkpoint,
    resolve_model,
    run_directory,
    tokenizer_place,
    training_place,
    update_of,
)
from paw.runs.threads import set_threads
from paw.runs.write import check_directory
from paw.text.tokenizer import load_tokenizer
from paw.train.session import matched

RECENT = 10
"""Updates of an earlier part of the run from which its next ones are foretold."""
LOWER = ("optimizer.tokens_per_micro_batch", "rollout.groups", "rollout.max_prompt_tokens")
"""Keys that save memory when they are lowered."""


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would be."""

    config: Config
    directory: str
    """Where it writes, and whether that is a new run"""
    done: int
    """Updates already made"""
    refused: Rows
    """Why training would refuse the directory or the device; none, as a rule"""
    num_tasks: int
    num_evaluation_tasks: int | None
    device: Device
    shape: ModelShape | None
    """None for a hub model that is not on this disk"""
    tokens: TokenBounds
    memory: Memory | None
    recent: dict[str, float]
    """Means of the newest updates of this run; empty before the first"""
    pace: Pace | str | None
    """What an update takes, or why that was not measured; None where `recent` tells"""


def dry_run(config: Config, device_memory: int | None = None) -> DryRun:
    """Resolve all that `paw train` would open: tasks, evaluation split, device, tokenizer, model;
    and measure a little.

    Args:
        config: of the run.
        device_memory: bytes of the device that is meant, where that is not the one of this machine.

    Raises:
        UserError: what is wrong in itself. That the directory is taken, or the device another
            machine's, is said in `refused`.
    """
    refused = refusals("train", lambda: _check_place(config))
    directory, done, recent = _progress(config, bool(refused))
    device = find_device(config.model.device, device_memory)
    if device_memory is None:
        refused += refusals("train", lambda: device_of(config.model.device))
    source = open_source(config)
    evaluated = None
    if config.eval.every:
        evaluated = len(open_source(on_split(config, config.eval.split)))
    matched(config.paw)
    path = resolve_model(config.model.path)
    shape = read_shape(path)
    if shape is not None and Path(path).exists():
        check_files(config, path, shape, learns=True)
    config = chosen_sizes(config, shape, device)
    memory = None if shape is None else memory_of(config, shape)
    return DryRun(
        config=config,
        directory=directory,
        done=done,
        refused=refused,
        num_tasks=len(source),
        num_evaluation_tasks=evaluated,
        device=device,
        shape=shape,
        tokens=tokens_of(config),
        memory=memory,
        recent=recent,
        pace=None if recent else _measure(config, path, source, memory, device),
    )


def _measure(
    config: Config, path: str, source: TaskSource, memory: Memory | None, device: Device
) -> Pace | str:
    """What an update takes here, or why that cannot be measured."""
    if why := unmeasured(path, memory, device):
        return why
    model = replace(config.model, device=device.name)
    policy = load_policy(replace(config, model=model), path)
    set_threads(config.run.threads, policy.num_parameters)
    try:
        tokenizer = load_tokenizer(tokenizer_place(model.adapter, path))
        return measure_update(config, policy, tokenizer, source)
    except torch.OutOfMemoryError:
        return "the device has no room for it now"


def format_dry_run(found: DryRun) -> str:
    """What a person wants to know before hours of work."""
    config, tokens = found.config, found.tokens
    rollout, model = config.rollout, config.model
    num = rollout.groups * rollout.group_size
    evaluation = "" if found.num_evaluation_tasks is None else (
        f"; evaluation every {config.eval.every} updates on {config.eval.episodes} episodes of "
        f"{found.num_evaluation_tasks:,} tasks"
    )  # fmt: skip
    rows = [
        ("run", found.directory),
        *found.refused,
        ("tasks", f"{config.env.name} {config.env.split}: {found.num_tasks:,}{evaluation}"),
        ("method", method(config)),
        (
            "update",
            f"{rollout.groups} groups x {rollout.group_size} = {num:,} trajectories of at most "
            f"{rollout.max_turns} turns, {rollout.context}, "
            f"optimizer steps: {config.optimizer.mini_batches * config.optimizer.epochs} of rate "
            f"{config.optimizer.learning_rate:g}",
        ),
        ("updates", f"{config.run.updates:,}" + (f", {found.done:,} done" if found.done else "")),
        (
            "tokens",
            f"an update at most: {tokens.sampled:,} sampled, {tokens.read:,} read, "
            f"{tokens.trained:,} trained ({tokens.predicted:,} of them for the prediction); "
            f"{tokens.micro_batch:,} in a micro-batch",
        ),
    ]
    rows.append(("expected", _expected(found)) if found.recent else ("time", _time(found)))
    rows.append(("model", f"{model_name(model)}, {precision_of(model)}, on {found.device.name}"))
    rows += model_rows(model, found.shape, found.memory, found.device, advise(model, LOWER))
    return format_rows(rows)


def _expected(found: DryRun) -> str:
    recent = found.recent
    left = max(found.config.run.updates - found.done, 0) * recent.get("time/update", 0.0)
    return (
        f"an update, as the newest of this run: {recent.get('tokens/sampled', 0.0):,.0f} sampled, "
        f"{recent.get('tokens/trained', 0.0):,.0f} trained, "
        f"{recent.get('rollout/turns_mean', 0.0):.1f} turns an episode, "
        f"{recent.get('time/update', 0.0):.1f} s; {left / 3600:.1f} h left"
    )


def _time(found: DryRun) -> str:
    """What an update and the whole run take, evaluations included."""
    pace, config = found.pace, found.config
    if not isinstance(pace, Pace):
        return f"not measured: {pace}"
    updates, every = config.run.updates, config.eval.every
    episodes = config.rollout.groups * config.rollout.group_size
    num_evaluations = 1 + math.ceil(updates / every) if every else 0
    whole = updates * (pace.act + pace.learn)
    whole += num_evaluations * pace.act * config.eval.episodes / episodes
    return (
        f"{'at most ' if pace.at_most else ''}about {pace.act + pace.learn:.1f} s an update "
        f"({pace.act:.1f} acting, {pace.learn:.1f} learning), {span(whole)} in all, measured on "
        f"{pace.episodes} episodes"
    )


def _check_place(config: Config) -> None:
    """Raises UserError where the run could not write or go on."""
    check_directory(config)
    check_permission(run_directory(config))


def _progress(config: Config, refused: bool) -> tuple[str, int, dict[str, float]]:
    """The run's directory in words, the updates done there and the means of the newest ones."""
    place = training_place(config)
    if refused:
        return str(place.directory), 0, {}
    newest = newest_checkpoint(place.directory / "checkpoints")
    told = f"{place.directory} ({progress_of(place)})"
    return (told, 0, {}) if newest is None else (told, update_of(newest), _recent(place.directory))


def _recent(directory: Path) -> dict[str, float]:
    """Means of the newest updates in a run's own metrics, if it has any."""
    if not (directory / "metrics.jsonl").is_file():
        return {}
    rows = read.metrics(directory)[-RECENT:]
    names = ("tokens/sampled", "tokens/trained", "rollout/turns_mean", "time/update")
    columns = {name: [v for _, v in read.measured(rows, name)] for name in names}
    return {name: sum(values) / len(values) for name, values in columns.items() if values}
