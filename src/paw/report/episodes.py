"""From the records of a trajectory file to the episodes of a page."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from paw.report.data import Episode, Tokens, Turn
from paw.runs.format import TrajectoryRecord, TurnRecord
from paw.style import Block, Step, Style

Texts = Callable[[Sequence[int]], Sequence[str]]
"""Ids of n tokens -> their n texts"""

LOSSES: dict[str, Callable[[float, float], float]] = {
    "cmae": lambda p, cap: 1 - p if p <= cap else 0.0,
    "mae": lambda p, cap: 1 - p,
    "ce": lambda p, cap: -math.log(max(p, 1e-300)),
}
"""(p of a token, rho) -> its loss, for people to look at: `paw.objective` is what trains."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the page says of numbers in the records hangs on it."""

    style: Style
    texts: Texts | None = None
    """None without the tokenizer of the run's policy"""
    loss: str | None = None
    probability_cap: float = 0.0
    coefficient: float = 1.0
    alone: bool = False
    """Each trajectory is a group of its own in Eqs. 10 and 11 (PPO)"""


def episodes_of(
    records: Sequence[TrajectoryRecord], wanted: Mapping[int, int], setting: Setting
) -> list[Episode]:
    """The chosen episodes of one update.

    Args:
        records: all episodes of the update; shares and group weights are over all of them.
        wanted: place among `records` -> row of the page.
        setting: of the run.
    """
    weights, whole = _group_weights(records, setting), _whole_loss(records, setting)
    found = []
    for place, row in wanted.items():
        record = records[place]
        steps = [(turn.observation, turn.command) for turn in record.turns]
        if record.turns and record.turns[-1].next_observation is not None:
            steps.append((record.turns[-1].next_observation, ""))  # what the end looks like
        turns = tuple(
            _turn(turn, _scene(record, steps, at, setting), whole, setting)
            for at, turn in enumerate(record.turns)
        )
        found.append(
            Episode(
                row=row,
                score=record.score,
                terminated=record.terminated,
                prompt_limit=record.prompt_limit,
                group_weight=weights.get(_weighed_with(record, setting)),
                turns=turns,
            )
        )
    return found


def surprise(record: TrajectoryRecord) -> float | None:
    """Mean NLL of the target tokens whose log-prob was kept, nats; None without any."""
    logprobs = [x for turn in record.turns for x in turn.target_logprobs or ()]
    return -math.fsum(logprobs) / len(logprobs) if logprobs else None


def _turn(
    turn: TurnRecord, scene: tuple[Block, ...], whole: float | None, setting: Setting
) -> Turn:
    target = None
    if turn.target_ids is not None:
        target = _tokens(turn.target_ids, setting, logprob=turn.target_logprobs)
    loss = _loss(turn, setting)
    return Turn(
        observation=turn.observation,
        commands=turn.commands,
        response=turn.response,
        command=turn.command,
        reward=turn.reward,
        penalty=turn.penalty,
        valid=turn.valid,
        next_observation=turn.next_observation,
        context=_tokens(turn.context_ids, setting, role=turn.context_roles),
        action=_tokens(
            turn.action_ids, setting, entropy=turn.entropies, logprob=turn.sampler_logprobs
        ),
        target=target,
        advantage=turn.advantage,
        selected=turn.selected,
        weight=turn.transition_weight,
        share=loss / whole if loss is not None and whole else None,
        notes=tuple(_notes(turn)),
        scene=scene,
    )


def _tokens(ids: Sequence[int], setting: Setting, **columns: Sequence | None) -> Tokens | None:
    if setting.texts is None or not ids:
        return None
    fitting = {
        name: tuple(column)
        for name, column in columns.items()
        if column is not None and len(column) == len(ids)
    }
    return Tokens(text=tuple(setting.texts(ids)), id=tuple(ids), **fitting)


def _notes(turn: TurnRecord) -> list[str]:
    notes = []
    if not turn.finished:
        notes.append("the response was cut by rollout.max_response_tokens")
    if turn.prompt_cut_tokens:
        notes.append(f"{turn.prompt_cut_tokens} tokens of the prompt were cut")
    if turn.num_cut_tokens:
        notes.append(f"{turn.num_cut_tokens} tokens of the next observation are no targets")
    return notes


def _scene(
    record: TrajectoryRecord, steps: Sequence[Step], at: int, setting: Setting
) -> tuple[Block, ...]:
    scene = setting.style.scene
    try:
        return () if scene is None else tuple(scene(record.task.instruction, steps, at))
    except Exception:  # somebody else's code on somebody else's texts: the texts are shown anyway
        return ()


def _loss(turn: TurnRecord, setting: Setting) -> float | None:
    """What the transition adds to the update's prediction loss; None where it cannot be said."""
    if turn.transition_weight == 0 or setting.loss not in LOSSES:
        return None
    if not turn.target_logprobs:
        return None
    losses = [
        LOSSES[setting.loss](math.exp(x), setting.probability_cap) for x in turn.target_logprobs
    ]
    return turn.transition_weight * math.fsum(losses) / len(losses)


def _whole_loss(records: Sequence[TrajectoryRecord], setting: Setting) -> float | None:
    """Of the update; None where a transition's part is not known."""
    weighted = [t for r in records for t in r.turns if t.transition_weight != 0]
    losses = [_loss(turn, setting) for turn in weighted]
    known = [loss for loss in losses if loss is not None]
    return math.fsum(known) if known and len(known) == len(losses) else None


def _weighed_with(record: TrajectoryRecord, setting: Setting) -> tuple[int, int]:
    return record.group, record.index if setting.alone else 0


def _group_weights(
    records: Sequence[TrajectoryRecord], setting: Setting
) -> dict[tuple[int, int], float]:
    """lambda_g: G times what Eq. 11 gives the selected transitions, without the coefficient."""
    sums: defaultdict[tuple[int, int], float] = defaultdict(float)
    groups = set()
    for record in records:
        if record.failure is not None:
            continue
        group = _weighed_with(record, setting)
        groups.add(group)
        for turn in record.turns:
            if turn.selected:
                sums[group] += abs(turn.transition_weight)
    return {group: total * len(groups) / setting.coefficient for group, total in sums.items()}
