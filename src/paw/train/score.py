"""Score: rows of tokens, and what the models say of them before any learning.

Nothing here costs a forward pass that PaW alone would need: old log-probs and entropies come from
the sampler, or from the scoring pass that several optimizer steps need anyway.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paw import objective
from paw.model.critic import Critic
from paw.model.policy import Policy
from paw.rollout.ranks import ALONE, Ranks
from paw.train.forward import score_actions, score_prompts
from paw.types import Columns, Group, Role, Row, Scores, Trajectory, Transition


def is_usable(trajectory: Trajectory) -> bool:
    """Trained on and counted: its environment did not fail."""
    return trajectory.failure is None and len(trajectory.transitions) > 0


def flatten(groups: Sequence[Group]) -> tuple[list[Transition], Columns]:
    """Every usable trajectory's transitions, without failed ones and empty groups: [P]."""
    used = [[t for t in group.trajectories if is_usable(t)] for group in groups]
    used = [members for members in used if members]
    trajectories = [(g, t) for g, members in enumerate(used) for t in members]
    places = [
        (n, turn, g, transition)
        for n, (g, trajectory) in enumerate(trajectories)
        for turn, transition in enumerate(trajectory.transitions)
    ]
    transitions = [place[3] for place in places]
    columns = Columns(
        trajectory=_index([place[0] for place in places]),
        turn=_index([place[1] for place in places]),
        group=_index([place[2] for place in places]),
        rewards=_column([t.reward for t in transitions]),
        penalties=_column([t.penalty for t in transitions]),
        candidates=torch.tensor([bool(t.next_observation_ids) for t in transitions]),
        num_action_tokens=_index([len(t.action.token_ids) for t in transitions]),
        observations=tuple(t.observation for t in transitions),
        returns=_column([t.return_ for _, t in trajectories]),
        trajectory_group=_index([g for g, _ in trajectories]),
    )
    return transitions, columns


def make_rows(transitions: Sequence[Transition], columns: Columns, append: bool) -> list[Row]:
    """`window`: a row per transition. `append`: a row per trajectory."""
    if not append:
        return [_row([i], [t]) for i, t in enumerate(transitions)]
    members: list[list[int]] = [[] for _ in range(len(columns.returns))]
    for i, trajectory in enumerate(columns.trajectory.tolist()):
        members[trajectory].append(i)
    return [_row(m, [transitions[i] for i in m]) for m in members]


def _row(indices: Sequence[int], transitions: Sequence[Transition]) -> Row:
    ids: list[int] = []
    roles: list[int] = []
    starts, ends = [], []
    for transition in transitions:
        action = transition.action.token_ids
        ids += transition.context_ids
        roles += transition.context_roles
        starts.append(len(ids))
        ids += action
        roles += [int(Role.ACTION)] * len(action)
        ends.append(len(ids))
    return Row(tuple(ids), tuple(roles), tuple(indices), tuple(starts), tuple(ends))


@dataclass(frozen=True, slots=True)
class Scorer:
    """Asks the models; which of them, and for what, is chosen once.

    Attributes:
        scores_actions: old log-probs and entropies from a pass of `policy`, not from the sampler.
        full_entropy: of the whole distribution; else the sampled token's -q log q.
        max_tokens: of one forward pass.
        ranks: that score together, each its share of the rows.
    """

    policy: Policy
    critic: Critic | None
    reference: Policy | None
    scores_actions: bool
    full_entropy: bool
    max_tokens: int
    ranks: Ranks = ALONE

    def __call__(self, transitions: Sequence[Transition], rows: Sequence[Row]) -> Scores:
        """[P] of everything that judging and learning ask."""
        how = self.max_tokens, self.ranks
        if self.scores_actions:
            logprobs, entropies = score_actions(self.policy, rows, *how)
        else:
            logprobs = [list(t.action.logprobs) for t in transitions]
            entropies = [t.action.entropies for t in transitions]
        values, reference = None, None
        if self.critic is not None:
            values = score_prompts(self.critic, rows, *how)
        if self.reference is not None:
            reference = score_actions(self.reference, rows, *how)[0]
        seen = [_column(e) for e in entropies if e is not None]
        full = _means(seen) if len(seen) == len(entropies) else None
        sampled = _means([objective.sampled_token_entropy(_column(a)) for a in logprobs])
        entropy, other = (full, sampled) if self.full_entropy else (sampled, full)
        assert entropy is not None  # `check_entropy` has asked the sampler
        return Scores(logprobs, entropy, values, reference, other)


def _means(actions: Sequence[Tensor]) -> Tensor:
    """[P] mean over each action's tokens; 0 for an action without tokens."""
    return torch.stack([a.mean() if len(a) else a.new_zeros(()) for a in actions])


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _index(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.long)
