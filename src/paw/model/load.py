"""Loading a causal LM of transformers: what is loaded, and what is refused and why.

The one file that names a model class. `Policy` takes what `load_model` gives; a model made
elsewhere goes through the same refusals there, since only log-probabilities can tell some of them.
"""

import re
from pathlib import Path
from typing import Any, cast

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM

from paw.errors import UserError, nearest
from paw.model.memory import ModelShape

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}
PLAIN_DECODERS = "a plain decoder (Qwen2, Qwen3, Llama, ...)"

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
    try:
        model, report = cast(
            tuple[Any, dict[str, Any]],
            AutoModelForCausalLM.from_pretrained(
                name, dtype=dtype, output_loading_info=True, ignore_mismatched_sizes=True
            ),
        )
    except (OSError, ValueError, RuntimeError, KeyError, SafetensorError) as error:
        reason = next((line for line in str(error).splitlines() if line), type(error).__name__)
        raise UserError(f"model.path: cannot load {name!r}: {reason}") from error
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
        snapshot_download(name, allow_patterns=["config.json"])
    except (OSError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"model.path: cannot fetch {name!r} from the hub: {reason}") from error


def fresh_model(config: Any) -> Any:
    """A model of a transformers configuration with fresh weights from the global generator."""
    return AutoModelForCausalLM.from_config(config)


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
            model = fresh_model(config)
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


def refuse_unsupported(model: Any) -> None:
    """Refuse by name what `check_packing` might miss in an untrained or short-sighted model.

    Raises:
        UserError: attention of its own kind, other layers than attention, transformed logits.
    """
    config, problem = model.config, None
    if not model._supports_attention_backend:
        problem = "has attention of its own kind"
    layer_types = set(getattr(config, "layer_types", None) or ())
    if odd := layer_types - {"full_attention", "sliding_attention"}:
        problem = f"has {min(odd)} layers"
    for key, value in config.to_dict().items():
        if _TRANSFORMED_LOGITS.search(key) and value not in (None, False, 1):
            problem = f"transforms its logits ({key} = {value})"
    if problem:
        raise UserError(
            f"model type {config.model_type!r} {problem}, which is not supported; "
            f"choose {PLAIN_DECODERS}"
        )


def probe_rows(vocab_size: int) -> list[list[int]]:
    """Two short rows on which a model's own log-probabilities are compared with packed ones."""
    return [[(7 * i + 3) % vocab_size for i in range(a, b)] for a, b in ((0, 6), (6, 17))]


@torch.no_grad()
def own_logprobs(model: Any, rows: list[list[int]]) -> Tensor:
    """[S] the model's own log-probabilities of all tokens but the first of each row.

    Raises:
        UserError: they are not finite, which later would look like a model of the wrong type.
    """
    parts = []
    for row in rows:
        ids = torch.tensor([row], device=model.device)
        logprobs = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        parts.append(logprobs.gather(1, ids[0, 1:, None]).squeeze(1))
    logprobs = torch.cat(parts)
    if not logprobs.isfinite().all():
        odd = [name for name, p in model.named_parameters() if not p.isfinite().all()]
        where = f"weights are not finite ({odd[0]})" if odd else "log-probabilities are not finite"
        raise UserError(
            f"model.path: its {where}: the file is damaged, or the training that wrote it diverged"
        )
    return logprobs


def check_packing(model: Any, own: Tensor, packed: Tensor, tolerance: float) -> None:
    """Hold log-probabilities of packed rows against `own_logprobs`: state-space layers or odd heads
    show up here.

    Raises:
        UserError: they differ by `tolerance` nats or more.
    """
    worst = (packed - own).abs().max().item()
    if not worst < tolerance:
        raise UserError(
            f"model type {model.config.model_type!r} does not fit: log-probabilities of packed "
            f"rows differ from its own by {worst:.2g} nats; "
            f"choose {PLAIN_DECODERS}"
        )
