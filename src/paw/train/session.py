"""Builds what the loop runs on; every choice of the configuration is made here, once."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from transformers import PreTrainedTokenizerBase

from paw import objective
from paw.config.tree import Config
from paw.envs.base import TaskSource
from paw.errors import UserError, warn
from paw.model.critic import Critic
from paw.model.policy import Policy
from paw.rollout.actor import (
    Actor,
    check_lengths,
    check_vocabulary,
    load_policy,
    make_serializer,
    open_pool,
    open_source,
)
from paw.rollout.pool import EnvironmentPool
from paw.runs.layout import newest_checkpoint, resolve_model
from paw.runs.run import Run, read_metrics
from paw.text.tokenizer import load_tokenizer
from paw.train.checkpoint import restore, way_back
from paw.train.judge import TransitionPool
from paw.train.learner import Learner
from paw.train.samples import Row
from paw.types import Task

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
