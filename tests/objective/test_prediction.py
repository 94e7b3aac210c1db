import math

import pytest
import torch

import paw.objective as P


def test_worked_numbers():
    # rho = 0.2. p = 0.1: 1 - p = 0.9; p = 0.5 > rho: 0; p = 0.2 = rho stays: 0.8.
    logprobs = torch.tensor([0.1, 0.5, 0.2], dtype=torch.float64).log()
    expected = torch.tensor([0.9, 0.0, 0.8], dtype=torch.float64)
    torch.testing.assert_close(P.clipped_mae(logprobs, 0.2), expected)
    torch.testing.assert_close(
        P.mean_absolute_error(logprobs), torch.tensor([0.9, 0.5, 0.8], dtype=torch.float64)
    )
    torch.testing.assert_close(P.cross_entropy(logprobs), -logprobs)
    assert P.clipped_tokens(logprobs, 0.2).tolist() == [False, True, False]


def test_one_observation_divides_by_its_full_length():
    # |o| = 4 with one token clipped: (0.9 + 0.8 + 0.95 + 0) / 4, not / 3 (Eq. 9).
    logprobs = torch.tensor([0.1, 0.2, 0.05, 0.5]).log()
    loss = P.weighted_sum(P.clipped_mae(logprobs, 0.2), torch.full((4,), 1 / 4))
    torch.testing.assert_close(loss, torch.tensor(2.65 / 4))


def test_gradient_in_the_logprob():
    # d(1 - e^x)/dx = -e^x = -p below the cap, exactly 0 above it.
    logprobs = torch.tensor([0.1, 0.5, 0.2], dtype=torch.float64).log().requires_grad_()
    P.clipped_mae(logprobs, 0.2).sum().backward()
    expected = torch.tensor([-0.1, 0.0, -0.2], dtype=torch.float64)
    torch.testing.assert_close(logprobs.grad, expected)
    assert logprobs.grad is not None and logprobs.grad[1] == 0


def test_gradient_in_the_target_logit():
    # Through the softmax, MAE gives -p (1 - p) and cross-entropy -(1 - p) at the target logit.
    p = torch.tensor([0.01, 0.15, 0.6], dtype=torch.float64)
    for loss, expected in [
        (P.mean_absolute_error, -p * (1 - p)),
        (P.cross_entropy, -(1 - p)),
        (lambda x: P.clipped_mae(x, 0.2), -p * (1 - p) * (p <= 0.2)),
    ]:
        logits = torch.stack([p.log(), (1 - p).log()], -1).requires_grad_()
        loss(logits.log_softmax(-1)[:, 0]).sum().backward()
        assert logits.grad is not None
        torch.testing.assert_close(logits.grad[:, 0], expected)


def test_finite_differences():
    logprobs = torch.tensor([-0.01, -0.3, -2.0, -9.0], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(P.mean_absolute_error, logprobs)
    assert torch.autograd.gradcheck(P.cross_entropy, logprobs)
    assert torch.autograd.gradcheck(lambda x: P.clipped_mae(x, 0.2), logprobs)


def test_impossible_and_certain_tokens():
    logprobs = torch.tensor([-math.inf, -1e30, 0.0], requires_grad=True)
    loss = P.clipped_mae(logprobs, 1.0)
    assert loss.tolist() == [1.0, 1.0, 0.0]
    loss.sum().backward()
    assert logprobs.grad is not None and logprobs.grad.tolist() == [0.0, 0.0, -1.0]
    assert P.clipped_mae(logprobs, 0.2).tolist() == [1.0, 1.0, 0.0]


def test_cap_one_is_the_mae_and_cap_zero_keeps_only_impossible_tokens():
    logprobs = torch.tensor([-math.inf, -3.0, -1e-3, 0.0])
    assert torch.equal(P.clipped_mae(logprobs, 1.0), P.mean_absolute_error(logprobs))
    assert P.clipped_mae(logprobs, 0.0).tolist() == [1.0, 0.0, 0.0, 0.0]


def test_small_errors_keep_their_digits():
    # 1 - p at log p = -1e-9 is 1e-9; 1 - exp(-1e-9) in float32 would be 0.
    torch.testing.assert_close(
        P.mean_absolute_error(torch.tensor([-1e-9])), torch.tensor([1e-9]), rtol=1e-6, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_computed_in_float32(dtype):
    logprobs = torch.tensor([-0.0123, -1.612, -7.0], dtype=dtype)
    for loss in (P.mean_absolute_error, P.cross_entropy, lambda x: P.clipped_mae(x, 0.2)):
        assert loss(logprobs).dtype == torch.float32
        assert torch.equal(loss(logprobs), loss(logprobs.float()))


def test_nan_shows():
    logprobs = torch.tensor([math.nan])
    assert P.clipped_mae(logprobs, 0.2).isnan() and P.mean_absolute_error(logprobs).isnan()


def test_any_shape():
    assert P.clipped_mae(torch.zeros(2, 0, 3), 0.2).shape == (2, 0, 3)
    assert P.clipped_mae(torch.tensor(-4.0), 0.2).shape == ()


@pytest.mark.parametrize("cap", [-0.1, 1.5, math.nan])
def test_bad_cap(cap):
    with pytest.raises(ValueError, match=r"probability_cap must be in \[0, 1\]"):
        P.clipped_mae(torch.zeros(1), cap)
