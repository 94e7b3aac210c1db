"""Diagnostic updates: the same numbers in every arm, and nothing counted or changed."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paw.config.tree import AlgorithmConfig, PawConfig
from paw.train.diagnostics import drift, prediction_nll, true_targets
from paw.train.forward import score_actions
from paw.train.judge import Rules, judge
from paw.train.score import flatten, make_rows
from paw.train.serialise import serialise
from paw.types import Scores

from . import fakes, formula
from .tiny_runs import ForkServer, flags, metrics


@pytest.mark.parametrize("paw", [PawConfig(), PawConfig(enabled=False)], ids=["paw", "baseline"])
@pytest.mark.parametrize("append", [False, True])
def test_nll_is_that_of_every_true_next_observation(append: bool, paw: PawConfig):
    """16 candidates of the scripted update, one plain forward pass each; the same without PaW."""
    policy = fakes.tiny_policy(0)
    transitions, columns = flatten(fakes.scripted_groups(append))
    rows, scores = make_rows(transitions, columns, append), fakes.scores_of(transitions)
    rules = Rules(AlgorithmConfig(), paw, formula.MAX_RETURN)
    judgement = judge(columns, scores, rules, 1, torch.Generator())
    silent = replace(judgement, action_weights=torch.zeros(17))
    targets = true_targets(transitions, columns.candidates, fakes.SCRIPTED)
    samples = serialise(rows, scores, silent, targets)
    model = copy.deepcopy(policy.model)
    model.set_attn_implementation("sdpa")
    expected: list[float] = []
    for x in formula.transitions_of(fakes.scripted_groups(append), append):
        target = x.t.next_observation_ids
        head = [*x.prompt, *x.t.action.token_ids, *fakes.to_user(x.t.action)]
        if target:
            with torch.no_grad():
                expected += (-formula.logprobs_of(model, head, target)).tolist()
    for tokens in (1000, 30):
        found = prediction_nll(policy, samples, tokens)
        assert found == pytest.approx(sum(expected) / len(expected), rel=1e-12)
    assert (policy.passes.forwards, policy.passes.rows) == (0, 0)
    assert not any(any(s.policy_weights) for s in samples)


def test_no_observation_is_no_number():
    policy = fakes.tiny_policy(0)
    assert prediction_nll(policy, [], 100) is None


def test_drift_is_the_kl_to_the_policy_that_sampled():
    """Scores of the policy itself: 0; of another policy, the mean of exp(d) - d - 1."""
    policy, other = fakes.tiny_policy(0), fakes.tiny_policy(1)
    transitions, columns = flatten(fakes.scripted_groups(False))
    rows = make_rows(transitions, columns, False)
    scores = fakes.scores_of(transitions)
    own, _ = score_actions(policy, rows, 1000)
    same = Scores(own, scores.entropy, None, None)
    counted = policy.passes.forwards
    assert drift(policy, rows, same, columns, 1000)["policy/kl_after"] == pytest.approx(0)
    assert policy.passes.forwards == counted
    theirs, _ = score_actions(other, rows, 1000)
    found = drift(policy, rows, Scores(theirs, scores.entropy, None, None), columns, 1000)
    means, without, failed = [], [], []
    returns = [
        columns.returns[columns.trajectory_group == g].tolist() for g in range(columns.num_groups)
    ]
    assert any(min(r) == max(r) > 0 for r in returns)  # all won: no advantage, and no failure
    for i, (a, b) in enumerate(zip(own, theirs, strict=True)):
        d = torch.tensor(a, dtype=torch.float64) - torch.tensor(b, dtype=torch.float64)
        means.append(float((d.exp() - d - 1).mean()))
        of_group = returns[int(columns.group[i])]
        if min(of_group) == max(of_group):
            without.append(means[-1])
        if max(of_group) == 0:
            failed.append(means[-1])
    assert found["policy/kl_after"] == pytest.approx(sum(means) / len(means), rel=1e-5)
    expected = sum(without) / len(without)
    assert found["policy/kl_after_zero_advantage"] == pytest.approx(expected, rel=1e-5)
    expected = sum(failed) / len(failed)
    assert found["policy/kl_after_all_failed"] == pytest.approx(expected, rel=1e-5)


def test_arms_measure_the_same(server: ForkServer, policy: Path, tmp_path: Path):
    """Before the first update the arms are one policy: `wm/nll`, trained on or not, is that of the
    same targets, and all next observations' is that of a placebo's arm too."""
    found = {}
    arms = {
        "paw": {}, "baseline": {"paw__enabled": False}, "placebo": {"paw__target": "shuffled"},
        "blind": {"paw__enabled": False, "run__diagnostics_every": 0},
        "sampled": {"paw__entropy": "sampled"},
    }  # fmt: skip
    for name, changed in arms.items():
        run = tmp_path / name
        settings = {"run__updates": 1, "run__diagnostics_every": 1} | changed
        done = server.run(["train", *flags(policy, run, **settings)])
        assert done.code == 0, done.err
        (found[name],) = metrics(run)
    assert found["paw"]["wm/target_tokens"] > 0 == found["baseline"]["wm/target_tokens"]
    assert found["baseline"]["wm/nll"] == pytest.approx(found["paw"]["wm/nll"], rel=1e-5)
    everything = [found[name]["wm/next_observation_nll"] for name in ("paw", "baseline", "placebo")]
    assert everything == pytest.approx(everything[:1] * 3, rel=1e-5)
    overlaps = {row["wm/selection_overlap"] for row in found.values()}
    assert len(overlaps) == 1 and 0.5 <= overlaps.pop() <= 1
    assert found["blind"]["wm/nll"] is None and "wm/next_observation_nll" not in found["blind"]
