import math

import pytest
import torch

import paw.objective as P


def f64(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_surrogate_worked_numbers():
    # clip 0.2 below, 0.28 above.
    #  ratio 1.1, A = 2: -2.2           ratio 1.5, A = 2: upper clip, -1.28 * 2 = -2.56
    #  ratio 0.5, A = 2: -1 (no clip)   ratio 0.5, A = -2: lower clip, 0.8 * 2 = 1.6
    #  ratio 1.5, A = -2: 3 (no clip)
    ratio, advantages = f64(1.1, 1.5, 0.5, 0.5, 1.5), f64(2, 2, 2, -2, -2)
    logprobs = ratio.log().requires_grad_()
    loss = P.clipped_surrogate(logprobs, torch.zeros(5).double(), advantages, 0.2, 0.28)
    torch.testing.assert_close(loss.detach(), f64(-2.2, -2.56, -1.0, 1.6, 3.0))
    # d loss / d logprob = -A ratio where not clipped, exactly 0 where clipped.
    loss.sum().backward()
    torch.testing.assert_close(logprobs.grad, f64(-2.2, 0, -1, 0, 3))
    assert logprobs.grad is not None and logprobs.grad[[1, 3]].tolist() == [0.0, 0.0]


def test_surrogate_on_policy_gradient_is_minus_the_advantage():
    logprobs = torch.tensor([-1.0, -2.0], requires_grad=True)
    loss = P.clipped_surrogate(logprobs, logprobs.detach(), torch.tensor([3.0, -1.0]), 0.0, 0.0)
    loss.sum().backward()
    assert loss.tolist() == [-3.0, 1.0]
    assert logprobs.grad is not None and logprobs.grad.tolist() == [-3.0, 1.0]


def test_surrogate_gradient_is_finite_at_extremes():
    logprobs = torch.tensor([500.0, -math.inf, 500.0, -math.inf, -math.inf], requires_grad=True)
    old = torch.tensor([0.0, -1.0, 0.0, -1.0, -math.inf])
    advantages = torch.tensor([0.0, 0.0, 1.0, -1.0, 0.0])
    loss = P.clipped_surrogate(logprobs, old, advantages, 0.2, 0.2)
    torch.testing.assert_close(loss.detach(), torch.tensor([0.0, 0.0, -1.2, 0.8, 0.0]))
    loss.sum().backward()
    assert logprobs.grad is not None and logprobs.grad.tolist() == [0.0] * 5


def test_surrogate_constants_get_no_gradient():
    logprobs, old, advantages = (torch.ones(2, requires_grad=True) for _ in range(3))
    P.clipped_surrogate(logprobs, old, advantages, 0.2, 0.2).sum().backward()
    assert logprobs.grad is not None and old.grad is None and advantages.grad is None


def test_surrogate_finite_differences():
    logprobs = f64(-0.5, -1.0, -2.0, -0.1).requires_grad_()
    old, advantages = f64(-0.6, -0.2, -2.5, -0.1), f64(1.0, -1.0, -0.5, 0.0)
    assert torch.autograd.gradcheck(
        lambda x: P.clipped_surrogate(x, old, advantages, 0.2, 0.2), logprobs
    )


def test_surrogate_bad_input():
    one = torch.zeros(3)
    with pytest.raises(
        ValueError, match=r"logprobs \[3\], old_logprobs \[3\], advantages \[3, 1\]"
    ):
        P.clipped_surrogate(one, one, torch.zeros(3, 1), 0.2, 0.2)
    for low, high in [(-0.1, 0.2), (1.1, 0.2), (0.2, -0.1), (math.nan, 0.2)]:
        with pytest.raises(ValueError, match="clip_low must be in"):
            P.clipped_surrogate(one, one, one, low, high)


def test_importance_worked_numbers():
    # exp of the difference, at most 2:  exp(log 1.5) = 1.5   exp(0) = 1   exp(-log 4) = 0.25
    #  exp(log 8) = 8, capped to 2; inf: no cap. Overflow is the cap, a token of probability 0 is 0.
    scored = f64(-1 + math.log(1.5), -2, -1 - math.log(4), -1, 1000, -math.inf)
    sampled = f64(-1, -2, -1, -1 - math.log(8), -1000, -1)
    weights = P.truncated_importance(scored.requires_grad_(), sampled.requires_grad_(), 2.0)
    torch.testing.assert_close(weights, f64(1.5, 1, 0.25, 2, 2, 0))
    assert not weights.requires_grad
    assert P.truncated_importance(scored, sampled, math.inf)[3].item() == pytest.approx(8)
    half = P.truncated_importance(scored.detach().bfloat16(), sampled.detach().bfloat16(), 2.0)
    assert half.dtype == torch.float32
    for cap, line in ((0.0, "cap must be > 0"), (math.nan, "cap must be > 0")):
        with pytest.raises(ValueError, match=line):
            P.truncated_importance(scored, sampled, cap)
    with pytest.raises(ValueError, match="shapes must be equal"):
        P.truncated_importance(scored, sampled[:-1], 2.0)


def test_kl_worked_numbers():
    # d = log 2: 2 - log 2 - 1; d = -log 2: 1/2 + log 2 - 1; equal: 0.
    logprobs, ref = f64(0, 0, -1).requires_grad_(), f64(math.log(2), -math.log(2), -1)
    estimate = P.kl_estimate(logprobs, ref)
    expected = f64(1 - math.log(2), math.log(2) - 0.5, 0)
    torch.testing.assert_close(estimate.detach(), expected)
    # d/d logprob = 1 - exp(d).
    estimate.sum().backward()
    torch.testing.assert_close(logprobs.grad, f64(-1, 0.5, 0))


def test_kl_is_unbiased():
    # The mean under the policy of the estimate over all tokens is the KL itself.
    generator = torch.Generator().manual_seed(0)
    p, q = torch.randn(2, 9, dtype=torch.float64, generator=generator).log_softmax(-1)
    exact = (p.exp() * (p - q)).sum()
    torch.testing.assert_close((p.exp() * P.kl_estimate(p, q)).sum(), exact)
    assert (P.kl_estimate(p, q) >= 0).all()


def test_kl_edges():
    logprobs = torch.tensor([0.0, -3.0])
    assert P.kl_estimate(logprobs, torch.tensor([-math.inf, -3.0])).tolist() == [math.inf, 0.0]
    ref = torch.zeros(2, requires_grad=True)
    assert not P.kl_estimate(torch.zeros(2), ref).requires_grad
    with pytest.raises(ValueError, match=r"logprobs \[2\], ref_logprobs \[3\]"):
        P.kl_estimate(logprobs, torch.zeros(3))


def test_value_loss_worked_numbers():
    # V = 2, R = 0, V_old = 1, clip 0.5: V_clip = 1.5; 0.5 max(4, 2.25) = 2.
    # V = 2, R = 3: 0.5 max(1, 2.25) = 1.125, the clipped error, gradient 0.
    # V = 1.2, R = 0: inside the clip, 0.5 * 1.44 = 0.72 with gradient V - R = 1.2.
    values = f64(2, 2, 1.2).requires_grad_()
    returns, old = f64(0, 3, 0), f64(1, 1, 1)
    loss = P.value_loss(values, returns, old, 0.5)
    torch.testing.assert_close(loss.detach(), f64(2, 1.125, 0.72))
    loss.sum().backward()
    torch.testing.assert_close(values.grad, f64(2, 0, 1.2))
    torch.testing.assert_close(P.value_loss(values, returns, old, None), f64(2, 0.5, 0.72))


def test_value_loss_finite_differences_and_constants():
    values, returns, old = (f64(*row).requires_grad_() for row in [(2, 0.3), (0, 3), (1, 0.2)])
    P.value_loss(values, returns, old, 0.5).sum().backward()
    assert returns.grad is None and old.grad is None
    for clip in (None, 0.5):
        assert torch.autograd.gradcheck(
            lambda x, clip=clip: P.value_loss(x, returns.detach(), old.detach(), clip), values
        )


def test_value_loss_bad_input():
    with pytest.raises(ValueError, match="clip must be >= 0 or None"):
        P.value_loss(f64(1), f64(1), f64(1), -0.1)
    with pytest.raises(ValueError, match=r"values \[1\], returns \[1\], old_values \[2\]"):
        P.value_loss(f64(1), f64(1), f64(1, 1), None)


def test_half_precision_is_computed_in_float32():
    x, y = torch.tensor([-0.5, -3.0]).bfloat16(), torch.tensor([-0.7, -2.0]).bfloat16()
    for loss in (
        lambda a, b: P.clipped_surrogate(a, b, a, 0.2, 0.2),
        P.kl_estimate,
        lambda a, b: P.value_loss(a, b, b, 0.2),
    ):
        assert loss(x, y).dtype == torch.float32
        assert torch.equal(loss(x, y), loss(x.float(), y.float()))


def test_clipped_actions_are_those_whose_gradient_the_clip_takes():
    """Ratios e, 1 / e and 1 against [0.8, 1.2], each with A = 1, -1 and 0."""
    logprobs = torch.tensor([1.0, -1.0, 0.0]).repeat_interleave(3).requires_grad_()
    advantages = torch.tensor([1.0, -1.0, 0.0]).repeat(3)
    old = torch.zeros(9)
    found = P.clipped_actions(logprobs, old, advantages, 0.2, 0.2)
    assert found.tolist() == [True, False, False, False, True, False, False, False, False]
    P.clipped_surrogate(logprobs, old, advantages, 0.2, 0.2).sum().backward()
    assert logprobs.grad is not None
    assert torch.equal(logprobs.grad == 0, found | (advantages == 0))
    with pytest.raises(ValueError, match="clip_low must be in"):
        P.clipped_actions(logprobs, old, advantages, -0.1, 0.2)
    with pytest.raises(ValueError, match="shapes must be equal"):
        P.clipped_actions(logprobs, old[:3], advantages, 0.2, 0.2)
