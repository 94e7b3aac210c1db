"""What an update adds up while it learns."""

import math
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from paw.rollout.ranks import ALONE, Ranks
from paw.train.expected import Met, expected

ROUNDING = 1e-5
"""Of a difference of two gradients, relative to them: a hundred units in fp32's last place."""


@dataclass(slots=True)
class Statistics:
    """Sums over the tokens of an update, and what they are divided by at the end."""

    sums: dict[str, float | Tensor] = field(default_factory=dict)
    """By name; a tensor stays on its device until it is read."""
    met: list[Met] = field(default_factory=list)
    """Targets as the learner met them in this step, on this rank"""
    expected: dict[int, list[float]] = field(default_factory=dict)
    """Of all ranks, after the step: see `paw.train.expected`"""

    def add(self, **values: float | Tensor) -> None:
        """Add to the sums, in float64."""
        for name, value in values.items():
            if isinstance(value, Tensor):
                value = value.detach().double()
            self.sums[name] = self.sums.get(name, 0.0) + value

    def merge(self, other: "Statistics") -> None:
        """Add another's."""
        self.add(**other.sums)
        self.met += other.met
        self.expected = other.expected | self.expected

    def everywhere(self, ranks: Ranks) -> "Statistics":
        """Of an optimizer step, on all ranks."""
        found = Statistics()
        numbers = {name: float(value) for name, value in self.sums.items()}
        for sums, met in ranks.gather((numbers, expected(self.met))):
            found.merge(Statistics({**sums}, expected=met))
        return found

    def total(self, name: str) -> float:
        """The sum; 0 where nothing was added."""
        return float(self.sums.get(name, 0.0))

    def mean(self, name: str, count: str) -> float | None:
        """sum / count; None where there was nothing to count."""
        total = self.total(count)
        return self.total(name) / total if total else None


def gradient_norms(
    parameters: list[nn.Parameter], alone: list[Tensor], ranks: Ranks = ALONE
) -> dict[str, float]:
    """Norms of the two terms' gradients, and the cosine between them where there are two; `alone`
    is the prediction's.

    The policy's is the difference of the sum and the prediction's; where that is nothing but
    rounding it has no direction.
    """
    whole = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    whole, alone = ranks.parts(whole), ranks.parts(alone)
    policy = [w - a for w, a in zip(whole, alone, strict=True)]

    def inner(one: list[Tensor], other: list[Tensor]) -> float:
        pairs = zip(one, other, strict=True)
        products = [(a.double() * b.double()).sum() for a, b in pairs]
        return ranks.total(float(torch.stack(products).sum()))

    prediction_norm, policy_norm = (math.sqrt(inner(g, g)) for g in (alone, policy))
    found = {"wm_gradient_norm": prediction_norm, "policy_gradient_norm": policy_norm}
    if prediction_norm > 0 and policy_norm > ROUNDING * prediction_norm:
        cosine = inner(alone, policy) / (prediction_norm * policy_norm)
        found |= {"gradient_cosine": cosine, "cosines": 1}
    return found
