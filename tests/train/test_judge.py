"""Advantages, selection and weights of one update, by hand.

The standard deviation is unbiased with 1e-6 added, hence the tolerance of 1e-5.
"""

import math

import pytest
import torch

from paw.config.tree import AlgorithmConfig, PawConfig
from paw.errors import RunFailure
from paw.train.judge import Rules, judge
from paw.train.score import flatten
from paw.types import Group, Judgement

from .fakes import END, Turn, play, scores_of, scripted_groups

HALF = math.sqrt(0.5)
"""Two returns, R and 0: (R - R/2) / std = (R/2) / (R / sqrt 2)."""


def turn(reward=0.0, penalty=0.0, entropy=1.0, observation=(9,)) -> Turn:
    return Turn((8, END), observation, reward, penalty, entropy)


def groups_of(*groups: list[list[Turn]], failures: tuple = ()) -> list[Group]:
    """Groups of scripted trajectories; `failures` are the (group, index) that failed."""
    made = []
    for g, scripts in enumerate(groups):
        members = tuple(
            play(s, append=False, group=g, index=i, failure="hang" if (g, i) in failures else None)
            for i, s in enumerate(scripts)
        )
        made.append(Group(members[0].task, members))
    return made


def judged(
    groups: list[Group],
    paw: PawConfig | None = None,
    values: list[float] | None = None,
    update: int = 1,
    updates: int = 1,
    seed: int = 0,
    **algorithm,
) -> Judgement:
    transitions, columns = flatten(groups)
    rules = Rules(AlgorithmConfig(**algorithm), paw or PawConfig(), 10.0, updates)
    generator = torch.Generator().manual_seed(seed)
    return judge(columns, scores_of(transitions, values), rules, update, generator)


def near(*numbers: float):
    return pytest.approx(list(numbers), abs=1e-5)


# A win of two turns, the second one invalid; a loss of one turn.
PENALISED = groups_of([[turn(), turn(10.0, penalty=-0.1)], [turn()]])


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Returns 10, 0 -> +-HALF; the penalty on its own turn, less the group's mean of -0.1 / 3.
        ({}, (HALF + 0.1 / 3, HALF - 0.1 + 0.1 / 3, -HALF + 0.1 / 3)),
        # Returns 9.9, 0 -> +-HALF again.
        ({"penalty": "episode"}, (HALF, HALF, -HALF)),
        # Turns 10, 9.9, 0: mean 19.9 / 3, deviations 10.1 / 3, 9.8 / 3, -19.9 / 3;
        # variance (10.1^2 + 9.8^2 + 19.9^2) / 9 / 2 = 594.06 / 18 = 33.00333, std 5.744853.
        ({"statistics": "turn"}, (0.586031, 0.568625, -1.154656)),
        # Turns 9.9, 9.9, 0: 3.3, 3.3, -6.6 over sqrt((2 * 3.3^2 + 6.6^2) / 2) = 3.3 sqrt 3.
        (
            {"statistics": "turn", "penalty": "episode"},
            (1 / math.sqrt(3), 1 / math.sqrt(3), -2 / math.sqrt(3)),
        ),
        # Without the deviation: 10 - 5 and 0 - 5.
        ({"scale_by_std": False}, (5 + 0.1 / 3, 4.9 + 0.1 / 3, -5 + 0.1 / 3)),
        # RLOO: 10 - 0 and 0 - 10; with the penalty in the return 9.9 and -9.9.
        ({"name": "rloo"}, (10 + 0.1 / 3, 9.9 + 0.1 / 3, -10 + 0.1 / 3)),
        ({"name": "rloo", "penalty": "episode"}, (9.9, 9.9, -9.9)),
        # RLOO over turns 10, 9.9, 0: 10 - 4.95, 9.9 - 5, 0 - 9.95.
        ({"name": "rloo", "statistics": "turn"}, (5.05, 4.9, -9.95)),
    ],
)
def test_advantages_and_penalties(options, expected):
    assert judged(PENALISED, **options).advantages.tolist() == near(*expected)


def test_gigpo_adds_the_step_advantage_of_equal_observations():
    """Both trajectories begin before the same observation, 6 7; the second turn stands alone.

    gamma = 0.5: step returns 0 + 0.5 * 10 = 5 and 0 at the shared one: +-HALF. Episode: +-HALF.
    """
    groups = groups_of([[turn(), turn(10.0)], [turn()]])
    options = {"name": "gigpo", "discount": 0.5}
    assert judged(groups, **options).advantages.tolist() == near(2 * HALF, HALF, -2 * HALF)
    half = judged(groups, step_weight=0.5, **options).advantages.tolist()
    assert half == near(1.5 * HALF, HALF, -1.5 * HALF)


def test_gigpo_step_returns_hold_penalties():
    """Equal first observations, returns 0; step returns -0.1 and 0: step +-HALF, episode 0,
    penalties less their mean of -0.05."""
    groups = groups_of([[turn(penalty=-0.1)], [turn()]])
    found = judged(groups, name="gigpo").advantages.tolist()
    assert found == pytest.approx([-HALF - 0.05, HALF + 0.05], abs=1e-4)


def test_gigpo_matches_similar_observations():
    """First observations "6 7" of both; the later ones "9 9 9 9 9 9" and "9 9 9 9 9 8" agree in 10
    of 11 characters: ratio 0.909. Step returns there 10 and 0, gamma 1."""
    one, other = (9,) * 6, (9,) * 5 + (8,)
    groups = groups_of([[turn(observation=one), turn(10.0)], [turn(observation=other), turn()]])
    options = {"name": "gigpo", "discount": 1.0}
    apart = judged(groups, **options).advantages.tolist()
    assert apart == near(2 * HALF, HALF, -2 * HALF, -HALF)
    together = judged(groups, anchor_similarity=0.9, **options).advantages.tolist()
    assert together == near(2 * HALF, 2 * HALF, -2 * HALF, -2 * HALF)


def test_ppo_advantages_are_whitened_and_targets_are_not():
    """gamma = lambda = 1, values 1, 2, 3; rewards 0, 10 and 0.

    A: delta_2 = 10 - 2 = 8; delta_1 = 0 + 2 - 1 = 1, A_1 = 9; third: 0 - 3 = -3.
    Targets A + V: 10, 10, 0. Mean 14 / 3, deviations 13 / 3, 10 / 3, -23 / 3, variance
    (169 + 100 + 529) / 18 = 44.3333, std 6.658328.
    """
    groups = groups_of([[turn(), turn(10.0)], [turn()]])
    found = judged(groups, values=[1.0, 2.0, 3.0], name="ppo")
    assert found.value_targets is not None
    assert found.value_targets.tolist() == [10, 10, 0]
    assert found.advantages.tolist() == near(0.650814, 0.500626, -1.151440)


def test_each_trajectory_is_its_own_group_under_ppo():
    """lambda = 1 - R / 10 of each of three: 0, 1, 0.5; G = 3. |S| is 2, 1, 1."""
    groups = groups_of([[turn(), turn(10.0)], [turn()]], [[turn(5.0)]])
    paw = PawConfig(select="all")
    found = judged(groups, paw, values=[0.0] * 4, name="ppo")
    assert found.group_weights.tolist() == [0, 1, 0.5]
    assert found.transition_weights.tolist() == near(0, 0, 1 / 3, 0.5 / 3)
    # The same under GRPO: lambda 0.5 and 0.5, G = 2, |S| is 3 and 1.
    grouped = judged(groups, paw)
    assert grouped.group_weights.tolist() == [0.5, 0.5]
    assert grouped.transition_weights.tolist() == near(*[0.5 / 6] * 3, 0.25)


# Two groups, returns 10, 0 and 0: lambda 0.5 and 1. Entropies 4, 1, 3, 2; the last has no o_{t+1}.
CHOICE = groups_of(
    [[turn(10.0, entropy=4.0)], [turn(entropy=1.0)]],
    [[turn(entropy=3.0), Turn((8, END), None, entropy=2.0)]],
)


@pytest.mark.parametrize(
    ("options", "selected", "weights"),
    [
        # 3 candidates: ceil(0.5 * 3) = 2.
        ({"selection_fraction": 0.5}, [1, 0, 1, 0], (0.25, 0, 0.5, 0)),
        ({"selection_fraction": 0.5, "select": "lowest"}, [0, 1, 1, 0], (0, 0.25, 0.5, 0)),
        ({"selection_fraction": 0.5, "select": "all"}, [1, 1, 1, 0], (0.125, 0.125, 0.5, 0)),
        # ceil(0.3 * 3) = 1: nothing of the second group, which still counts in G = 2.
        ({"selection_fraction": 0.3}, [1, 0, 0, 0], (0.25, 0, 0, 0)),
        ({"selection_fraction": 0.0}, [0, 0, 0, 0], (0, 0, 0, 0)),
        ({"selection_fraction": 1.0, "coefficient": 0.1}, [1, 1, 1, 0], (0.0125, 0.0125, 0.05, 0)),
        # Off: nothing is selected.
        ({"enabled": False}, [0, 0, 0, 0], (0, 0, 0, 0)),
        ({"coefficient": 0.0}, [0, 0, 0, 0], (0, 0, 0, 0)),
    ],
)
def test_selection_and_transition_weights(options, selected, weights):
    found = judged(CHOICE, PawConfig(**options))
    assert found.selected.tolist() == [bool(s) for s in selected]
    assert found.transition_weights.tolist() == near(*weights)
    assert found.group_weights.tolist() == [0.5, 1]


def test_random_selection_has_the_budget_and_varies_with_the_generator():
    groups = groups_of([[turn(entropy=i) for i in range(40)]])
    paw = PawConfig(select="random")
    masks = [judged(groups, paw, seed=s).selected for s in (0, 0, 1)]
    assert [int(m.sum()) for m in masks] == [30, 30, 30]
    assert torch.equal(masks[0], masks[1]) and not torch.equal(masks[0], masks[2])
    assert not torch.equal(masks[0], judged(groups).selected)


def test_ties_go_to_the_earlier_transition():
    groups = groups_of([[turn(), turn(), turn(), turn()]])
    assert judged(groups).selected.tolist() == [True, True, True, False]


@pytest.mark.parametrize(
    ("options", "update", "expected"),
    [
        ({}, 2, [0.5, 1]),
        ({"weight": "constant", "constant": 0.3}, 2, [0.3, 0.3]),
        ({"weight": "matched_constant", "constant": 0.7}, 2, [0.7, 0.7]),
        # constant (1 - (u - 1) / 4): the whole at the first of 4 updates, a quarter at the last.
        ({"weight": "decay"}, 1, [1, 1]),
        ({"weight": "decay", "constant": 0.8}, 1, [0.8, 0.8]),
        ({"weight": "decay", "constant": 0.8}, 2, [0.6, 0.6]),
        ({"weight": "decay", "constant": 0.8}, 4, [0.2, 0.2]),
    ],
)
def test_group_weight_options(options, update, expected):
    paw = PawConfig(select="all", **options)
    found = judged(CHOICE, paw, update=update, updates=4)
    assert found.group_weights.tolist() == near(*expected)
    first, second = expected  # |S| = 2 and 1, G = 2
    assert found.transition_weights.tolist() == near(first / 4, first / 4, second / 2, 0)


def test_clamp():
    """Returns -5 and 15 of R_max = 10: lambda 1.5 and -0.5, clamped 1 and 0."""
    groups = groups_of([[turn(-5.0)]], [[turn(15.0)]])
    assert judged(groups).group_weights.tolist() == [1, 0]
    assert judged(groups, PawConfig(clamp=False)).group_weights.tolist() == near(1.5, -0.5)


def test_penalties_do_not_move_the_group_weight():
    """Return 10 with a penalty of -0.1 on a turn: R(tau) = 10, lambda = 1 - 10 / 20 = 0.5."""
    assert judged(PENALISED).group_weights.tolist() == [0.5]


def test_alternating_schedule():
    """Every third update trains the prediction alone, the others the policy alone."""
    paw = PawConfig(schedule="alternate", alternate_every=3)
    found = [judged(CHOICE, paw, update=u) for u in range(1, 7)]
    assert [bool(j.action_weights.all()) for j in found] == [True, True, False] * 2
    assert [bool(j.selected.any()) for j in found] == [False, False, True] * 2
    assert [bool(j.transition_weights.any()) for j in found] == [False, False, True] * 2
    off = judged(
        CHOICE, PawConfig(schedule="alternate", alternate_every=3, coefficient=0), update=3
    )
    assert off.action_weights.all() and not off.selected.any()


@pytest.mark.parametrize("name", ["grpo", "rloo", "gigpo"])
def test_zero_advantage_are_the_turns_of_groups_without_a_difference_in_return(name):
    """An all-fail group with an invalid turn (its advantages are not 0), an all-win one of unequal
    lengths, a mixed one, and a group of one."""
    groups = groups_of(
        [[turn(penalty=-0.1)], [turn()]],
        [[turn(10.0)], [turn(), turn(10.0)]],
        [[turn(10.0)], [turn()]],
        [[turn()]],
    )
    found = judged(groups, name=name)
    assert found.zero_advantage.tolist() == [True] * 5 + [False] * 2 + [True]
    assert found.advantages[:2].tolist() != [0, 0]


def test_failed_trajectories_are_in_no_statistic():
    """The same judgement as without them; a group that failed whole does not count in G."""
    lost, won = [turn(entropy=2.0)], [turn(10.0, penalty=-0.1)]
    with_failures = groups_of([won, [turn(7.0)], lost], [won], [lost], failures={(0, 1), (1, 0)})
    without = groups_of([won, lost], [lost])
    for name in ("grpo", "rloo", "gigpo"):
        found, expected = (judged(g, name=name) for g in (with_failures, without))
        assert found.advantages.tolist() == expected.advantages.tolist()
        assert found.transition_weights.tolist() == expected.transition_weights.tolist()
        assert found.group_weights.tolist() == [0.5, 1]
    _, columns = flatten(with_failures)
    assert columns.returns.tolist() == [10, 0, 0] and columns.num_groups == 2


def test_groups_without_variance_stay():
    """All lost: advantage 0, lambda 1; the prediction is the only gradient. All won: both 0."""
    groups = groups_of([[turn()], [turn()]], [[turn(10.0)], [turn(10.0)]])
    found = judged(groups, PawConfig(select="all"))
    assert found.advantages.tolist() == [0, 0, 0, 0]
    assert found.transition_weights.tolist() == [0.25, 0.25, 0, 0]


def test_a_group_of_one_learns_from_its_prediction_alone():
    for name in ("grpo", "rloo", "gigpo"):
        found = judged(groups_of([[turn()]]), name=name)
        assert found.advantages.tolist() == [0] and found.transition_weights.tolist() == [1]


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_broken_weights_stop_the_run(bad):
    with pytest.raises(RunFailure, match=r"update 1: .* entropy .* not finite"):
        judged(groups_of([[turn(entropy=bad)]]))
    with pytest.raises(RunFailure, match=r"values .* not finite"):
        judged(groups_of([[turn()]]), values=[bad], name="ppo")


@pytest.mark.parametrize("append", [False, True])
def test_flatten_keeps_order_and_numbers_trajectories_and_groups_anew(append):
    transitions, columns = flatten(scripted_groups(append))
    assert columns.trajectory.tolist() == [0, 0, 1, 1, 2, 2, 3, 4, 4, 5, 5, 6, 7, 7, 8, 9, 9]
    assert columns.turn.tolist() == [0, 1, 0, 1, 0, 1, 0, 0, 1, 0, 1, 0, 0, 1, 0, 0, 1]
    assert columns.group.tolist() == [0] * 6 + [1] * 3 + [2] * 3 + [3] * 2 + [4] * 3
    assert columns.trajectory_group.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 4, 4]
    assert columns.returns.tolist() == [10, 0, 0, 10, 10, 0, 0, 2.5, 5, 0]
    assert columns.num_groups == 5 and len(transitions) == 17
