"""Sizes that a configuration leaves to the machine: what fits when a run begins."""

from dataclasses import replace

from paw.config.tree import Config, ModelConfig
from paw.errors import warn
from paw.model.load import device_of
from paw.model.memory import (
    FREE_SHARE,
    ModelShape,
    Precision,
    Work,
    bytes_of,
    fitting_conversations,
    fitting_tokens,
    free_bytes,
)

BATCH = 128
"""Episodes that an evaluation plays side by side at most."""
BYTES = {"float32": 4, "bfloat16": 2, "float64": 8}


def precision_in_bytes(model: ModelConfig) -> Precision:
    """How [model] holds and trains its weights."""
    weight = BYTES[model.dtype]
    compute = weight if model.compute_dtype == "same" else BYTES[model.compute_dtype]
    there = model.device.startswith("cuda")  # if on another machine: a plan may be for that
    device = "cuda" if there else device_of(model.device).partition(":")[0]
    return Precision(weight, compute, model.lora_rank, model.gradient_checkpointing, device)


def actions_between(config: Config) -> int:
    """Actions between the observations that predictions put behind a row's last action at most."""
    paw, rollout = config.paw, config.rollout
    far = paw.enabled and rollout.context == "window"
    return min(paw.horizon, rollout.max_turns) - 1 if far else 0


def usable_bytes(device: str, processes: int = 1) -> int:
    """What a run may plan with on a device, of what is free there now; `processes` of it share a
    machine's memory, and have a GPU each."""
    kind = device.partition(":")[0]
    return int(free_bytes(device) * FREE_SHARE[kind]) // (processes if kind == "cpu" else 1)


def learning_bytes(config: Config, shape: ModelShape) -> int:
    """What a run that is not sharded takes while it learns from one row, the longest that it may
    have."""
    return bytes_of(shape, precision_in_bytes(config.model), _work(config, True, 1)).learning


def _work(config: Config, learns: bool, shards: int) -> Work:
    rollout = config.rollout
    length = rollout.max_prompt_tokens + rollout.max_response_tokens
    return Work(
        micro_batch=length,
        conversations=max(rollout.groups * rollout.group_size, min(config.eval.episodes, BATCH)),
        length=length,
        learns=learns,
        critic=config.algorithm.name == "ppo",
        reference=config.algorithm.kl_coefficient > 0,
        shards=shards,
    )


def settle(
    config: Config, shape: ModelShape, room: int, *, learns: bool = True, shards: int = 1
) -> Config:
    """The same with the sizes that are 0 chosen: tokens of a micro-batch, conversations.

    Args:
        config: of a run, an imitation or (`learns` False) an evaluation.
        shape: of its policy.
        room: bytes, `usable_bytes` from before the policy was loaded.
        learns: a policy that only plays has neither gradients nor optimizer.
        shards: ranks among which what is trained is divided.
    """
    rollout, optimizer = config.rollout, config.optimizer
    precision = precision_in_bytes(config.model)
    work = _work(config, learns, shards)
    length = work.length
    if rollout.conversations == 0:
        conversations = work.conversations  # vLLM queues what does not fit
        if rollout.sampler == "local":
            conversations = fitting_conversations(shape, precision, work, room)
        rollout = replace(rollout, conversations=conversations)
    if learns and optimizer.tokens_per_micro_batch == 0:
        between, seen = actions_between(config), config.paw.max_observation_tokens
        behind = seen + between * (rollout.max_response_tokens + seen)
        beside = behind / length if config.paw.enabled else 0.0
        tokens = fitting_tokens(shape, precision, work, room, beside)
        optimizer = replace(optimizer, tokens_per_micro_batch=tokens)
        needed = bytes_of(shape, precision, work).learning
        if needed > room:
            warn(
                f"a row of {length:,} tokens (rollout.max_prompt_tokens + max_response_tokens) "
                f"takes about {needed / 2**30:.1f} GiB to learn from, and {room / 2**30:.1f} GiB "
                "may be used: lower them, or set model.gradient_checkpointing or model.lora_rank"
            )
    return replace(config, rollout=rollout, optimizer=optimizer)
