"""The extensions of the prediction term: worked numbers, what they leave alone, and any split."""

from dataclasses import replace

import pytest
import torch

from paw.config.tree import AlgorithmConfig, PawConfig
from paw.train.batching import mini_batches
from paw.train.prediction.target import choose_targets
from paw.train.score import flatten
from paw.types import Group, TrainingSample

from . import fakes, formula
from .fakes import END, POLICY, USER, C, Observed, S, Turn, play
from .test_gradient import plain, prepare, relative

EXTENSIONS = {
    "token": {"normalise": "token"},
    "dedup": {"dedup": True},
    "token-dedup": {"normalise": "token", "dedup": True},
    "horizon": {"horizon": 2},
    "far": {"horizon": 9, "normalise": "token", "dedup": True},
}


@pytest.fixture(params=[False, True], ids=["window", "append"])
def append(request) -> bool:
    return request.param


def repeated_groups(append: bool) -> list[Group]:
    """The scripted update with one trajectory twice in its group and once more in another, so that
    its two transitions are seen three times."""
    groups = fakes.scripted_groups(append)
    again = groups[0].trajectories[2]
    members = {0: (*groups[0].trajectories, again), 2: (*groups[2].trajectories, again)}
    return [replace(g, trajectories=members.get(i, g.trajectories)) for i, g in enumerate(groups)]


def weights_of(samples: list[TrainingSample]) -> dict[int, list[float]]:
    """In a window: the weights of each transition's target tokens."""
    return {s.transitions[0]: [w for w in s.target_weights if w] for s in samples}


def two_groups(append: bool = False) -> list[Group]:
    """lambda 0.5 and 1, G = 2; targets of 2, 1, 2 tokens and of 4, 2; "8 9" is seen three times:
    the same observation "6 7" before, the same command, in both groups."""
    one, other = Turn((8, END), (8, 9)), Turn((8, END), (10,))
    scripts = [[[one], [replace(other, reward=10.0)], [one], [replace(one, reward=10.0)]]]
    scripts.append([[Turn((8, END), (10, 11, 12, 13))], [one]])
    return [
        Group(members[0].task, tuple(members))
        for g, script in enumerate(scripts)
        for members in [[play(t, append=append, group=g, index=i) for i, t in enumerate(script)]]
    ]


A, B = 0.5 / 2, 1.0 / 2
"""lambda_g / G of the two groups."""


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        # Eq. 9: 1 / 4 and 1 / 2 of the group, over |o|.
        ({}, [A / 4 / 2, A / 4, A / 4 / 2, A / 4 / 2, B / 2 / 4, B / 2 / 2]),
        # 7 tokens and 6.
        ({"normalise": "token"}, [A / 7, A / 7, A / 7, A / 7, B / 6, B / 6]),
        # "8 9" four times: sizes 1/4, 1, 1/4, 1/4, their sum 7/4; 1 and 1/4, their sum 5/4.
        (
            {"dedup": True},
            [A / 7 / 2, A * 4 / 7, A / 7 / 2, A / 7 / 2, B * 4 / 5 / 4, B / 5 / 2],
        ),
        # Tokens: 2/4, 1, 2/4, 2/4, their sum 5/2; 4 and 2/4, their sum 9/2.
        (
            {"normalise": "token", "dedup": True},
            [A / 10, A * 2 / 5, A / 10, A / 10, B * 2 / 9, B / 18],
        ),
    ],
)
def test_weights_of_target_tokens(options, expected):
    update = prepare(AlgorithmConfig(), PawConfig(select="all", **options), False, two_groups())
    found = weights_of(update.samples)
    lengths = [2, 1, 2, 2, 4, 2]
    for i, (weight, count) in enumerate(zip(expected, lengths, strict=True)):
        assert found[i] == pytest.approx([weight] * count, rel=1e-14)
    # The group's term is lambda_g / G times a mean: all its weights sum to that.
    assert sum(sum(found[i]) for i in range(4)) == pytest.approx(A)
    assert sum(sum(found[i]) for i in (4, 5)) == pytest.approx(B)


def test_what_is_not_learned_is_not_counted_as_seen():
    """The second group wins always: its copy of "8 9" has no weight; three are left: sizes 1/3, 1,
    1/3, 1/3 sum to 2."""
    first, second = two_groups()
    won = [
        replace(t, transitions=(replace(t.transitions[0], reward=10.0),))
        for t in second.trajectories
    ]
    groups = [first, replace(second, trajectories=tuple(won))]
    paw = PawConfig(select="all", dedup=True)
    found = weights_of(prepare(AlgorithmConfig(), paw, False, groups).samples)
    assert [found[i][0] for i in range(4)] == pytest.approx([A / 6 / 2, A / 2, A / 12, A / 12])


def test_the_same_answer_after_another_observation_or_command_is_no_repeat():
    """Nor is another answer: sizes stay 1."""
    one = Turn((8, END), (9,))
    scripts = [[one], [Turn((8, END), (10,))], [Turn((8, 8, END), (9,))]]
    members = [play(t, append=False, index=i) for i, t in enumerate(scripts)]
    members.append(play([one], append=False, index=3, first=(7, 6)))
    groups = [Group(members[0].task, tuple(members))]
    for dedup in (False, True):
        paw = PawConfig(select="all", dedup=dedup)
        found = weights_of(prepare(AlgorithmConfig(), paw, False, groups).samples)
        assert list(found.values()) == [[0.25]] * 4


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_dedup_without_repeats_is_the_identity(append: bool, algorithm: str):
    """To the bit: shares of 1. The scripted update repeats an answer, never a transition."""
    one, other = (
        prepare(AlgorithmConfig(name=algorithm), PawConfig(dedup=dedup), append).samples
        for dedup in (False, True)
    )
    assert one == other
    repeated = prepare(AlgorithmConfig(), PawConfig(dedup=True), append, repeated_groups(append))
    assert (
        repeated.samples
        != prepare(AlgorithmConfig(), PawConfig(), append, repeated_groups(append)).samples
    )


def test_placebos_are_weighed_by_their_own_lengths():
    """Per token under `token`, whatever the lengths that were traded: all weigh the same."""
    paw = PawConfig(select="all", normalise="token", target="shuffled", weight="constant")
    update = prepare(AlgorithmConfig(), paw, False, two_groups())
    weights = weights_of(update.samples)
    for members in (range(4), (4, 5)):
        tokens = [w for i in members for w in weights[i]]
        assert tokens == pytest.approx([0.5 / len(tokens)] * len(tokens), rel=1e-14)


EPISODE = [
    Turn((8, END), (9, 10)),
    Turn((12,), (13,)),  # cut by the response limit
    Turn((14, END), (15, 16, 17, 18)),
]


@pytest.mark.parametrize("normalise", ["transition", "token"])
def test_a_horizon_token_by_token(append: bool, normalise: str):
    """lambda = G = 1, three transitions, 1/3 each; K = 2: of o_1 and o_2, o_2 and o_3, and, since
    there is no o_4, of o_3 alone. By token 3 + 5 + 4 = 12 of them: 1/12 each."""
    trajectory = play(EPISODE, append=append)
    groups = [Group(trajectory.task, (trajectory,))]
    paw = PawConfig(select="all", horizon=2, normalise=normalise)
    samples = prepare(AlgorithmConfig(), paw, append, groups).samples
    found = [list(s.target_weights) for s in samples]
    even = normalise == "transition"
    half, third = 1 / 6, 1 / 3
    a, b, c, d, e = (half / 2, half, half, half / 4, third / 4) if even else (1 / 12,) * 5
    if append:  # o_1 of the first, o_2 of the first and second, o_3 of the second and third
        # h_0 a_0 | USER o_1 | POLICY a_1 | END USER o_2 | POLICY a_2 | USER o_3
        expected = [[0] * 8 + [0, a, a] + [0, 0] + [0, 0, b + c] + [0] * 3 + [0] + [d + e] * 4]
    else:
        expected = [
            # h_0 a_0 | USER o_1 | POLICY a_1 | END USER o_2
            [0] * 8 + [0, a, a] + [0, 0] + [0, 0, b],
            # h_1 a_1 | END USER o_2 | POLICY a_2 | USER o_3
            [0] * 7 + [0, 0, c] + [0] * 3 + [0] + [d] * 4,
            # h_2 a_2 | USER o_3
            [0] * 7 + [0] + [e] * 4,
        ]
        first = samples[0]
        assert first.token_ids[8:] == (USER, 9, 10, POLICY, 12, END, USER, 13)
        assert first.roles[8:] == (S, Observed, Observed, C, C, S, S, Observed)
        assert first.base_length == 8  # micro-batches are the baseline's
    assert [len(w) for w in found] == [len(s.token_ids) for s in samples]
    assert found == [pytest.approx(w, rel=1e-14) for w in expected]
    assert sum(map(sum, found)) == pytest.approx(1)


def test_a_horizon_of_one_is_paw(append: bool):
    """To the bit, over episodes of one turn, where a longer one has nothing more to see. One is the
    default, which test_baseline.py and test_against_reference.py hold against the paper's loss."""
    one, far = (
        prepare(AlgorithmConfig(), PawConfig(horizon=k), append, two_groups(append)).samples
        for k in (1, 3)
    )
    assert one == far


def test_a_horizon_adds_no_row_and_no_pass(append: bool):
    """In a conversation, with all selected, not even a token."""
    base, far = (
        prepare(AlgorithmConfig(), PawConfig(select="all", horizon=k), append) for k in (1, 3)
    )
    counts = []
    for update in (base, far):
        update.gradient(tokens=40)
        policy = update.learner.policy
        counts.append((policy.passes.forwards, policy.passes.rows))
    assert counts[0] == counts[1]
    tokens = [sum(len(s.token_ids) for s in u.samples) for u in (base, far)]
    assert tokens[0] == tokens[1] if append else tokens[0] < tokens[1]


def test_signs_that_cancel_leave_no_target():
    """o_2 gets 1/4 of the first transition and -1/4 of the second: it is read, and not learned."""
    turns = [Turn((8, END), (9,)), Turn((8, END), (10,))]
    trajectory = play(turns, append=True)
    groups = [Group(trajectory.task, (trajectory,))]
    transitions, columns = flatten(groups)
    update = prepare(AlgorithmConfig(), PawConfig(select="all"), True, groups)
    weights = torch.tensor([0.5, -0.25], dtype=torch.float64)
    judgement = replace(update.judgement, transition_weights=weights)
    targets = choose_targets(
        transitions, columns, judgement, PawConfig(horizon=2), fakes.scripted(True),
        generator=torch.Generator(),
    )  # fmt: skip
    assert {i: t.weight for i, t in targets.by_transition.items()} == {0: 0.25}


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
@pytest.mark.parametrize("name", EXTENSIONS)
def test_gradient_is_the_formulas_however_it_is_split(append: bool, name: str, algorithm: str):
    """float64; micro-batches, packs, mini-batches."""
    paw = PawConfig(coefficient=0.7, **EXTENSIONS[name])
    groups = repeated_groups(append)
    update = prepare(AlgorithmConfig(name=algorithm), paw, append, groups)
    model = plain(update.learner.policy)
    formula.objective(
        groups, model, None, update.rules.algorithm, paw, append=append, values=update.values
    ).backward()
    expected = fakes.gradient(list(model.parameters()))
    assert relative(update.gradient(), expected) < 1e-12
    assert relative(update.gradient(tokens=1), expected) < 1e-12
    assert relative(update.gradient(tokens=40), expected) < 1e-12
    batches = mini_batches(update.samples, 3, torch.Generator().manual_seed(7))
    assert relative(update.gradient(batches, scale=3), 3 * expected) < 1e-12
    without = prepare(AlgorithmConfig(name=algorithm), PawConfig(coefficient=0.7), append, groups)
    if (name, algorithm) != ("dedup", "ppo"):  # there whole groups, of one trajectory, are repeats
        assert relative(without.gradient(), expected) > 1e-4  # another objective than Eq. 11's


def test_a_weight_of_zero_stays_the_baseline(append: bool):
    """Rows as without a prediction, under every extension."""
    base = prepare(AlgorithmConfig(), PawConfig(enabled=False), append).samples
    for options in EXTENSIONS.values():
        paw = PawConfig(weight="constant", constant=0.0, **options)
        assert prepare(AlgorithmConfig(), paw, append).samples == base
