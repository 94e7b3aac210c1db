"""What an update adds up while it learns."""

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn


@dataclass(slots=True)
class Statistics:
    """Sums over the tokens of an update, and what they are divided by at the end."""

    sums: dict[str, float | Tensor] = field(default_factory=dict)
    """By name; a tensor stays on its device until it is read."""

    def add(self, **values: float | Tensor) -> None:
        """Add to the sums, in float64."""
        for name, value in values.items():
            if isinstance(value, Tensor):
                value = value.detach().double()
            self.sums[name] = self.sums.get(name, 0.0) + value

    def merge(self, other: "Statistics") -> None:
        """Add another's sums."""
        self.add(**other.sums)

    def total(self, name: str) -> float:
        """The sum; 0 where nothing was added."""
        return float(self.sums.get(name, 0.0))

    def mean(self, name: str, count: str) -> float | None:
        """sum / count; None where there was nothing to count."""
        total = self.total(count)
        return self.total(name) / total if total else None


def gradient_norms(
    parameters: list[nn.Parameter], prediction: list[Tensor] | None
) -> dict[str, float]:
    """Norms of the two terms' gradients; the policy's is the difference to the sum."""
    whole = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    alone = prediction or [torch.zeros_like(p) for p in parameters]
    policy = [w - a for w, a in zip(whole, alone, strict=True)]

    def norm(gradient: list[Tensor]) -> float:
        return float(torch.stack([g.double().square().sum() for g in gradient]).sum().sqrt())

    return {"wm_gradient_norm": norm(alone), "policy_gradient_norm": norm(policy)}
