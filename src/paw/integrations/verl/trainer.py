"""verl's synchronous PPO trainer (v1) with the prediction term.

Four methods, each calling verl's own once. The update of the paper is the batch of a step. It is
judged on the driver when advantages are made; only then are the targets put behind the rows' last
actions, and taken off again when the actor has learned: rewards, values, advantages, log-probs and
verl's metrics never see them.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from contextvars import ContextVar
from dataclasses import replace
from functools import cached_property
from typing import Any

import msgspec
import ray
import torch
import transfer_queue as tq
from omegaconf import DictConfig, open_dict
from tensordict import TensorDict
from torch import Tensor
from verl.trainer.ppo.core_algos import register_adv_est
from verl.trainer.ppo.v1.trainer_base import register_trainer
from verl.trainer.ppo.v1.trainer_sync import PPOTrainerSync
from verl.workers.engine_workers import ActorRolloutRefWorker, TrainingWorker

from paw.config.tree import AlgorithmConfig
from paw.errors import UserError
from paw.integrations.verl.loss import CAP, LOSS, WEIGHTS, PawLoss
from paw.integrations.verl.records import RowRecord
from paw.integrations.verl.settings import ESTIMATORS, check_config, is_active, read_settings
from paw.integrations.verl.update import (
    Learned,
    Update,
    judge_update,
    learned_rows,
    mean_entropies,
    read_update,
    turn_advantages,
    turn_rewards,
)
from paw.rollout.actor import make_serializer
from paw.train.session import matched

IDS = ("responses", "input_ids")
"""Fields of a row to whose end a target's tokens are put."""
ZEROS = (
    "response_mask",
    "loss_mask",
    "old_log_probs",
    "advantages",
    "ref_log_prob",
    "rollout_is_weights",
)
"""Fields in which they are 0: they enter no ratio, KL or count."""
POSITIONS = "position_ids"

_update: ContextVar[tuple[Update, AlgorithmConfig]] = ContextVar("paw_update")
"""Of the advantages that are being made"""


@register_adv_est("gigpo")
def gigpo(
    token_level_rewards: Tensor, response_mask: Tensor, **kwargs: Any
) -> tuple[Tensor, Tensor]:
    """GiGPO over the turns of the update: (advantages, returns), [B, R] both.

    Rewards and penalties are the environment's, of each turn; verl's hold the episode's sum.

    Raises:
        UserError: another trainer than ours, which knows nothing of turns.
    """
    if (found := _update.get(None)) is None:
        raise UserError("algorithm.adv_estimator = gigpo needs trainer.v1.trainer_mode = paw")
    advantages = turn_advantages(*found, (len(response_mask), response_mask.shape[1]))
    return advantages.to(token_level_rewards), advantages.to(token_level_rewards)


class PawTrainingWorker(TrainingWorker):
    """Learns by verl's loss and the prediction term."""

    def set_loss_fn(self, loss_fn: Any) -> None:
        super().set_loss_fn(PawLoss(loss_fn))


class PawActorRolloutRefWorker(ActorRolloutRefWorker):
    """Whose actor is ours."""

    actor_worker_cls = PawTrainingWorker


@register_trainer("paw")
class PawPPOTrainer(PPOTrainerSync):
    """`trainer.v1.trainer_mode = paw`: verl's `sync`, whose rollouts also teach the policy what its
    actions do. With `paw.enabled = False` or `paw.coefficient = 0` it is `sync`, bit for bit; but
    with `gae` each turn's action bears its own rewards (`turn_rewards`), where `sync` puts an
    episode's sum behind every row.

    Raises:
        UserError: settings that verl leaves no room for.
    """

    def __init__(self, config: DictConfig) -> None:
        self.paw = read_settings(config.get("paw"))
        check_config(config, self.paw)
        self._paw_update: Update | None = None
        with open_dict(config):
            config.trainer.v1.trainer_mode = "sync"
        super().__init__(config)

    def _init_resource_pool_mgr(self) -> None:
        super()._init_resource_pool_mgr()
        if is_active(self.paw):
            for role in list(self.role_worker_mapping)[:1]:  # the actor's comes first
                self.role_worker_mapping[role] = ray.remote(PawActorRolloutRefWorker)

    def _compute_advantage(self, batch: Any, metrics: dict) -> Any:
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=["extra_fields"]
        )
        self._paw_update = read_update(batch.keys, _records(batch.keys, data["extra_fields"]))
        name = ESTIMATORS[str(self.config.algorithm.adv_estimator)]
        token = _update.set((self._paw_update, replace(self.paw.algorithm, name=name)))
        rewarded = _rewarded(batch, self._paw_update) if name == "ppo" else nullcontext()
        try:
            with rewarded:
                return super()._compute_advantage(batch, metrics)
        finally:
            _update.reset(token)

    def _update_actor(self, batch: Any, metrics: dict) -> Any:
        if not is_active(self.paw):
            return super()._update_actor(batch, metrics)
        fields = [*IDS, POSITIONS, *ZEROS, "entropy"]
        data = tq.kv_batch_get(
            keys=batch.keys, partition_id=batch.partition_id, select_fields=fields
        )
        rows = self._judge(batch, data, metrics)
        with _grown(batch, data, rows):
            batch.extra_info.update(
                {LOSS: self.paw.paw.loss, CAP: float(self.paw.paw.probability_cap)}
            )
            return super()._update_actor(batch, metrics)

    def _judge(self, batch: Any, data: TensorDict, metrics: dict) -> list[Learned]:
        """What is learned of each row. Weights count M times, one for each optimizer step in which
        a share of the rows is learned from."""
        update, paw = self._paw_update, matched(self.paw.paw)
        assert update is not None
        size = self.config.actor_rollout_ref.actor.ppo_mini_batch_size
        steps = len(batch) // (size * self.config.actor_rollout_ref.rollout.n)
        entropy = list(data["entropy"].unbind()) if "entropy" in data else []
        entropies = mean_entropies(update, paw, entropy, list(data["old_log_probs"].unbind()))
        seed = int(self.config.data.get("seed") or 0) * 1_000_003 + self.global_steps
        judged = judge_update(
            update,
            entropies,
            replace(paw, coefficient=paw.coefficient * steps),
            own_groups=str(self.config.algorithm.adv_estimator) == "gae",
            max_return=self.train_dataset.source.max_return,
            left=1 - (self.global_steps - 1) / max(self.total_training_steps, self.global_steps),
            generator=torch.Generator().manual_seed(seed * 8),
            vocabulary=self._serializer.vocabulary if paw.target == "vocabulary" else (),
        )
        metrics.update(judged.metrics())
        responses = [ids.tolist() for ids in data["responses"].unbind()]
        return learned_rows(update, judged, responses, self._serializer)

    @cached_property
    def _serializer(self) -> Any:
        return make_serializer(self.paw, self.tokenizer)


def _records(keys: Sequence[str], extra_fields: Any) -> list[RowRecord | None]:
    """Of the rows; verl's padding has its first row's, and a uid of its own."""
    found = [getattr(fields, "data", fields) for fields in extra_fields]
    return [
        None if key.startswith("pad") else msgspec.convert(fields["paw"], RowRecord)
        for key, fields in zip(keys, found, strict=True)
    ]


@contextmanager
def _rewarded(batch: Any, update: Update) -> Iterator[None]:
    """Rows have the rewards of their turns for a while."""
    scores = "rm_scores"
    data = tq.kv_batch_get(keys=batch.keys, partition_id=batch.partition_id, select_fields=[scores])
    before = list(data[scores].unbind())
    after = turn_rewards(update, [len(row) for row in before])
    places = [r for r, record in enumerate(update.records) if record is not None]
    made = [before[r].new_tensor(after[r]) for r in places]
    _put(batch, places, {scores: _nested(made)})
    try:
        yield
    finally:
        _put(batch, places, {scores: _nested([before[r] for r in places])})


@contextmanager
def _grown(batch: Any, data: TensorDict, rows: Sequence[Learned]) -> Iterator[None]:
    """The rows have their targets, and every row its weights, for a while."""
    weights = _nested([torch.tensor(row.weights, dtype=torch.float32) for row in rows])
    _put(batch, range(len(rows)), {WEIGHTS: weights})
    chosen = [r for r, row in enumerate(rows) if row.tail]
    names = [name for name in (*IDS, POSITIONS, *ZEROS) if name in data]
    before = {name: [data[name].unbind()[r] for r in chosen] for name in names}
    after = {
        name: [_with_tail(name, row, rows[r].tail) for r, row in zip(chosen, found, strict=True)]
        for name, found in before.items()
    }
    if chosen:
        _put(batch, chosen, {name: _nested(found) for name, found in after.items()})
    try:
        yield
    finally:
        if chosen:
            _put(batch, chosen, {name: _nested(found) for name, found in before.items()})


def _with_tail(name: str, row: Tensor, tail: Sequence[int]) -> Tensor:
    if name in IDS:
        more = row.new_tensor(tail)
    elif name == POSITIONS:
        more = row[-1] + 1 + torch.arange(len(tail), dtype=row.dtype)
    else:
        more = row.new_zeros(len(tail))
    return torch.cat([row, more])


def _put(batch: Any, rows: Sequence[int], fields: dict[str, Tensor]) -> None:
    tq.kv_batch_put(
        keys=[batch.keys[r] for r in rows],
        partition_id=batch.partition_id,
        fields=TensorDict(fields, batch_size=[len(rows)]),
    )


def _nested(rows: Sequence[Tensor]) -> Tensor:
    return torch.nested.as_nested_tensor(list(rows), layout=torch.jagged)
