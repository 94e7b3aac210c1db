"""A policy that can play: what the configuration says of tasks, environments, model and prompts."""

from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from paw import envs
from paw.config.read import environment_options
from paw.config.tree import Config
from paw.envs.base import TaskSource
from paw.errors import UserError, warn
from paw.model.policy import Policy
from paw.model.positions import Positions, check_length
from paw.rollout.collect import Limits
from paw.rollout.fit import actions_between
from paw.rollout.local import LocalSampler
from paw.rollout.pool import EnvironmentPool
from paw.rollout.ranks import ALONE, Ranks
from paw.rollout.sampler import Sampler
from paw.rollout.vllm import vllm_sampler
from paw.rollout.vllm_server import server_sampler
from paw.text.dialogue import Serializer
from paw.types import NO_ACTION

PADDED_ROWS = 0.05
"""Share of an embedding's rows that no token uses in models as they are published: up to 2.4 %."""


def local_sampler(config: Config, policy: Policy, end_ids: Collection[int]) -> Sampler:
    """The policy itself samples."""
    return LocalSampler(policy, end_ids)


SAMPLERS: dict[str, Callable[[Config, Policy, Collection[int]], Sampler]] = {
    "local": local_sampler,
    "vllm": vllm_sampler,
}
"""By `rollout.sampler`, in this process."""


class Actor:
    """A policy that can play: sampler, tokenizer and prompts together."""

    def __init__(
        self,
        config: Config,
        policy: Policy,
        tokenizer: PreTrainedTokenizerBase,
        ranks: Ranks = ALONE,
        directory: Path | None = None,
    ) -> None:
        """An actor on each of the run's ranks.

        Args:
            config: of the run.
            policy: that plays; what its tokenizer does not know gets probability 0.
            tokenizer: its own.
            ranks: the processes that share the run.
            directory: of the run, there when it plays: for what a sampler hands to its server.
                None: the system's for temporary files.

        Raises:
            UserError: the sampler cannot play this policy, or the chat template does not fit.
        """
        self.config, self.policy, self.tokenizer = config, policy, tokenizer
        policy.head.forget(unknown_ids(tokenizer, policy.head.embedding.weight.shape[0]))
        self.serializer = make_serializer(config, tokenizer)
        end_ids = self.serializer.format.end_ids
        if config.rollout.sampler == "vllm" and config.rollout.vllm_server:
            self.sampler: Sampler = server_sampler(config, policy, end_ids, ranks, directory)
        else:
            self.sampler = SAMPLERS[config.rollout.sampler](config, policy, end_ids)

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
    """The policy at `path` as [model] says, the adapter of `model.adapter` merged."""
    model = config.model
    return Policy.load(
        path,
        adapter=model.adapter,
        dtype=model.dtype,
        device=model.device,
        **_wrapping(config, lora),
    )


def load_checkpoint(config: Config, path: Path) -> Policy:
    """The policy that a run goes on from: its weights hold the adapter already."""
    return load_policy(replace(config, model=replace(config.model, adapter="")), str(path))


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


def unknown_ids(tokenizer: PreTrainedTokenizerBase, rows: int) -> set[int]:
    """Ids below `rows` that are no token of the tokenizer: nothing would show of them in a text."""
    return set(range(rows)).difference(tokenizer.get_vocab().values())


def check_lengths(
    config: Config, positions: Positions, serializer: Serializer, *, learns: bool
) -> None:
    """Hold the longest sequence of a run against the model's positions; see `check_length`.

    Args:
        config: of the run.
        positions: of its policy.
        serializer: of its prompts.
        learns: from what it played; with predictions a target stands behind the last action. Then
            it warns, too, of conversations longer than any in the model's training, which it
            computes all the same.
    """
    rollout, paw = config.rollout, config.paw
    what = "rollout.max_prompt_tokens + max_response_tokens"
    length = rollout.max_prompt_tokens + rollout.max_response_tokens
    played, words = length, what
    if learns and (paw.enabled or config.run.diagnostics_every):
        between, seen = actions_between(config), paw.max_observation_tokens
        to_user = len(serializer.to_user(NO_ACTION))
        scaffold = to_user + between * (len(serializer.format.to_policy) + to_user)
        length += scaffold + seen + between * (rollout.max_response_tokens + seen)
        what += f" + {scaffold} of the template + paw.max_observation_tokens"
        further = f" + {between} x (response + observation) by paw.horizon"
        what += further if between else ""
    check_length(positions, length, what)
    if learns and positions.made_for is not None and played > positions.made_for:
        warn(f"{words} = {played}: the model was made for {positions.made_for} tokens")
