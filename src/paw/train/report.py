"""The end of an update: the evaluation that is due, and its line of metrics."""

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from paw.evals import play
from paw.runs.format import MetricsRow
from paw.runs.interrupt import InterruptGuard
from paw.train.session import Session


def report(
    session: Session, update: int, metrics: Mapping[str, Any], interrupt: InterruptGuard
) -> MetricsRow:
    """Evaluate, where that is due, and write one line of metrics, which is returned."""
    evaluation: dict[str, float] = {}
    if is_evaluated(session, update):
        at_once = session.ranks.size == 1  # of several each may have come elsewhere
        with session.run.stage("eval"), interrupt.at_once() if at_once else nullcontext():
            evaluation["eval/success_rate"] = evaluate(session, update)["success_rate"]
    return session.run.log(update, {**metrics, **evaluation})


def is_evaluated(session: Session, update: int) -> bool:
    """Is there an evaluation after `update`?"""
    every, last = session.run.config.eval.every, session.run.config.run.updates
    return every > 0 and (update == last or update % every == 0)


def evaluate(session: Session, update: int) -> dict[str, Any]:
    """Play the evaluation split and write the result."""
    settings = session.run.config.eval
    result = play.evaluate(
        session.actor,
        settings.split,
        settings.episodes,
        settings.temperature,
        seed=session.run.config.run.seed,
        ranks=session.ranks,
    )
    session.run.save_evaluation(update, result)
    return result
