"""The learner executes weights: per-token weights come in, a weighted sum goes out.

It knows neither GRPO nor PaW. For each micro-batch one forward pass over packed rows, log-probs at
the tokens with a weight, and

    loss = sum_tokens policy_weight * (clipped surrogate + kl_coefficient * KL)
         + sum_tokens wm_weight * prediction loss

Denominators are in the weights, so micro-batches, packing and the order of samples do not change
the gradient beyond float addition.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import chain

import torch
from torch import Tensor

from paw import objective
from paw.errors import RunFailure
from paw.model.critic import Critic
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.train.batching import micro_batches
from paw.train.config import AlgorithmConfig, OptimizerConfig, PawConfig
from paw.train.samples import Row
from paw.types import TrainingSample

PREDICTION: dict[str, Callable[[Tensor, PawConfig], Tensor]] = {
    "cmae": lambda logprobs, paw: objective.clipped_mae(logprobs, paw.probability_cap),
    "mae": lambda logprobs, paw: objective.mean_absolute_error(logprobs),
    "ce": lambda logprobs, paw: objective.cross_entropy(logprobs),
}
"""Token loss of the next observation by name: [S] log-probs -> [S]."""


class NonFinite(RunFailure):
    """A loss or gradient is NaN or infinite; `samples` is the mini-batch that made it so."""

    def __init__(self, what: str, samples: Sequence[TrainingSample]):
        super().__init__(f"{what} is not finite")
        self.samples = samples


@dataclass(slots=True)
class Statistics:
    """Sums over the tokens of an update, and what they are divided by at the end."""

    sums: dict[str, float] = field(default_factory=dict)

    def add(self, **values: float) -> None:
        """Add to the sums."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value

    def mean(self, name: str, count: str) -> float:
        """sum / count; 0 where there was nothing to count."""
        total = self.sums.get(count, 0.0)
        return self.sums.get(name, 0.0) / total if total else 0.0


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
        for batch in self._row_batches(rows):
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
        for batch in self._row_batches(rows):
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
        if train_policy:
            self._policy_step(samples, statistics, scale, diagnose, rate)
        if self.critic is not None:
            self._critic_step(samples, statistics, scale / num_transitions)

    def _policy_step(
        self,
        samples: Sequence[TrainingSample],
        statistics: Statistics,
        scale: float,
        diagnose: bool,
        rate: float,
    ) -> None:
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
        norm = self._advance(
            self.optimizer, parameters, rate * self.settings.learning_rate, samples
        )
        self.num_steps += 1
        statistics.add(gradient_norm=norm, steps=1)

    def _losses(
        self, batch: Sequence[TrainingSample], statistics: Statistics
    ) -> tuple[Tensor, Tensor]:
        """Weighted policy and prediction loss of one micro-batch, from one forward pass."""
        device = self.policy.device
        packed = pack([s.token_ids for s in batch], device)

        def stream(name: str) -> Tensor:
            values = list(chain.from_iterable(getattr(s, name) for s in batch))
            return torch.tensor(values, dtype=torch.float64)

        policy_weights, wm_weights = stream("policy_weights"), stream("wm_weights")
        acts, predicts = policy_weights != 0, wm_weights != 0
        positions = (acts | predicts).nonzero().squeeze(-1)
        logprobs, entropy = self.policy.logprobs(packed, positions.to(device))
        acts, predicts = acts[positions], predicts[positions]

        def pick(values: Tensor, mask: Tensor) -> Tensor:
            return values[positions][mask].to(logprobs.device, logprobs.dtype)

        action_logprobs, old = logprobs[acts.to(device)], pick(stream("old_logprobs"), acts)
        advantages = pick(stream("advantages"), acts)
        clip = (self.algorithm.clip_low, self.algorithm.clip_high)
        losses = objective.clipped_surrogate(action_logprobs, old, advantages, *clip)
        if self.reference is not None:
            ref = pick(stream("ref_logprobs"), acts)
            kl = objective.kl_estimate(action_logprobs, ref)
            losses = losses + self.algorithm.kl_coefficient * kl
            statistics.add(ref_kl=float(kl.detach().sum()))
        policy_loss = objective.weighted_sum(losses, pick(policy_weights, acts))

        target_logprobs = logprobs[predicts.to(device)]
        prediction = self.prediction(target_logprobs, self.paw)
        wm_loss = objective.weighted_sum(prediction, pick(wm_weights, predicts))

        with torch.no_grad():
            ratio = (action_logprobs - old).exp()
            clipped = ((ratio < 1 - clip[0]) & (advantages < 0)) | (
                (ratio > 1 + clip[1]) & (advantages > 0)
            )
            drift = objective.kl_estimate(old, action_logprobs)  # KL(old || policy)
            idle = advantages == 0
            masked = objective.clipped_tokens(target_logprobs, self.paw.probability_cap)
            sums = [
                policy_loss, wm_loss, drift.sum(), drift[idle].sum(), idle.sum(), clipped.sum(),
                entropy[acts.to(device)].sum(), masked.sum(), -target_logprobs.sum(),
            ]  # fmt: skip
            numbers = torch.stack([s.detach().double() for s in sums]).tolist()
        names = (
            "policy_loss", "wm_loss", "kl", "idle_kl", "idle_tokens", "clipped",
            "entropy", "masked_targets", "target_nll",
        )  # fmt: skip
        statistics.add(
            **dict(zip(names, numbers, strict=True)),
            action_tokens=int(acts.sum()),
            target_tokens=int(predicts.sum()),
            tokens=len(packed.token_ids),
        )
        return policy_loss, wm_loss

    def _critic_step(
        self, samples: Sequence[TrainingSample], statistics: Statistics, scale: float
    ) -> None:
        assert self.critic is not None and self.critic_optimizer is not None
        valued = [s for s in samples if s.value_positions]
        for batch in micro_batches(valued, self.settings.tokens_per_micro_batch):
            packed = pack([s.token_ids[: s.base_length] for s in batch], self.critic.device)
            offsets = zip(batch, packed.boundaries, strict=False)
            positions = [offset + p for s, offset in offsets for p in s.value_positions]
            values = self.critic.values(packed, torch.tensor(positions, device=self.critic.device))
            targets, old = (
                torch.tensor(list(chain.from_iterable(getattr(s, name) for s in batch)))
                .to(values)
                for name in ("value_targets", "old_values")
            )  # fmt: skip
            losses = objective.value_loss(values, targets, old, self.algorithm.value_clip)
            (scale * losses.sum()).backward()
            statistics.add(value_loss=float(losses.detach().sum()), values=len(positions))
        rate = self.algorithm.critic_learning_rate
        self._advance(self.critic_optimizer, self.critic.parameters(), rate, samples)

    def _advance(
        self,
        optimizer: torch.optim.Optimizer,
        parameters: list[torch.nn.Parameter],
        learning_rate: float,
        samples: Sequence[TrainingSample],
    ) -> float:
        """Clip, check, step, zero. Returns the gradient norm before clipping."""
        norm = float(torch.nn.utils.clip_grad_norm_(parameters, self.settings.max_grad_norm))
        if not torch.isfinite(torch.tensor(norm)):
            optimizer.zero_grad()
            raise NonFinite("the gradient", samples)
        warmup = self.settings.warmup_steps
        share = min(1.0, (self.num_steps + 1) / warmup) if warmup else 1.0
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * share
        optimizer.step()
        optimizer.zero_grad()
        return norm

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

    def _row_batches(self, rows: Sequence[Row]) -> list[list[Row]]:
        batches: list[list[Row]] = [[]]
        tokens = 0
        for row in rows:
            if batches[-1] and tokens + len(row.token_ids) > self.settings.tokens_per_micro_batch:
                batches.append([])
                tokens = 0
            batches[-1].append(row)
            tokens += len(row.token_ids)
        return batches
