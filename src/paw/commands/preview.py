"""What the dry runs of `paw train` and `paw imitate` share: device, model, memory, lines."""

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from huggingface_hub import try_to_load_from_cache
from safetensors import SafetensorError, safe_open
from transformers import PreTrainedTokenizerBase

from paw.config.tree import Config, ModelConfig
from paw.errors import UserError
from paw.model.adapter import check_adapter_fits
from paw.model.load import device_of
from paw.model.memory import FREE_SHARE, Memory, ModelShape
from paw.rollout.actor import check_lengths, check_tokenizer, make_serializer
from paw.rollout.fit import settle, usable_bytes
from paw.runs.begun import as_begun
from paw.runs.gguf import check_gguf
from paw.runs.layout import Place, is_gguf, newest_checkpoint, tokenizer_place
from paw.text.tokenizer import load_tokenizer

Rows = list[tuple[str, str]]
"""What each line is about, and what it says; "" goes on with the line above."""
WEIGHTS = ("model.safetensors", "model.safetensors.index.json")
"""Of which a model of the hub has one."""
SHOWN = (
    "weights", "masters", "gradients", "optimizer", "critic", "reference", "cache", "activations",
    "head",
)  # fmt: skip


def format_rows(rows: Rows) -> str:
    """The lines of a dry run."""
    return "\n".join(f"{name:11}{text}" for name, text in rows)


def refusals(command: str, check: Callable[[], object]) -> Rows:
    """What `command` would refuse, as a line: a dry run goes on."""
    try:
        check()
    except UserError as error:
        return [("warn", f"paw {command} refuses this: {error}")]
    return []


@dataclass(frozen=True, slots=True)
class Device:
    """Where a run would compute."""

    name: str
    here: bool
    """False: of another machine, for an estimate alone"""
    room: int | None
    """Bytes; None for a device that is not here and of which nothing was said"""


def find_device(name: str, memory: int | None) -> Device:
    """The device of `model.device`, with `memory` bytes where that was said.

    Raises:
        UserError: no such kind of device.
    """
    try:
        found = device_of(name)
    except UserError:
        if re.fullmatch(r"cuda(:\d+)?", name) is None:
            raise
        return Device(name, False, memory)
    return Device(found, memory is None, memory or _room(found))


def _room(device: str) -> int:
    """Bytes of memory that the device has."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device))[1]
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def progress_of(place: Place) -> str:
    """How far the run there is, in words."""
    newest = newest_checkpoint(place.directory / "checkpoints")
    if newest is not None:
        return f"goes on from {newest.name}"
    return "begun, no checkpoint yet" if (place.directory / place.settings).is_file() else "new"


def chosen_sizes(
    config: Config, shape: ModelShape | None, device: Device, place: Place | None = None
) -> Config:
    """The same with the sizes that a run (at `place`; None: of `paw train`) would choose there by
    itself; unknown ones stay 0."""
    config = as_begun(config, place)
    if shape is None or device.room is None:
        return config
    share = FREE_SHARE[device.name.partition(":")[0]]
    room = usable_bytes(device.name) if device.here else int(device.room * share)
    return settle(config, shape, room)


def precision_of(model: ModelConfig) -> str:
    """Types of weights and matrix products."""
    if model.compute_dtype == "same":
        return model.dtype
    return f"{model.dtype} weights, {model.compute_dtype} products"


def model_rows(
    model: ModelConfig,
    shape: ModelShape | None,
    memory: Memory | None,
    device: Device,
    advice: str,
) -> Rows:
    """Parameters and memory, and what to turn where it does not fit."""
    if shape is None or memory is None:
        text = (
            f"not on this disk: it will be downloaded; for its memory, first: "
            f"hf download {model.path} config.json"
        )
        return [("", text)]
    rank = model.lora_rank
    adapter = f", {rank * shape.lora_features / 1e6:.2f} M trained (LoRA)" if rank else ""
    needed = f"about {_size(memory.peak)}"
    if device.name == "cpu":
        needed += " and the program's own 0.4 GiB"
    if device.room is None:
        needed += f"; {device.name} is not here: --device-memory 80GB says whether it fits"
    else:
        needed += f" of {_size(device.room)} on {device.name}"
    parts = [f"{name} {_size(getattr(memory, name))}" for name in SHOWN if getattr(memory, name)]
    rows = [
        (
            "parameters",
            f"{shape.parameters / 1e6:,.2f} M{adapter}: {shape.layers} layers of {shape.hidden}, "
            f"{shape.vocabulary:,} tokens",
        ),
        ("memory", needed),
        ("", ", ".join(parts)),
    ]
    if not fits(memory, device):
        rows.append(("warn", f"it does not fit: {advice}"))
    return rows


def fits(memory: Memory, device: Device) -> bool:
    """Whether it does, as far as the device's memory is known."""
    return device.room is None or memory.peak <= device.room


def unmeasured(path: str, memory: Memory | None, device: Device) -> str | None:
    """Why nothing can be timed with the model at `path`, if nothing can."""
    if is_gguf(path):
        return "the file is dequantised when a run begins"
    cached = (try_to_load_from_cache(path, name) for name in WEIGHTS if not Path(path).is_dir())
    if memory is None or (not Path(path).is_dir() and not any(isinstance(c, str) for c in cached)):
        return "the model is not on this disk"
    if not device.here:
        return f"{device.name} is another machine's"
    return None if fits(memory, device) else "it does not fit"


def advise(model: ModelConfig, lower: Sequence[str]) -> str:
    """Keys that save memory: those to lower, and the switches that are not on already."""
    off = [
        f"model.{key}" for key in ("gradient_checkpointing", "lora_rank") if not getattr(model, key)
    ]
    switches = f", or set {' or '.join(off)}" if off else ""
    return f"lower {', '.join(lower)}{switches}"


def check_permission(path: Path) -> None:
    """Raises UserError where `path` cannot be made; makes nothing."""
    parent = next(p for p in (path, *path.absolute().parents) if p.exists())
    if not parent.is_dir():
        raise UserError(f"cannot write {path}: {parent} is no directory; choose another")
    if not os.access(parent, os.W_OK):
        raise UserError(f"cannot write {path}: no permission in {parent}; choose another")


def check_files(
    config: Config, path: str, shape: ModelShape, *, learns: bool
) -> PreTrainedTokenizerBase:
    """Tokenizer, template, lengths, adapter and weights of a model directory or GGUF file.

    Args:
        learns: as `check_lengths` has it.

    Returns:
        The tokenizer.

    Raises:
        UserError: one of them is broken or fits no other.
    """
    place, adapter = Path(path), config.model.adapter
    if is_gguf(path):
        check_gguf(path)
    tokenizer = load_tokenizer(tokenizer_place(adapter, path))
    check_lengths(config, shape.positions, make_serializer(config, tokenizer), learns=learns)
    check_tokenizer(tokenizer, shape.vocabulary, config.model.path)
    if adapter:
        check_adapter_fits(path, adapter)
    if is_gguf(path):
        return tokenizer
    for file in place.glob("*.safetensors"):
        try:
            with safe_open(file, "pt"):  # reads the header alone, and knows the size from it
                pass
        except SafetensorError as error:
            raise UserError(f"model.path: cannot load {str(file)!r}: {error}") from error
    if not any(place.glob("*.safetensors")) and not any(place.glob("*.bin")):
        raise UserError(f"model.path = {config.model.path!r}: no weights there (*.safetensors)")
    return tokenizer


def _size(count: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:,.1f} GiB"


def span(seconds: float) -> str:
    """Seconds for people."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 6000 else f"{seconds / 3600:,.1f} h"
