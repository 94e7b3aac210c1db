"""The learner executes weights: per-token weights come in, a weighted sum goes out.

It knows neither GRPO nor PaW. For each micro-batch one forward pass over packed rows, log-probs at
the tokens with a weight, and

    loss = sum_tokens policy_weight * (clipped surrogate + kl_coefficient * KL)
         + sum_tokens wm_weight * prediction loss

Denominators are in the weights, so micro-batches, packing and the order of samples do not change
the gradient beyond float addition.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import AlgorithmConfig, OptimizerConfig, PawConfig
from paw.errors import RunFailure
from paw.model.critic import Critic
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.train.batching import micro_batches
from paw.train.samples import Row
from paw.types import TrainingSample

PREDICTION: dict[str, Callable[[Tensor, PawConfig], Tensor]] = {
    "cmae": lambda logprobs, paw: objective.clipped_mae(logprobs, paw.probability_cap),
    "mae": lambda logprobs, paw: objective.mean_absolute_error(logprobs),
    "ce": lambda logprobs, paw: objective.cross_entropy(logprobs),
}
"""Token loss of the next observation by name: [S] log-probs -> [S]."""


class NonFinite(RunFailure):
    """A gradient is NaN or infinite; `samples` is the mini-batch that made it so."""

    def __init__(self, what: str, samples: Sequence[TrainingSample]):
        super().__init__(f"{what} is not finite")
        self.samples = samples


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

    def total(self, name: str) -> float:
        """The sum; 0 where nothing was added."""
        return float(self.sums.get(name, 0.0))

    def mean(self, name: str, count: str) -> float:
        """sum / count; 0 where there was nothing to count."""
        total = self.total(count)
        return self.total(name) / total if total else 0.0


class Learner:
    """Policy (and critic) with their optimizers.

    Args:
        policy: trained in place.
        critic: trained in place on `value_targets`; None for algorithms without one.
        reference: frozen policy of the KL loss; None without one.
        optimizer: learning rate, clipping, micro-batch size.
        algorithm: clip range, KL coefficient.
        paw: token loss of the prediction.
    """

    def __init__(
        self,
        policy: Policy,
        critic: Critic | None,
        reference: Policy | None,
        optimizer: OptimizerConfig,
        algorithm: AlgorithmConfig,
        paw: PawConfig,
    ) -> None:
        self.policy, self.critic, self.reference = policy, critic, reference
        self.settings, self.algorithm, self.paw = optimizer, algorithm, paw
        self.prediction = PREDICTION[paw.loss]
        self.num_steps = 0
        """Optimizer steps taken; drives the warm-up."""
        self.optimizer = self._adamw(policy.parameters(), optimizer.learning_rate)
        self.critic_optimizer = (
            None
            if critic is None
            else self._adamw(critic.parameters(), algorithm.critic_learning_rate)
        )

    @torch.no_grad()
    def score(
        self, rows: Sequence[Row], policy: Policy
    ) -> tuple[list[list[float]], list[list[float]]]:
        """Log-probs and full entropies of every action token: ([P] of [A], [P] of [A]).

        One forward pass without gradient, in the order of the transitions.
        """
        logprobs: dict[int, list[float]] = {}
        entropies: dict[int, list[float]] = {}
        for batch in micro_batches(rows, self.settings.tokens_per_micro_batch):
            packed = pack([r.token_ids for r in batch], policy.device)
            spans, positions = [], []
            for row, offset in zip(batch, packed.boundaries, strict=False):
                ends = zip(row.turns, row.action_starts, row.action_ends, strict=True)
                for turn, start, end in ends:
                    spans.append((turn, len(positions), len(positions) + end - start))
                    positions += range(offset + start, offset + end)
            values = policy.logprobs(packed, torch.tensor(positions, device=policy.device))
            flat, entropy = (v.tolist() for v in values)
            for turn, start, end in spans:
                logprobs[turn], entropies[turn] = flat[start:end], entropy[start:end]
        turns = sorted(logprobs)
        return [logprobs[t] for t in turns], [entropies[t] for t in turns]

    @torch.no_grad()
    def values(self, rows: Sequence[Row]) -> list[float]:
        """The critic's value of each transition's prompt: [P]."""
        assert self.critic is not None
        values: dict[int, float] = {}
        for batch in micro_batches(rows, self.settings.tokens_per_micro_batch):
            packed = pack([r.token_ids for r in batch], self.critic.device)
            offsets = packed.boundaries
            positions = [
                o + s - 1 for r, o in zip(batch, offsets, strict=False) for s in r.action_starts
            ]
            turns = [t for r in batch for t in r.turns]
            found = self.critic.values(packed, torch.tensor(positions, device=self.critic.device))
            values.update(zip(turns, found.tolist(), strict=True))
        return [values[t] for t in sorted(values)]

    def step(
        self,
        samples: Sequence[TrainingSample],
        statistics: Statistics,
        *,
        scale: float = 1.0,
        num_transitions: int = 1,
        train_policy: bool = True,
        diagnose: bool = False,
        rate: float = 1.0,
    ) -> None:
        """One optimizer step on one mini-batch.

        Args:
            samples: rows with update-level weights.
            statistics: sums are added here.
            scale: M, the number of mini-batches of the update: makes each step's size the usual.
            num_transitions: P of the update, denominator of the value loss.
            train_policy: False during the critic's warm-up.
            diagnose: also measure the gradient norm of each loss term by itself.
            rate: share of the learning rate, for a caller with a schedule of its own.

        Raises:
            NonFinite: a NaN or infinity; no parameter has been changed by this step.
        """
        steps: list[tuple[str, torch.optim.Optimizer, float]] = []
        if train_policy:
            self.policy_gradient(samples, statistics, scale, diagnose)
            warmup = self.settings.warmup_steps
            rate *= min(1.0, (self.num_steps + 1) / warmup) if warmup else 1.0
            steps.append(("gradient_norm", self.optimizer, rate * self.settings.learning_rate))
        if self.critic_optimizer is not None:
            self.critic_gradient(samples, statistics, scale / num_transitions)
            critic_rate = self.algorithm.critic_learning_rate
            steps.append(("critic_gradient_norm", self.critic_optimizer, critic_rate))
        norms = {name: self._clip(optimizer) for name, optimizer, _ in steps}
        finite = all(math.isfinite(norm) for norm in norms.values())
        for _, optimizer, learning_rate in steps:
            for group in optimizer.param_groups:
                group["lr"] = learning_rate
            if finite:
                optimizer.step()
            optimizer.zero_grad()
        if not finite:
            raise NonFinite("the gradient", samples)
        self.num_steps += train_policy
        statistics.add(**norms, steps=1)

    def policy_gradient(
        self,
        samples: Sequence[TrainingSample],
        statistics: Statistics,
        scale: float = 1.0,
        diagnose: bool = False,
    ) -> None:
        """Add `scale` times the samples' gradient to the policy's; arguments as in `step`."""
        parameters = self.policy.parameters()
        prediction_gradient: list[Tensor] | None = None
        for batch in micro_batches(samples, self.settings.tokens_per_micro_batch):
            policy_loss, wm_loss = self._losses(batch, statistics)
            if diagnose and any(any(s.wm_weights) for s in batch):
                alone = torch.autograd.grad(scale * wm_loss, parameters, retain_graph=True)
                old = prediction_gradient or [torch.zeros_like(p) for p in parameters]
                prediction_gradient = [a + b for a, b in zip(old, alone, strict=True)]
            (scale * (policy_loss + wm_loss)).backward()
        if diagnose:
            self._measure(parameters, prediction_gradient, statistics)

    def critic_gradient(
        self, samples: Sequence[TrainingSample], statistics: Statistics, scale: float
    ) -> None:
        """Add `scale` times the gradient of the summed value loss to the critic's."""
        assert self.critic is not None
        valued = [s for s in samples if s.value_positions]
        for batch in micro_batches(valued, self.settings.tokens_per_micro_batch):
            # Appended targets stand behind every value and would only cost time.
            packed = pack([s.token_ids[: s.base_length] for s in batch], self.critic.device)
            offsets = zip(batch, packed.boundaries, strict=False)
            positions = [offset + p for s, offset in offsets for p in s.value_positions]
            values = self.critic.values(packed, torch.tensor(positions, device=self.critic.device))
            targets, old = (
                _stream(batch, name).to(values) for name in ("value_targets", "old_values")
            )
            losses = objective.value_loss(values, targets, old, self.algorithm.value_clip)
            (scale * losses.sum()).backward()
            statistics.add(value_loss=losses.sum(), values=len(positions))

    def _losses(
        self, batch: Sequence[TrainingSample], statistics: Statistics
    ) -> tuple[Tensor, Tensor]:
        """Weighted policy and prediction loss of one micro-batch, from one forward pass."""
        packed = pack([s.token_ids for s in batch], self.policy.device)
        actions, targets = (
            _stream(batch, name).nonzero().squeeze(-1) for name in ("policy_weights", "wm_weights")
        )
        positions = torch.cat([actions, targets]).to(self.policy.device)
        logprobs, entropy = self.policy.logprobs(packed, positions)
        count = len(actions)
        statistics.add(tokens=len(packed.token_ids), entropy=entropy[:count].sum())
        return (
            self._policy_loss(logprobs[:count], batch, actions, statistics),
            self._wm_loss(logprobs[count:], batch, targets, statistics),
        )

    def _policy_loss(
        self,
        logprobs: Tensor,
        batch: Sequence[TrainingSample],
        positions: Tensor,
        statistics: Statistics,
    ) -> Tensor:
        """Clipped surrogate and KL loss at `positions` of the packed batch."""

        def at(name: str) -> Tensor:
            return _stream(batch, name)[positions].to(logprobs)

        old, advantages = at("old_logprobs"), at("advantages")
        low, high = self.algorithm.clip_low, self.algorithm.clip_high
        losses = objective.clipped_surrogate(logprobs, old, advantages, low, high)
        if self.reference is not None:
            kl = objective.kl_estimate(logprobs, at("ref_logprobs"))
            losses = losses + self.algorithm.kl_coefficient * kl
            statistics.add(ref_kl=kl.sum())
        loss = objective.weighted_sum(losses, at("policy_weights"))
        with torch.no_grad():
            ratio = (logprobs - old).exp()
            clipped = (ratio < 1 - low) & (advantages < 0) | (ratio > 1 + high) & (advantages > 0)
            drift = objective.kl_estimate(old, logprobs)  # KL(old || policy)
            lengths = torch.tensor([len(s.token_ids) for s in batch])
            idle = torch.tensor([s.idle for s in batch]).repeat_interleave(lengths)[positions]
        statistics.add(
            policy_loss=loss,
            action_tokens=len(positions),
            clipped=clipped.sum(),
            kl=drift.sum(),
            idle_kl=drift[idle.to(drift.device)].sum(),
            idle_tokens=idle.sum(),
        )
        return loss

    def _wm_loss(
        self,
        logprobs: Tensor,
        batch: Sequence[TrainingSample],
        positions: Tensor,
        statistics: Statistics,
    ) -> Tensor:
        """Prediction loss at `positions` of the packed batch."""
        weights = _stream(batch, "wm_weights")[positions].to(logprobs)
        loss = objective.weighted_sum(self.prediction(logprobs, self.paw), weights)
        masked = objective.clipped_tokens(logprobs, self.paw.probability_cap)
        statistics.add(
            wm_loss=loss,
            target_tokens=len(positions),
            masked_targets=masked.sum(),
            target_nll=-logprobs.sum(),
        )
        return loss

    def _clip(self, optimizer: torch.optim.Optimizer) -> float:
        """Clip the gradient to `max_grad_norm`. Returns its norm before."""
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        return float(torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm))

    def _measure(
        self, parameters: list, prediction: list[Tensor] | None, statistics: Statistics
    ) -> None:
        """Norms of the two terms' gradients; the policy's is the difference to the sum."""
        whole = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
        alone = prediction or [torch.zeros_like(p) for p in parameters]
        policy = [w - a for w, a in zip(whole, alone, strict=True)]

        def norm(gradient: list[Tensor]) -> float:
            return float(torch.stack([g.double().square().sum() for g in gradient]).sum().sqrt())

        statistics.add(wm_gradient_norm=norm(alone), policy_gradient_norm=norm(policy), measured=1)

    def _adamw(self, parameters: list[torch.nn.Parameter], rate: float) -> torch.optim.AdamW:
        settings = self.settings
        return torch.optim.AdamW(
            parameters, lr=rate, betas=settings.betas, weight_decay=settings.weight_decay
        )


def _stream(batch: Sequence[TrainingSample], name: str) -> Tensor:
    """One field of numbers of all samples, end to end: float64 on the CPU."""
    values = list(chain.from_iterable(getattr(s, name) for s in batch))
    return torch.tensor(values, dtype=torch.float64)
