"""Builds what the loop runs on; every choice of the configuration is made here, once."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from paw import envs, objective
from paw.envs.base import TaskSource
from paw.errors import UserError
from paw.evals.evaluate import VALIDATION, evaluation, play_tasks
from paw.model.critic import Critic
from paw.model.policy import Policy
from paw.rollout.collect import Limits
from paw.rollout.local import LocalSampler
from paw.rollout.pool import EnvironmentPool
from paw.rollout.sampler import Sampler
from paw.text.dialogue import Serializer
from paw.text.tokenizer import load_tokenizer
from paw.train.checkpoint import restore, way_back
from paw.train.config import Config
from paw.train.console import warn
from paw.train.judge import TransitionPool
from paw.train.learner import Learner
from paw.train.locate import newest_checkpoint, resolve_model
from paw.train.run import Run, read_metrics
from paw.train.samples import Row
from paw.train.settings import environment_options
from paw.types import Task

PADDED_ROWS = 0.05
"""Share of an embedding's rows that no token uses in models as they are published: up to 2.4 %."""
LEARNS_FROM = {
    "grpo": "nothing from rewards",
    "rloo": "nothing from rewards",
    "gigpo": "from rewards only where an episode comes back to an observation",
}
"""What is left of an algorithm with groups of one."""


@dataclass(frozen=True, slots=True)
class OldPolicy:
    """The policy at the start of the update, at the action tokens."""

    logprobs: list[list[float]]
    """[P] of [A]"""
    entropy: torch.Tensor
    """[P] mean over each action's tokens: the score of Eq. 4"""


class Actor:
    """A policy that can play: sampler, tokenizer and prompts together."""

    def __init__(self, config: Config, policy: Policy, tokenizer: PreTrainedTokenizerBase) -> None:
        self.config = config
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
        )

    def evaluate(
        self,
        split: str | None,
        episodes: int,
        temperature: float,
        seed: int,
        progress: Callable[[int], None] = lambda num_finished: None,
    ) -> dict[str, Any]:
        """Play a split; see `paw.evals.evaluate.evaluation`."""
        config = on_split(self.config, split)
        source = open_source(config)
        limits = self.limits(temperature, config.eval.max_turns)
        with open_pool(config) as environments:
            played = play_tasks(
                source, self.sampler, environments, self.serializer, limits,
                episodes=episodes, seed=seed, progress=progress,
            )  # fmt: skip
        result = evaluation(played, source, env=config.env.name, temperature=temperature, seed=seed)
        return result | self._protocol(limits)

    def _protocol(self, limits: Limits) -> dict[str, Any]:
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


@dataclass(slots=True)
class Session:
    """Everything that a training run holds open."""

    run: Run
    tokenizer: PreTrainedTokenizerBase
    learner: Learner
    actor: Actor
    source: TaskSource
    environments: EnvironmentPool
    old_policy: Callable[[TransitionPool, Sequence[Row]], OldPolicy]
    matched_constant: float | None
    first_update: int
    """Updates already made."""

    def tasks(self, update: int) -> list[Task]:
        """The task instances of one update: a fresh permutation of the split in each epoch."""
        count, size = self.run.config.rollout.groups, len(self.source)
        chosen = []
        for position in range((update - 1) * count, update * count):
            epoch, at = divmod(position, size)
            chosen.append(self.source[_permutation(size, self.run.config.run.seed, epoch)[at]])
        return chosen

    def reference_logprobs(self, rows: Sequence[Row]) -> list[list[float]] | None:
        """[P] of [A] under the reference policy; None without a KL loss."""
        reference = self.learner.reference
        return None if reference is None else self.learner.score(rows, reference)[0]

    def diagnoses(self, update: int) -> bool:
        """Is `update` one of the diagnostic ones?"""
        every = self.run.config.run.diagnostics_every
        return every > 0 and update % every == 0

    def generator(self, update: int, stream: int = 0) -> torch.Generator:
        """Randomness of one update outside the sampler; streams do not disturb each other, so that
        arms of a paired comparison keep the same data order whatever else they draw."""
        seed = (self.run.config.run.seed * 1_000_003 + update) * 8 + stream
        return torch.Generator().manual_seed(seed)

    def close(self) -> None:
        """Close environments and sinks."""
        self.environments.close()
        self.run.close()


def open_session(config: Config) -> Session:
    """Open or resume a run.

    Raises:
        UserError: anything in the configuration that does not fit what is there.
    """
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    torch.manual_seed(config.run.seed)
    source = open_source(config)
    if config.rollout.group_size == 1 and config.algorithm.name in LEARNS_FROM:
        warn(
            "rollout.group_size = 1: a group of one has advantage 0, so "
            f"{config.algorithm.name} learns {LEARNS_FROM[config.algorithm.name]}"
        )
    model_path = resolve_model(config.model.path)
    policy, tokenizer = load_policy(config, model_path), load_tokenizer(model_path)
    check_vocabulary(policy, tokenizer, config.model.path)
    check_lengths(config, policy)
    make_serializer(config, tokenizer)  # a template that does not fit: before anything is written
    run = Run(config)
    try:
        return _begin(run, policy, tokenizer, source, model_path)
    except BaseException:
        run.close()
        raise


def _begin(
    run: Run, policy: Policy, tokenizer: PreTrainedTokenizerBase, source: TaskSource, path: str
) -> Session:
    """What open_session does once the run directory is ours: go on from its newest checkpoint."""
    config = run.config
    checkpoint = newest_checkpoint(run.checkpoints)
    critic = Critic.from_policy(policy) if config.algorithm.name == "ppo" else None
    if checkpoint is not None and not config.model.lora_rank:
        with way_back(checkpoint):
            policy = load_policy(config, str(checkpoint))
    reference = load_policy(config, path, lora=False) if config.algorithm.kl_coefficient else None
    learner = Learner(policy, critic, reference, config.optimizer, config.algorithm, config.paw)
    first = restore(checkpoint, learner) if checkpoint is not None else 0
    run.rewind(first)
    run.track()
    return Session(
        run=run,
        tokenizer=tokenizer,
        learner=learner,
        actor=Actor(config, policy, tokenizer),
        source=source,
        environments=open_pool(config),
        old_policy=choose_old_policy(config, learner),
        matched_constant=matched_constant(config),
        first_update=first,
    )


def on_split(config: Config, split: str | None) -> Config:
    """The same on another split; None: the one on which the environment is evaluated."""
    split = split or VALIDATION.get(config.env.name, config.env.split)
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
    device = device_of(model.device)
    return Policy.load(path, dtype=model.dtype, device=device, **_wrapping(config, lora))


def wrap_policy(config: Config, model: Any) -> Policy:
    """A new model, placed on its device already, as [model] says."""
    return Policy(model, **_wrapping(config, lora=True))


def _wrapping(config: Config, lora: bool) -> dict[str, Any]:
    model = config.model
    return {
        "lora_rank": model.lora_rank if lora else 0,
        "seed": config.run.seed,
        "gradient_checkpointing": model.gradient_checkpointing,
        "compute_dtype": None if model.compute_dtype == "same" else model.compute_dtype,
    }


def device_of(name: str) -> str:
    """`auto` is the GPU where there is one. Raises UserError for a device that is not there."""
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind, _, index = name.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise UserError(f"model.device = {name!r}: must be auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        there = torch.cuda.device_count() or "no"
        raise UserError(f"model.device = {name!r}: this machine has {there} usable GPU; use cpu")
    return name


def make_serializer(config: Config, tokenizer: PreTrainedTokenizerBase) -> Serializer:
    """Prompts as [rollout] says."""
    rollout = config.rollout
    return Serializer(
        tokenizer,
        config.env.name,
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


def choose_old_policy(
    config: Config, learner: Learner
) -> Callable[[TransitionPool, Sequence[Row]], OldPolicy]:
    """Where old log-probs and entropy come from: the sampler, or one scoring pass."""
    full = config.paw.entropy == "full"

    def make(logprobs: list[list[float]], entropies: Sequence[Sequence[float]]) -> OldPolicy:
        tokens = [torch.tensor(x, dtype=torch.float64) for x in (entropies if full else logprobs)]
        if not full:
            tokens = [objective.sampled_token_entropy(x) for x in tokens]
        means = [x.mean() if len(x) else torch.zeros((), dtype=torch.float64) for x in tokens]
        return OldPolicy(logprobs, torch.stack(means))

    def from_rollout(pool: TransitionPool, rows: Sequence[Row]) -> OldPolicy:
        actions = [t.action for t in pool.transitions]
        entropies = [a.entropies for a in actions if a.entropies is not None]
        if full and len(entropies) < len(actions):
            raise UserError(
                'the sampler returns no entropy: set algorithm.old_logprobs = "score" or '
                'paw.entropy = "sampled"'
            )
        return make([list(a.logprobs) for a in actions], entropies)

    def from_score(pool: TransitionPool, rows: Sequence[Row]) -> OldPolicy:
        return make(*learner.score(rows, learner.policy))

    return from_rollout if config.algorithm.old_logprobs == "rollout" else from_score


def matched_constant(config: Config) -> float | None:
    """Mean lambda of the adaptive run that a matched constant imitates."""
    if config.paw.weight != "matched_constant" or config.paw.match is None:
        return None
    rows = read_metrics(config.paw.match)
    if not rows:
        raise UserError(f"paw.match = {config.paw.match!r}: that run has no metrics yet")
    return sum(r["wm/group_weight_mean"] for r in rows) / len(rows)


@lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> list[int]:
    order = list(range(size))
    random.Random(f"tasks {seed} {epoch}").shuffle(order)
    return order
