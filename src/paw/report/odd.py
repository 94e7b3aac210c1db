"""What a person should look at in the metrics of a run. Pure."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from statistics import fmean, median

from paw.report.data import Oddity
from paw.runs.format import MetricsRow

SMOOTH = 5
"""Updates that a rise or a fall is averaged over."""
FALL = 0.15
"""Of a share, from its best stretch to the last one."""
SPIKE = 10.0
"""Times the median."""


@dataclass(frozen=True, slots=True)
class Stretch:
    """Updates in which a metric fulfils a condition."""

    metric: str
    odd: Callable[[float], bool]
    text: Callable[[Sequence[float]], str]
    """Values of the stretch -> what is said of it"""


def _highest(name: str) -> Callable[[Sequence[float]], str]:
    return lambda values: f"{name} up to {max(values):.0%}"


def _total(name: str) -> Callable[[Sequence[float]], str]:
    return lambda values: f"{sum(values):,.0f} {name}"


STRETCHES = (
    Stretch("rollout/failures", lambda x: x > 0, _total("trajectories whose environment failed")),
    Stretch("rollout/valid_action_rate", lambda x: x == 0, lambda _: "no valid action"),
    Stretch("wm/role_confusion_rate", lambda x: x >= 0.05, _highest("role confusion")),
    Stretch("rollout/unfinished_fraction", lambda x: x >= 0.2,
            _highest("responses cut by rollout.max_response_tokens")),
    Stretch("rollout/prompt_limit_fraction", lambda x: x >= 0.2,
            _highest("episodes ended by rollout.max_prompt_tokens")),
    Stretch("rollout/prompt_cut_fraction", lambda x: x >= 0.2,
            _highest("prompts cut by rollout.max_prompt_tokens")),
    Stretch("rollout/groups_with_difference", lambda x: x == 0,
            lambda _: "no group with a difference in return: no reward to learn from"),
    Stretch("wm/most_common_target_fraction", lambda x: x >= 0.7,
            _highest("one observation among the targets")),
    Stretch("policy/clipped_fraction", lambda x: x >= 0.3, _highest("clipped action tokens")),
    Stretch("memory/halved", lambda x: x > 0, lambda _: "memory ran out, micro-batches halved"),
)  # fmt: skip
FALLS = {
    "rollout/valid_action_rate": "valid actions",
    "rollout/success_rate": "success of the training episodes",
    "eval/success_rate": "success on the evaluation split",
}
SPIKES = {"policy/gradient_norm": 5.0, "policy/kl": 0.05}
"""Metric -> value below which nothing is a spike"""


def odd(rows: Sequence[MetricsRow], predicts: bool) -> tuple[Oddity, ...]:
    """Everything that is odd, by the update where it begins.

    Args:
        rows: metrics by update.
        predicts: the run trains the next observation: an update without a target is odd.
    """
    found = [*_stretches(rows, STRETCHES), *_falls(rows), *_spikes(rows), *_collapse(rows)]
    if predicts:
        none = Stretch(
            "wm/weighted_transitions", lambda x: x == 0, lambda _: "no target had a weight"
        )
        found += _stretches(rows, (none,))
    return tuple(sorted(found, key=lambda o: (o.first is None, o.first, o.text)))


def _column(rows: Sequence[MetricsRow], metric: str) -> list[tuple[int, float]]:
    return [(r["update"], r[metric]) for r in rows if isinstance(r.get(metric), int | float)]


def _stretches(rows: Sequence[MetricsRow], wanted: Sequence[Stretch]) -> Iterator[Oddity]:
    for stretch in wanted:
        values = _column(rows, stretch.metric)
        run: list[tuple[int, float]] = []
        for update, value in [*values, (-1, 0.0)]:
            if update >= 0 and stretch.odd(value):
                run.append((update, value))
            elif run:
                yield _said(stretch.metric, stretch.text([v for _, v in run]), run)
                run = []


def _said(metric: str, text: str, run: Sequence[tuple[int, float]]) -> Oddity:
    first, last = run[0][0], run[-1][0]
    where = f"update {first}" if first == last else f"updates {first}–{last}"
    return Oddity(text=f"{text} in {where}", first=first, last=last, metric=metric)


def _falls(rows: Sequence[MetricsRow]) -> Iterator[Oddity]:
    """A share that was high and is low at the end."""
    for metric, name in FALLS.items():
        values = _column(rows, metric)
        size = 1 if metric.startswith("eval/") else SMOOTH
        if len(values) < 2 * size:
            continue
        means = [fmean(v for _, v in values[i : i + size]) for i in range(len(values) - size + 1)]
        best = max(range(len(means)), key=means.__getitem__)
        if means[best] - means[-1] >= FALL and best + size <= len(values) - size:
            after = values[best + size - 1][0]
            text = f"{name} fell from {means[best]:.0%} to {means[-1]:.0%} after update {after}"
            yield Oddity(text=text, first=after, last=values[-1][0], metric=metric)


def _spikes(rows: Sequence[MetricsRow]) -> Iterator[Oddity]:
    for metric, least in SPIKES.items():
        values = _column(rows, metric)
        if len(values) < SMOOTH:
            continue
        usual = median(v for _, v in values)
        high = [(u, v) for u, v in values if v > max(least, SPIKE * usual)]
        if high:
            update, value = max(high, key=lambda found: found[1])
            text = f"{metric} {value:.3g} in update {update}, usually {usual:.2g}"
            yield Oddity(text=text, first=update, last=update, metric=metric)


def _collapse(rows: Sequence[MetricsRow]) -> Iterator[Oddity]:
    """A policy that has stopped trying anything."""
    values = _column(rows, "policy/entropy")
    if len(values) < 2 * SMOOTH:
        return
    start, end = (fmean(v for _, v in part) for part in (values[:SMOOTH], values[-SMOOTH:]))
    if end < 0.1 * start:
        text = f"the policy's entropy fell from {start:.2g} to {end:.2g} nats"
        yield Oddity(
            text=text, first=values[-SMOOTH][0], last=values[-1][0], metric="policy/entropy"
        )
