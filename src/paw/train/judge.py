"""Judge: from the groups of one update to advantages and transition weights.

Pure arithmetic over the whole update (never a mini-batch), in float64. Reads as the paper does:
Eq. 1's advantages, Eq. 4's selection, Eq. 10's group weights, Eq. 11's transition weights.

Our readings: R(tau) in Eq. 10 is the task return without penalties; with `penalty = "turn"` and
trajectory statistics a turn's penalty, less the mean penalty of the group's turns, is added to its
advantage, so that it never enters the group's deviation (0 in an all-fail group, which would blow
it up); GiGPO's step returns and PPO's rewards hold each penalty on its own turn always. PPO has no
groups, so that each trajectory is its own group in Eqs. 10 and 11.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from paw import objective
from paw.config.tree import AlgorithmConfig, PawConfig
from paw.errors import RunFailure
from paw.types import Group, Task, Trajectory, Transition


@dataclass(frozen=True, slots=True)
class TransitionPool:
    """P, all transitions of the update's N usable trajectories in order, and whose they are."""

    transitions: list[Transition]
    """[P]"""
    trajectory: Tensor
    """[P] long, 0..N-1"""
    turn: Tensor
    """[P] long, 0.. within the trajectory"""
    group: Tensor
    """[P] long, 0..G-1"""
    returns: Tensor
    """[N] task returns R(tau), without penalties"""
    trajectory_group: Tensor
    """[N] long"""
    tasks: list[Task]
    """[G] the task of each group"""

    @property
    def rewards(self) -> Tensor:
        """[P] task rewards."""
        return _column([t.reward for t in self.transitions])

    @property
    def penalties(self) -> Tensor:
        """[P] invalid-action penalties, <= 0."""
        return _column([t.penalty for t in self.transitions])

    @property
    def candidates(self) -> Tensor:
        """[P] bool: transitions that have a next observation to predict."""
        return torch.tensor([bool(t.next_observation_ids) for t in self.transitions])


@dataclass(frozen=True, slots=True)
class Judgement:
    """What the learner shall do with each transition."""

    advantages: Tensor
    """[P]"""
    value_targets: Tensor | None
    """[P] returns that the critic learns; None without a critic."""
    idle: Tensor
    """[P] bool: in a group whose trajectories all returned the same, where (but for penalties) the
    prediction is the only gradient"""
    selected: Tensor
    """[P] bool, S_alpha of Eq. 4; empty in an update that trains no prediction"""
    group_weights: Tensor
    """[G] lambda_g of Eq. 10 (or its ablation), before the coefficient"""
    transition_weights: Tensor
    """[P] coefficient * lambda_g / (G |S_alpha,g|), 0 where not selected"""
    policy_scale: float
    """1, or 0 in an update that trains the prediction alone (`schedule = "alternate"`)"""


def is_usable(trajectory: Trajectory) -> bool:
    """Trained on and counted: its environment did not fail."""
    return trajectory.failure is None and len(trajectory.transitions) > 0


def flatten(groups: Sequence[Group]) -> TransitionPool:
    """Every usable trajectory's transitions in one pool, without failed ones and empty groups."""
    transitions: list[Transition] = []
    trajectory, turn, group, returns, trajectory_group, tasks = [], [], [], [], [], []
    for member in groups:
        usable = [t for t in member.trajectories if is_usable(t)]
        for candidate in usable:
            for position, transition in enumerate(candidate.transitions):
                transitions.append(transition)
                trajectory.append(len(returns))
                turn.append(position)
                group.append(len(tasks))
            returns.append(candidate.return_)
            trajectory_group.append(len(tasks))
        if usable:
            tasks.append(member.task)
    return TransitionPool(
        transitions,
        _index(trajectory),
        _index(turn),
        _index(group),
        _column(returns),
        _index(trajectory_group),
        tasks,
    )


def judge(
    pool: TransitionPool,
    entropy: Tensor,
    values: Tensor | None,
    algorithm: AlgorithmConfig,
    paw: PawConfig,
    *,
    max_return: float,
    update: int,
    matched_constant: float | None = None,
    generator: torch.Generator,
) -> Judgement:
    """Advantages and weights of one update.

    Args:
        pool: P transitions.
        entropy: [P] mean entropy of each action's tokens (Eq. 4's score).
        values: [P] critic values of h_t, for PPO.
        algorithm: base algorithm.
        paw: options of the prediction term.
        max_return: R_max of the environment.
        update: number of this update, for the alternating schedule.
        matched_constant: lambda for `weight = "matched_constant"`.
        generator: randomness of the `random` selection control.

    Raises:
        RunFailure: entropies or values that are not finite: the model's weights are broken.
    """
    for name, numbers in (("entropy", entropy), ("values", values)):
        if numbers is not None and not bool(torch.isfinite(numbers).all()):
            raise RunFailure(
                f"update {update}: the model's {name} at the sampled actions is not finite; the "
                "weights have diverged: lower the learning rate"
            )
    advantages, value_targets = ALGORITHMS[algorithm.name](pool, values, algorithm)

    own_group = algorithm.name == "ppo"
    trajectory_group = torch.arange(len(pool.returns)) if own_group else pool.trajectory_group
    group = pool.trajectory if own_group else pool.group
    weights = objective.group_weights(
        pool.returns, trajectory_group, max_return, paw.clamp
    )  # Eq. 10
    if paw.weight != "adaptive":
        constant = paw.constant if paw.weight == "constant" else matched_constant
        assert constant is not None
        weights = torch.full_like(weights, constant)
    predicts, policy_scale = scheduled(paw, update)
    candidates = pool.candidates & predicts
    selected = select(entropy, candidates, paw, generator)  # Eq. 4
    transition_weights = objective.transition_weights(selected, group, weights)  # Eq. 11
    return Judgement(
        advantages=advantages,
        value_targets=value_targets,
        idle=_same_returns(pool)[pool.group],
        selected=selected,
        group_weights=weights,
        transition_weights=paw.coefficient * transition_weights,
        policy_scale=policy_scale,
    )


def scheduled(paw: PawConfig, update: int) -> tuple[bool, float]:
    """Does this update (the first is 1) train the prediction, and the scale of its policy loss."""
    if not paw.enabled or paw.coefficient == 0:
        return False, 1.0
    if paw.schedule == "joint":
        return True, 1.0
    turn = update % paw.alternate_every == 0
    return turn, 0.0 if turn else 1.0


def select(
    entropy: Tensor, candidates: Tensor, paw: PawConfig, generator: torch.Generator
) -> Tensor:
    """S_alpha of Eq. 4, or a control that keeps as many: [P] bool."""
    scores = {
        "entropy": lambda: entropy,
        "lowest": lambda: -entropy,
        "random": lambda: torch.rand(len(entropy), dtype=entropy.dtype, generator=generator),
        "all": lambda: torch.zeros_like(entropy),
    }[paw.select]()
    fraction = 1.0 if paw.select == "all" else paw.selection_fraction
    return objective.select_top_fraction(scores, candidates, fraction)


def _same_returns(pool: TransitionPool) -> Tensor:
    """[G] bool: no two trajectories of the group differ in their task return."""
    infinite = torch.full((len(pool.tasks),), torch.inf, dtype=torch.float64)
    lowest = infinite.scatter_reduce(0, pool.trajectory_group, pool.returns, "amin")
    highest = (-infinite).scatter_reduce(0, pool.trajectory_group, pool.returns, "amax")
    return lowest == highest


Advantages = tuple[Tensor, Tensor | None]


def _grouped(
    statistic: Callable[[Tensor, Tensor], Tensor], pool: TransitionPool, algorithm: AlgorithmConfig
) -> Tensor:
    """[P] advantages that a trajectory's turns share, from a statistic over the group's returns."""
    penalties = pool.penalties
    if algorithm.penalty == "episode":
        returns = pool.returns.index_add(0, pool.trajectory, penalties)
        on_turn = torch.zeros_like(penalties)
    else:
        returns, on_turn = pool.returns, penalties
    if algorithm.statistics == "turn":
        return statistic(returns[pool.trajectory] + on_turn, pool.group)
    usual = objective.segment_mean(on_turn, pool.group, len(pool.tasks))
    return statistic(returns, pool.trajectory_group)[pool.trajectory] + on_turn - usual[pool.group]


def _grpo(pool: TransitionPool, values: Tensor | None, algorithm: AlgorithmConfig) -> Advantages:
    def statistic(returns: Tensor, group: Tensor) -> Tensor:
        return objective.group_relative_advantages(returns, group, algorithm.scale_by_std)

    return _grouped(statistic, pool, algorithm), None


def _rloo(pool: TransitionPool, values: Tensor | None, algorithm: AlgorithmConfig) -> Advantages:
    return _grouped(objective.leave_one_out_advantages, pool, algorithm), None


def _gigpo(pool: TransitionPool, values: Tensor | None, algorithm: AlgorithmConfig) -> Advantages:
    anchors = objective.anchor_labels(
        [t.observation for t in pool.transitions],
        pool.group.tolist(),
        algorithm.anchor_similarity,
    )
    step = objective.gigpo_advantages(
        torch.zeros_like(pool.returns),  # leaves the step part; the episode part is GRPO's
        pool.rewards + pool.penalties,
        pool.trajectory,
        pool.turn,
        pool.trajectory_group,
        torch.tensor(anchors),
        algorithm.discount,
        algorithm.step_weight,
        algorithm.scale_by_std,
    )
    return _grpo(pool, values, algorithm)[0] + step, None


def _ppo(pool: TransitionPool, values: Tensor | None, algorithm: AlgorithmConfig) -> Advantages:
    assert values is not None
    advantages, returns = objective.generalized_advantages(
        pool.rewards + pool.penalties,
        values,
        pool.trajectory,
        pool.turn,
        algorithm.gae_discount,
        algorithm.gae_lambda,
    )
    whole = torch.zeros(len(advantages), dtype=torch.long)  # whitened over the update
    return objective.group_relative_advantages(advantages, whole, scale_by_std=True), returns


ALGORITHMS: dict[str, Callable[[TransitionPool, Tensor | None, AlgorithmConfig], Advantages]] = {
    "grpo": _grpo,
    "rloo": _rloo,
    "gigpo": _gigpo,
    "ppo": _ppo,
}


def _column(values: Sequence[float]) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


def _index(values: Sequence[int]) -> Tensor:
    return torch.tensor(values, dtype=torch.long)
