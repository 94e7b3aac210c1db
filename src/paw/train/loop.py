"""THE MAIN PATH: `paw train`, from top to bottom.

    tasks ─ act ▶ groups ─ score ▶ scores ─ judge ▶ weights ─ serialise ▶ samples ─ learn ▶ policy
             ▲                                                                                │
             └───────────────────── report: metrics, evaluation, checkpoint ◀─────────────────┘

  act        each of G tasks is played n times by the policy: transitions (h_t, a_t, r_t, o_{t+1})
  score      rows of tokens, and what the models say of the actions before learning
  judge      base algorithm's advantages (Eq. 1); S_alpha by action entropy (Eq. 4); lambda_g from
             the groups' returns (Eq. 10); lambda_g / (G |S_alpha,g|) on each transition (Eq. 11)
  serialise  a weight on every token of the rows; |o| of Eq. 9 is divided here
  learn      M optimizer steps a pass on weighted sums; one forward pass serves both losses
  report     one line of metrics, trajectories, evaluation, checkpoint

Where the paper is silent or two readings exist, `docs/method.md` lists ours. Several processes
(`ranks`) share acting, scoring and learning; each judges all. Not here: asynchronous rollouts.
"""

from collections.abc import Sequence
from typing import Any

from paw.config.tree import Config
from paw.errors import RunFailure
from paw.rollout.collect import Plan, collect, group_trajectories
from paw.rollout.ranks import ALONE, Ranks
from paw.runs.console import Progress, Say
from paw.runs.header import training_header
from paw.runs.health import health
from paw.runs.interrupt import InterruptGuard
from paw.runs.threads import ActingRate
from paw.train import checkpoint
from paw.train.batching import optimizer_steps
from paw.train.diagnostics import before_learning, drift
from paw.train.judge import judge
from paw.train.learner import NonFinite
from paw.train.metrics import learning_metrics, rollout_metrics, selection_overlap
from paw.train.mismatch import mismatch
from paw.train.prediction.schedule import scheduled
from paw.train.prediction.target import choose_targets
from paw.train.records import records
from paw.train.report import evaluate, is_evaluated, report
from paw.train.score import flatten, make_rows
from paw.train.serialise import serialise
from paw.train.session import Session, open_session
from paw.train.statistics import Statistics
from paw.types import Group, TrainingSample, Trajectory

TRAINING_SEEDS = 0
"""Keeps the randomness of training apart from that of evaluation."""


def train(
    config: Config,
    progress: Progress = lambda update, metrics: None,
    say: Say = lambda text: None,
    origins: Sequence[str] = (),
    ranks: Ranks = ALONE,
) -> Session:
    """Run or resume `config` to its last update. Returns the closed session.

    Args:
        progress: called after each update.
        say: gets the header of the run, and its first prompt and response.
        origins: where values of `config` come from, for the header.
        ranks: the processes of the run, each of which calls this; rank 0 alone speaks.

    Raises:
        UserError: bad input, before anything is lost.
        RunFailure: a loss that is not finite, or an update without any usable trajectory.
        KeyboardInterrupt: Ctrl-C was pressed; the update under way has been finished and saved.
    """
    session = open_session(config, ranks)
    done, session.say = session.first_update, say
    directory = str(session.run.directory)
    say(training_header(session.run.config, session.learner.policy, directory, done, origins))
    acting_rate = ActingRate(session.earlier)
    progress(min(done, config.run.updates), {})
    try:
        if done == 0 and config.eval.every:
            evaluate(session, 0)
        with InterruptGuard() as interrupt:
            if session.held is not None:  # it ended in the evaluation of this update
                progress(done, report(session, done, session.held, interrupt))
            while done < config.run.updates:
                metrics = train_update(session, done + 1)
                done += 1
                evaluated = is_evaluated(session, done)
                if evaluated:  # which takes long: what ends the run in it costs no update
                    metrics = session.run.hold(done, metrics)
                    save(session, done)
                    if any(ranks.gather(interrupt.asked)):
                        raise KeyboardInterrupt
                logged = report(session, done, metrics, interrupt)
                acting_rate.watch(logged)
                progress(done, logged)
                stop = any(ranks.gather(interrupt.asked))
                last = done == config.run.updates
                if not evaluated and (last or stop or done % config.run.checkpoint_every == 0):
                    save(session, done)
                if stop:
                    raise KeyboardInterrupt
    finally:
        session.close()
    return session


def train_update(session: Session, update: int) -> dict[str, Any]:
    """Act, then learn from it: one update. Returns its metrics."""
    with session.run.stage("act"):  # -> list[Group]
        groups = act(session, update)
    if update == session.first_update + 1:
        session.say_first(groups)
    return learn_from(session, update, groups)


def learn_from(session: Session, update: int, groups: list[Group]) -> dict[str, Any]:
    """Score, judge, serialise, learn: what follows from the groups of one update."""
    config, run, policy = session.run.config, session.run, session.player
    serializer, generator = session.actor.serializer, session.generator(update)

    with run.stage("score"):  # -> list[Row], Scores
        policy.passes.forwards = policy.passes.rows = 0
        transitions, columns = flatten(groups)
        if not transitions:
            reasons = {t.failure for g in groups for t in g.trajectories}
            raise RunFailure(
                f"update {update}: every environment failed: {sorted(map(str, reasons))[0]}"
            )
        rows = make_rows(transitions, columns, serializer.append)
        scores = session.scorer(transitions, rows)

    with run.stage("judge"):  # -> Judgement, over the whole update, never a mini-batch
        judgement = judge(columns, scores, session.rules, update, generator)
        judgement = session.ranks.agreed(judgement)

    with run.stage("serialise"):  # -> list[TrainingSample]
        targets = choose_targets(
            transitions, columns, judgement, config.paw, serializer, generator=generator
        )
        with_action = config.paw.condition == "action"
        samples = serialise(rows, scores, judgement, targets, with_action)

    diagnosed: dict[str, float | None] = {}
    if session.diagnoses(update):
        with run.stage("diagnose"):
            diagnosed = before_learning(
                session, update, transitions=transitions, columns=columns, rows=rows, scores=scores
            )

    with run.stage("learn"):  # -> the policy's new weights
        session.ranks.release()
        statistics = learn(session, update, samples, len(transitions))
    with run.stage("hand_over"):
        session.ranks.hand_over()
        session.actor.sampler.load(policy, update)

    if session.diagnoses(update):
        with run.stage("diagnose"):
            diagnosed |= drift(
                policy, rows, scores, columns, session.learner.limit.tokens, ranks=session.ranks
            )
    if config.run.save_trajectories_every and update % config.run.save_trajectories_every == 0:
        kept = records(update, groups, judgement, targets, statistics.expected)
        run.save_trajectories(update, kept)
    learned = learning_metrics(transitions, columns, judgement, targets, statistics)
    if learned["wm/nll"] is not None:  # of the targets that were trained on
        diagnosed.pop("wm/nll", None)
    metrics = {
        **rollout_metrics(groups, serializer.format.header_ids, serializer.format.header_text),
        **learned,
        "wm/selection_overlap": selection_overlap(
            scores, columns.candidates, config.paw.selection_fraction
        ),
        **mismatch(scores),
        **session.counts(len(rows)),
        **diagnosed,
    }
    by_mae = config.paw.loss != "ce" and config.paw.target == "next"
    problems = health(metrics, predicts=scheduled(config.paw, update)[0], by_mae=by_mae)
    return metrics | ({"health": problems} if problems else {})


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
            sample_seed=(seed, TRAINING_SEEDS, update, group, index),
        )
        for group, task in enumerate(session.tasks(update))
        for index in range(config.rollout.group_size)
    ]
    limits = actor.limits(config.rollout.temperature)

    def play(own: list[Plan]) -> list[Trajectory]:
        return collect(own, actor.sampler, session.environments, actor.serializer, limits)

    return group_trajectories(session.ranks.spread(plans, play))


def learn(
    session: Session, update: int, samples: Sequence[TrainingSample], num_transitions: int
) -> Statistics:
    """M optimizer steps a pass."""
    config, learner = session.run.config, session.learner
    order = session.generator(update, stream=1)
    warm = learner.critic is None or update > config.algorithm.critic_warmup_updates
    statistics = Statistics()
    try:
        for batch in optimizer_steps(samples, config.optimizer, order):
            found = learner.step(
                batch,
                scale=config.optimizer.mini_batches,
                num_transitions=num_transitions,
                train_policy=warm,
                diagnose=session.diagnoses(update),
            )
            statistics.merge(found)
    except NonFinite as error:
        file = session.run.dump(update, error.samples)
        raise RunFailure(
            f"update {update}: {error}; the mini-batch is in {file}, the last good checkpoint "
            "is untouched: lower optimizer.learning_rate or look at the batch"
        ) from error
    statistics.add(passes=config.optimizer.epochs)
    return statistics


def save(session: Session, update: int) -> None:
    """Write the checkpoint of `update`."""
    run = session.run
    checkpoint.save(run.checkpoints, update, run.config, session.learner, session.tokenizer)
