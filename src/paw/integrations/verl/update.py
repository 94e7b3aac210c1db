"""An update of verl: episodes put together again from rows, judged, and rows with their targets."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import AlgorithmConfig, PawConfig
from paw.integrations.judge import Judged, Measured, judge
from paw.integrations.verl.records import RowRecord, TurnRecord
from paw.text.dialogue import Serializer
from paw.train.advantages import ALGORITHMS
from paw.types import Columns, SampledAction

Place = tuple[int, int]
"""(row, turn within it)"""


@dataclass(frozen=True, slots=True)
class Update:
    """The rows of a batch as trajectories. N trajectories, P transitions."""

    records: list[RowRecord | None]
    """By row; None: verl's padding"""
    places: list[list[Place]]
    """[N] the turns of each trajectory, in order"""
    group: list[int]
    """[N]"""
    returns: list[float]
    """[N] R(tau)"""

    def turn(self, place: Place) -> TurnRecord:
        """What is known of a turn."""
        record = self.records[place[0]]
        assert record is not None
        return record.turns[place[1]]


def read_update(keys: Sequence[str], records: Sequence[RowRecord | None]) -> Update:
    """Trajectories of a batch whose rows are in any order.

    Args:
        keys: of the rows, `{uid}_{session}_{index}` as verl names them; a uid is a group.
        records: of the rows; None: padding.
    """
    sessions: dict[str, list[int]] = {}
    for r, key in enumerate(keys):
        if records[r] is not None:
            sessions.setdefault(key.rsplit("_", 1)[0], []).append(r)
    groups = {uid: g for g, uid in enumerate(dict.fromkeys(s.rsplit("_", 1)[0] for s in sessions))}
    places, group, returns = [], [], []
    for session, rows in sessions.items():
        found = [(record.first_turn, r, record) for r in rows if (record := records[r]) is not None]
        found.sort(key=lambda one: one[0])
        places.append([(r, t) for _, r, record in found for t in range(len(record.turns))])
        group.append(groups[session.rsplit("_", 1)[0]])
        returns.append(found[0][2].return_)
    return Update(list(records), places, group, returns)


def columns_of(update: Update) -> Columns:
    """As the base algorithms read an update."""
    turns = [
        (n, t, update.turn(p)) for n, row in enumerate(update.places) for t, p in enumerate(row)
    ]
    group = torch.tensor(update.group, dtype=torch.long)
    trajectory = torch.tensor([n for n, _, _ in turns], dtype=torch.long)
    return Columns(
        trajectory=trajectory,
        turn=torch.tensor([t for _, t, _ in turns], dtype=torch.long),
        group=group[trajectory],
        rewards=_column([turn.reward for _, _, turn in turns]),
        penalties=_column([turn.penalty for _, _, turn in turns]),
        candidates=torch.tensor([bool(turn.target_ids) for _, _, turn in turns]),
        num_action_tokens=torch.tensor([turn.end - turn.start for _, _, turn in turns]),
        observations=tuple(turn.observation for _, _, turn in turns),
        returns=_column(update.returns),
        trajectory_group=group,
    )


def turn_advantages(update: Update, settings: AlgorithmConfig, shape: tuple[int, int]) -> Tensor:
    """[B, R] advantages of `train/advantages` on the actions' tokens; 0 elsewhere.

    Args:
        update: of B rows.
        settings: [algorithm], whose `name` is one that needs no critic.
        shape: (B, R)
    """
    found = ALGORITHMS[settings.name].advantages(columns_of(update), None, settings).advantages
    advantages = torch.zeros(shape)
    places = [place for row in update.places for place in row]
    for (r, t), value in zip(places, found.tolist(), strict=True):
        turn = update.turn((r, t))
        advantages[r, turn.start : turn.end] = value
    return advantages


def turn_rewards(update: Update, lengths: Sequence[int]) -> list[list[float]]:
    """[B] of [R] each: rewards and penalties on the last token of the action that earned them.

    verl's generalized advantages take each row for a trajectory. So a row's last action bears what
    the episode's later rows earn as well: at discount 1 the return from each turn on.

    Args:
        update: of B rows.
        lengths: [B] R of each.
    """
    rows = [[0.0] * length for length in lengths]
    for places in update.places:
        later, following = 0.0, None
        for r, t in reversed(places):
            turn = update.turn((r, t))
            own = turn.reward + turn.penalty
            rows[r][turn.end - 1] = own + (later if r != following else 0.0)
            later, following = later + own, r
    return rows


def mean_entropies(
    update: Update, paw: PawConfig, entropy: Sequence[Tensor], logprobs: Sequence[Tensor]
) -> list[list[float]]:
    """[N] of each turn: Eq. 4's score; 0 where the selection does not read it.

    Args:
        update: of B rows.
        paw: `select` and `entropy`.
        entropy: [B] of [R] each; read where `paw.entropy` is "full".
        logprobs: [B] of [R] of the sampled tokens; read where it is "sampled".
    """
    if paw.select not in ("entropy", "lowest"):
        return [[0.0] * len(row) for row in update.places]

    def mean(place: Place) -> float:
        span = slice(update.turn(place).start, update.turn(place).end)
        if paw.entropy == "full":
            return float(entropy[place[0]][span].double().mean())
        values = objective.sampled_token_entropy(logprobs[place[0]][span].double())
        return float(values.mean())

    return [[mean(place) for place in row] for row in update.places]


def judge_update(
    update: Update,
    entropies: Sequence[Sequence[float]],
    paw: PawConfig,
    *,
    own_groups: bool,
    max_return: float,
    left: float,
    generator: torch.Generator,
    vocabulary: Sequence[int] = (),
) -> Judged:
    """Eqs. 4, 10 and 11; see `paw.integrations.judge.judge`. With `own_groups` (PPO) each
    trajectory is a group of its own in Eqs. 10 and 11."""
    return judge(
        [
            [
                Measured(entropy, turn.target_ids, turn.current_ids)
                for entropy, turn in zip(of_turns, map(update.turn, row), strict=True)
            ]
            for of_turns, row in zip(entropies, update.places, strict=True)
        ],
        update.returns,
        range(len(update.group)) if own_groups else update.group,
        paw,
        max_return=max_return,
        left=left,
        generator=generator,
        vocabulary=vocabulary,
    )


@dataclass(slots=True)
class Learned:
    """What is learned of a row beside its actions."""

    tail: tuple[int, ...]
    """Tokens behind its response: the template's, and the last action's target"""
    weights: list[float]
    """[R + tail] of each token as a target"""


def learned_rows(
    update: Update, judged: Judged, responses: Sequence[Sequence[int]], serializer: Serializer
) -> list[Learned]:
    """[B] weights of all tokens, and what is put behind the rows whose last target has one.

    Args:
        update: of B rows.
        judged: its turns.
        responses: [B] of [R] tokens.
        serializer: of the prompts.
    """
    rows = [Learned((), [0.0] * len(response)) for response in responses]
    places = [(n, t, place) for n, row in enumerate(update.places) for t, place in enumerate(row)]
    turns = [update.turn(place) for _, _, place in places]
    headers = {turn.target_ids: turn.header_ids for turn in turns}
    for (n, t, (r, _)), turn in zip(places, turns, strict=True):
        target, weight = judged.targets[n][t], judged.token_weights[n][t]
        if not target or not weight:
            continue
        if turn.target_start is not None:
            stop = turn.target_start + len(target)
            rows[r].weights[turn.target_start : stop] = [weight] * len(target)
            continue
        own = target == turn.target_ids
        header = turn.header_ids if own else headers.get(target, ())
        ids = tuple(responses[r][turn.start : turn.end])
        scaffold = serializer.to_user(SampledAction(ids, (), None, finished=True), header)
        rows[r].tail = scaffold + target
        rows[r].weights += [0.0] * len(scaffold) + [weight] * len(target)
    return rows


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)
