"""A value function for PPO: a decoder of its own with a scalar head."""

import contextlib
import copy
from collections.abc import Mapping
from typing import Any, Self

import torch
from torch import Tensor, nn

from paw.model.packing import Packed, SegmentAttention, packed_hidden
from paw.model.policy import Policy, copy_parameters


class Critic:
    """V(h): expected discounted return from the end of a prompt."""

    def __init__(
        self,
        backbone: Any,
        compute_dtype: torch.dtype | None = None,
        share_prefixes: bool = True,
    ):
        """A critic on a decoder that it may train; the scalar head starts at zero. The others are
        the policy's."""
        parameter = next(backbone.parameters())
        self.backbone = backbone
        self.device = parameter.device
        self.compute_dtype = compute_dtype
        self.share_prefixes = share_prefixes
        self.head = nn.Linear(
            backbone.config.hidden_size, 1, device=parameter.device, dtype=parameter.dtype
        )
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.core = _Core(backbone, self.head)

    @classmethod
    def from_policy(cls, policy: Policy) -> Self:
        """A critic that starts from a copy of the policy's decoder and shares nothing with it."""
        return cls(copy.deepcopy(policy.backbone), policy.compute_dtype, policy.share_prefixes)

    def values(self, packed: Packed, positions: Tensor) -> Tensor:
        """Values [S], in fp32 or wider, of the rows up to and including each position.

        Args:
            packed: rows of tokens.
            positions: [S] long, indices into `packed.token_ids` (the last prompt token of a turn).
        """
        return self.core(packed, positions, self._autocast()).squeeze(1)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self.compute_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, self.compute_dtype)

    def parameters(self) -> list[nn.Parameter]:
        """Trainable parameters; from a LoRA policy its adapter's copy and the head."""
        backbone = [p for p in self.backbone.parameters() if p.requires_grad]
        return [*backbone, *self.head.parameters()]

    def state_dict(self) -> dict[str, Tensor]:
        """Trainable parameters by name."""
        named = [*self.backbone.named_parameters(prefix="backbone")]
        named += self.head.named_parameters(prefix="head")
        return {name: p.detach() for name, p in named if p.requires_grad}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Copy in what `state_dict` gave, bit for bit; ValueError for another model's."""
        copy_parameters(self.state_dict(), state)


class _Core(nn.Module):
    """From packed rows to values [S, 1] in one forward pass, as the policy's."""

    def __init__(self, backbone: Any, head: nn.Linear) -> None:
        super().__init__()
        self.backbone, self.head = backbone, head

    def forward(
        self, packed: Packed, positions: Tensor, autocast: contextlib.AbstractContextManager[Any]
    ) -> Tensor:
        with autocast:
            attend = SegmentAttention(packed.boundaries, packed.prefixes)
            hidden = packed_hidden(self.backbone, *packed.inputs(), attend)
        read = hidden[packed.places(positions)]
        wide = torch.promote_types(self.head.weight.dtype, torch.float32)
        # The head alone runs wide: returns differ by less than bf16 resolves.
        return nn.functional.linear(
            read.to(wide), self.head.weight.to(wide), self.head.bias.to(wide)
        )
