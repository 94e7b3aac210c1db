"""The learner executes streams: per-token weights come in, a weighted sum goes out.

It knows neither GRPO nor PaW. For each micro-batch one forward pass over packed rows, log-probs at
the tokens with a weight, and

    loss = sum_tokens policy_weight * policy loss + sum_tokens target_weight * prediction loss

Denominators are in the weights, so micro-batches, packing and the order of samples do not change
the gradient beyond float addition. A row without any weight is passed over.
"""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import OptimizerConfig
from paw.errors import RunFailure
from paw.model.critic import Critic
from paw.model.memory import MOST_TOKENS
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.model.spans import micro_batches
from paw.rollout.ranks import ALONE, Ranks
from paw.train.batching import Batch, make_batch, stream, without_weight
from paw.train.losses import Losses
from paw.train.masters import MasterAdamW
from paw.train.memory import TokenLimit, with_less_memory
from paw.train.statistics import Statistics, gradient_norms
from paw.types import TrainingSample


class NonFinite(RunFailure):
    """A gradient is NaN or infinite; `samples` is the mini-batch that made it so."""

    def __init__(self, what: str, samples: Sequence[TrainingSample]):
        super().__init__(f"{what} is not finite")
        self.samples = samples


class Learner:
    """Policy (and critic) with their optimizers.

    Args:
        policy: trained in place.
        critic: trained in place on `value_targets`; None for algorithms without one.
        losses: per token.
        settings: learning rate, clipping, micro-batch size.
        critic_learning_rate: of the critic's AdamW.
        ranks: that learn together, each from its share of the rows.
    """

    def __init__(
        self,
        policy: Policy,
        critic: Critic | None,
        losses: Losses,
        settings: OptimizerConfig,
        critic_learning_rate: float = 0.0,
        *,
        ranks: Ranks = ALONE,
    ) -> None:
        self.policy, self.critic, self.ranks = policy, critic, ranks
        self.losses, self.settings = losses, settings
        self.critic_learning_rate = critic_learning_rate
        self.limit = TokenLimit(settings.tokens_per_micro_batch or MOST_TOKENS)
        self.num_steps = 0
        """Optimizer steps taken; drives the warm-up."""
        self.optimizer = MasterAdamW(policy.parameters(), settings.learning_rate, settings)
        self.critic_optimizer = (
            None
            if critic is None
            else MasterAdamW(critic.parameters(), critic_learning_rate, settings)
        )

    def step(
        self,
        samples: Sequence[TrainingSample],
        *,
        scale: float = 1.0,
        num_transitions: int = 1,
        train_policy: bool = True,
        diagnose: bool = False,
        rate_share: float = 1.0,
    ) -> Statistics:
        """One optimizer step on one mini-batch.

        Args:
            samples: rows with update-level weights; the same on every rank.
            scale: M, the mini-batches of one pass over the update: steps of the usual size.
            num_transitions: P of the update, denominator of the value loss.
            train_policy: False during the critic's warm-up.
            diagnose: also measure the gradient norm of each loss term by itself.
            rate_share: share of the learning rate, for a caller with a schedule of its own.

        Raises:
            NonFinite: a NaN or infinity; no parameter has been changed by this step.
            UserError: memory ran out twice.
        """

        def gradients() -> Statistics:
            found = Statistics()
            if train_policy:
                found.merge(self.policy_gradient(samples, scale))
            if self.critic is not None:
                found.merge(self.critic_gradient(samples, scale / num_transitions))
            return found

        alone = self.prediction_gradient(samples, scale) if diagnose and train_policy else None
        statistics = self._attempt(gradients).everywhere(self.ranks)
        steps: list[tuple[str, MasterAdamW, float]] = []
        if train_policy:
            warmup = self.settings.warmup_steps
            warm = min(1.0, (self.num_steps + 1) / warmup) if warmup else 1.0
            rate = rate_share * warm * self.settings.learning_rate
            steps.append(("gradient_norm", self.optimizer, rate))
        if self.critic_optimizer is not None:
            rate = self.critic_learning_rate
            steps.append(("critic_gradient_norm", self.critic_optimizer, rate))
        for _, optimizer, _ in steps:
            self.ranks.add_up(optimizer.masters)
        if alone is not None:
            found = gradient_norms(self.optimizer.masters, alone, self.ranks)
            statistics.add(**found, measured=1)
        norms = {name: optimizer.clip(self.settings.max_grad_norm) for name, optimizer, _ in steps}
        finite = all(math.isfinite(norm) for norm in norms.values())
        for _, optimizer, rate in steps:
            for group in optimizer.param_groups:
                group["lr"] = rate
            if finite:
                optimizer.step()
            optimizer.zero_grad()
        if not finite:
            raise NonFinite("the gradient", samples)
        self.num_steps += train_policy
        statistics.add(**norms, steps=1)
        return statistics

    def state(self) -> dict[str, Any]:
        """What training needs to go on beside the policy's weights: plain tensors and numbers."""
        found = {"num_steps": self.num_steps, "optimizer": self.optimizer.state_dict()}
        if self.policy.lora_rank:  # the policy's own directory has the adapter merged
            found["adapter"] = self.policy.state_dict()
        if self.critic is not None and self.critic_optimizer is not None:
            found["critic"] = self.critic.state_dict()
            found["critic_optimizer"] = self.critic_optimizer.state_dict()
        return found

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` gave, bit for bit; the policy's weights are loaded already.

        Raises:
            KeyError, ValueError, RuntimeError: it is of another model or algorithm.
        """
        self.optimizer.load_state_dict(state["optimizer"])
        self.num_steps = state["num_steps"]
        if self.policy.lora_rank:
            self.policy.load_state_dict(state["adapter"])
        if self.critic is not None and self.critic_optimizer is not None:
            self.critic.load_state_dict(state["critic"])
            self.critic_optimizer.load_state_dict(state["critic_optimizer"])

    def policy_gradient(
        self, samples: Sequence[TrainingSample], scale: float = 1.0, prediction_alone: bool = False
    ) -> Statistics:
        """Add `scale` times the gradient of this rank's samples to that of the policy's masters;
        arguments as in `step`. `prediction_alone`: of that term."""
        statistics = Statistics()
        weighted = [s for s in samples if s.has_weight] or samples[:1]
        for members in self._batches(weighted):
            batch = make_batch(members, self.policy.device, self.policy.share_prefixes)
            policy_loss, wm_loss = self._losses(batch, statistics)
            loss = wm_loss if prediction_alone else policy_loss + wm_loss
            with self.optimizer.accumulate():
                (scale * loss).backward()
        return statistics

    def prediction_gradient(self, samples: Sequence[TrainingSample], scale: float) -> list[Tensor]:
        """That of the prediction term alone, on all ranks: of each of the policy's masters. In
        passes of their own, which are not counted: sharded weights can be asked no other way."""
        masters = self.optimizer.masters
        with self.policy.passes.uncounted():
            self._attempt(lambda: self.policy_gradient(samples, scale, prediction_alone=True))
        self.ranks.add_up(masters)
        found = [torch.zeros_like(m) if m.grad is None else m.grad for m in masters]
        self.optimizer.zero_grad()
        return found

    def _attempt(self, gradients: Callable[[], Statistics]) -> Statistics:
        """Of this rank's passes; with less memory, where it runs out and one rank may."""

        def undo() -> None:
            for optimizer in filter(None, (self.optimizer, self.critic_optimizer)):
                optimizer.zero_grad()

        return with_less_memory(gradients, self.limit, undo, may_retry=not self.ranks.sharded)

    def _batches(self, samples: Sequence[TrainingSample]) -> Iterator[list[TrainingSample]]:
        """This rank's micro-batches."""
        own = self.ranks.mine(samples, lambda sample: sample.base_length)
        return self.ranks.rounds(
            micro_batches(own, self.limit.tokens), lambda: without_weight(samples[0])
        )

    def critic_gradient(self, samples: Sequence[TrainingSample], scale: float) -> Statistics:
        """Add `scale` times the summed value loss's gradient to that of the critic's masters."""
        assert self.critic is not None and self.critic_optimizer is not None
        statistics, device = Statistics(), self.critic.device
        for members in self._batches([s for s in samples if s.value_positions]):
            # Appended targets stand behind every value and would only cost time.
            rows = [s.token_ids[: s.base_length] for s in members]
            packed = pack(rows, device, self.critic.share_prefixes)
            offsets = zip(members, packed.boundaries, strict=False)
            positions = [offset + p for s, offset in offsets for p in s.value_positions]
            places = torch.tensor(positions, device=device, dtype=torch.long)
            values = self.critic.values(packed, places)
            targets, old = (
                stream(members, name).to(values) for name in ("value_targets", "old_values")
            )
            loss = self.losses.value(values, targets, old).sum()
            with self.critic_optimizer.accumulate():
                (scale * loss).backward()
            statistics.add(value_loss=loss, values=len(positions))
        return statistics

    def _losses(self, batch: Batch, statistics: Statistics) -> tuple[Tensor, Tensor]:
        """Weighted policy and prediction loss of one micro-batch, from one forward pass."""
        logprobs, entropy = self.policy.logprobs(batch.packed, batch.positions)
        count = len(batch.actions.weights)
        actions = batch.actions.like(logprobs)
        policy, policy_sums = self.losses.policy(logprobs[:count], actions)
        prediction, prediction_sums = self.losses.prediction(logprobs[count:], batch.target_roles)
        policy_loss = objective.weighted_sum(policy, actions.weights)
        wm_loss = objective.weighted_sum(prediction, batch.target_weights.to(logprobs))
        statistics.met.append((batch.samples, logprobs[count:].detach()))
        statistics.add(
            tokens=len(batch.packed.token_ids) if len(batch.positions) else 0,
            computed=batch.packed.num_computed,
            entropy=entropy[:count].sum(),
            action_tokens=count,
            target_tokens=len(batch.target_weights),
            policy_loss=policy_loss,
            wm_loss=wm_loss,
            **policy_sums,
            **prediction_sums,
        )
        return policy_loss, wm_loss
