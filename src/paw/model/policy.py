"""A transformers causal LM as a policy: log-probabilities at chosen positions of packed rows."""

import contextlib
import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from paw.model.adapter import merge_adapter
from paw.model.head import TokenLogprobs
from paw.model.load import (
    decoder_of,
    device_of,
    dtype_of,
    load_model,
    refuse_unsupported,
    unsupported,
)
from paw.model.lora import add_lora, merged_state_dict
from paw.model.packing import (
    Attend,
    Packed,
    SegmentAttention,
    pack,
    packed_hidden,
    use_packed_attention,
)
from paw.model.positions import positions_of
from paw.model.probe import PackingProbe, ProbeAttention, without_noise

FILE_SIZE = "1GB"
"""Of a model's files: each is put together in the host's memory."""


@dataclass(slots=True)
class Passes:
    """Counts of learning and scoring passes since the caller last set them to 0."""

    forwards: int = 0
    rows: int = 0
    """That went through them"""

    @contextlib.contextmanager
    def uncounted(self) -> Iterator[None]:
        """Within it, passes are not counted."""
        before = self.forwards, self.rows
        yield
        self.forwards, self.rows = before


class Policy:
    """A decoder and its LM head, run without dropout.

    Attributes:
        model: the transformers model; with LoRA the adapter layers stand inside it.
        config: its configuration.
        positions: how long its sequences may be.
        head: its output embedding, as log-probabilities and entropies of chosen tokens.
        core: decoder and head as one module, whose forward pass the scores are.
        device: where it lies.
        share_prefixes: whether who packs rows for it should `share` what they have in common.
        passes: what went through it; that of a twin, too.
    """

    def __init__(
        self,
        model: Any,
        *,
        lora_rank: int = 0,
        seed: int = 0,
        gradient_checkpointing: bool = False,
        compute_dtype: str | None = None,
        share_prefixes: bool = True,
    ):
        """Wrap a causal LM; see `load` for the arguments.

        Raises:
            UserError: the model's logits cannot be computed from packed rows, or peft is missing.
        """
        self.model = model.eval()
        self.config = model.config
        self.device: torch.device = model.device
        self.compute_dtype = dtype_of(compute_dtype) if compute_dtype else None
        self.share_prefixes = share_prefixes
        self.passes = Passes()
        self.lora_rank = lora_rank
        refuse_unsupported(model)
        self.head = TokenLogprobs(model.get_output_embeddings())
        self.core = _Core(model, self.head)
        self.positions = positions_of(self.backbone)
        probe = PackingProbe(model, self.autocast)
        without_noise(model)
        use_packed_attention(model)
        if gradient_checkpointing:
            # The second name is the one of transformers before 5.20.
            enable = getattr(model, "activation_checkpointing_enable", None)
            (enable or model.gradient_checkpointing_enable)(
                # Without dropout there is no randomness to keep, and CUDA graphs could not.
                {"use_reentrant": False, "preserve_rng_state": False}
            )
            # transformers checkpoints in training mode only; there is no dropout left to switch on.
            model.train()
        probe.check(self._packed_logprobs)
        if lora_rank:
            add_lora(model, lora_rank, seed)
        learned = {id(p) for part in (self.backbone, self.head) for p in part.parameters()}
        for parameter in model.parameters():  # what reads images is kept, and learns nothing
            if id(parameter) not in learned:
                parameter.requires_grad_(False)

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        adapter: str = "",
        dtype: str = "float32",
        device: str = "cpu",
        lora_rank: int = 0,
        seed: int = 0,
        gradient_checkpointing: bool = False,
        compute_dtype: str | None = None,
        share_prefixes: bool = True,
    ) -> Self:
        """Load any causal LM of transformers.

        Args:
            path: model directory or hub name.
            adapter: directory of an adapter to merge into its weights; "": none.
            dtype: of the weights: float32, bfloat16 or float64.
            device: "auto", "cpu", "cuda", "cuda:1", ...
            lora_rank: rank of a LoRA adapter on all linear layers, alone trained; 0 trains all.
            seed: of the adapter's initial weights.
            gradient_checkpointing: compute activations again in the backward pass to save memory.
            compute_dtype: "bfloat16" runs matrix products in bf16 (autocast) on `dtype` weights.
            share_prefixes: compute a beginning that rows of a pass have in common once.

        Raises:
            UserError: no such model, unreadable or incomplete weights, unknown dtype or device, an
                adapter that cannot be merged.
        """
        place, kind = device_of(device), dtype_of(dtype)  # wrong names show before the weights
        model = load_model(path, kind)
        if adapter:
            model = merge_adapter(model, adapter)
        return cls(
            model.to(place),
            lora_rank=lora_rank,
            seed=seed,
            gradient_checkpointing=gradient_checkpointing,
            compute_dtype=compute_dtype,
            share_prefixes=share_prefixes,
        )

    @property
    def num_parameters(self) -> int:
        """Of the whole model, trained or not; a tied embedding counts once."""
        return sum(p.numel() for p in self.model.parameters())

    @property
    def backbone(self) -> Any:
        """The decoder without the LM head."""
        return decoder_of(self.model)

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
        return self.scores(packed, positions)[:2]

    def scores(self, packed: Packed, positions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same, and is_top [S] bool: no token is more probable; see `token_scores`."""
        if (packed.position_ids[positions] == 0).any():
            raise ValueError("the first token of a row has no log-probability")
        self.passes.forwards += 1
        self.passes.rows += packed.num_rows
        attend = SegmentAttention(packed.boundaries, packed.prefixes)
        return self.core(self.hidden, packed, positions, attend)

    @torch.no_grad()
    def _packed_logprobs(self, rows: list[list[int]], exact: bool) -> Tensor:
        """[S] of all tokens but the first of each row, for `PackingProbe`; `exact`: no autocast."""
        compute_dtype = self.compute_dtype
        if exact:
            self.compute_dtype = None
        packed = pack(rows, self.device)
        attend = ProbeAttention(packed.boundaries, self.model.config)
        positions = packed.position_ids.nonzero().squeeze(1)
        logprobs, _, _ = self.core(self.hidden, packed, positions, attend)
        self.compute_dtype = compute_dtype
        if not attend.layers:
            raise unsupported(self.backbone.config, "hands nothing on to its attention")
        return logprobs

    def twin(self) -> "Policy":
        """Another of the same kind, whose own weights have no memory yet; it learns nothing."""
        own = {}
        for p in self.model.parameters():
            own[id(p)] = nn.Parameter(torch.empty_like(p), False)
            own[id(p)].untyped_storage().resize_(0)  # before the next: never a model more
        other = copy.copy(self)
        other.model = copy.deepcopy(self.model, own)
        other.head = TokenLogprobs(other.model.get_output_embeddings())
        other.head.unknown = self.head.unknown
        other.core = _Core(other.model, other.head)
        return other

    def hidden(self, token_ids: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
        """Final hidden states [T, H] in the compute dtype; see `packed_hidden`."""
        with self.autocast():
            hidden = packed_hidden(self.backbone, token_ids, position_ids, attend)
        return hidden if self.compute_dtype is None else hidden.to(self.compute_dtype)

    def logits(self, hidden: Tensor) -> Tensor:
        """Next-token logits [S, V] of hidden states [S, H], in fp32 or wider."""
        with self.autocast():
            return self.head.logits(hidden)

    def autocast(self, *, keep: bool | None = None) -> contextlib.AbstractContextManager[Any]:
        """Context in which matrix products run in the compute dtype.

        Args:
            keep: converted weights until the outermost context ends; None: as the context around
                it does, by default True.
        """
        if self.compute_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.compute_dtype, cache_enabled=keep)

    def places(self) -> tuple[int, ...]:
        """Where its weights and buffers lie: what was built on them holds until they move."""
        tensors = chain(self.model.parameters(), self.model.buffers())
        return tuple(tensor.data_ptr() for tensor in tensors)

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

    def save(
        self,
        directory: str | Path,
        end_ids: Sequence[int] = (),
        pad_id: int | None = None,
        *,
        in_place: bool = False,
    ) -> None:
        """Write an ordinary model directory, LoRA merged; the tokenizer is saved elsewhere.

        Args:
            directory: new or existing.
            end_ids: tokens at which a response ends, for the directory's generation_config.json;
                none: as the model came.
            pad_id: the padding token; default the first of `end_ids`.
            in_place: merge LoRA into the weights themselves; they have to be made anew then.
        """
        merged = merged_state_dict(self.model, in_place) if self.lora_rank else None
        save_model(self.model, directory, merged)
        if end_ids:
            _write_ends(Path(directory) / "generation_config.json", list(end_ids), pad_id)


class _Core(nn.Module):
    """From packed rows to scores in one forward pass: where weights are sharded, they are gathered
    when it begins."""

    def __init__(self, model: Any, head: TokenLogprobs) -> None:
        super().__init__()
        self.model, self.head = model, head

    def forward(
        self,
        hidden_of: Callable[[Tensor, Tensor, Attend], Tensor],
        packed: Packed,
        positions: Tensor,
        attend: Attend,
    ) -> tuple[Tensor, Tensor, Tensor]:
        hidden = hidden_of(*packed.inputs(), attend)
        before = hidden.index_select(0, packed.places(positions - 1))
        return self.head.scores(before, packed.token_ids[positions])


def save_model(
    model: Any, directory: str | Path, state_dict: Mapping[str, Tensor] | None = None
) -> None:
    """Write an ordinary model directory that others may read; weights of `state_dict`, if given."""
    settings = model.generation_config
    # transformers loads settings of `generate` that do not fit together, and refuses to save them.
    model.generation_config = type(settings)()
    try:
        model.save_pretrained(directory, state_dict=state_dict, max_shard_size=FILE_SIZE)
    finally:
        model.generation_config = settings
    file = Path(directory) / "generation_config.json"
    settings.to_json_file(file, use_diff=True, keys_to_pop=["compile_config"])
    for file in Path(directory).iterdir():
        if file.is_file():  # safetensors leaves its files readable by their owner alone
            file.chmod(0o644)


def _write_ends(file: Path, end_ids: list[int], pad_id: int | None) -> None:
    """Say in a generation_config.json where `generate` is to stop; the rest stays as it was."""
    settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    settings.pop("_from_model_config", None)  # else transformers derives it anew
    settings["eos_token_id"] = end_ids[0] if len(end_ids) == 1 else end_ids
    settings["pad_token_id"] = end_ids[0] if pad_id is None else pad_id
    text = json.dumps(settings, indent=2, sort_keys=True)
    file.write_text(text + "\n", encoding="utf-8")


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
