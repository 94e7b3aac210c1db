"""From the records of a trajectory file to the episodes of a page."""

import math
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice

import torch

from paw.config.tree import PawConfig
from paw.report.data import Episode, Tokens, Turn
from paw.runs.format import TrajectoryRecord, TurnRecord
from paw.style import Block, Style
from paw.train.prediction.loss import LOSSES

Texts = Callable[[Sequence[int]], Sequence[str]]
"""Ids of n tokens -> their n texts"""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the page says of numbers in the records hangs on it."""

    style: Style
    texts: Texts | None = None
    """None without the tokenizer of the run's policy"""
    paw: PawConfig | None = None
    """None where nothing is predicted"""
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
    weights, shares = _group_weights(records, setting), _shares(records, setting)
    found = []
    for place, row in wanted.items():
        record = records[place]
        scenes = _scenes(record, setting)
        turns = tuple(
            _turn(turn, scenes[at], shares.get((place, at)), setting)
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
    turn: TurnRecord, scene: tuple[Block, ...], share: float | None, setting: Setting
) -> Turn:
    target = None
    if turn.target_ids is not None:
        target = _tokens(turn.target_ids, setting, logprob=turn.target_logprobs)
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
        share=share,
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


def _scenes(record: TrajectoryRecord, setting: Setting) -> list[tuple[Block, ...]]:
    """Of each turn."""
    steps = [(turn.observation, turn.command) for turn in record.turns]
    if record.turns and record.turns[-1].next_observation is not None:
        steps.append((record.turns[-1].next_observation, ""))  # what the end looks like
    nothing: list[tuple[Block, ...]] = [()] * len(steps)
    try:
        scenes = setting.style.scenes
        if scenes is None:
            return nothing
        found = [tuple(blocks) for blocks in scenes(record.task.instruction, steps)]
    except Exception:  # somebody else's code on somebody else's texts: the texts are shown anyway
        return nothing
    return found if len(found) == len(steps) else nothing


def _shares(records: Sequence[TrajectoryRecord], setting: Setting) -> dict[tuple[int, int], float]:
    """Of the update's whole prediction loss, by (place among the records, turn); empty where a
    part is not known, or a weight is of more than its target (a horizon)."""
    paw = setting.paw
    turns = {
        (place, at): turn
        for place, record in enumerate(records)
        for at, turn in enumerate(record.turns)
        if turn.transition_weight != 0
    }
    known = all(turn.target_logprobs for turn in turns.values())
    if paw is None or paw.horizon > 1 or not turns or not known:
        return {}
    logprobs = [x for turn in turns.values() for x in turn.target_logprobs or ()]
    losses = LOSSES[paw.loss](torch.tensor(logprobs, dtype=torch.float64), paw.probability_cap)
    left = iter(losses.tolist())
    parts = {}
    for place, turn in turns.items():
        count = len(turn.target_logprobs or ())
        parts[place] = turn.transition_weight * math.fsum(islice(left, count)) / count
    whole = math.fsum(parts.values())
    return {place: part / whole for place, part in parts.items()} if whole else {}


def _weighed_with(record: TrajectoryRecord, setting: Setting) -> tuple[int, int]:
    return record.group, record.index if setting.alone else 0


def _group_weights(
    records: Sequence[TrajectoryRecord], setting: Setting
) -> dict[tuple[int, int], float]:
    """lambda_g: G times what Eq. 11 gives the selected transitions, without the coefficient."""
    sums: defaultdict[tuple[int, int], float] = defaultdict(float)
    groups, coefficient = set(), setting.paw.coefficient if setting.paw is not None else 1.0
    for record in records:
        if record.failure is not None:
            continue
        group = _weighed_with(record, setting)
        groups.add(group)
        for turn in record.turns:
            if turn.selected:
                sums[group] += abs(turn.transition_weight)
    return {group: total * len(groups) / coefficient for group, total in sums.items()}
