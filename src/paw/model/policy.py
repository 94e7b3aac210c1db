"""A transformers causal LM as a policy: log-probabilities at chosen positions of packed rows."""

import contextlib
import copy
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self, cast

import torch
from huggingface_hub import snapshot_download
from safetensors import SafetensorError
from torch import Tensor, nn
from transformers import AutoModelForCausalLM

from paw.errors import UserError, nearest
from paw.model.head import token_logprobs
from paw.model.packing import (
    Attend,
    Packed,
    SegmentAttention,
    pack,
    packed_hidden,
    use_packed_attention,
)

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float64": torch.float64}

# Gemma soft-caps its logits, Cohere, Granite and Falcon-H1 scale them; the head does neither.
_TRANSFORMED_LOGITS = re.compile(r"logits?_.*(scal|cap|mup|multipl)|lm_head_multiplier")
_PLAIN_DECODERS = "a plain decoder (Qwen2, Qwen3, Llama, ...)"


class Policy:
    """A decoder and its LM head, run without dropout.

    Attributes:
        model: the transformers model; with LoRA the adapter layers stand inside it.
        config: its configuration.
        device: where it lies.
        num_forwards: learning and scoring passes since the caller last set it to 0.
        num_rows: rows that went through them.
    """

    def __init__(
        self,
        model: Any,
        *,
        lora_rank: int = 0,
        seed: int = 0,
        gradient_checkpointing: bool = False,
        compute_dtype: str | None = None,
    ):
        """Wrap a causal LM; see `load` for the arguments.

        Raises:
            UserError: the model's logits cannot be computed from packed rows, or peft is missing.
        """
        self.model = model.eval()
        self.config = model.config
        self.device: torch.device = model.device
        self.compute_dtype = _dtype(compute_dtype) if compute_dtype else None
        self.num_forwards = 0
        self.num_rows = 0
        _refuse_unsupported(model)
        for module in model.modules():
            if isinstance(module, nn.Dropout):
                module.p = 0.0
        rows = _probe_rows(self.config.vocab_size)
        expected = _row_logprobs(model, rows)
        _check_finite(model, expected)
        use_packed_attention(model)
        if gradient_checkpointing:
            # The second name is the one of transformers before 5.20.
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)({"use_reentrant": False})
            # transformers checkpoints in training mode only; there is no dropout left to switch on.
            model.train()
        self._check_packing(rows, expected)
        self._adapter = _add_lora(model, lora_rank, seed) if lora_rank else None

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        dtype: str = "float32",
        device: str | torch.device = "cpu",
        lora_rank: int = 0,
        seed: int = 0,
        gradient_checkpointing: bool = False,
        compute_dtype: str | None = None,
    ) -> Self:
        """Load any causal LM of transformers.

        Args:
            path: model directory or hub name.
            dtype: of the weights: float32, bfloat16 or float64.
            device: "cpu", "cuda", "cuda:1", ...
            lora_rank: rank of a LoRA adapter on all linear layers, alone trained; 0 trains all.
            seed: of the adapter's initial weights.
            gradient_checkpointing: compute activations again in the backward pass to save memory.
            compute_dtype: "bfloat16" runs matrix products in bf16 (autocast) on `dtype` weights.

        Raises:
            UserError: no such model, unreadable or incomplete weights, unknown dtype or device.
        """
        model = _load_model(path, _dtype(dtype)).to(_device(device))
        return cls(
            model,
            lora_rank=lora_rank,
            seed=seed,
            gradient_checkpointing=gradient_checkpointing,
            compute_dtype=compute_dtype,
        )

    @property
    def num_parameters(self) -> int:
        """Of the whole model, trained or not; a tied embedding counts once."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def backbone(self) -> Any:
        """The decoder without the LM head."""
        return self.model.base_model

    def logprobs(self, packed: Packed, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probability of chosen tokens given the tokens before them in their row.

        Args:
            packed: rows of tokens.
            positions: [S] long, indices into `packed.token_ids`; none the first of its row.

        Returns:
            logprobs [S] with gradients, entropy [S] (nats, full distribution) without; both at
            temperature 1, in fp32 (float64 for a float64 model). S = 0 gives empty tensors that
            are still part of the graph, so that a backward pass yields zero gradients.

        Raises:
            ValueError: a position is the first of its row: nothing precedes it.
        """
        if (packed.position_ids[positions] == 0).any():
            raise ValueError("the first token of a row has no log-probability")
        self.num_forwards += 1
        self.num_rows += packed.num_rows
        return self._logprobs(packed, positions)

    def _logprobs(self, packed: Packed, positions: Tensor) -> tuple[Tensor, Tensor]:
        attend = SegmentAttention(packed.boundaries)
        hidden = self.hidden(packed.token_ids, packed.position_ids, attend)
        head = self.model.get_output_embeddings()
        targets = packed.token_ids[positions]
        before = hidden.index_select(0, positions - 1)
        return token_logprobs(before, head.weight, targets, getattr(head, "bias", None))

    def hidden(self, token_ids: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Final hidden states [T, H] in the compute dtype; see `packed_hidden`."""
        with self.autocast():
            hidden = packed_hidden(self.backbone, token_ids, position_ids, attend)
        return hidden if self.compute_dtype is None else hidden.to(self.compute_dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [S, V] of hidden states [S, H], in fp32 or wider."""
        head = self.model.get_output_embeddings()
        with self.autocast():
            logits = head(hidden)
        return logits.to(torch.promote_types(logits.dtype, torch.float32))

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """Context in which matrix products run in the compute dtype."""
        if self.compute_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.compute_dtype)

    def parameters(self) -> list[nn.Parameter]:
        """Trainable parameters; with LoRA the adapter's alone."""
        return [p for p in self.model.parameters() if p.requires_grad]

    def state_dict(self) -> dict[str, Tensor]:
        """Trainable parameters by name: what training changes."""
        return {n: p.detach() for n, p in self.model.named_parameters() if p.requires_grad}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy in what `state_dict` gave, bit for bit.

        Raises:
            ValueError: names or shapes differ.
        """
        copy_parameters(self.state_dict(), state)

    def save(self, directory: str | Path) -> None:
        """Write an ordinary model directory, LoRA merged; the tokenizer is saved elsewhere."""
        directory = Path(directory)
        model = self.model
        if self._adapter is not None:
            model = copy.deepcopy(self._adapter).merge_and_unload()
        model.save_pretrained(directory)
        for file in directory.iterdir():
            if file.is_file():  # safetensors leaves its files readable by their owner alone
                file.chmod(0o644)

    def _check_packing(self, rows: list[list[int]], expected: Tensor) -> None:
        """Compare with the model's own logits: state-space layers or odd heads show up here."""
        packed = pack(rows, self.device)
        starts = set(packed.boundaries)
        positions = [i for i in range(packed.boundaries[-1]) if i not in starts]
        with torch.no_grad():
            logprobs, _ = self._logprobs(packed, torch.tensor(positions, device=self.device))
        worst = (logprobs - expected).abs().max().item()
        narrow = torch.bfloat16 in (self.compute_dtype, self.model.dtype)
        if not worst < (0.3 if narrow else 1e-3):
            raise UserError(
                f"model type {self.config.model_type!r} does not fit: log-probabilities of packed "
                f"rows differ from its own by {worst:.2g} nats; "
                f"choose {_PLAIN_DECODERS}"
            )


def copy_parameters(parameters: Mapping[str, Tensor], state: Mapping[str, Tensor]) -> None:
    """Copy `state` into `parameters` in place; ValueError where names or shapes differ."""
    if parameters.keys() != state.keys():
        odd = sorted(parameters.keys() ^ state.keys())
        raise ValueError(f"the state is of another model: {odd[0]} is on one side only")
    with torch.no_grad():
        for name, parameter in parameters.items():
            if parameter.shape != state[name].shape:
                raise ValueError(f"the state is of another model: shape of {name}")
            parameter.copy_(state[name])


def _dtype(name: str) -> torch.dtype:
    if name not in DTYPES:
        raise UserError(f"model.dtype: no dtype {name!r}{nearest(name, DTYPES)}")
    return DTYPES[name]


def _device(name: str | torch.device) -> torch.device:
    try:
        device = torch.device(name)
    except RuntimeError:
        raise UserError(f"model.device: no device {name!r}; use cpu, cuda or cuda:N") from None
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError("model.device is cuda, and this machine has no usable GPU; use cpu")
    return device


def _load_model(path: str | Path, dtype: torch.dtype) -> Any:
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


def _check_finite(model: Any, logprobs: Tensor) -> None:
    """Refuse what would look like a model of the wrong type. Raises UserError."""
    if logprobs.isfinite().all():
        return
    odd = [name for name, p in model.named_parameters() if not p.isfinite().all()]
    where = f"weights are not finite ({odd[0]})" if odd else "log-probabilities are not finite"
    raise UserError(
        f"model.path: its {where}: the file is damaged, or the training that wrote it diverged"
    )


def _refuse_unsupported(model: Any) -> None:
    """Refuse by name what `_check_packing` might miss in an untrained or short-sighted model."""
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
            f"choose {_PLAIN_DECODERS}"
        )


def _probe_rows(vocab_size: int) -> list[list[int]]:
    return [[(7 * i + 3) % vocab_size for i in range(a, b)] for a, b in ((0, 6), (6, 17))]


@torch.no_grad()
def _row_logprobs(model: Any, rows: list[list[int]]) -> Tensor:
    """Log-probabilities of all tokens but the first of each row, one row at a time."""
    parts = []
    for row in rows:
        ids = torch.tensor([row], device=model.device)
        logprobs = model(input_ids=ids, use_cache=False).logits[0, :-1].float().log_softmax(-1)
        parts.append(logprobs.gather(1, ids[0, 1:, None]).squeeze(1))
    return torch.cat(parts)


def _add_lora(model: Any, rank: int, seed: int) -> Any:
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError(
            "model.lora_rank needs peft: pip install 'paw-rl[lora]', or set it to 0"
        ) from error
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return get_peft_model(model, config)
