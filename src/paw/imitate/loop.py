"""`paw imitate`: warm-starts a policy by behaviour cloning.

Cross-entropy on the demonstrated actions and, with `observation_weight`, on the observations
between them. Junk actions are seen and not imitated, so that the policy meets refusals and learns
to go on. The learner is the trainer's own: each imitated token is a target with a weight.

The work is a run directory (`output.py` says where); the same command goes on from its newest
checkpoint. Demonstrations are kept in it, and batches and learning rates follow from the seed and
the step, so that weights, optimizer and report are all there is to save.
"""

import json
import math
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from paw.config.tree import Config
from paw.errors import RunFailure, UserError
from paw.evals.play import evaluate
from paw.imitate.output import RECORD, finished, publish, remove_work
from paw.imitate.rows import batches, normalised
from paw.imitate.session import Imitation, open_imitation
from paw.runs.console import Progress, Say
from paw.runs.header import imitation_header
from paw.runs.interrupt import InterruptGuard
from paw.runs.layout import name_of
from paw.train import checkpoint
from paw.train.learner import NonFinite
from paw.types import TrainingSample


def imitate(
    config: Config,
    progress: Progress = lambda step, metrics: None,
    say: Say = lambda text: None,
    origins: Sequence[str] = (),
) -> dict[str, Any]:
    """Make demonstrations and train on them, or go on with it; write the policy to
    `imitate.output` at the end, and at each evaluation on the way. A finished one is left as it is.

    Args:
        progress: called while demonstrations are played, and after each step.
        say: gets the header.
        origins: where values of `config` come from, for the header.

    Returns:
        What `imitate.json` in that directory says: command, commit, seed, losses, success.

    Raises:
        UserError: no expert, no successful demonstration, an output that holds something else or an
            imitation of another configuration, or that has no room for the policy.
        RunFailure: a gradient that is not finite.
        KeyboardInterrupt: Ctrl-C was pressed; the step under way has been finished and saved.
    """
    report = finished(config)
    if report is None:
        work = open_imitation(config, progress)
        report, done = work.report, work.report["steps"]
        try:
            number = report["demonstrations"]
            header = imitation_header(work.run.config, work.learner.policy, number, done, origins)
            say(header)
            if done:
                progress(done, {})  # a bar that begins there
            with InterruptGuard("step") as interrupt:
                _take_steps(work, progress, interrupt)
        finally:
            work.run.close()
    remove_work(config)
    return report


def _take_steps(work: Imitation, progress: Progress, interrupt: InterruptGuard) -> None:
    """Learn, evaluate, save, from where the report says that it stands to the end."""
    settings, report = work.run.config.imitate, work.report
    done = report["steps"]
    if done >= settings.steps and not report["finished"]:
        raise UserError(f"imitate.steps = {settings.steps:,}: {done:,} are made already; raise it")
    if report["finished"]:  # and killed before its output was there
        publish(work.run.checkpoints / name_of(done), Path(settings.output))
        return
    steps = islice(batches(work.samples, work.run.config), done, None)
    for step, batch in enumerate(steps, start=done + 1):
        metrics = _take_step(work, step, batch)
        report["steps"], last = step, step == settings.steps
        if due := _is_due(step, work.run.config):
            with work.run.stage("eval"):
                result = _evaluate(work, step)
            report["evaluations"].append({"step": step, "nll": metrics["imitate/nll"], **result})
            metrics["eval/success_rate"] = success = result["success_rate"]
            enough = settings.stop_at_success
            report["finished"] = last or (enough is not None and success >= enough)
        logged = work.run.log(step, metrics)
        progress(step, logged)
        asked = interrupt.asked  # after this it is for the next step
        # Before an evaluation, which may take longer than all the steps: a kill in it costs one.
        soon = _is_due(step + 1, work.run.config)
        if due or soon or asked or step % settings.checkpoint_every == 0:
            saved = _save(work, step)
            if due or asked:
                publish(saved, Path(settings.output))
        if report["finished"]:
            return
        if asked:
            raise KeyboardInterrupt


def _is_due(step: int, config: Config) -> bool:
    """Is there an evaluation after this step?"""
    every = config.imitate.eval_every
    return step == config.imitate.steps or (every > 0 and step % every == 0)


def _take_step(work: Imitation, step: int, batch: Sequence[TrainingSample]) -> dict[str, Any]:
    """One optimizer step. Returns its metrics."""
    share, settings = rate_share(step - 1, work.run.config), work.run.config.imitate
    samples = normalised(batch)
    try:
        with work.run.stage("learn"):
            statistics = work.learner.step(samples, rate_share=share)
    except NonFinite as error:
        file = work.run.dump(step, error.samples)
        raise RunFailure(
            f"step {step}: {error}; the batch is in {file}, the last good checkpoint is "
            "untouched: look at the batch, or choose a lower imitate.learning_rate and another "
            "imitate.output"
        ) from error
    return {
        "imitate/nll": statistics.mean("target_nll", "target_tokens"),
        "imitate/action_nll": statistics.mean("action_nll", "num_action_tokens"),
        "imitate/observation_nll": statistics.mean("observation_nll", "num_observation_tokens"),
        "imitate/action_tokens": int(statistics.total("num_action_tokens")),
        "imitate/observation_tokens": int(statistics.total("num_observation_tokens")),
        "imitate/learning_rate": share * settings.learning_rate,
        "imitate/gradient_norm": statistics.mean("gradient_norm", "steps"),
        "tokens/trained": int(statistics.total("tokens")),
        "memory/halved": int(work.learner.limit.halved),
    }


def _evaluate(work: Imitation, step: int) -> dict[str, Any]:
    """Play the evaluation split."""
    config, actor = work.run.config, work.actor
    settings = config.eval
    actor.sampler.load(work.learner.policy, step)
    result = evaluate(
        actor, settings.split, settings.episodes, settings.temperature, config.run.seed
    )
    work.run.save_evaluation(step, result)
    result.pop("episodes")
    return result


def _save(work: Imitation, step: int) -> Path:
    """Write the checkpoint of a step, the report beside its policy."""
    return checkpoint.save(
        work.run.checkpoints, step, work.run.config, work.learner, work.actor.tokenizer,
        made_by="paw imitate, step",
        beside={RECORD: (json.dumps(work.report, indent=1) + "\n").encode()},
    )  # fmt: skip


def rate_share(step: int, config: Config) -> float:
    """Share of the learning rate at a step: linear warm-up, then constant or cosine decay."""
    settings = config.imitate
    share = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.final_learning_rate is not None:
        floor = settings.final_learning_rate / settings.learning_rate
        share *= floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return share
