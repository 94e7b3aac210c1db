"""Builds what imitation runs on: demonstrations, policy, learner, and the place of its work."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paw.config.tree import Config, OptimizerConfig
from paw.envs.base import TaskSource
from paw.errors import UserError
from paw.imitate.demonstrations import (
    Demonstration,
    demonstration_of,
    expert_demonstrations,
    read_demonstrations,
    record_of,
)
from paw.imitate.output import place_of, remove_remains
from paw.imitate.rows import demonstration_rows
from paw.imitate.start import start
from paw.model.load import device_of, shape_of
from paw.model.policy import Policy
from paw.model.positions import check_length
from paw.rollout.actor import Actor, check_lengths, on_split, open_source
from paw.rollout.fit import settle, usable_bytes
from paw.runs import read
from paw.runs.begun import as_begun, begun
from paw.runs.console import Progress
from paw.runs.facts import environment_facts
from paw.runs.files import check_writable
from paw.runs.layout import Place, newest_checkpoint
from paw.runs.threads import set_threads
from paw.runs.write import Run, lock
from paw.train.checkpoint import explain_broken, restore
from paw.train.learner import Learner
from paw.train.losses import Losses, Sums, choose_losses
from paw.types import Role, TrainingSample


@dataclass(slots=True)
class Imitation:
    """Everything that an imitation holds open."""

    run: Run
    learner: Learner
    actor: Actor
    samples: Sequence[list[TrainingSample]]
    """The rows of each demonstration"""
    report: dict[str, Any]
    """What imitate.json says; `steps` of it are made"""


def open_imitation(config: Config, progress: Progress) -> Imitation:
    """Begin an imitation, or go on from its newest checkpoint.

    Raises:
        UserError: no expert, no successful demonstration, an output without room for the policy, a
            broken checkpoint, or another process at work on it.
    """
    place = place_of(config)
    goes_on = begun(place.directory, place.settings) is not None
    if goes_on:  # work that another process does is gone in a moment
        os.close(lock(place))
    else:
        check_writable(Path(config.imitate.output))
    config = as_begun(config, place)
    checkpoint = newest_checkpoint(place.directory / "checkpoints") if goes_on else None
    torch.manual_seed(config.run.seed)
    source, _ = open_source(config), open_evaluation(config)
    if goes_on:
        demonstrations = _kept_demonstrations(place)
    elif config.imitate.trajectories:
        demonstrations = read_demonstrations(config.imitate.trajectories)
    else:
        demonstrations = expert_demonstrations(source, config, progress)
    room = usable_bytes(device_of(config.model.device))
    policy, tokenizer = start(config, demonstrations, checkpoint)
    config = settle(config, shape_of(policy.config), room)
    set_threads(config.run.threads, policy.num_parameters)
    actor = Actor(config, policy, tokenizer, directory=place.directory)
    samples = [demonstration_rows(actor.serializer, d, config) for d in demonstrations]
    samples = [rows for rows in samples if any(any(row.target_weights) for row in rows)]
    if not samples:
        raise UserError("paw imitate: no demonstration has a valid turn to imitate")
    longest = max(len(row.token_ids) for rows in samples for row in rows)
    check_length(policy.positions, longest, "the longest row of a demonstration")
    check_lengths(config, policy.positions, actor.serializer, learns=False)
    if not goes_on:
        check_writable(Path(config.imitate.output), _num_bytes(policy))
    report = {
        "steps": 0,
        "finished": False,
        "demonstrations": len(demonstrations),
        "parameters": policy.num_parameters,
        "evaluations": [],
        "seed": config.run.seed,
        **environment_facts(),
    }
    run = Run(config, place)
    try:
        remove_remains(config)
        learner = make_learner(policy, config)
        arrived = not goes_on and os.path.lexists(config.imitate.output)
        if arrived or newest_checkpoint(run.checkpoints) != checkpoint:
            raise UserError(
                f"{place.where}: another process was at work meanwhile; begin once more"
            )
        if checkpoint is not None:
            restore(checkpoint, learner)
            with explain_broken(checkpoint):
                kept = read.imitation(checkpoint)
            report |= {"steps": kept.steps, "finished": kept.finished}
            report["evaluations"] = list(kept.evaluations)
        run.rewind(report["steps"])
        if not goes_on:
            run.save_trajectories(0, [record_of(d) for d in demonstrations])
    except BaseException:
        run.close()
        raise
    return Imitation(run, learner, actor, samples, report)


def open_evaluation(config: Config) -> TaskSource:
    """The tasks that the policy is evaluated on; a wrong split must not show after training."""
    return open_source(on_split(config, config.eval.split))


def make_learner(policy: Policy, config: Config) -> Learner:
    """The trainer's learner with cross-entropy on every weighted token."""
    settings = config.imitate
    optimizer = OptimizerConfig(
        learning_rate=settings.learning_rate,
        betas=(0.9, 0.98),
        max_grad_norm=settings.max_grad_norm,
        tokens_per_micro_batch=config.optimizer.tokens_per_micro_batch,
    )
    losses = choose_losses(config.algorithm, replace(config.paw, loss="ce"))
    return Learner(policy, None, _telling_apart(losses), optimizer)


def _telling_apart(losses: Losses) -> Losses:
    """The same with sums over action and observation tokens by themselves."""

    def prediction(logprobs: Tensor, roles: Tensor) -> tuple[Tensor, Sums]:
        losses_of_tokens, sums = losses.prediction(logprobs, roles)
        for name, role in (("action", Role.ACTION), ("observation", Role.OBSERVATION)):
            those = (roles == role).to(logprobs.device)
            sums[f"{name}_nll"] = -logprobs.detach()[those].sum()
            sums[f"num_{name}_tokens"] = those.sum()
        return losses_of_tokens, sums

    return replace(losses, prediction=prediction)


def _kept_demonstrations(place: Place) -> list[Demonstration]:
    """Those that the imitation began with, whatever the expert or the file would say now."""
    try:
        return [demonstration_of(t) for t in read.trajectories(place.directory, update=0)]
    except UserError as error:
        raise UserError(
            f"{error}; delete the directory {place.directory}: the same command then begins anew"
        ) from error


def _num_bytes(policy: Policy) -> int:
    """Size of a checkpoint: weights, and of those that are trained two moments, in fp32 or wider,
    and a master in fp32 where they are narrower."""
    held = sum(p.numel() * p.element_size() for p in policy.model.parameters())
    sizes = [(p.numel(), p.element_size()) for p in policy.parameters()]
    return held + sum(n * (12 if width < 4 else 2 * width) for n, width in sizes)
