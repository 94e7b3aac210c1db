import math

import pytest
import torch

import paw.objective as P


def test_worked_numbers():
    # q = (1/2, 1/4, 1/4): H = 1/2 log 2 + 2 * 1/4 log 4 = 1.5 log 2.
    # Uniform over 4: log 4. One token certain: 0.
    logits = torch.tensor([[0.5, 0.25, 0.25, 0.0], [0.25] * 4, [1.0, 0, 0, 0]]).log()
    expected = torch.tensor([1.5 * math.log(2), math.log(4), 0.0])
    torch.testing.assert_close(P.token_entropy(logits), expected)
    # A constant added to the logits changes nothing.
    torch.testing.assert_close(P.token_entropy(logits + 3), expected)


def test_sampled_worked_numbers():
    # -q log q at q = 1/2: log(2)/2; at q = 1/e its largest value 1/e; 0 at both ends.
    logprobs = torch.tensor([math.log(0.5), -1.0, 0.0, -math.inf])
    expected = torch.tensor([math.log(2) / 2, math.exp(-1), 0.0, 0.0])
    torch.testing.assert_close(P.sampled_token_entropy(logprobs), expected)


def test_entropy_is_the_sum_of_every_token_s_own_term():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    terms = P.sampled_token_entropy(logits.log_softmax(-1)).sum(-1)
    torch.testing.assert_close(P.token_entropy(logits), terms)


def test_gradients():
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(3, 5, dtype=torch.float64, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(P.token_entropy, logits)
    assert torch.autograd.gradcheck(
        P.sampled_token_entropy, (-logits.detach().abs()).requires_grad_()
    )


def test_gradients_are_finite_at_impossible_tokens():
    logits = torch.tensor([[0.0, 1.0, -math.inf], [0.0, -500.0, 300.0]], requires_grad=True)
    P.token_entropy(logits).sum().backward()
    assert logits.grad is not None and logits.grad.isfinite().all()
    logprobs = torch.tensor([0.0, -1e4, -math.inf], requires_grad=True)
    P.sampled_token_entropy(logprobs).sum().backward()
    # d(-q log q)/d log q = -q (1 + log q): -1 at q = 1.
    torch.testing.assert_close(logprobs.grad, torch.tensor([-1.0, 0.0, 0.0]))


def test_half_precision_is_computed_in_float32():
    logits = torch.randn(4, 1000, generator=torch.Generator().manual_seed(0)).bfloat16()
    entropy = P.token_entropy(logits)
    assert entropy.dtype == torch.float32
    torch.testing.assert_close(entropy, P.token_entropy(logits.float()))


def test_nan_shows():
    assert P.token_entropy(torch.tensor([0.0, math.nan])).isnan()
    assert P.sampled_token_entropy(torch.tensor([math.nan])).isnan()


def test_bad_shape():
    with pytest.raises(ValueError, match=r"logits must be \[\.\.\., V\]"):
        P.token_entropy(torch.zeros(3, 0))
