"""Mini-batches, and samples as tensors: nothing dropped or padded; weights make any split exact."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import chain, pairwise

import torch
from torch import Tensor

from paw.config.tree import OptimizerConfig
from paw.model.packing import Packed, pack
from paw.types import TrainingSample


@dataclass(frozen=True, slots=True, eq=False)
class ActionStream:
    """What the policy loss reads at the S action tokens of a batch; float64 but for the mask."""

    weights: Tensor
    """[S]"""
    old_logprobs: Tensor
    """[S]"""
    advantages: Tensor
    """[S]"""
    ref_logprobs: Tensor | None
    """[S]; None without a KL loss"""
    zero_advantage: Tensor
    """[S] bool"""

    def like(self, logprobs: Tensor) -> "ActionStream":
        """On the device and in the type of the log-probs."""
        ref = self.ref_logprobs
        return ActionStream(
            self.weights.to(logprobs),
            self.old_logprobs.to(logprobs),
            self.advantages.to(logprobs),
            None if ref is None else ref.to(logprobs),
            self.zero_advantage.to(logprobs.device),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """One micro-batch: rows in one pack, and the tokens that have a weight."""

    packed: Packed
    positions: Tensor
    """[S + T] long: of S action tokens, then of T target tokens"""
    actions: ActionStream
    """[S]"""
    target_weights: Tensor
    """[T]"""
    target_roles: Tensor
    """[T] `Role` of each, on the CPU"""
    samples: Sequence[TrainingSample]
    """The rows"""


def make_batch(
    samples: Sequence[TrainingSample], device: torch.device, share: bool = False
) -> Batch:
    """The samples as tensors: tokens and positions on the device, weights where they are read.

    `share`: what their base rows have in common is computed once; see `pack`.
    """
    policy_weights, target_weights = (
        stream(samples, name) for name in ("policy_weights", "target_weights")
    )
    actions = policy_weights.nonzero().squeeze(-1)
    targets = target_weights.nonzero().squeeze(-1)
    lengths = torch.tensor([len(s.token_ids) for s in samples])
    zero_advantage = torch.tensor([s.zero_advantage for s in samples]).repeat_interleave(lengths)
    has_reference = any(s.ref_logprobs for s in samples)
    return Batch(
        pack([s.token_ids for s in samples], device, share, [s.base_length for s in samples]),
        torch.cat([actions, targets]).to(device),
        ActionStream(
            policy_weights[actions],
            stream(samples, "old_logprobs")[actions],
            stream(samples, "advantages")[actions],
            stream(samples, "ref_logprobs")[actions] if has_reference else None,
            zero_advantage[actions],
        ),
        target_weights[targets],
        stream(samples, "roles")[targets],
        samples,
    )


def without_weight(sample: TrainingSample) -> TrainingSample:
    """The same row, of which no token enters any objective."""
    zeros = (0.0,) * len(sample.token_ids)
    return replace(
        sample,
        policy_weights=zeros,
        target_weights=zeros,
        value_positions=(),
        value_targets=(),
        old_values=(),
    )


def stream(samples: Sequence[TrainingSample], name: str) -> Tensor:
    """One field of numbers of all samples, end to end: float64 on the CPU."""
    values = list(chain.from_iterable(getattr(s, name) for s in samples))
    return torch.tensor(values, dtype=torch.float64)


def optimizer_steps(
    samples: Sequence[TrainingSample], settings: OptimizerConfig, generator: torch.Generator
) -> list[list[TrainingSample]]:
    """What each optimizer step of an update learns from: the mini-batches of the first pass, then
    those of the others, shuffled anew."""
    passes = (
        mini_batches(samples, settings.mini_batches, generator) for _ in range(settings.epochs)
    )
    return list(chain.from_iterable(passes))


def mini_batches(
    samples: Sequence[TrainingSample], count: int, generator: torch.Generator
) -> list[list[TrainingSample]]:
    """Split an update into the `count` optimizer steps of one pass.

    Samples that train actions are shuffled (not for count = 1) and cut into parts whose sizes
    differ by at most one; a row that only predicts goes where its transition's action goes. The
    split of the former does not depend on the latter.
    """
    base = [s for s in samples if not s.predicts_only]
    order = (
        torch.randperm(len(base), generator=generator).tolist() if count > 1 else range(len(base))
    )
    shuffled = [base[i] for i in order]
    bounds = [k * len(base) // count for k in range(count + 1)]
    parts = [shuffled[a:b] for a, b in pairwise(bounds)]
    part_of = {i: k for k, part in enumerate(parts) for s in part for i in s.transitions}
    for sample in samples:
        if sample.predicts_only:
            parts[part_of[sample.transitions[0]]].append(sample)
    return parts
