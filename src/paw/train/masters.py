"""AdamW that small steps move bf16 weights with.

A bf16 number has 8 bits: a step below a 512th of a weight rounds to nothing, and so does a gradient
added to a sum 512 times as large. So each parameter narrower than fp32 has a master, its copy in
fp32. The model computes with the narrow weights; gradients are added up in fp32, AdamW steps on the
masters, and the narrow weights are the masters rounded. A parameter of fp32 or wider is its own
master, and all is AdamW as ever.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from paw.config.tree import OptimizerConfig


class MasterAdamW(torch.optim.AdamW):
    """AdamW over a model's parameters or their masters.

    Attributes:
        masters: fp32 or wider, one for each parameter, in order; gradients stand in their `grad`
            after a backward pass within `accumulate`.
    """

    def __init__(self, parameters: Sequence[nn.Parameter], rate: float, settings: OptimizerConfig):
        """`parameters`: trainable ones; `rate`: the learning rate; the rest from `settings`."""
        self.masters = [_master(p) for p in parameters]
        self._narrow = [
            (p, master)
            for p, master in zip(parameters, self.masters, strict=True)
            if master is not p
        ]
        super().__init__(
            self.masters, lr=rate, betas=settings.betas, weight_decay=settings.weight_decay
        )

    @contextlib.contextmanager
    def accumulate(self) -> Iterator[None]:
        """Within it, backward passes add to the masters' gradients; a narrow gradient is freed as
        soon as it has been added."""

        def move(parameter: Tensor, master: Tensor) -> None:
            assert parameter.grad is not None
            if master.grad is None:
                master.grad = parameter.grad.to(master.dtype)
            else:
                master.grad += parameter.grad
            parameter.grad = None

        hooks = [
            p.register_post_accumulate_grad_hook(lambda p, master=master: move(p, master))
            for p, master in self._narrow
        ]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def clip(self, max_norm: float) -> float:
        """Scale the gradient down to `max_norm`. Returns its norm before, of wide gradients."""
        return float(nn.utils.clip_grad_norm_(self.masters, max_norm))

    def step(self, closure: None = None) -> None:
        """One step of the masters; narrow parameters follow, rounded."""
        super().step(closure)
        self._round()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop all gradients, those that a broken backward pass has left included."""
        super().zero_grad(set_to_none)
        for parameter, _ in self._narrow:
            parameter.grad = None

    def state_dict(self) -> dict[str, Any]:
        """AdamW's state, with `masters` where there are any: plain tensors."""
        masters = [master.detach() for _, master in self._narrow]
        return {**super().state_dict(), **({"masters": masters} if masters else {})}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on from what `state_dict` gave, bit for bit; narrow parameters become what the masters
        round to.

        Raises:
            ValueError: it is of other parameters, or of parameters of another type.
        """
        masters = state_dict.get("masters", [])
        wanted = [master.shape for _, master in self._narrow]
        if [m.shape for m in masters] != wanted:
            raise ValueError(f"{len(masters)} fp32 masters, not the {len(wanted)} of this model")
        super().load_state_dict(state_dict)
        with torch.no_grad():
            for (_, own), saved in zip(self._narrow, masters, strict=True):
                own.copy_(saved)
        self._round()

    @torch.no_grad()
    def _round(self) -> None:
        for parameter, master in self._narrow:
            parameter.copy_(master)


def _master(parameter: nn.Parameter) -> nn.Parameter:
    """The parameter itself, or a copy in fp32 where it is narrower."""
    wide = torch.promote_types(parameter.dtype, torch.float32)
    return parameter if parameter.dtype == wide else nn.Parameter(parameter.detach().to(wide))
