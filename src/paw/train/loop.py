"""THE MAIN PATH: `paw train`, from top to bottom.

    tasks ─ act ─▶ groups ─ judge ─▶ advantages, weights ─ serialise ─▶ samples ─ learn ─▶ policy
              ▲                                                                               │
              └───────────────────────────── report: metrics, evaluation, checkpoint ◀────────┘

  act        each of G tasks is played n times by the policy: transitions (h_t, a_t, r_t, o_{t+1})
  judge      base algorithm's advantages (Eq. 1); S_alpha by action entropy (Eq. 4); lambda_g from
             the groups' returns (Eq. 10); lambda_g / (G |S_alpha,g|) on each transition (Eq. 11)
  serialise  rows of token ids, a role and a weight on every token; |o| of Eq. 9 is divided here
  learn      M optimizer steps on weighted sums; one forward pass serves both losses
  report     one line of metrics, trajectories, evaluation, checkpoint

Where the paper is silent or two readings exist, `docs/method.md` lists ours. Not here: several
machines, asynchronous rollouts.
"""

from typing import Any

import torch

from paw import objective
from paw.config.tree import Config
from paw.errors import RunFailure
from paw.evals import play
from paw.rollout.collect import Plan, collect, group_trajectories
from paw.runs.console import Progress
from paw.runs.run import InterruptGuard
from paw.train import checkpoint
from paw.train.batching import mini_batches
from paw.train.judge import flatten, judge
from paw.train.learner import NonFinite, Statistics
from paw.train.metrics import learning_metrics, records, rollout_metrics
from paw.train.samples import Row, base_rows, choose_targets, make_samples
from paw.train.session import Session, open_session
from paw.types import Group

STREAM = 0
"""Keeps the randomness of training apart from that of evaluation."""


def train(config: Config, progress: Progress = lambda update, metrics: None) -> Session:
    """Run or resume `config` to its last update. Returns the closed session.

    Raises:
        UserError: bad input, before anything is lost.
        RunFailure: a loss that is not finite, or an update without any usable trajectory.
        KeyboardInterrupt: Ctrl-C was pressed; the update under way has been finished and saved.
    """
    session = open_session(config)
    done = session.first_update
    progress(done, {})
    try:
        if done == 0 and config.eval.every:
            evaluate(session, 0)
        with InterruptGuard() as interrupt:
            while done < config.run.updates:
                metrics = train_update(session, done + 1)
                done += 1
                last = done == config.run.updates
                if config.eval.every and (last or done % config.eval.every == 0):
                    with session.run.stage("eval"):
                        metrics["eval/success_rate"] = evaluate(session, done)["success_rate"]
                progress(done, session.run.log(done, metrics))
                if last or interrupt.asked or done % config.run.checkpoint_every == 0:
                    save(session, done)
                if interrupt.asked:
                    raise KeyboardInterrupt
    finally:
        session.close()
    return session


def train_update(session: Session, update: int) -> dict[str, Any]:
    """Act, judge, serialise, learn: one update. Returns its metrics."""
    with session.run.stage("act"):  # -> list[Group]
        groups = act(session, update)
    return learn_from(session, update, groups)


def learn_from(session: Session, update: int, groups: list[Group]) -> dict[str, Any]:
    """Judge, serialise, learn: what follows from the groups of one update. Returns its metrics."""
    config, run, learner = session.run.config, session.run, session.learner
    generator = session.generator(update)

    with run.stage("judge"):  # over the whole update, never a mini-batch
        learner.policy.num_forwards = learner.policy.num_rows = 0
        pool = flatten(groups)
        if not pool.transitions:
            reasons = {t.failure for g in groups for t in g.trajectories}
            raise RunFailure(
                f"update {update}: every environment failed: {sorted(map(str, reasons))[0]}"
            )
        rows = base_rows(pool, session.actor.serializer.append)
        old = session.old_policy(pool, rows)
        values = learner.values(rows) if learner.critic is not None else None
        judgement = judge(
            pool,
            old.entropy,
            None if values is None else torch.tensor(values, dtype=torch.float64),
            config.algorithm,
            config.paw,
            max_return=session.source.max_return,
            update=update,
            matched_constant=session.matched_constant,
            generator=generator,
        )

    with run.stage("serialise"):  # -> list[TrainingSample]
        encode = session.actor.serializer.encode
        targets, changed = choose_targets(pool, judgement, config.paw, encode, generator)
        samples = make_samples(
            pool,
            rows,
            judgement,
            targets,
            old.logprobs,
            values,
            session.reference_logprobs(rows),
            session.actor.serializer.to_user,
            config.algorithm,
            config.paw,
        )

    with run.stage("learn"):
        statistics = Statistics()
        order = session.generator(update, stream=1)
        batches = mini_batches(samples, config.optimizer.mini_batches, order)
        try:
            for batch in batches:
                learner.step(
                    batch,
                    statistics,
                    scale=len(batches),
                    num_transitions=len(pool.transitions),
                    train_policy=learner.critic is None
                    or update > config.algorithm.critic_warmup_updates,
                    diagnose=session.diagnoses(update),
                )
        except NonFinite as error:
            file = run.dump(update, error.samples)
            raise RunFailure(
                f"update {update}: {error}; the mini-batch is in {file}, the last good checkpoint "
                "is untouched: lower optimizer.learning_rate or look at the batch"
            ) from error

    if config.run.save_trajectories_every and update % config.run.save_trajectories_every == 0:
        run.save_trajectories(update, records(update, groups, pool, judgement, targets))
    return {
        **rollout_metrics(groups, session.actor.serializer.format.header_ids),
        **learning_metrics(pool, judgement, targets, changed, statistics),
        "model/forwards": learner.policy.num_rows / len(rows),
        "model/forward_calls": learner.policy.num_forwards,
        "rollout/restarts": session.environments.num_restarts,
        **kl_after(session, update, rows, old.logprobs, judgement.idle),
    }


def act(session: Session, update: int) -> list[Group]:
    """Play every task of the update `group_size` times."""
    config, actor = session.run.config, session.actor
    seed = config.run.seed
    plans = [
        Plan(
            task,
            group,
            index,
            environment_seed=seed,
            sample_seed=(seed, STREAM, update, group, index),
        )
        for group, task in enumerate(session.tasks(update))
        for index in range(config.rollout.group_size)
    ]
    limits = actor.limits(config.rollout.temperature)
    return group_trajectories(
        collect(plans, actor.sampler, session.environments, actor.serializer, limits)
    )


def kl_after(
    session: Session,
    update: int,
    rows: list[Row],
    old: list[list[float]],
    idle: torch.Tensor,
) -> dict[str, float | None]:
    """On diagnostic updates: how far the policy moved, and how far where no reward drove it."""
    if not session.diagnoses(update):
        return {}
    new, _ = session.learner.score(rows, session.learner.policy)
    drift = [
        float(objective.kl_estimate(torch.tensor(before), torch.tensor(after)).mean())
        for before, after in zip(old, new, strict=True)
    ]
    undriven = [d for d, still in zip(drift, idle.tolist(), strict=True) if still]
    return {
        "policy/kl_after": sum(drift) / len(drift),
        "policy/kl_after_zero_advantage": sum(undriven) / len(undriven) if undriven else None,
    }


def evaluate(session: Session, update: int) -> dict[str, Any]:
    """Play the evaluation split and write the result."""
    settings = session.run.config.eval
    result = play.evaluate(
        session.actor,
        settings.split,
        settings.episodes,
        settings.temperature,
        seed=session.run.config.run.seed,
    )
    session.run.save_evaluation(update, {"update": update, **result})
    return result


def save(session: Session, update: int) -> None:
    """Write the checkpoint of `update`."""
    run = session.run
    checkpoint.save(run.checkpoints, update, run.config, session.learner, session.tokenizer)
