"""`paw train --dry-run`: everything that a run would need is looked at, and nothing is begun."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from transformers import AutoConfig, AutoModelForCausalLM

from paw.commands.estimate import Memory, ModelShape, Tokens, memory_of, tokens_of
from paw.config.tree import Config, ModelConfig
from paw.errors import UserError
from paw.rollout.actor import check_tokenizer, device_of, make_serializer, on_split, open_source
from paw.runs import read
from paw.runs.header import method
from paw.runs.layout import complete, resolve_model, run_directory
from paw.runs.write import check_directory
from paw.text.tokenizer import load_tokenizer
from paw.train.session import matched_constant

RECENT = 10
"""Updates of an earlier part of the run from which its next ones are foretold."""
ADVICE = (
    "lower optimizer.tokens_per_micro_batch, rollout.groups or rollout.max_prompt_tokens, or set "
    "model.gradient_checkpointing or model.lora_rank"
)
SHOWN = ("weights", "gradients", "optimizer", "critic", "reference", "cache", "activations", "head")


@dataclass(frozen=True, slots=True)
class DryRun:
    """What a run would be."""

    config: Config
    directory: str
    """Where it writes, and whether that is a new run"""
    done: int
    """Updates already made"""
    num_tasks: int
    num_evaluation_tasks: int | None
    device: str
    shape: ModelShape | None
    """None for a hub model that is not on this disk"""
    tokens: Tokens
    memory: Memory | None
    room: int
    """Bytes of the device"""
    recent: dict[str, float]
    """Means of the newest updates of this run; empty before the first"""


def dry_run(config: Config) -> DryRun:
    """Resolve all that `paw train` would open: tasks, evaluation split, device, tokenizer, model.

    Raises:
        UserError: what `paw train` would refuse.
    """
    directory, done = _place(config)
    device = device_of(config.model.device)
    source = open_source(config)
    evaluated = None
    if config.eval.every:
        evaluated = len(open_source(on_split(config, config.eval.split)))
    matched_constant(config)
    path = resolve_model(config.model.path)
    shape = read_shape(path)
    if shape is not None and Path(path).is_dir():
        check_files(config, Path(path), shape)
    return DryRun(
        config=config,
        directory=directory,
        done=done,
        num_tasks=len(source),
        num_evaluation_tasks=evaluated,
        device=device,
        shape=shape,
        tokens=tokens_of(config),
        memory=None if shape is None else memory_of(config, shape),
        room=room_of(device),
        recent=_recent(config),
    )


def read_shape(path: str) -> ModelShape | None:
    """The shape of a model directory, or of a hub model whose config.json is in the local cache.

    No weight is read; None where the hub would have to be asked.

    Raises:
        UserError: the configuration cannot be read or is of an unknown kind.
    """
    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, KeyError) as error:
        if isinstance(error, OSError) and not Path(path).is_dir():
            return None
        reason = next((x for x in str(error).splitlines() if x), type(error).__name__)
        raise UserError(f"model.path = {path!r}: cannot read its config.json: {reason}") from error
    return shape_of(config)


def shape_of(config: Any) -> ModelShape:
    """The shape of a transformers configuration, counted on a model without storage.

    Raises:
        UserError: it is not one of a causal language model.
    """
    try:
        with torch.device("meta"):
            model: Any = AutoModelForCausalLM.from_config(config)
    except ValueError as error:
        raise UserError(f"model.path: {config.model_type!r} is no causal language model") from error
    head = model.get_output_embeddings()
    linear = [m for m in model.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    heads, hidden = config.num_attention_heads, config.hidden_size
    size = getattr(config, "head_dim", None) or hidden // heads
    return ModelShape(
        parameters=sum(p.numel() for p in model.parameters()),
        backbone_parameters=sum(p.numel() for p in model.base_model.parameters()),
        lora_features=sum(m.in_features + m.out_features for m in linear),
        layers=config.num_hidden_layers,
        hidden=hidden,
        query=heads * size,
        key=(getattr(config, "num_key_value_heads", None) or heads) * size,
        intermediate=getattr(config, "intermediate_size", None) or 4 * hidden,
        vocabulary=config.vocab_size,
    )


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
        ("tasks", f"{config.env.name} {config.env.split}: {found.num_tasks:,}{evaluation}"),
        ("method", method(config)),
        (
            "update",
            f"{rollout.groups} groups x {rollout.group_size} = {num:,} trajectories of at most "
            f"{rollout.max_turns} turns, {rollout.context}, "
            f"optimizer steps: {config.optimizer.mini_batches} of rate "
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
    if found.recent:
        rows.append(("expected", _expected(found)))
    rows.append(("model", f"{model.path}, {precision_of(model)}, on {found.device}"))
    rows += model_rows(model, found.shape, found.memory, found.device, found.room, ADVICE)
    return "\n".join(f"{name:11}{text}" for name, text in rows)


def precision_of(model: ModelConfig) -> str:
    """Types of weights and matrix products."""
    if model.compute_dtype == "same":
        return model.dtype
    return f"{model.dtype} weights, {model.compute_dtype} products"


def model_rows(
    model: ModelConfig,
    shape: ModelShape | None,
    memory: Memory | None,
    device: str,
    room: int,
    advice: str,
) -> list[tuple[str, str]]:
    """Parameters and memory, and what to turn where it does not fit."""
    if shape is None or memory is None:
        text = (
            f"not on this disk: it will be downloaded; for its memory, first: "
            f"hf download {model.path} config.json"
        )
        return [("", text)]
    rank = model.lora_rank
    adapter = f", {rank * shape.lora_features / 1e6:.2f} M trained (LoRA)" if rank else ""
    rows = [
        (
            "parameters",
            f"{shape.parameters / 1e6:,.2f} M{adapter}: {shape.layers} layers of {shape.hidden}, "
            f"{shape.vocabulary:,} tokens",
        )
    ]
    parts = [f"{name} {_size(getattr(memory, name))}" for name in SHOWN if getattr(memory, name)]
    rows.append(("memory", f"about {_size(memory.peak)} of {_size(room)} on {device}"))
    rows.append(("", ", ".join(parts)))
    if memory.peak > room:
        rows.append(("warn", f"it does not fit: {advice}"))
    return rows


def _expected(found: DryRun) -> str:
    recent = found.recent
    left = max(found.config.run.updates - found.done, 0) * recent.get("time/update", 0.0)
    return (
        f"an update, as the newest of this run: {recent.get('tokens/sampled', 0.0):,.0f} sampled, "
        f"{recent.get('tokens/trained', 0.0):,.0f} trained, "
        f"{recent.get('rollout/turns_mean', 0.0):.1f} turns an episode, "
        f"{recent.get('time/update', 0.0):.1f} s; {left / 3600:.1f} h left"
    )


def _place(config: Config) -> tuple[str, int]:
    """Where the run would write, and how many updates are done there. Raises UserError."""
    check_directory(config)
    directory = run_directory(config)
    if not (directory / "config.toml").is_file():
        check_permission(directory)
        return f"{directory} (new)", 0
    kept = complete(directory / "checkpoints")
    if not kept:
        return f"{directory} (begun, no checkpoint yet)", 0
    return f"{directory} (goes on from {kept[-1].name})", int(kept[-1].name.rpartition("-")[2])


def check_permission(path: Path) -> None:
    """Raises UserError where `path` cannot be made; makes nothing."""
    parent = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not parent.is_dir():
        raise UserError(f"cannot write {path}: {parent} is no directory; choose another")
    if not os.access(parent, os.W_OK):
        raise UserError(f"cannot write {path}: no permission in {parent}; choose another")


def check_files(config: Config, place: Path, shape: ModelShape) -> None:
    """Tokenizer, template and weights of a model directory."""
    tokenizer = load_tokenizer(place)
    make_serializer(config, tokenizer)
    check_tokenizer(tokenizer, shape.vocabulary, config.model.path)
    for file in place.glob("*.safetensors"):
        try:
            with safe_open(file, "pt"):  # reads the header alone, and knows the size from it
                pass
        except SafetensorError as error:
            raise UserError(f"model.path: cannot load {str(file)!r}: {error}") from error
    if not any(place.glob("*.safetensors")) and not any(place.glob("*.bin")):
        raise UserError(f"model.path = {config.model.path!r}: no weights there (*.safetensors)")


def _recent(config: Config) -> dict[str, float]:
    """Means of the newest updates in the run's own metrics, if it has any."""
    directory = run_directory(config)
    if not (directory / "metrics.jsonl").is_file():
        return {}
    rows = read.metrics(directory)[-RECENT:]
    names = ("tokens/sampled", "tokens/trained", "rollout/turns_mean", "time/update")
    columns = {name: [v for _, v in read.measured(rows, name)] for name in names}
    return {name: sum(values) / len(values) for name, values in columns.items() if values}


def room_of(device: str) -> int:
    """Bytes of memory that the device has."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device))[1]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"
