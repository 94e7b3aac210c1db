"""Loading a causal LM of transformers: what is loaded, and what is refused and why.

The one file that names a model class. `Policy` takes what `load_model` gives; a model made
elsewhere goes through the same refusals there, since only log-probabilities can tell some of them.
"""

import re
import struct
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText

from paw.errors import UserError, first_line, nearest
from paw.model.memory import ModelShape
from paw.model.positions import positions_of

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
PLAIN_DECODERS = "a plain decoder (Qwen2, Qwen3, Llama, ...)"

LAYER_TYPES = {"full_attention", "sliding_attention"}
BROKEN = (
    OSError, ValueError, RuntimeError, LookupError, ImportError, TypeError, AttributeError,
    struct.error, SafetensorError,
)  # fmt: skip
"""What the readers of files raise at damaged or unknown ones."""

# Gemma soft-caps its logits, Cohere, Granite and Falcon-H1 scale them; the head does neither.
_TRANSFORMED_LOGITS = re.compile(r"logits?_.*(scal|cap|mup|multipl)|lm_head_multiplier")


def load_model(path: str | Path, dtype: torch.dtype) -> Any:
    """The causal LM of a directory or of the hub, on the CPU.

    Raises:
        UserError: no such model, unreadable or incomplete weights, weights of another shape than
            config.json says.
    """
    name = str(path)
    on_hub = re.fullmatch(r"[\w-][\w.-]*/[\w.-]+", name) and not Path(name).parent.exists()
    if not Path(name).is_dir() and not on_hub:
        raise UserError(f"model.path: no directory {name!r} (models of the hub are OWNER/NAME)")
    if on_hub:
        _reach(name)
    return _load(name, {"pretrained_model_name_or_path": name}, dtype)


def load_gguf(file: Path) -> Any:
    """The causal LM of a GGUF file, its weights dequantised to fp32; on the CPU.

    Raises:
        UserError: broken, of an architecture that transformers cannot read, incomplete.
    """
    model = _load(str(file), source(file), torch.float32)
    # It is no quantised model any more; transformers would refuse to save one.
    for key in ("quantization_config", "_is_quantized"):
        model.config.__dict__.pop(key, None)
    model.hf_quantizer, model.is_quantized, model.quantization_method = None, False, None
    return model


def source(path: str | Path) -> dict[str, str]:
    """What `from_pretrained` is to be asked for a directory, a hub name or a GGUF file."""
    place = Path(path)
    if place.suffix.lower() != ".gguf":
        return {"pretrained_model_name_or_path": str(path)}
    return {"pretrained_model_name_or_path": str(place.parent), "gguf_file": place.name}


def _load(name: str, asked: dict[str, str], dtype: torch.dtype) -> Any:
    """`load_model` once it is known where to look."""
    try:
        model, report = cast(
            tuple[Any, dict[str, Any]],
            model_class(AutoConfig.from_pretrained(**asked)).from_pretrained(
                **asked, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
            ),
        )
    except BROKEN as error:
        raise UserError(f"model.path: cannot load {name!r}: {first_line(error)}") from error
    missing = sorted(report["missing_keys"])
    if missing:
        raise UserError(
            f"model.path: {name!r} lacks {len(missing)} weights ({missing[0]}, ...); "
            "the file is incomplete or of another model"
        )
    for key, there, wanted in report["mismatched_keys"]:
        raise UserError(
            f"model.path: {name!r}: {key} has shape {list(there)} in the file and "
            f"{list(wanted)} by config.json; they do not belong together"
        )
    return model


def _reach(name: str) -> None:
    """Ask the hub once for a model, or the local cache: transformers would try for a minute."""
    try:
        place = snapshot_download(name, allow_patterns=["config.json", "adapter_config.json"])
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"model.path: cannot fetch {name!r} from the hub: {reason}") from error
    if (Path(place) / "adapter_config.json").is_file():  # transformers would load it unasked
        raise UserError(
            f"model.path: {name!r} holds an adapter: hf download {name} --local-dir DIR, and "
            "--model.path BASE --model.adapter DIR"
        )


def model_class(config: Any) -> Any:
    """What loads models of a configuration: causal LMs, alone or within one of images and text.

    Raises:
        UserError: it is not one of a language model, or of quantised weights.
    """
    if kind := getattr(config, "quantization_config", None):
        method = kind.get("quant_method") if isinstance(kind, dict) else type(kind).__name__
        raise UserError(
            f"model.path: a {config.model_type!r} with quantised weights ({method}), which cannot "
            "be trained; choose the model that it was made of"
        )
    for kind in (AutoModelForCausalLM, AutoModelForImageTextToText):
        if type(config) in kind._model_mapping:
            return kind
    raise UserError(f"model.path: {config.model_type!r} is no causal language model")


def fresh_model(config: Any) -> Any:
    """A model of a transformers configuration with fresh weights from the global generator."""
    return model_class(config).from_config(config)


def read_shape(path: str, *, ask_hub: bool = False) -> ModelShape | None:
    """The shape of a model directory or GGUF file, or of a hub model whose config.json is in the
    local cache.

    No weight is read; None where the hub would have to be asked, or with `ask_hub` has no answer.

    Raises:
        UserError: the configuration cannot be read or is of an unknown kind.
    """
    try:
        return shape_of(read_config(path, ask_hub=ask_hub))
    except FileNotFoundError:
        return None


def read_config(path: str, *, ask_hub: bool = False) -> Any:
    """The transformers configuration of a directory, a GGUF file, or a hub model's in the cache,
    with `ask_hub` of the hub.

    Raises:
        UserError: it cannot be read or is of an unknown kind.
        FileNotFoundError: the hub would have to be asked.
    """
    try:
        return AutoConfig.from_pretrained(**source(path), local_files_only=not ask_hub)
    except BROKEN as error:
        if isinstance(error, OSError) and not Path(path).exists():
            raise FileNotFoundError(path) from error
        what = "it" if Path(path).is_file() else "its config.json"
        raise UserError(
            f"model.path = {path!r}: cannot read {what}: {first_line(error)}"
        ) from error


def shape_of(config: Any) -> ModelShape:
    """The shape of a transformers configuration, counted on a model without storage.

    Raises:
        UserError: it is not one of a supported causal language model, or lacks a package.
    """
    try:
        with torch.device("meta"):
            model = fresh_model(config)
        refuse_unsupported(model)
        head, decoder = model.get_output_embeddings(), decoder_of(model)
        positions = positions_of(decoder)
    except BROKEN as error:
        raise UserError(
            f"model.path: cannot make a {config.model_type!r}: {first_line(error)}"
        ) from error
    linear = [m for m in decoder.modules() if isinstance(m, torch.nn.Linear) and m is not head]
    config = config.get_text_config(decoder=True)
    hidden = config.hidden_size
    sizes = [_heads_of(layer) for layer in getattr(config, "per_layer_config", [config])]
    return ModelShape(
        parameters=sum(p.numel() for p in model.parameters()),
        backbone_parameters=sum(p.numel() for p in decoder.parameters()),
        lora_features=sum(m.in_features + m.out_features for m in linear),
        layers=config.num_hidden_layers,
        hidden=hidden,
        query=max(query for query, _, _ in sizes),
        key=max(key for _, key, _ in sizes),
        intermediate=max(intermediate for _, _, intermediate in sizes),
        vocabulary=config.vocab_size,
        positions=positions,
    )


def _heads_of(layer: Any) -> tuple[int, int, int]:
    """Features of queries and of keys, and width of the MLP, of a layer's configuration."""
    heads = layer.num_attention_heads
    size = getattr(layer, "head_dim", None) or layer.hidden_size // heads
    key_heads = getattr(layer, "num_key_value_heads", None) or heads
    width = getattr(layer, "intermediate_size", None) or 4 * layer.hidden_size
    return heads * size, key_heads * size, max(width) if isinstance(width, list) else width


def dtype_of(name: str) -> torch.dtype:
    """A type of weights by its name. Raises UserError for another name."""
    if name not in DTYPES:
        raise UserError(f"model.dtype: no dtype {name!r}{nearest(name, DTYPES)}")
    return DTYPES[name]


def device_of(name: str) -> str:
    """`auto` is the GPU where there is one. Raises UserError for a device that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UserError(f"model.device = {name!r}: must be auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        there = torch.cuda.device_count() or "no"
        raise UserError(f"model.device = {name!r}: this machine has {there} usable GPU; use cpu")
    return name


def decoder_of(model: Any) -> Any:
    """The decoder without the LM head; of a model of images and text the part that reads text."""
    if model.config.get_text_config(decoder=True) is model.config:
        return model.base_model
    return model.get_decoder()


def unsupported(config: Any, problem: str) -> UserError:
    """What refuses a kind of model by name."""
    return UserError(
        f"model type {config.model_type!r} {problem}, which is not supported; "
        f"choose {PLAIN_DECODERS}"
    )


def refuse_unsupported(model: Any) -> None:
    """Refuse by name what the comparison of log-probabilities might miss in an untrained or
    short-sighted model.

    Raises:
        UserError: an encoder, attention of its own kind, other layers than attention, transformed
            logits.
    """
    config = model.config.get_text_config(decoder=True)
    if model.get_output_embeddings() is None:
        raise unsupported(config, "has no output embedding of its own")
    if model.config.is_encoder_decoder:
        raise unsupported(config, "is an encoder and a decoder")
    if odd := set(getattr(config, "layer_types", None) or ()) - LAYER_TYPES:
        raise unsupported(config, f"has {min(odd)} layers")
    if not model._supports_attention_backend:
        raise unsupported(config, "has attention of its own kind")
    for key, value in config.to_dict().items():
        if _TRANSFORMED_LOGITS.search(key) and value not in (None, False, 1):
            raise unsupported(config, f"transforms its logits ({key} = {value})")
