"""Rows of tokens: roles, masks and weights, token by token."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paw.config.tree import AlgorithmConfig, PawConfig
from paw.train.judge import Rules, action_weights, judge
from paw.train.prediction.target import choose_targets
from paw.train.score import flatten, make_rows
from paw.train.serialise import serialise
from paw.types import Columns, Group, Judgement, Targets, TrainingSample, Trajectory, Transition

from .fakes import (
    END,
    MAX_OBSERVATION_TOKENS,
    POLICY,
    SCRIPTED,
    SYSTEM,
    USER,
    A,
    C,
    Observed,
    S,
    Turn,
    play,
    scores_of,
    scripted_groups,
)

Update = tuple[list[Transition], Columns]

EPISODE = [
    Turn((8, END), (9, 10, 11)),
    Turn((12,), (13,)),  # cut by the response limit: no end of turn was sampled
]


def update_of(trajectories: list[Trajectory]) -> Update:
    return flatten([Group(trajectories[0].task, tuple(trajectories))])


def episode(append: bool) -> Update:
    return update_of([play(EPISODE, append=append)])


def judgement_of(
    weights: list[float], advantages: list[float] | None = None, **changed
) -> Judgement:
    """`action_weights` as given, or those of `aggregation` "token" (see `serialised`)."""
    column = torch.tensor(weights, dtype=torch.float64)
    judgement = Judgement(
        advantages=torch.tensor(advantages or [0.0] * len(weights), dtype=torch.float64),
        value_targets=None,
        action_weights=torch.full_like(column, -1),
        zero_advantage=torch.zeros(len(weights), dtype=torch.bool),
        selected=column != 0,
        group_weights=torch.ones(1, dtype=torch.float64),
        transition_weights=column,
        group=torch.zeros(len(weights), dtype=torch.long),
    )
    return replace(judgement, **changed)


def targets_of(update: Update, judgement: Judgement, paw=None, seed=0) -> Targets:
    generator = torch.Generator().manual_seed(seed)
    return choose_targets(*update, judgement, paw or PawConfig(), SCRIPTED, generator=generator)


def target_ids(targets: Targets) -> list[tuple[int, ...]]:
    """In the order of the transitions."""
    return [targets.by_transition[i].token_ids for i in sorted(targets.by_transition)]


def serialised(
    update: Update,
    append: bool,
    judgement: Judgement,
    paw: PawConfig | None = None,
    values: list[float] | None = None,
    ref: bool = False,
    aggregation: str = "token",
) -> list[TrainingSample]:
    transitions, columns = update
    paw = paw or PawConfig()
    if (judgement.action_weights < 0).any():
        judgement = replace(judgement, action_weights=action_weights(columns, aggregation))
    targets = targets_of(update, judgement, paw)
    logprobs = [list(t.action.logprobs) for t in transitions]
    reference = [[x - 0.5 for x in row] for row in logprobs] if ref else None
    scores = scores_of(transitions, values, reference)
    rows = make_rows(transitions, columns, append)
    return serialise(rows, scores, judgement, targets, paw.condition == "action")


THIRD, SIXTH = pytest.approx(1 / 3), pytest.approx(1 / 6)


def test_window_episode_token_by_token():
    """3 action tokens: 1 / 3 each. Transition weights 1 / 2 over |o| = 3 and 1: 1 / 6 and 1 / 2."""
    first, second = serialised(episode(False), False, judgement_of([0.5, 0.5], [2.0, -1.0]))
    # h_0 = SYSTEM task o_0 POLICY        a_0       header  o_1
    assert first.token_ids == (SYSTEM, 4, 5, 6, 7, POLICY, 8, END, USER, 9, 10, 11)
    assert first.roles == (S, C, C, C, C, S, A, A, S, Observed, Observed, Observed)
    assert list(first.policy_weights) == [0] * 6 + [THIRD] * 2 + [0] * 4
    assert list(first.target_weights) == [0] * 9 + [SIXTH] * 3
    assert first.advantages == (0,) * 6 + (2, 2) + (0,) * 4
    assert first.old_logprobs == (0,) * 6 + (-1, -1) + (0,) * 4
    assert (first.base_length, first.transitions, first.predicts_only) == (8, (0,), False)
    # The cut action is closed by the scaffold: the end of turn was not sampled, so it is no action.
    assert second.token_ids == (SYSTEM, 4, 5, 9, 10, 11, POLICY, 12, END, USER, 13)
    assert second.roles == (S, C, C, C, C, C, S, A, S, S, Observed)
    assert list(second.policy_weights) == [0] * 7 + [THIRD] + [0] * 3
    assert list(second.target_weights) == [0] * 10 + [0.5]
    assert second.advantages == (0,) * 7 + (-1,) + (0,) * 3
    assert (second.base_length, second.transitions) == (8, (1,))


def test_append_episode_token_by_token():
    """One row; o_1 stands in the conversation already, o_2 is appended."""
    (row,) = serialised(episode(True), True, judgement_of([0.5, 0.5], [2.0, -1.0]), ref=True)
    head = (SYSTEM, 4, 5, 6, 7, POLICY)
    assert row.token_ids == (*head, 8, END, USER, 9, 10, 11, POLICY, 12, END, USER, 13)
    assert row.roles == (S, C, C, C, C, S, A, A, S, *[Observed] * 3, S, A, S, S, Observed)
    assert list(row.policy_weights) == [0] * 6 + [THIRD] * 2 + [0] * 5 + [THIRD] + [0] * 3
    assert list(row.target_weights) == [0] * 9 + [SIXTH] * 3 + [0] * 4 + [0.5]
    assert row.advantages == (0,) * 6 + (2, 2) + (0,) * 5 + (-1,) + (0,) * 3
    assert row.ref_logprobs == (0,) * 6 + (-1.5, -1.5) + (0,) * 5 + (-1.5,) + (0,) * 3
    assert (row.base_length, row.transitions) == (14, (0, 1))


@pytest.mark.parametrize("append", [False, True])
def test_weight_zero_appends_nothing(append):
    update = episode(append)
    samples = serialised(update, append, judgement_of([0.5, 0.0]))
    assert len(samples[-1].token_ids) == samples[-1].base_length
    base = make_rows(*update, append)
    for sample, row in zip(serialised(update, append, judgement_of([0.0, 0.0])), base, strict=True):
        assert (sample.token_ids, sample.roles) == (row.token_ids, row.roles)
        assert not any(sample.target_weights) and sample.base_length == row.base_length


@pytest.mark.parametrize("append", [False, True])
def test_values_are_read_at_the_last_prompt_token(append):
    update = episode(append)
    returns = torch.tensor([3.0, 4.0], dtype=torch.float64)
    judgement = judgement_of([0.5, 0.5], value_targets=returns)
    samples = serialised(update, append, judgement, values=[0.1, 0.2])
    assert [s.value_positions for s in samples] == ([(5, 12)] if append else [(5,), (6,)])
    assert all(s.token_ids[p] == POLICY for s in samples for p in s.value_positions)
    assert [t for s in samples for t in s.value_targets] == [3, 4]
    assert [v for s in samples for v in s.old_values] == [0.1, 0.2]


@pytest.mark.parametrize("append", [False, True])
def test_denominators_are_those_of_the_update(append):
    """Policy weights sum to 1; under `sequence` those of each of the N trajectories to 1 / N."""
    update = flatten(scripted_groups(append))
    weights = torch.linspace(0, 1, len(update[0]), dtype=torch.float64)
    weights = weights.masked_fill(~update[1].candidates, 0).tolist()
    judgement = judgement_of(weights)
    num_tokens = sum(len(t.action.token_ids) for t in update[0])
    by_token = serialised(update, append, judgement)
    assert {w for s in by_token for w in s.policy_weights} == {0, 1 / num_tokens}
    assert sum(w > 0 for s in by_token for w in s.policy_weights) == num_tokens
    sums = [0.0] * len(update[1].returns)
    for sample in serialised(update, append, judgement, aggregation="sequence"):
        sums[int(update[1].trajectory[sample.transitions[0]])] += sum(sample.policy_weights)
    assert sums == pytest.approx([1 / len(sums)] * len(sums))
    # A transition's weight is its target tokens' sum, whatever the length.
    for samples in (by_token, serialised(update, append, judgement, aggregation="sequence")):
        assert sum(w for s in samples for w in s.target_weights) == pytest.approx(sum(weights))


@pytest.mark.parametrize("append", [False, True])
def test_masks_follow_roles(append):
    update = flatten(scripted_groups(append))
    scores = replace(scores_of(update[0]), entropy=torch.rand(17, dtype=torch.float64))
    rules = Rules(AlgorithmConfig(), PawConfig(), 10.0)
    judgement = judge(update[1], scores, rules, 1, torch.Generator())
    samples = serialised(update, append, judgement)
    actions = []
    for s in samples:
        fields = (s.roles, s.policy_weights, s.target_weights, s.advantages, s.old_logprobs)
        assert {len(f) for f in fields} == {len(s.token_ids)}
        for role, policy, wm, advantage, old in zip(*fields, strict=True):
            assert (policy > 0) == (role == A)
            assert wm == 0 or role == Observed
            assert (advantage == 0 and old == 0) or role == A
        actions += [t for t, role in zip(s.token_ids, s.roles, strict=True) if role == A]
    # The sampled ids of every action, in order, and no others.
    assert actions == [x for t in update[0] for x in t.action.token_ids]


def test_observation_cut_by_the_limit():
    """8 tokens, 5 are the target: |o| = 5. In `append` the conversation holds all 8."""
    long = tuple(range(9, 17))
    for append in (False, True):
        trajectory = play([Turn((8, END), long), Turn((8, END), (9,))], append=append)
        assert trajectory.transitions[0].num_cut_tokens == 3
        samples = serialised(update_of([trajectory]), append, judgement_of([0.5, 0.0]))
        weighted = [
            (t, w) for s in samples for t, w in zip(s.token_ids, s.target_weights, strict=True) if w
        ]
        assert weighted == [(t, 0.1) for t in long[:MAX_OBSERVATION_TOKENS]]


def test_append_target_that_the_conversation_does_not_hold_gets_a_row_of_its_own():
    """The prompt limit cut the observation's head out of the conversation."""
    trajectory = play(EPISODE, append=True)
    first, second = trajectory.transitions
    cut = replace(
        second,
        context_ids=second.context_ids[:1] + second.context_ids[2:],
        context_roles=second.context_roles[:1] + second.context_roles[2:],
        prompt_cut_tokens=1,
    )
    update = update_of([replace(trajectory, transitions=(first, cut))])
    base, fork = serialised(update, True, judgement_of([0.5, 0.5]))
    assert fork.predicts_only and fork.transitions == (0,)
    assert fork.token_ids == (SYSTEM, 4, 5, 6, 7, POLICY, 8, END, USER, 9, 10, 11)
    assert list(fork.target_weights) == [0] * 9 + [SIXTH] * 3
    assert sum(base.target_weights) == 0.5  # the last turn's alone


def test_append_target_that_is_no_observation_to_its_end_gets_a_row_of_its_own():
    """The conversation was cut inside o_1, and what follows happens to spell its last token."""
    trajectory = play(EPISODE, append=True)
    first, second = trajectory.transitions
    assert second.context_roles == (S, *[Observed] * 3, S)
    cut = replace(second, context_roles=(S, Observed, Observed, S, S))
    update = update_of([replace(trajectory, transitions=(first, cut))])
    base, fork = serialised(update, True, judgement_of([0.5, 0.0]))
    assert fork.predicts_only and not any(base.target_weights)


def test_rows_of_groups_without_a_difference_are_marked():
    judgement = judgement_of([0.5, 0.5], zero_advantage=torch.tensor([True, False]))
    assert [s.zero_advantage for s in serialised(episode(False), False, judgement)] == [True, False]


@pytest.mark.parametrize("append", [False, True])
def test_prediction_without_the_action(append):
    """h_t, an empty turn of the policy, header, o_{t+1}: rows of their own that train no action."""
    paw = PawConfig(condition="no_action")
    samples = serialised(episode(append), append, judgement_of([0.5, 0.5]), paw, ref=True)
    base, forks = samples[:-2], samples[-2:]
    assert not any(s.predicts_only or any(s.target_weights) for s in base)
    assert all(s.base_length == len(s.token_ids) for s in samples)
    past = (SYSTEM, 4, 5, 6, 7, POLICY, 8, END, USER) if append else (SYSTEM, 4, 5)
    heads = [(SYSTEM, 4, 5, 6, 7, POLICY), (*past, 9, 10, 11, POLICY)]
    for fork, head, target, turn in zip(forks, heads, ((9, 10, 11), (13,)), (0, 1), strict=True):
        assert fork.token_ids == (*head, END, USER, *target)
        assert fork.predicts_only and fork.transitions == (turn,)
        assert fork.roles[len(head) :] == (S, S) + (Observed,) * len(target)
        assert not any(fork.policy_weights) and not any(fork.advantages)
        assert len(fork.ref_logprobs) == len(fork.token_ids)
        assert list(fork.target_weights[len(head) + 2 :]) == [0.5 / len(target)] * len(target)
        assert sum(fork.target_weights) == pytest.approx(0.5)


def many(observations: list[tuple[int, ...]], append: bool = False) -> Update:
    """One trajectory of one turn for each observation."""
    return update_of(
        [play([Turn((8, END), o)], append=append, index=i) for i, o in enumerate(observations)]
    )


def test_shuffled_targets_differ_wherever_they_can():
    """62 of 100 texts are equal: 2 * 62 - 100 = 24 must stay, 76 % change; a permutation."""
    common, rooms = (9, 10), [(11, 12, 13, 4 + i // 20, 4 + i % 20) for i in range(38)]
    observations = [common] * 62 + rooms
    observations = [observations[(37 * i) % 100] for i in range(100)]
    update = many(observations)
    targets = targets_of(update, judgement_of([0.01] * 100), PawConfig(target="shuffled"))
    assert targets.changed_fraction == pytest.approx(0.76)
    assert sorted(target_ids(targets)) == sorted(observations)
    for target in targets.by_transition.values():  # the weight is over the new length
        assert target.weight * len(target.token_ids) == pytest.approx(0.01)


@given(st.lists(st.integers(4, 7), min_size=1, max_size=30), st.integers(1, 3))
@settings(deadline=None, max_examples=60)
def test_shuffled_is_an_optimal_permutation(numbers, width):
    """With c the count of the commonest of n texts, max(0, 2 c - n) stay: no more can change."""
    observations = [(n,) * (n % width + 1) for n in numbers]
    update = many(observations)
    count = len(observations)
    paw = PawConfig(target="shuffled")
    targets = targets_of(update, judgement_of([1.0] * count), paw)
    most = max(observations.count(o) for o in observations)
    assert round(targets.changed_fraction * count) == count - max(0, 2 * most - count)
    assert sorted(target_ids(targets)) == sorted(observations)


def test_shuffled_lengths_stay_near():
    """40 different texts, 4 of each length 1..10: everyone trades within its length."""
    observations = [tuple(range(4 + k, 4 + k + n)) for n in range(1, 11) for k in range(4)]
    update = many(observations)
    targets = targets_of(update, judgement_of([1.0] * 40), PawConfig(target="shuffled"))
    lengths = [min(len(o), MAX_OBSERVATION_TOKENS) for o in observations]
    assert targets.changed_fraction == 1
    assert [len(targets.by_transition[i].token_ids) for i in range(40)] == lengths


def test_a_text_left_over_trades_with_the_pair_of_nearest_length():
    """Pairs by length: (9) with (10), (9 10) with (10 11); two equal texts of three are left."""
    observations = [(9,), (10,), (9, 10), (10, 11), (11, 12, 13), (11, 12, 13)]
    update, judgement = many(observations), judgement_of([1.0] * 6)
    targets = targets_of(update, judgement, PawConfig(target="shuffled"))
    assert targets.changed_fraction == 1
    assert [targets.by_transition[i].token_ids for i in (0, 1)] == [(10,), (9,)]
    assert [targets.by_transition[i].token_ids for i in (2, 3)] == [(11, 12, 13)] * 2


def test_only_transitions_with_a_weight_are_shuffled():
    observations = [(9,), (10,), (11,), (12,)]
    judgement = judgement_of([0.5, 0.0, 0.5, 0.0])
    targets = targets_of(many(observations), judgement, PawConfig(target="shuffled"))
    assert {i: t.token_ids for i, t in targets.by_transition.items()} == {
        0: (11,),
        2: (9,),
    } and targets.changed_fraction == 1


def test_random_targets_keep_lengths_and_the_updates_tokens():
    observations = [(9, 10, 11), (12,), (9, 13)]
    update, paw = many(observations), PawConfig(target="random")
    draws = []
    for seed in (0, 0, 1):
        targets = targets_of(update, judgement_of([1.0] * 3), paw, seed)
        draws.append([targets.by_transition[i].token_ids for i in range(3)])
        assert [len(d) for d in draws[-1]] == [3, 1, 2]
        assert {t for d in draws[-1] for t in d} <= {9, 10, 11, 12, 13}
    assert draws[0] == draws[1] != draws[2]


def test_vocabulary_targets_keep_lengths_and_draw_from_all_text_tokens():
    """300 draws of 20 tokens, 4 to 23: one that never came up would do so once in 200,000 runs."""
    update = many([(9, 10, 11), (9,), (9, 10)] * 50)
    targets = targets_of(update, judgement_of([1.0] * 150), PawConfig(target="vocabulary"))
    draws = target_ids(targets)
    assert [len(d) for d in draws] == [3, 1, 2] * 50
    assert {t for d in draws for t in d} == set(range(4, 24))


@pytest.mark.parametrize("target", ["next", "random"])
def test_random_signs_leave_targets_and_sizes_as_they_are(target):
    """Drawn after the targets: those of the arm without signs. Of 100 signs 50 +- 25 are minus."""
    update = many([(4 + i % 20,) * (i % 3 + 1) for i in range(100)])
    judgement = judgement_of([0.5, 0.0] * 50)
    plain, signed, again = (
        targets_of(update, judgement, PawConfig(target=target, random_sign=sign))
        for sign in (False, True, True)
    )
    assert signed == again and target_ids(signed) == target_ids(plain)
    pairs = [(t.weight, signed.by_transition[i].weight) for i, t in plain.by_transition.items()]
    assert len(pairs) == 50 and {b / a for a, b in pairs} == {1, -1}
    assert 12 <= sum(b < 0 for _, b in pairs) <= 38


def test_signs_are_of_transitions_not_of_places():
    """The same transition keeps its sign when another selection surrounds it."""
    update, paw = many([(4 + i,) for i in range(20)]), PawConfig(random_sign=True)
    every = targets_of(update, judgement_of([1.0] * 20), paw).by_transition
    some = targets_of(update, judgement_of([0.0, 0.5] * 10), paw).by_transition
    assert [2 * some[i].weight for i in some] == [every[i].weight for i in some]


def test_repeat_current_predicts_what_was_read():
    """Before the first action stands 6 7; before the second 9 10 11, of which two are kept."""
    paw = PawConfig(target="repeat_current", max_observation_tokens=2)
    targets = targets_of(episode(False), judgement_of([0.5, 0.5]), paw)
    assert [targets.by_transition[i].token_ids for i in (0, 1)] == [
        (6, 7),
        (9, 10),
    ] and targets.changed_fraction == 1


def test_repeat_current_keeps_the_target_where_nothing_was_read():
    trajectory = play(EPISODE, append=False)
    first, second = trajectory.transitions
    update = update_of([replace(trajectory, transitions=(replace(first, observation=""), second))])
    targets = targets_of(update, judgement_of([0.5, 0.5]), PawConfig(target="repeat_current"))
    assert [targets.by_transition[i].token_ids for i in (0, 1)] == [
        (9, 10, 11),
        (9, 10, 11),
    ] and targets.changed_fraction == 0.5


def test_placebo_stands_behind_its_action_and_forks_in_a_conversation():
    paw = PawConfig(target="shuffled")
    window = serialised(episode(False), False, judgement_of([0.5, 0.5]), paw)
    assert [s.token_ids[s.base_length :] for s in window] == [(USER, 13), (END, USER, 9, 10, 11)]
    base, fork = serialised(episode(True), True, judgement_of([0.5, 0.5]), paw)
    # The conversation holds the true o_1, so the placebo of the first turn cannot stand there.
    assert base.token_ids[base.base_length :] == (END, USER, 9, 10, 11)
    assert not any(base.target_weights[: base.base_length])
    assert fork.token_ids == (SYSTEM, 4, 5, 6, 7, POLICY, 8, END, USER, 13)
    assert fork.predicts_only and list(fork.target_weights) == [0] * 9 + [0.5]


def test_true_targets_count_as_unchanged():
    targets = targets_of(episode(False), judgement_of([0.5, 0.5]))
    assert [targets.by_transition[i].token_ids for i in (0, 1)] == [
        (9, 10, 11),
        (13,),
    ] and targets.changed_fraction == 0
    assert targets_of(episode(False), judgement_of([0.0, 0.0])) == Targets({}, 0.0)


def test_a_prediction_update_trains_no_action():
    samples = serialised(
        episode(False),
        False,
        judgement_of([0.5, 0.5], action_weights=torch.zeros(2, dtype=torch.float64)),
    )
    assert not any(any(s.policy_weights) for s in samples)
    assert all(any(s.target_weights) for s in samples)
