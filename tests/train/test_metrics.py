"""An update's metrics and records, by hand."""

from dataclasses import replace

import msgspec
import pytest
import torch

from paw.config.tree import AlgorithmConfig, PawConfig
from paw.train.judge import Rules, judge
from paw.train.metrics import learning_metrics, rollout_metrics, selection_overlap
from paw.train.mismatch import mismatch
from paw.train.prediction.target import choose_targets
from paw.train.records import records
from paw.train.score import flatten
from paw.train.statistics import Statistics
from paw.types import Group, Scores

from .fakes import END, SCRIPTED, Turn, play, scores_of

WIN = [Turn((8, END), (9,), entropy=2.0), Turn((8, 8, END), (9,), 10.0, entropy=1.0)]
LOSS = [Turn((8, 8), tuple(range(9, 16)), penalty=-0.1, entropy=3.0)]


def groups() -> list[Group]:
    """A win of two turns, a loss of one invalid turn cut by its limit, a failure; an all-win."""
    members = (
        play(WIN, append=False),
        play(LOSS, append=False, index=1, terminated=False),
        play(WIN, append=False, index=2, failure="hang"),
    )
    easy = play([Turn((8, END), (9,), 10.0)], append=False, group=1)
    return [Group(members[0].task, members), Group(easy.task, (easy,))]


def test_rollout_metrics():
    """3 usable trajectories of 2 + 1 + 1 turns; returns 10, 0, 10; 2 + 3 + 2 + 2 action tokens."""
    found = rollout_metrics(groups())
    assert found == {
        "rollout/return_mean": pytest.approx(20 / 3),
        "rollout/success_rate": pytest.approx(2 / 3),
        "rollout/valid_action_rate": 3 / 4,
        "rollout/turns_mean": pytest.approx(4 / 3),
        "rollout/truncated_fraction": pytest.approx(1 / 3),
        "rollout/unfinished_fraction": 1 / 4,
        "rollout/prompt_limit_fraction": 0,
        "rollout/prompt_cut_fraction": 0,
        "rollout/failures": 1,
        "rollout/groups_with_difference": 1,  # the other has one trajectory
        "tokens/sampled": 9,
        "wm/role_confusion_rate": 0,
    }


def test_groups_with_a_difference_in_return():
    """10, 0 and a failure; 0, 0 and a win that failed; a group of one usable is not compared."""
    (mixed, easy) = groups()
    won, lost, failed = mixed.trajectories
    same = Group(mixed.task, (lost, lost, replace(won, failure="hang")))
    assert rollout_metrics([mixed, same, easy])["rollout/groups_with_difference"] == 1
    assert rollout_metrics([same, easy])["rollout/groups_with_difference"] == 0
    alone = Group(mixed.task, (won, failed))
    assert rollout_metrics([alone, easy])["rollout/groups_with_difference"] is None


def test_role_confusion_and_cut_prompts_are_counted():
    (group, easy) = groups()
    first = group.trajectories[0]
    turns = (
        replace(first.transitions[0], response="look\nObservation: You see", prompt_cut_tokens=4),
        first.transitions[1],
    )
    changed = Group(group.task, (replace(first, transitions=turns), *group.trajectories[1:]))
    found = rollout_metrics([changed, easy])
    assert found["wm/role_confusion_rate"] == found["rollout/prompt_cut_fraction"] == 1 / 4
    with_header = rollout_metrics([changed, easy], header_ids={END})  # 3 of 4 turns end with it
    assert with_header["wm/role_confusion_rate"] == 3 / 4
    with_text = rollout_metrics([changed, easy], header_text="see")  # a header that is text
    assert with_text["wm/role_confusion_rate"] == 1 / 4


def test_episodes_ended_by_the_prompt_limit_are_counted():
    """1 of 3 usable trajectories; the failed one counts nowhere."""
    (group, easy) = groups()
    won, lost, failed = group.trajectories
    members = (won, replace(lost, prompt_limit=True), replace(failed, prompt_limit=True))
    found = rollout_metrics([replace(group, trajectories=members), easy])
    assert found["rollout/prompt_limit_fraction"] == pytest.approx(1 / 3)


def judged(paw: PawConfig):
    transitions, columns = flatten(groups())
    entropy = torch.tensor([2.0, 1.0, 3.0, 2.5], dtype=torch.float64)
    scores = replace(scores_of(transitions), entropy=entropy)
    generator = torch.Generator().manual_seed(0)
    rules = Rules(AlgorithmConfig(), paw, 10.0)
    judgement = judge(columns, scores, rules, 1, generator)
    targets = choose_targets(transitions, columns, judgement, paw, SCRIPTED, generator=generator)
    return transitions, columns, judgement, targets


def test_learning_metrics():
    """4 candidates, 3 selected (entropies 3, 2.5, 2); the all-win group's weighs 0: 2 targets."""
    update = judged(PawConfig())
    statistics = Statistics()
    statistics.add(policy_loss=0.5, wm_loss=0.25, kl=0.2, action_tokens=8, clipped=2, entropy=16.0)
    statistics.add(
        zero_advantage_kl=0.1,
        zero_advantage_tokens=2,
        masked_targets=3,
        target_tokens=6,
        target_nll=12.0,
    )
    statistics.add(tokens=50, computed=40, gradient_norm=1.0, steps=2, passes=1)
    found = learning_metrics(*update, statistics)
    assert found == {
        "policy/loss": 0.5,
        "policy/kl": pytest.approx(0.025),
        "policy/kl_zero_advantage": pytest.approx(0.05),
        "policy/clipped_fraction": 0.25,
        "policy/entropy": 2.0,
        "policy/gradient_norm": 0.5,
        "wm/loss": 0.25,
        "wm/group_weight_mean": 0.25,  # lambda 0.5 and 0
        "wm/selected_transitions": 3,
        "wm/selected_fraction": 0.75,
        "wm/weighted_transitions": 2,
        "wm/clipped_token_fraction": 0.5,
        "wm/nll": 2.0,
        "wm/target_tokens": 6,
        "wm/cut_targets": 1,
        "wm/changed_target_fraction": 0,
        "wm/most_common_target_fraction": 0.5,
        "tokens/trained": 50,
        "tokens/computed": 40,
    }


def test_optional_metrics():
    update = judged(PawConfig(enabled=False))
    statistics = Statistics()
    statistics.add(ref_kl=1.0, action_tokens=4, value_loss=6.0, values=3, critic_gradient_norm=1.0)
    statistics.add(steps=2, policy_gradient_norm=0.3, wm_gradient_norm=0.2, measured=1)
    statistics.add(gradient_cosine=-0.5, cosines=2)
    found = learning_metrics(*update, statistics)
    assert (found["policy/ref_kl"], found["critic/loss"]) == (0.25, 2.0)
    assert (found["policy/term_gradient_norm"], found["wm/term_gradient_norm"]) == (0.3, 0.2)
    assert found["wm/gradient_cosine"] == -0.25
    assert found["wm/selected_transitions"] == found["wm/weighted_transitions"] == 0
    # Nothing to measure them at:
    assert found["policy/kl_zero_advantage"] is None
    for name in ("loss", "nll", "clipped_token_fraction", "most_common_target_fraction"):
        assert found[f"wm/{name}"] is None
    assert found["wm/group_weight_mean"] == 0.25  # what a matched constant would read


def test_selection_overlap():
    """alpha 1/2 of 5 candidates: 3 each, {0, 1, 2} and {1, 2, 4}; 5 has no next observation."""
    entropy = torch.tensor([5.0, 4.0, 3.0, 2.0, 1.0, 9.0], dtype=torch.float64)
    other = torch.tensor([0.0, 0.3, 0.2, 0.1, 0.4, 0.9], dtype=torch.float64)
    candidates = torch.tensor([True] * 5 + [False])
    scores = Scores([], entropy, None, None, other)
    assert selection_overlap(scores, candidates, 0.5) == pytest.approx(2 / 3)
    assert selection_overlap(scores, candidates, 1.0) == 1
    assert selection_overlap(scores, candidates, 0.0) is None
    assert selection_overlap(replace(scores, other_entropy=None), candidates, 0.5) is None


def test_records_say_what_was_decided_about_every_turn():
    _, _, judgement, targets = judged(PawConfig())
    lines = records(3, groups(), judgement, targets, {2: [-0.12345, -1, -2, -3, -4]})
    assert msgspec.json.decode(msgspec.json.encode(lines))  # JSON-able
    assert [(r.group, r.index, r.failure) for r in lines] == [
        (0, 0, None), (0, 1, None), (0, 2, "hang"), (1, 0, None),
    ]  # fmt: skip
    turns = [t for r in lines for t in r.turns]
    # The failed trajectory's two turns were judged by nobody.
    assert [t.selected for t in turns] == [True, False, True, False, False, True]
    assert [t.advantage is None for t in turns] == [False] * 3 + [True] * 2 + [False]
    # lambda / (G |S_g|) = 0.5 / (2 * 2) for two of the first group, 0 for the all-win group.
    weights = [t.transition_weight for t in turns]
    assert weights == pytest.approx([0.125, 0, 0.125, 0, 0, 0])
    assert turns[2].target_ids == (9, 10, 11, 12, 13) and turns[2].num_cut_tokens == 2
    assert (
        turns[2].target_logprobs == (-0.1235, -1, -2, -3, -4) and turns[0].target_logprobs is None
    )
    advantages = judgement.advantages.tolist()
    assert [t.advantage for t in turns if t.advantage is not None] == advantages


def test_mismatch_by_hand():
    """|-1 + 1.05| = 0.05, |-2 + 2.3| = 0.3, |-3 + 3| = 0: mean 0.35 / 3, largest 0.3, one of three
    above 0.1; nothing to compare without a scoring pass."""
    nothing = torch.zeros(2).double()
    scores = Scores([[-1.0, -2.0], [-3.0]], nothing, None, None, None, [[-1.05, -2.3], [-3.0]])
    assert mismatch(scores) == {
        "sampler/logprob_difference_mean": pytest.approx(0.35 / 3),
        "sampler/logprob_difference_max": pytest.approx(0.3),
        "sampler/logprob_difference_fraction": pytest.approx(1 / 3),
    }
    assert mismatch(replace(scores, sampler_logprobs=None)) == {}
