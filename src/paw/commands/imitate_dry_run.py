"""`paw imitate --dry-run`: a few demonstrations are played and counted, and nothing is begun."""

import math
import time
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path
from statistics import fmean

from transformers import PreTrainedTokenizerBase

from paw.commands.estimate import memory_of
from paw.commands.measure import seconds_per_token
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
from paw.errors import UserError
from paw.imitate.demonstrations import (
    Demonstration,
    expert_demonstrations,
    expert_options,
    read_demonstrations,
)
from paw.imitate.output import finished, place_of
from paw.imitate.rows import demonstration_rows
from paw.imitate.session import open_evaluation
from paw.imitate.start import new_model, new_policy, new_tokenizer
from paw.model.load import device_of, read_shape, shape_of
from paw.model.memory import Memory, ModelShape
from paw.model.positions import check_length
from paw.rollout.actor import load_policy, make_serializer, open_source
from paw.runs.header import model_name
from paw.runs.layout import resolve_model
from paw.runs.threads import set_threads
from paw.types import TrainingSample

SAMPLE = 20
"""Demonstrations that are played, or of a file's that are looked at."""
LOWER = ("optimizer.tokens_per_micro_batch", "imitate.batch_episodes")
"""Keys that save memory when they are lowered."""


def dry_imitate(config: Config, device_memory: int | None = None) -> str:
    """What `paw imitate` would do, for a person to read; arguments as in `dry_run`.

    Raises:
        UserError: what is wrong in itself, as far as a sample of demonstrations shows it.
    """
    settings, output = config.imitate, Path(config.imitate.output)
    refused = refusals("imitate", lambda: _check_output(config))
    named = f"{output}" if refused else _progress(config)
    device = find_device(config.model.device, device_memory)
    if device_memory is None:
        refused += refusals("imitate", lambda: device_of(config.model.device))
    source, evaluated = open_source(config), open_evaluation(config)
    number, sample, how = _demonstrations(source, config)
    shape, tokenizer, model = _model(config, sample)
    config = chosen_sizes(config, shape, device, place_of(config))
    rows = [
        ("output", named),
        *refused,
        ("tasks", f"{config.env.name} {source.split}: {len(source):,}"),
        ("learn from", how),
    ]
    memory, time_row = None, ("time", "not measured: the model is not on this disk")
    if tokenizer is not None:
        episodes = [
            demonstration_rows(make_serializer(config, tokenizer), d, config) for d in sample
        ]
        rows += _token_rows(episodes, number, config)
        if shape is not None and not settings.from_scratch:
            longest = max(len(row.token_ids) for each in episodes for row in each)
            check_length(shape.positions, longest, "the longest row of a demonstration")
        memory = None if shape is None else memory_of_imitation(config, shape, episodes)
        time_row = ("time", _time(config, tokenizer, episodes, number, memory, device))
    when = f"every {settings.eval_every} steps and " if settings.eval_every else ""
    rows += [
        (
            "evaluation",
            f"{when}at the end, on {config.eval.episodes} episodes of the {len(evaluated):,} tasks "
            f"of {evaluated.split}"
            + _until(settings.stop_at_success if settings.eval_every else None),
        ),
        time_row,
        ("model", f"{model}, {precision_of(config.model)}, on {device.name}"),
        *model_rows(config.model, shape, memory, device, advise(config.model, LOWER)),
    ]
    return format_rows(rows)


def _check_output(config: Config) -> None:
    """Raises UserError where the policy could not be written, or the work not go on."""
    if finished(config) is None:
        check_permission(Path(config.imitate.output))


def _progress(config: Config) -> str:
    """The output in words, and how far it is."""
    if (done := finished(config)) is not None:
        return f"{config.imitate.output} (complete: {done['steps']:,} steps)"
    return f"{config.imitate.output} ({progress_of(place_of(config))})"


def memory_of_imitation(
    config: Config, shape: ModelShape, episodes: Sequence[Sequence[TrainingSample]]
) -> Memory:
    """Bytes on the device: of learning from rows as long as the longest of these episodes', and of
    playing the evaluation."""
    longest = max(len(row.token_ids) for rows in episodes for row in rows)
    num = math.ceil(fmean(map(len, episodes)) * config.imitate.batch_episodes)
    config = replace(
        config,
        paw=replace(config.paw, enabled=False),
        algorithm=replace(config.algorithm, name="grpo", kl_coefficient=0.0),
    )
    # As an update of `num` trajectories in one row each, of which the estimate knows the bytes.
    rollout = replace(
        config.rollout,
        context="append",
        groups=num,
        group_size=1,
        max_prompt_tokens=longest,
        max_response_tokens=0,
    )
    learning = memory_of(
        replace(
            config,
            rollout=rollout,
            eval=replace(config.eval, every=0),
            optimizer=replace(config.optimizer, mini_batches=1),
        ),
        shape,
    )
    playing = memory_of(
        replace(
            config,
            rollout=replace(config.rollout, groups=1, group_size=1),
            eval=replace(config.eval, every=1),
        ),
        shape,
    )
    return replace(learning, cache=playing.cache, sampling=playing.sampling)


def _demonstrations(source: TaskSource, config: Config) -> tuple[int, list[Demonstration], str]:
    """How many there will be, a sample of them, and both in words."""
    settings = config.imitate
    if settings.trajectories:
        every = read_demonstrations(settings.trajectories)
        turns = fmean(len(d.responses) for d in every)
        text = f"{len(every):,} successful trajectories of {turns:.1f} turns in "
        return len(every), every[:SAMPLE], text + settings.trajectories
    count = min(SAMPLE, settings.demonstrations)
    options = ", ".join(f"{k} {v}" for k, v in expert_options(source, config).items())
    with_options = f" ({options})" if options else ""
    begin = time.perf_counter()
    sample = expert_demonstrations(
        source, replace(config, imitate=replace(settings, demonstrations=count))
    )
    seconds = (time.perf_counter() - begin) / count
    text = (
        f"{settings.demonstrations:,} episodes of the expert{with_options}; of {count} tried it "
        f"won {len(sample)}, in "
        f"{fmean(len(d.responses) for d in sample):.1f} turns; all take about "
        f"{span(settings.demonstrations * seconds)}"
    )
    return round(settings.demonstrations * len(sample) / count), sample, text


def _model(
    config: Config, sample: Sequence[Demonstration]
) -> tuple[ModelShape | None, PreTrainedTokenizerBase | None, str]:
    """Shape, tokenizer and name; neither of the former for a hub model not on this disk."""
    if config.imitate.from_scratch:
        tokenizer = new_tokenizer(config, sample)
        shape = shape_of(new_model(config, len(tokenizer), device="meta").config)
        return shape, tokenizer, "from scratch (all demonstrations have more words than a sample)"
    path = resolve_model(config.model.path)
    shape = read_shape(path)
    if shape is None or not Path(path).exists():
        return shape, None, config.model.path
    tokenizer = check_files(config, path, shape, learns=False)
    return shape, tokenizer, model_name(config.model)


def _token_rows(episodes: Sequence[Sequence[TrainingSample]], number: int, config: Config) -> Rows:
    """Tokens of an episode, of a step and of the whole, and what is too long."""
    settings = config.imitate
    tokens = [sum(len(row.token_ids) for row in rows) for rows in episodes]
    learned = [sum(w > 0 for row in rows for w in row.target_weights) for rows in episodes]
    longest = max(len(row.token_ids) for rows in episodes for row in rows)
    if not any(learned):
        raise UserError("paw imitate: no demonstration has a valid turn to imitate")
    batch = min(settings.batch_episodes, number)
    step = round(fmean(tokens) * batch)
    rows = [
        (
            "tokens",
            f"an episode: {fmean(tokens):,.0f} on average of {len(tokens)}, {max(tokens):,} at "
            f"most, {fmean(learned):,.0f} of them learned; the longest row {longest:,}",
        ),
        (
            "training",
            f"{settings.steps:,} steps of {batch} episodes, rate {settings.learning_rate:g}: about "
            f"{step:,} tokens a step, {settings.steps * step / 1e6:,.2f} M in all, "
            f"{settings.steps * batch / number:.1f} epochs",
        ),
    ]
    if settings.from_scratch and longest > settings.max_positions:
        text = f"a row of {longest:,} tokens is longer than imitate.max_positions"
        rows.append(("warn", f"{text} = {settings.max_positions:,}: raise it"))
    return rows


def _time(
    config: Config,
    tokenizer: PreTrainedTokenizerBase,
    episodes: Sequence[Sequence[TrainingSample]],
    number: int,
    memory: Memory | None,
    device: Device,
) -> str:
    """What a step and all of them take here, or why that cannot be measured."""
    settings, model = config.imitate, replace(config.model, device=device.name)
    path = "" if settings.from_scratch else resolve_model(config.model.path)
    if why := unmeasured(path, memory, device):
        return f"not measured: {why}"
    config = replace(config, model=model)
    policy = new_policy(config, len(tokenizer)) if not path else load_policy(config, path)
    set_threads(config.run.threads, policy.num_parameters)
    samples = list(chain.from_iterable(episodes))
    seconds = seconds_per_token(policy, samples, config.optimizer.tokens_per_micro_batch)
    tokens = fmean(sum(len(row.token_ids) for row in rows) for rows in episodes)
    step = seconds * tokens * min(settings.batch_episodes, number)
    return f"about {step:.2f} s a step, {span(settings.steps * step)} without evaluations"


def _until(success: float | None) -> str:
    return "" if success is None else f"; stops at a success of {success:.0%}"
