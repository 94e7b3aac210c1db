"""What verl has on a cluster, scripted for one process: its store, its server and its workers."""

import asyncio
from functools import partial
from pathlib import Path

import torch
import transfer_queue as tq
from hydra import compose, initialize_config_dir
from tensordict import NonTensorStack, TensorDict
from verl.experimental.agent_loop.agent_loop import DictConfigWrap
from verl.trainer.ppo.v1.agent_loop_tq import AgentLoopWorkerTQ
from verl.utils import tensordict_utils as tu
from verl.utils.dataset.rl_dataset import RLHFDataset
from verl.workers.config import ActorConfig
from verl.workers.rollout.replica import TokenOutput
from verl.workers.utils.losses import ppo_loss

from model.tiny_models import build
from paw.integrations.verl import PawAgentLoop, PawDataset, PawPPOTrainer
from paw.integrations.verl.loss import PawLoss
from paw.integrations.verl.settings import check_config, read_settings
from paw.text.tokenizer import make_tokenizer

COMMANDS = ("look", "dance", "go to fridge 1", "open fridge 1", "inventory", "go to shelf 1")
EXAMPLES = str(Path(__file__).parents[2] / "examples")


def configuration(*overrides):
    """The example's, with the household played in three turns by two groups of two."""
    small = [
        "paw.env.name=household",
        "paw.env.data_dir=null",
        "paw.rollout.max_turns=3",
        "+paw.rollout.response_format=command",
        "paw.rollout.max_prompt_tokens=1000",
        "data.train_batch_size=2",
        "actor_rollout_ref.rollout.n=2",
        "actor_rollout_ref.actor.ppo_mini_batch_size=3",
    ]
    with initialize_config_dir(EXAMPLES, version_base=None):
        return compose("verl_alfworld", overrides=[*small, *overrides])


TOKENIZER = make_tokenizer(COMMANDS * 3)


def tiny_model():
    """Far from uniform, in float64."""
    return build("qwen2", vocab_size=len(TOKENIZER), tie_word_embeddings=False).double()


class Store:
    """TransferQueue in a dict: rows by key, fields by name."""

    def __init__(self, monkeypatch):
        self.rows = {}
        for name in ("kv_batch_put", "kv_batch_get", "async_kv_batch_put"):
            monkeypatch.setattr(tq, name, getattr(self, name))

    def kv_batch_put(self, keys, partition_id, fields=None, tags=None):
        for name, value in fields.items():
            listed = value.unbind() if isinstance(value, torch.Tensor) else value.tolist()
            for key, one in zip(keys, listed, strict=True):
                self.rows.setdefault(key, {})[name] = one
        return tq.KVBatchMeta(list(keys), [{} for _ in keys], partition_id)

    async def async_kv_batch_put(self, **given):
        return self.kv_batch_put(**given)

    def kv_batch_get(self, keys, partition_id, select_fields=None):
        rows = [self.rows[key] for key in keys]
        names = [n for n in rows[0] if select_fields is None or n in select_fields]
        made = {}
        for name in names:
            values = [row[name] for row in rows]
            if isinstance(values[0], torch.Tensor):
                made[name] = torch.nested.as_nested_tensor(values, layout=torch.jagged)
            else:
                made[name] = NonTensorStack(*values)
        return TensorDict(made, batch_size=[len(keys)])


class Server:
    """Answers with one command after the other."""

    def __init__(self, first=0):
        self.count = first
        self.asked = []

    async def generate(self, request_id, *, prompt_ids, sampling_params):
        self.asked.append((prompt_ids, sampling_params))
        command = COMMANDS[self.count % len(COMMANDS)]
        self.count += 1
        ids = TOKENIZER(command, add_special_tokens=False)["input_ids"] + [TOKENIZER.eos_token_id]
        steps = {"min_global_steps": 4, "max_global_steps": 4}
        return TokenOutput(token_ids=ids, log_probs=[-1.0] * len(ids), extra_fields=steps)


def play(config, index, first=0):
    """One episode of a task: verl's outputs."""
    loop = PawAgentLoop(
        DictConfigWrap(config),
        Server(first),
        TOKENIZER,
        None,
        RLHFDataset,
        DictConfigWrap(config.data),
    )
    return asyncio.run(
        _run(loop, raw_prompt=[], index=index, split="train", agent_name="paw", session_id=0)
    )


async def _run(loop, **row):
    loop.loop = asyncio.get_running_loop()
    return await loop.run({"temperature": 1.0, "logprobs": True}, **row)


def store_episodes(store, config, order=None):
    """Two groups of two episodes into the store, by verl's own worker; their batch."""
    worker_class = AgentLoopWorkerTQ.__ray_metadata__.modified_class
    worker = worker_class.__new__(worker_class)
    worker.processor, worker.reward_loop_worker_handles = None, None
    worker.distillation_enabled = False
    for group in range(2):
        for session in range(2):
            outputs = play(config, group, first=3 * session + group)
            row = {"uid": f"u{group}", "session_id": session, "global_steps": 1}
            asyncio.run(worker._agent_loop_postprocess(outputs, False, **row))
    keys = list(store.rows)
    keys = keys if order is None else [keys[i] for i in order(len(keys))]
    return tq.KVBatchMeta(keys, [{} for _ in keys], "train")


class Workers:
    """verl's actors: `micro` rows a forward pass, `ranks` of them, no optimizer step.

    Keeps the gradient of each optimizer step, averaged over ranks, as FSDP does.
    """

    def __init__(self, store, model, config, *, micro=2, ranks=1, base=None):
        self.store, self.model, self.micro, self.ranks = store, model, micro, ranks
        actor = config.actor_rollout_ref.actor
        settings = ActorConfig(
            strategy="fsdp",
            rollout_n=config.actor_rollout_ref.rollout.n,
            ppo_micro_batch_size_per_gpu=1,
            clip_ratio=actor.clip_ratio,
        )
        self.plain = partial(ppo_loss, config=settings) if base is None else base
        self.loss_fn = PawLoss(self.plain)
        self.gradients, self.metrics, self.seen = [], [], None

    def outputs(self, data):
        """Log-probs and entropies of all rows, as verl's engines give them."""
        logprobs, entropies = [], []
        for ids in data["input_ids"].unbind():
            logits = self.model(ids[None]).logits[0].log_softmax(-1)
            found = logits[:-1].gather(1, ids[1:, None])[:, 0]
            logprobs.append(torch.cat([found, found.new_zeros(1)]))
            entropies.append(-(logits.exp() * logits).sum(-1))
        nested = partial(torch.nested.nested_tensor, layout=torch.jagged)
        if logprobs[0].requires_grad:
            nested = partial(torch.nested.as_nested_tensor, layout=torch.jagged)
        return {"log_probs": nested(logprobs), "entropy": nested(entropies)}

    @torch.no_grad()
    def compute_log_prob(self, batch):
        data = self.store.kv_batch_get(batch.keys, "train", ["input_ids"])
        fields = TensorDict(self.outputs(data), batch_size=[len(batch)])
        self.store.kv_batch_put(batch.keys, "train", fields)
        return batch

    def update_actor(self, batch):
        data = self.store.kv_batch_get(batch.keys, "train")
        self.seen = {key: dict(row) for key, row in self.store.rows.items()}
        for key, value in batch.extra_info.items():
            tu.assign_non_tensor_data(data, key, value)
        size, rows = batch.extra_info["mini_batch_size"], torch.arange(len(batch))
        per_rank = rows.view(self.ranks, -1).split(size // self.ranks, dim=1)
        for of_ranks in per_rank:
            self.model.zero_grad()
            for own in of_ranks:
                self._learn(data, own, of_ranks.flatten())
            self.gradients.append([p.grad / self.ranks for p in self.model.parameters()])
        return {"metrics": {"mfu": 0.0}}

    def _learn(self, data, own, mini):
        tokens = sum(int(data["loss_mask"][i].sum()) for i in mini.tolist())
        for part in own.split(self.micro):
            micro = tu.index_select_tensor_dict(data, part)
            tu.assign_non_tensor(micro, dp_size=self.ranks, batch_num_tokens=tokens)
            output = {"log_probs": self.outputs(micro)["log_probs"]}
            loss, metrics = self.loss_fn(model_output=output, data=micro)
            loss.backward()
            self.metrics.append(metrics)


def trainer_of(config, workers):
    """Our trainer as it is after `init`, for one step."""
    trainer = PawPPOTrainer.__new__(PawPPOTrainer)
    trainer.config, trainer.paw = config, read_settings(config.paw)
    check_config(config, trainer.paw)
    trainer.tokenizer = TOKENIZER
    trainer.train_dataset = PawDataset("train", config.data)
    trainer.actor_rollout_wg, trainer.distillation_config = workers, None
    trainer.global_steps, trainer.total_training_steps = 1, 10
    return trainer


def step(trainer, batch):
    """What verl does of a step: log-probs, advantages, the actor's update; its metrics."""
    metrics = {}
    batch = trainer._compute_old_log_prob(batch, metrics)
    batch = trainer._compute_advantage(batch, metrics)
    trainer._update_actor(batch, metrics)
    return metrics
