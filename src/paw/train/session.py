"""Builds what the loop runs on; every choice of the configuration is made here, once."""

import os
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase

from paw.config.tree import Config, PawConfig
from paw.envs.base import TaskSource
from paw.errors import UserError, warn
from paw.model.critic import Critic
from paw.model.load import device_of, shape_of
from paw.model.policy import Policy
from paw.rollout.actor import (
    Actor,
    check_lengths,
    check_vocabulary,
    load_checkpoint,
    load_policy,
    open_pool,
    open_source,
)
from paw.rollout.fit import settle, usable_bytes
from paw.rollout.pool import EnvironmentPool
from paw.rollout.ranks import ALONE, Ranks
from paw.rollout.sampler import check_entropy
from paw.runs import read
from paw.runs.begun import as_begun
from paw.runs.console import Say
from paw.runs.follow import Follower
from paw.runs.format import MetricsRow
from paw.runs.gguf import unpack
from paw.runs.header import first_exchange
from paw.runs.layout import newest_checkpoint, resolve_model, tokenizer_place, training_place
from paw.runs.threads import set_threads
from paw.runs.write import Run, check_directory, lock
from paw.text.tokenizer import load_tokenizer
from paw.train.advantages import ALGORITHMS
from paw.train.alike import (
    check_configuration,
    check_seen,
    check_shared,
    check_tasks,
    check_weights,
)
from paw.train.checkpoint import explain_broken, restore
from paw.train.judge import Rules
from paw.train.learner import Learner
from paw.train.losses import choose_losses
from paw.train.mismatch import Score, against_sampler
from paw.train.score import Scorer
from paw.types import Group, Task


@dataclass(slots=True)
class Session:
    """Everything that a training run holds open."""

    run: Run
    tokenizer: PreTrainedTokenizerBase
    learner: Learner
    actor: Actor
    source: TaskSource
    environments: EnvironmentPool
    scorer: Score
    rules: Rules
    first_update: int
    """Updates already made."""
    earlier: Sequence[MetricsRow]
    """Their metrics."""
    held: MetricsRow | None
    """Of the last of them, where the run ended in its evaluation."""
    say: Say = lambda text: None
    """Shows lines to a person."""

    @property
    def ranks(self) -> Ranks:
        """The processes of the run."""
        return self.learner.ranks

    @property
    def player(self) -> Policy:
        """What plays and scores; the learner's own, unless that is sharded."""
        return self.ranks.whole(self.learner.policy)

    def tasks(self, update: int) -> list[Task]:
        """The task instances of one update: a fresh permutation of the split in each epoch."""
        count, size = self.run.config.rollout.groups, len(self.source)
        chosen = []
        for position in range((update - 1) * count, update * count):
            epoch, at = divmod(position, size)
            chosen.append(self.source[_permutation(size, self.run.config.run.seed, epoch)[at]])
        return chosen

    def diagnoses(self, update: int) -> bool:
        """Is `update` one of the diagnostic ones?"""
        every = self.run.config.run.diagnostics_every
        return every > 0 and update % every == 0

    def generator(self, update: int, stream: int = 0) -> torch.Generator:
        """Randomness of one update outside the sampler; streams do not disturb each other, so that
        arms of a paired comparison keep the same data order whatever else they draw."""
        seed = (self.run.config.run.seed * 1_000_003 + update) * 8 + stream
        return torch.Generator().manual_seed(seed)

    def counts(self, num_rows: int) -> dict[str, float]:
        """What this update's passes, and the run's environments, took on all ranks."""
        passes = self.player.passes
        halved, restarts = self.learner.limit.halved, self.environments.num_restarts
        mine = (passes.rows, passes.forwards, halved, restarts)
        rows, forwards, halved, restarts = map(sum, zip(*self.ranks.gather(mine), strict=True))
        return {
            "model/forwards": rows / num_rows,
            "model/forward_calls": forwards,
            "memory/halved": int(halved > 0),
            "rollout/restarts": restarts,
        }

    def say_first(self, groups: Sequence[Group]) -> None:
        """Show the first prompt and response, as the policy read and wrote them."""
        transitions = [x for g in groups for t in g.trajectories for x in t.transitions]
        for first in transitions[:1]:
            tokens = (first.context_ids, first.action.token_ids)
            prompt, response = (str(self.tokenizer.decode(list(ids))) for ids in tokens)
            self.say(first_exchange(prompt, response))

    def close(self) -> None:
        """Close environments and sinks."""
        self.environments.close()
        self.run.close()


def open_session(config: Config, ranks: Ranks = ALONE) -> Session:
    """Open or resume a run, on each of its ranks.

    Raises:
        UserError: anything in the configuration that does not fit what is there.
    """
    check_configuration(config, ranks)
    torch.manual_seed(config.run.seed)
    with ranks.first():  # what it keeps for later runs is made once
        source = open_source(config)
    check_tasks(source, ranks)
    alone = ALGORITHMS[config.algorithm.name].learns_alone
    if config.rollout.group_size == 1 and alone is not None:
        warn(
            "rollout.group_size = 1: a group of one has advantage 0, so "
            f"{config.algorithm.name} learns {alone}"
        )
    place = training_place(config)
    if ranks.leads:
        check_directory(config, place)  # before a checkpoint in it is read
    checkpoint = ranks.agreed(newest_checkpoint(place.directory / "checkpoints"))
    if checkpoint is not None:
        check_seen(checkpoint, ranks)
        if ranks.leads:  # one that another process trains on is soon gone
            os.close(lock(place))
    config = as_begun(config)
    path = unpack(resolve_model(config.model.path))
    room = min(ranks.gather(usable_bytes(device_of(config.model.device), ranks.on_machine)))
    if checkpoint is None or config.model.lora_rank:  # an adapter goes on its first weights
        policy = load_policy(config, path)
    else:
        with explain_broken(checkpoint):
            policy = load_checkpoint(config, checkpoint)
    check_weights(policy, str(checkpoint or path), ranks)
    tokenizer = load_tokenizer(tokenizer_place(config.model.adapter, path))
    check_vocabulary(policy, tokenizer, config.model.path)
    set_threads(config.run.threads, policy.num_parameters)
    shards = ranks.size if ranks.sharded else 1
    config = ranks.agreed(settle(config, shape_of(policy.config), room, shards=shards))
    # A template that does not fit: before anything is written.
    actor = Actor(config, policy, tokenizer, ranks, place.directory)
    check_lengths(config, policy.positions, actor.serializer, learns=True)
    check_entropy(actor.sampler, config.algorithm.old_logprobs, config.paw.entropy)
    run = Run(config) if ranks.leads else Follower(config)
    try:
        check_shared(place.directory, ranks)
        return _begin(run, actor, ranks, source=source, checkpoint=checkpoint, path=path)
    except BaseException:
        run.close()
        raise


def _begin(
    run: Run, actor: Actor, ranks: Ranks, *, source: TaskSource, checkpoint: Path | None, path: str
) -> Session:
    """What open_session does once the run directory is ours: go on from `checkpoint`, if any."""
    config, policy = run.config, actor.policy
    algorithm, optimizer = config.algorithm, config.optimizer
    critic = Critic.from_policy(policy) if ALGORITHMS[algorithm.name].needs_critic else None
    losses = choose_losses(algorithm, config.paw)
    ranks.split(policy, critic)
    reference = _load_reference(policy, config, path) if algorithm.kl_coefficient else None
    if reference is not None:
        ranks.keep(reference)
    rate, player = algorithm.critic_learning_rate, ranks.whole(policy)
    learner = Learner(policy, critic, losses, optimizer, rate, ranks=ranks)
    first = restore(checkpoint, learner) if checkpoint is not None else 0
    ranks.hand_over()
    actor.sampler.load(player, first)
    earlier = run.rewind(first)
    held = ranks.agreed(run.held(first, earlier))
    run.track()
    scorer = Scorer(
        player,
        critic,
        reference,
        scores_actions=algorithm.old_logprobs == "score",
        full_entropy=config.paw.entropy == "full",
        max_tokens=learner.limit.tokens,
        ranks=ranks,
    )
    return Session(
        run=run,
        tokenizer=actor.tokenizer,
        learner=learner,
        actor=actor,
        source=source,
        environments=open_pool(config),
        scorer=against_sampler(scorer, algorithm),
        rules=Rules(algorithm, matched(config.paw), source.max_return, config.run.updates),
        first_update=first,
        earlier=earlier,
        held=held,
    )


def _load_reference(policy: Policy, config: Config, path: str) -> Policy:
    """The initial policy, which gives no probability to what `policy` gives none."""
    reference = load_policy(config, path, lora=False)
    reference.head.unknown = policy.head.unknown
    return reference


def matched(paw: PawConfig) -> PawConfig:
    """The same with the mean lambda of the run in `match` as its constant, where it asks for it."""
    if paw.weight != "matched_constant" or paw.match is None:
        return paw
    weights = [w for _, w in read.measured(read.metrics(paw.match), "wm/group_weight_mean")]
    if not weights:
        raise UserError(f"paw.match = {paw.match!r}: that run has no metrics yet")
    return replace(paw, constant=sum(weights) / len(weights))


@lru_cache(maxsize=2)
def _permutation(size: int, seed: int, epoch: int) -> list[int]:
    order = list(range(size))
    random.Random(f"tasks {seed} {epoch}").shuffle(order)
    return order
