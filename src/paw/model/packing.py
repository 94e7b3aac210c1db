"""Several token rows in one forward pass, without padding and without a mask.

Rows stand one after another in a single row of T tokens. Every layer of a decoder but attention
works on each token alone, so only attention must know where a row ends: the registered attention
function "paw_segments" hands the projected queries, keys and values to an `Attend` object, which
attends within each row. The cost is linear in the number of rows, where a [T, T] mask would be
quadratic. Hidden states are those of separate rows up to rounding: which kernel multiplies depends
on the number of tokens, and its sums on the instruction set. The same pack gives the same bits.
"""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import accumulate, chain, pairwise
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import AttentionInterface, AttentionMaskInterface

from paw.model.load import unsupported
from paw.model.prefixes import Prefixes, find_prefixes

ATTENTION = "paw_segments"
PIECE = 256
"""Tokens that attend together behind a shared beginning."""
HARMLESS = {
    "dropout", "is_causal", "position_ids", "use_cache", "output_attentions",
    "output_hidden_states", "return_dict",
}  # fmt: skip
"""What layers give to their attention besides, and nothing here depends on."""
KINDS = {
    "s_aux": "has sinks",
    "sinks": "has sinks",
    "softcap": "caps its scores",
    "position_bias": "adds a bias to its scores",
    "indices": "chooses what it sees",
    "block_indices": "chooses what it sees",
}
"""What it would have to compute for others."""


@dataclass(frozen=True, eq=False)
class Packed:
    """Rows of tokens laid end to end."""

    token_ids: Tensor
    """[T] long"""
    position_ids: Tensor
    """[T] long, starting at 0 in each row."""
    boundaries: tuple[int, ...]
    """[rows + 1] cumulative lengths: row r is `token_ids[boundaries[r]:boundaries[r + 1]]`."""
    prefixes: Prefixes | None = None
    """Which tokens are computed; None: all."""

    @property
    def num_rows(self) -> int:
        """Rows in the pack."""
        return len(self.boundaries) - 1

    @property
    def num_computed(self) -> int:
        """Tokens that pass through the model."""
        return len(self.token_ids if self.prefixes is None else self.prefixes.computed)

    def inputs(self) -> tuple[Tensor, Tensor]:
        """Token and position ids [U] of what passes through the model."""
        if self.prefixes is None:
            return self.token_ids, self.position_ids
        computed = self.prefixes.computed
        return self.token_ids[computed], self.position_ids[computed]

    def places(self, positions: Tensor) -> Tensor:
        """Where the tokens at `positions` of the pack, [S] long, stand in `inputs`."""
        return positions if self.prefixes is None else self.prefixes.places[positions]


def pack(
    rows: Sequence[Sequence[int]],
    device: torch.device | str,
    share: bool = False,
    base_lengths: Sequence[int] | None = None,
) -> Packed:
    """Lay rows of token ids end to end.

    Args:
        rows: at least one row, each of at least one token.
        device: where the tensors go.
        share: compute a beginning that several rows have once; see `find_prefixes`.
        base_lengths: tokens of each row that may be shared; None: all.

    Raises:
        ValueError: no rows, or an empty one.
    """
    lengths = [len(row) for row in rows]
    if not lengths or 0 in lengths:
        raise ValueError("pack needs at least one row and no empty rows")
    token_ids = torch.tensor(list(chain.from_iterable(rows)), dtype=torch.long)
    position_ids = torch.cat([torch.arange(n) for n in lengths])
    boundaries = (0, *accumulate(lengths))
    prefixes = find_prefixes(rows, base_lengths or lengths) if share else None
    if prefixes is not None:
        prefixes = prefixes.to(device)
    return Packed(token_ids.to(device), position_ids.to(device), boundaries, prefixes)


class Attend(Protocol):
    """How the tokens of one packed forward pass attend; called once per layer."""

    max_length: int
    """Longest sequence, earlier tokens included."""

    def __call__(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        *,
        window: int | None = None,
    ) -> Tensor:
        """query [1, heads, T, d], key [1, kv_heads, T, d] and value [1, kv_heads, T, e] ->
        [1, T, heads, e]. With a `window` a token sees itself and the `window - 1` before it."""
        ...


def window_mask(query: Tensor, start: int, stop: int, window: int | None) -> Tensor:
    """[stop - start, stop], 0 or -inf in the type of `query`: what tokens `start` to `stop` of a
    sequence see of its first `stop`."""
    # Additive, because SDPA would convert a boolean mask in every layer.
    mask = query.new_full((stop - start, stop), -torch.inf).triu_(start + 1)
    if window is not None:
        mask += torch.full_like(mask, -torch.inf).tril_(start - window)
    return mask


class SegmentAttention:
    """Causal attention of the computed tokens of a pack to their rows (see `Attend`)."""

    def __init__(self, boundaries: tuple[int, ...], prefixes: Prefixes | None = None):
        self.boundaries, self.prefixes = boundaries, prefixes
        self._lengths = [b - a for a, b in pairwise(boundaries)]
        starts = [0] * len(self._lengths) if prefixes is None else prefixes.starts
        self._computed = [n - start for n, start in zip(self._lengths, starts, strict=True)]
        self.max_length = max(self._lengths)
        self._offsets: tuple[Tensor, Tensor] | None = None
        self._masks: dict[int | None, Tensor] = {}

    def __call__(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scaling: float,
        *,
        window: int | None = None,
    ) -> Tensor:
        key, value = self._rows(key), self._rows(value)
        if flash_fits(query, value):
            return self._varlen(query, key, value, scaling, window)
        # Split, not sliced: the gradient of R slices is R tensors of all T tokens.
        keys, values = (x.split(self._lengths, dim=2) for x in (key, value))
        rows = zip(query.split(self._computed, dim=2), keys, values, strict=True)
        parts = [part for q, k, v in rows for part in self._row(q, k, v, scaling, window)]
        return torch.cat(parts, 2).transpose(1, 2)

    def _rows(self, computed: Tensor) -> Tensor:
        """[1, kv_heads, U, d] of the computed tokens -> [1, kv_heads, T, d] of whole rows."""
        if self.prefixes is None:
            return computed
        # Wide, since the gradient of a beginning is a sum over all rows that have it.
        wide = computed.to(torch.promote_types(computed.dtype, torch.float32))
        rows = wide[0].transpose(0, 1).index_select(0, self.prefixes.places)
        return rows.to(computed.dtype).transpose(0, 1)[None]

    def _row(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> list[Tensor]:
        """Attention of a row's last tokens. Behind a beginning or beyond a window in pieces, each
        of which sees itself and what it may of the tokens before it: nothing is scored in vain."""
        length = key.shape[2]
        begin = length - query.shape[2]
        options: dict[str, Any] = {
            "scale": scaling,
            "enable_gqa": query.shape[1] != key.shape[1],
        }
        near = window is None or length <= window
        if near and begin == 0:
            return [F.scaled_dot_product_attention(query, key, value, is_causal=True, **options)]
        if near:
            window = None
        if window not in self._masks:
            self._masks[window] = self._mask(query, window)
        mask, parts = self._masks[window], []
        size, reach = mask.shape
        for start in range(begin, length, size):
            stop = min(start + size, length)
            first = 0 if window is None else max(0, start - window + 1)
            parts.append(
                F.scaled_dot_product_attention(
                    query[:, :, start - begin : stop - begin],
                    key[:, :, first:stop],
                    value[:, :, first:stop],
                    attn_mask=mask[size - (stop - start) :, reach - (stop - first) :],
                    **options,
                )
            )
        return parts

    def _mask(self, query: Tensor, window: int | None) -> Tensor:
        """Of a whole piece and all that it may see; the lower right corner is that of a smaller."""
        size = min(PIECE, self.max_length) if window is None else window
        reach = self.max_length if window is None else 2 * window - 1
        return window_mask(query, reach - size, reach, window)

    def _varlen(
        self, query: Tensor, key: Tensor, value: Tensor, scaling: float, window: int | None
    ) -> Tensor:
        if self._offsets is None:
            computed = (0, *accumulate(self._computed))
            kinds = {"dtype": torch.int32, "device": query.device}
            self._offsets = torch.tensor(computed, **kinds), torch.tensor(self.boundaries, **kinds)
        q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
        out = flash_varlen(
            q,
            k,
            v,
            self._offsets,
            (max(self._computed), self.max_length),
            scaling=scaling,
            window=window,
        )
        return out[None]


def packed_hidden(backbone: Any, token_ids: Tensor, position_ids: Tensor, attend: Attend) -> Tensor:
    """Final hidden states of a decoder over tokens laid end to end.

    Args:
        backbone: a decoder prepared by `use_packed_attention`.
        token_ids: [T] long.
        position_ids: [T] long, each token's place in its own sequence.
        attend: what each token attends to.

    Returns:
        [T, H], after the final norm.
    """
    outputs = backbone(
        input_ids=token_ids[None],
        position_ids=position_ids[None],
        # A 4-D mask is taken as it is, so transformers builds none of its own and looks for no
        # packed rows; `paw_segments` ignores it.
        attention_mask=torch.zeros(1, 1, 1, 1, device=token_ids.device),
        use_cache=False,
        attend=attend,
    )
    return outputs.last_hidden_state[0]


def use_packed_attention(model: Any) -> None:
    """Let the layers of a transformers model attend through "paw_segments".

    Ordinary calls of the model (`generate`, a padded batch) work as before, through SDPA.
    """
    model.set_attn_implementation(ATTENTION)


def _attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    attend: Attend | None = None,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    if attend is None:
        sdpa = AttentionInterface()["sdpa"]
        return sdpa(module, query, key, value, attention_mask, scaling=scaling, **kwargs)
    # Some models leave the window to the mask that they make.
    window = kwargs.pop("sliding_window", getattr(module, "sliding_window", None)) or None
    for name, given in kwargs.items():
        if name not in HARMLESS and given is not None:
            what = KINDS.get(name, f"takes {name!r}")
            raise unsupported(module.config, f"has attention that {what}")
    if kwargs.get("is_causal") is False:
        raise unsupported(module.config, "has attention that sees later tokens")
    device = query.device.type
    if torch.is_autocast_enabled(device):
        # Rotary embeddings leave fp32 queries and keys: narrow them here, once, and so the cache.
        dtype = torch.get_autocast_dtype(device)
        query, key, value = query.to(dtype), key.to(dtype), value.to(dtype)
    layer: Any = module.layer_idx
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    out = attend(layer, query, key, value, scale, window=window)
    return out.contiguous(), None  # as the models' own functions, whose callers may want a view


def flash_fits(query: Tensor, value: Tensor) -> bool:
    """Can `flash_varlen` take these, [..., d] and [..., e]?"""
    size = query.shape[-1]
    narrow = query.dtype in (torch.float16, torch.bfloat16)
    fits = narrow and size == value.shape[-1] <= 256 and size % 8 == 0
    return query.is_cuda and fits and _varlen_attn is not None


def flash_varlen(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    offsets: tuple[Tensor, Tensor],
    longest: tuple[int, int],
    *,
    scaling: float,
    window: int | None,
) -> Tensor:
    """Causal attention of sequences laid end to end, whose last tokens are the queries.

    Args:
        query: [Q, heads, d] new tokens.
        key: [K, kv_heads, d] whole sequences, the new tokens last.
        value: [K, kv_heads, d]
        offsets: [sequences + 1] int32 each, cumulative lengths of queries and of sequences.
        longest: of the former and of the latter.
        scaling: of the scores.
        window: tokens that a token sees, itself included; None: all before it.

    Returns:
        [Q, heads, d]
    """
    assert _varlen_attn is not None
    # Grouped heads are taken as they are; later versions want to be told.
    grouped = {"enable_gqa": query.shape[1] != key.shape[1]} if _tells_groups else {}
    return _varlen_attn(
        query.contiguous(),
        key.contiguous(),
        value.contiguous(),
        *offsets,
        *longest,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        **grouped,
    )


def _find_varlen() -> tuple[Callable[..., Tensor] | None, bool]:
    """Torch's function, if it takes scale and window (2.11 does); does it ask for groups?"""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None, False
    known = inspect.signature(varlen_attn).parameters.keys()
    found = cast(Callable[..., Tensor], varlen_attn) if {"scale", "window_size"} <= known else None
    return found, "enable_gqa" in known


_varlen_attn, _tells_groups = _find_varlen()

AttentionInterface.register(ATTENTION, _attention)
AttentionMaskInterface.register(ATTENTION, AttentionMaskInterface()["sdpa"])
