"""A policy that can play: what the configuration says of tasks, environments, model and prompts."""

from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from paw import envs
from paw.config.read import environment_options
from paw.config.tree import Config
from paw.envs.base import TaskSource
from paw.errors import UserError, warn
from paw.model.policy import Policy
from paw.rollout.collect import Limits
from paw.rollout.local import LocalSampler
from paw.rollout.pool import EnvironmentPool
from paw.rollout.sampler import Sampler
from paw.text.dialogue import Serializer

PADDED_ROWS = 0.05
"""Share of an embedding's rows that no token uses in models as they are published: up to 2.4 %."""


class Actor:
    """A policy that can play: sampler, tokenizer and prompts together."""

    def __init__(self, config: Config, policy: Policy, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config, self.policy, self.tokenizer = config, policy, tokenizer
        self.serializer = make_serializer(config, tokenizer)
        self.sampler: Sampler = LocalSampler(policy, self.serializer.format.end_ids)

    def limits(self, temperature: float, max_turns: int | None = None) -> Limits:
        """How episodes are played."""
        rollout = self.config.rollout
        return Limits(
            max_turns=max_turns or rollout.max_turns,
            max_response_tokens=rollout.max_response_tokens,
            temperature=temperature,
            invalid_penalty=rollout.invalid_penalty,
            refused_is_invalid=rollout.validity == "accepted",
            conversations=rollout.conversations,
        )

    def protocol(self, limits: Limits) -> dict[str, Any]:
        """How episodes were played, as far as a score depends on it."""
        rollout, options = self.config.rollout, dict(self.config.env.options)
        return {
            "max_turns": limits.max_turns,
            "context": rollout.context,
            "history_turns": rollout.history_turns,
            "response_format": rollout.response_format,
            "max_prompt_tokens": rollout.max_prompt_tokens,
            "max_response_tokens": limits.max_response_tokens,
            "validity": rollout.validity,
            "env_options": options,
        }


def on_split(config: Config, split: str | None) -> Config:
    """The same on another split; None: the one on which the environment is evaluated."""
    split = split or envs.style(config.env.name).validation_split or config.env.split
    return replace(config, env=replace(config.env, split=split))


def open_source(config: Config) -> TaskSource:
    """The tasks of `env.split`. Raises UserError for an empty list."""
    source = envs.make(config.env.name, config.env.split, **environment_options(config))
    if not len(source):
        raise UserError(f"env.split = {config.env.split!r}: {config.env.name} has no tasks there")
    return source


def open_pool(config: Config) -> EnvironmentPool:
    """Environments of `env.split`, in worker processes."""
    return EnvironmentPool(
        config.env.name,
        config.env.split,
        environment_options(config),
        workers=config.rollout.workers,
        step_seconds=config.rollout.step_seconds,
    )


def load_policy(config: Config, path: str, *, lora: bool = True) -> Policy:
    """The policy at `path` as [model] says."""
    model = config.model
    return Policy.load(path, dtype=model.dtype, device=model.device, **_wrapping(config, lora))


def wrap_policy(config: Config, model: Any) -> Policy:
    """A new model, placed on its device already, as [model] says."""
    return Policy(model, **_wrapping(config, lora=True))


def _wrapping(config: Config, lora: bool) -> dict[str, Any]:
    model = config.model
    return {
        "lora_rank": model.lora_rank if lora else 0,
        "seed": config.run.seed,
        "gradient_checkpointing": model.gradient_checkpointing,
        "share_prefixes": model.share_prefixes,
        "compute_dtype": None if model.compute_dtype == "same" else model.compute_dtype,
    }


def make_serializer(config: Config, tokenizer: PreTrainedTokenizerBase) -> Serializer:
    """Prompts as [rollout] says."""
    rollout = config.rollout
    return Serializer(
        tokenizer,
        envs.style(config.env.name),
        context=rollout.context,
        response_format=rollout.response_format,
        history_turns=rollout.history_turns,
        max_prompt_tokens=rollout.max_prompt_tokens,
        max_observation_tokens=config.paw.max_observation_tokens,
    )


def check_vocabulary(policy: Policy, tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    """Hold a tokenizer against the rows of its model's embedding; see `check_tokenizer`."""
    check_tokenizer(tokenizer, policy.model.get_input_embeddings().weight.shape[0], path)


def check_tokenizer(tokenizer: PreTrainedTokenizerBase, rows: int, path: str) -> None:
    """A tokenizer with more tokens than the model has rows would read garbage. Warns of what may
    be meant: far fewer tokens, no chat template.

    Raises:
        UserError: tokenizer and model cannot belong together.
    """
    where = f"model.path = {path!r}: its tokenizer has"
    if len(tokenizer) > rows:
        raise UserError(
            f"{where} {len(tokenizer)} tokens, the model {rows}; they do not belong together"
        )
    if len(tokenizer) < (1 - PADDED_ROWS) * rows:
        warn(f"{where} {len(tokenizer)} tokens, the model {rows}; do they belong together?")
    if tokenizer.chat_template is None:
        warn(f"{where} no chat template; prompts are plain: Observation: ... Action: ...")


def check_lengths(config: Config, policy: Policy) -> None:
    """Warn of prompts longer than the model was made for."""
    rollout, room = config.rollout, getattr(policy.config, "max_position_embeddings", None)
    if room is not None and rollout.max_prompt_tokens + rollout.max_response_tokens > room:
        warn(
            f"rollout.max_prompt_tokens + max_response_tokens = "
            f"{rollout.max_prompt_tokens + rollout.max_response_tokens}: the model was made for "
            f"{room} tokens"
        )
