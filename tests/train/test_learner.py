"""One optimizer step: all of it or nothing, at the right rate."""

import copy
import math
from dataclasses import replace

import pytest
import torch

from paw.config.tree import AlgorithmConfig, OptimizerConfig, PawConfig
from paw.errors import RunFailure
from paw.model.critic import Critic
from paw.model.packing import pack
from paw.train.learner import Learner, NonFinite
from paw.train.losses import choose_losses
from paw.train.memory import TokenLimit
from paw.train.statistics import Statistics
from paw.types import TrainingSample

from .fakes import A, C, Observed, gradient, tiny_policy


def sample(weight: float = 0.5, target_weight: float = 0.5) -> TrainingSample:
    """Two prompt tokens, two of an action, two of a target."""
    return TrainingSample(
        token_ids=(4, 5, 6, 7, 8, 9),
        roles=(C, C, A, A, Observed, Observed),
        old_logprobs=(0, 0, -3.0, -2.5, 0, 0),
        advantages=(0, 0, 1.0, 1.0, 0, 0),
        policy_weights=(0, 0, weight, weight, 0, 0),
        target_weights=(0, 0, 0, 0, target_weight, target_weight),
        base_length=4,
        value_positions=(1,),
        value_targets=(2.0,),
        old_values=(0.0,),
        transitions=(0,),
    )


def learner(ppo: bool = False, dtype=torch.float64, **options) -> Learner:
    settings = OptimizerConfig(**({"learning_rate": 1e-2} | options))
    algorithm = AlgorithmConfig(name="ppo" if ppo else "grpo", critic_learning_rate=1e-2)
    policy = tiny_policy(0, dtype)
    critic = Critic.from_policy(tiny_policy(1, dtype)) if ppo else None
    losses = choose_losses(algorithm, PawConfig(loss="ce"))
    return Learner(policy, critic, losses, settings, algorithm.critic_learning_rate)


def action_logprobs(subject: Learner) -> list[float]:
    """Of the two action tokens of `sample`."""
    with torch.no_grad():
        packed = pack([sample().token_ids], "cpu")
        return subject.policy.logprobs(packed, torch.tensor([2, 3]))[0].tolist()


def state(subject: Learner) -> dict[str, torch.Tensor]:
    found = dict(subject.policy.state_dict())
    if subject.critic is not None:
        found |= {f"critic.{k}": v for k, v in subject.critic.state_dict().items()}
    return {k: v.clone() for k, v in found.items()}


def moved(before: dict[str, torch.Tensor], after: dict[str, torch.Tensor]) -> set[str]:
    """Which of policy and critic changed."""
    names = [k for k in before if not torch.equal(before[k].nan_to_num(7), after[k].nan_to_num(7))]
    return {"critic" if k.startswith("critic.") else "policy" for k in names}


def poison(model: torch.nn.Module) -> None:
    with torch.no_grad():
        next(model.parameters())[5, 0] = math.nan


DTYPES = pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16], ids=["f64", "bf16"])
"""Weights that the optimizer steps on themselves, and such that have masters in fp32."""


@DTYPES
@pytest.mark.parametrize("broken", ["policy", "critic"])
def test_nothing_is_stepped_where_a_gradient_is_not_finite(broken, dtype):
    """NaN in the policy or in the critic: neither moves, and the batch comes with the error."""
    subject = learner(True, dtype)
    assert subject.critic is not None and subject.critic_optimizer is not None
    poison(subject.policy.model if broken == "policy" else subject.critic.backbone)
    masters = [*subject.optimizer.masters, *subject.critic_optimizer.masters]
    before, batch = state(subject), [sample(), sample()]
    held = [m.detach().clone() for m in masters]
    with pytest.raises(NonFinite, match="the gradient is not finite") as raised:
        subject.step(batch)
    assert isinstance(raised.value, RunFailure) and raised.value.samples is batch
    assert moved(before, state(subject)) == set()
    assert subject.num_steps == 0
    assert not subject.optimizer.state and not subject.critic_optimizer.state
    parameters = [*subject.policy.parameters(), *subject.critic.parameters()]
    assert all(p.grad is None for p in (*parameters, *masters))
    assert all(
        torch.equal(a.nan_to_num(7), m.nan_to_num(7)) for a, m in zip(held, masters, strict=True)
    )


def test_a_step_is_adamw_on_the_clipped_gradient():
    subject = learner(max_grad_norm=0.1, weight_decay=0.01, betas=(0.8, 0.9))
    expected = copy.deepcopy(subject.policy.model)
    subject.policy_gradient([sample()])
    whole = gradient(subject.policy.parameters())
    norm = float(whole.norm())
    assert norm > 0.2
    optimizer = torch.optim.AdamW(
        expected.parameters(), lr=1e-2, betas=(0.8, 0.9), weight_decay=0.01
    )
    at = 0
    for p in expected.parameters():
        p.grad = whole[at : at + p.numel()].view_as(p) * 0.1 / (norm + 1e-6)
        at += p.numel()
    optimizer.step()
    statistics = subject.step([sample()])
    assert statistics.total("gradient_norm") == pytest.approx(norm)
    found = subject.policy.parameters()
    for a, b in zip(found, expected.parameters(), strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_learning_rate_warms_up_by_policy_steps_and_the_critic_has_its_own():
    subject = learner(ppo=True, warmup_steps=4, learning_rate=0.4)
    assert subject.critic_optimizer is not None

    def rates(**options) -> tuple[float, float]:
        subject.step([sample()], **options)
        assert subject.critic_optimizer is not None
        return (
            subject.optimizer.param_groups[0]["lr"],
            subject.critic_optimizer.param_groups[0]["lr"],
        )

    start = subject.optimizer.param_groups[0]["lr"]
    assert rates(train_policy=False) == (start, 1e-2)
    expected = [0.1, 0.2, 0.3, 0.4, 0.4]
    assert [rates() for _ in range(5)] == [(pytest.approx(r), 1e-2) for r in expected]
    assert rates(rate_share=0.5) == (pytest.approx(0.2), 1e-2)
    assert subject.num_steps == 6


@DTYPES
def test_critic_warm_up_leaves_the_policy_alone(dtype):
    subject = learner(True, dtype)
    before = state(subject)
    subject.step([sample()], train_policy=False)
    assert moved(before, state(subject)) == {"critic"}
    subject.step([sample()])
    assert moved(before, state(subject)) == {"critic", "policy"}


def test_a_batch_without_any_weight_gives_a_gradient_of_zero():
    """Not none at all: sharded ranks must agree."""
    subject = learner()
    subject.policy_gradient([sample(0.0, 0.0)])
    assert all(p.grad is not None and not p.grad.any() for p in subject.policy.parameters())


def test_empty_mini_batch_changes_nothing():
    subject = learner(ppo=True)
    before = state(subject)
    subject.step([])
    assert moved(before, state(subject)) == set()


def test_targets_enter_no_statistic_of_the_policy():
    """Ratio, KL, clip share and entropy are the same with and without a target."""
    names = ["policy_loss", "kl", "clipped", "action_tokens", "entropy"]
    names += ["zero_advantage_kl", "zero_advantage_tokens"]
    with_target = learner().policy_gradient([sample()])
    without = learner().policy_gradient([sample(target_weight=0.0)])
    for name in names:
        assert with_target.total(name) == pytest.approx(without.total(name), rel=1e-12)
    assert with_target.total("action_tokens") == 2
    assert (with_target.total("target_tokens"), without.total("target_tokens")) == (2, 0)
    assert without.total("wm_loss") == 0 < with_target.total("wm_loss")


def test_drift_is_the_kl_from_the_old_policy_over_all_and_over_zero_advantage_rows():
    """r - 1 - ln r of the ratio r = p / p_old, summed; half the rows have no advantage."""
    subject = learner()
    logprobs = action_logprobs(subject)
    ratios = [math.exp(new - old) for new, old in zip(logprobs, (-3.0, -2.5), strict=True)]
    drift = sum(r - 1 - math.log(r) for r in ratios)
    assert drift > 0.01
    rows = [sample(), replace(sample(), zero_advantage=True)]
    statistics = subject.policy_gradient(rows)
    assert statistics.total("kl") == pytest.approx(2 * drift)
    assert statistics.total("zero_advantage_kl") == pytest.approx(drift)
    assert statistics.total("zero_advantage_tokens") == 2
    assert statistics.total("action_tokens") == 4


def test_clipped_are_tokens_beyond_the_range_on_the_side_of_their_advantage():
    """Ratios e and 1 / e against [0.8, 1.2], each with both signs: one in two is clipped."""
    subject = learner()
    for shift, side in ((-1.0, 1.0), (1.0, -1.0)):
        old = [x + shift for x in action_logprobs(subject)]
        for advantages, expected in (((side, side), 2), ((side, -side), 1), ((-side, -side), 0)):
            batch = replace(
                sample(), old_logprobs=(0, 0, *old, 0, 0), advantages=(0, 0, *advantages, 0, 0)
            )
            statistics = subject.policy_gradient([batch])
            assert statistics.total("clipped") == expected


@DTYPES
def test_both_terms_are_measured_at_the_scale_of_the_step(dtype):
    """Over two micro-batches, and the terms measured alone are those of a sum of them alone."""
    norms = []
    for scale in (1.0, 2.0):
        subject = learner(dtype=dtype, tokens_per_micro_batch=4)
        statistics = subject.step([sample()] * 2, scale=scale, diagnose=True)
        norms.append([statistics.total(f"{x}_gradient_norm") for x in ("wm", "policy")])
    assert norms[1] == pytest.approx([2 * x for x in norms[0]]) and min(norms[0]) > 0
    subject = learner(dtype=dtype, tokens_per_micro_batch=4)
    subject.policy_gradient([sample(weight=0.0)] * 2)
    alone = float(gradient(subject.optimizer.masters).norm())
    assert alone == pytest.approx(norms[0][0], rel=1e-6 if dtype == torch.float64 else 0.02)


@pytest.mark.parametrize("weights", [(0.0, 0.5), (0.5, 0.0)])
def test_one_term_alone_has_no_cosine(weights: tuple[float, float]):
    """Neither its gradient's rounding nor a vector of zeros has a direction."""
    subject = learner(dtype=torch.float32, tokens_per_micro_batch=4)
    statistics = subject.step([sample(*weights)] * 3, diagnose=True)
    assert statistics.mean("gradient_cosine", "cosines") is None
    assert statistics.total("measured") == 1


def test_the_value_loss_is_a_mean_over_the_updates_transitions():
    """M = 2 mini-batches of an update of P = 8: 2 / 8 of one transition's gradient."""
    norms = []
    for options in ({}, {"scale": 2.0, "num_transitions": 8}):
        statistics = learner(ppo=True).step([sample()], **options)
        norms.append(statistics.total("critic_gradient_norm"))
    assert norms[1] == pytest.approx(norms[0] / 4) and norms[1] > 0


def test_one_forward_pass_serves_both_losses():
    subject = learner(tokens_per_micro_batch=8)
    for target_weight in (0.0, 0.5):  # two base rows of 4 tokens a pass, appended targets or not
        subject.policy.passes.forwards = subject.policy.passes.rows = 0
        subject.policy_gradient([sample(target_weight=target_weight)] * 5)
        assert (subject.policy.passes.forwards, subject.policy.passes.rows) == (3, 5)


@DTYPES
def test_running_out_of_memory_repeats_the_mini_batch_in_halves(dtype):
    """The second pass of eight tokens fails once: weights and statistics are those of a learner
    that had four from the beginning, to the bit, and the next step begins there."""
    subject, small = (learner(dtype=dtype, tokens_per_micro_batch=n) for n in (8, 4))
    num_passes = 0

    def fail(*_: object) -> None:
        nonlocal num_passes
        num_passes += 1
        if num_passes == 2:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    subject.policy.backbone.register_forward_pre_hook(fail)
    for _ in range(2):
        ours, theirs = (x.step([sample()] * 4) for x in (subject, small))
        assert ours.sums.keys() == theirs.sums.keys()
        assert all(ours.total(name) == theirs.total(name) for name in ours.sums)
    after = state(small)
    assert all(torch.equal(tensor, after[name]) for name, tensor in state(subject).items())
    assert subject.limit == TokenLimit(4, halved=True)
    assert num_passes == 2 + 4 + 4


def test_statistics():
    statistics = Statistics()
    statistics.add(loss=torch.tensor(1.5), tokens=2)
    statistics.add(loss=0.5, tokens=torch.tensor(3))
    assert (statistics.total("loss"), statistics.mean("loss", "tokens")) == (2.0, 0.4)
    assert (statistics.total("nothing"), statistics.mean("loss", "nothing")) == (0, None)
    statistics.merge(statistics)
    assert statistics.total("loss") == 4.0


def test_rows_without_any_weight_are_passed_over():
    """Five rows, two of them silent: three pass; a step of silent rows alone keeps one of them."""
    subject = learner(tokens_per_micro_batch=8)
    rows = [sample(0.0, 0.0), sample(), sample(), sample(0.0, 0.0), sample(0.0)]
    subject.policy_gradient(rows)
    assert (subject.policy.passes.forwards, subject.policy.passes.rows) == (2, 3)
    silent = learner()
    statistics = silent.policy_gradient([sample(0.0, 0.0)] * 3)
    assert (silent.policy.passes.rows, statistics.total("action_tokens")) == (1, 0)
