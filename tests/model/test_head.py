import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

from paw.model.head import TokenLogprobs, chunk_size, token_logprobs, token_scores


def reference(hidden, weight, targets, bias=None):
    logits = hidden @ weight.T if bias is None else hidden @ weight.T + bias
    logprobs = logits.log_softmax(-1)
    entropy = -(logprobs.exp() * logprobs).sum(-1)
    return logprobs.gather(1, targets[:, None]).squeeze(1), entropy


def random_case(positions, size, vocab, dtype=torch.float32, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(positions, size, generator=generator, dtype=dtype).requires_grad_()
    weight = torch.randn(vocab, size, generator=generator, dtype=dtype).requires_grad_()
    bias = torch.randn(vocab, generator=generator, dtype=dtype).requires_grad_()
    targets = torch.randint(vocab, (positions,), generator=generator)
    return hidden, weight, targets, bias


def test_worked_numbers():
    # Logits (0, ln 3): p = (1/4, 3/4), entropy = 1/4 ln 4 + 3/4 ln(4/3) = ln 4 - 3/4 ln 3.
    hidden = torch.tensor([[1.0], [1.0]])
    weight = torch.tensor([[0.0], [math.log(3)]])
    logprobs, entropy = token_logprobs(hidden, weight, torch.tensor([0, 1]))
    torch.testing.assert_close(logprobs, torch.tensor([math.log(0.25), math.log(0.75)]))
    torch.testing.assert_close(entropy, torch.full((2,), math.log(4) - 0.75 * math.log(3)))


@settings(max_examples=25, deadline=None)
@given(
    positions=st.integers(0, 9),
    vocab=st.integers(2, 40),
    chunk=st.integers(1, 10),
    seed=st.integers(0, 1000),
)
def test_equals_log_softmax_for_every_chunk(positions, vocab, chunk, seed):
    hidden, weight, targets, bias = random_case(positions, 5, vocab, seed=seed)
    ours = token_logprobs(hidden, weight, targets, bias, chunk=chunk)
    theirs = reference(hidden, weight, targets, bias)
    torch.testing.assert_close(ours, theirs)
    grad = torch.randn(positions, generator=torch.Generator().manual_seed(seed))
    inputs = (hidden, weight, bias)
    torch.testing.assert_close(
        torch.autograd.grad(ours[0], inputs, grad), torch.autograd.grad(theirs[0], inputs, grad)
    )


@pytest.mark.parametrize("bias", [False, True])
def test_the_module_is_the_function_on_the_layers_own_weight(bias):
    hidden, _, targets, _ = random_case(6, 5, 11)
    layer = torch.nn.Linear(5, 11, bias=bias)
    head = TokenLogprobs(layer)
    assert {id(p) for p in head.parameters()} == {id(p) for p in layer.parameters()}
    ours = head(hidden, targets)
    theirs = token_logprobs(hidden, layer.weight, targets, layer.bias)
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))
    ours[0].sum().backward()
    assert all(p.grad is not None for p in layer.parameters())
    torch.testing.assert_close(
        head.logits(hidden).log_softmax(-1).gather(1, targets[:, None]), ours[0][:, None]
    )
    assert head.bfloat16().logits(hidden.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("chunk", [1, 3, 100])
def test_gradcheck(chunk):
    hidden, weight, targets, bias = random_case(5, 4, 7, torch.float64)
    assert torch.autograd.gradcheck(
        lambda h, w, b: token_logprobs(h, w, targets, b, chunk=chunk)[0], (hidden, weight, bias)
    )


def test_float64_stays_float64():
    hidden, weight, targets, _ = random_case(3, 4, 7, torch.float64)
    assert all(x.dtype == torch.float64 for x in token_logprobs(hidden, weight, targets))


def test_entropy_is_not_differentiable():
    hidden, weight, targets, _ = random_case(3, 4, 7)
    logprobs, entropy = token_logprobs(hidden, weight, targets)
    assert logprobs.requires_grad and not entropy.requires_grad


def test_rows_without_gradient_are_skipped():
    # A row that is not computed again cannot spread the NaN in it.
    hidden, weight, targets, _ = random_case(4, 4, 7)
    with torch.no_grad():
        hidden[1] = torch.nan
    logprobs, _ = token_logprobs(hidden, weight, targets)
    logprobs.backward(torch.tensor([1.0, 0.0, -2.0, 0.0]))
    assert weight.grad.isfinite().all() and hidden.grad.isfinite().all()
    assert (hidden.grad[[1, 3]] == 0).all() and (hidden.grad[[0, 2]] != 0).all()


class _CalledOperators(TorchDispatchMode):
    def __init__(self):
        super().__init__()
        self.names: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.names.add(func.__name__)
        return func(*args, **(kwargs or {}))


def test_frozen_weight_costs_no_gradient():
    hidden, weight, targets, _ = random_case(4, 4, 7)
    expected = torch.autograd.grad(reference(hidden, weight, targets)[0].sum(), hidden)[0]
    for trainable in (True, False):
        weight.requires_grad_(trainable)
        hidden.grad = None
        with _CalledOperators() as called:
            token_logprobs(hidden, weight, targets)[0].sum().backward()
        assert ("addmm_.default" in called.names) == trainable  # grad_W is summed by addmm_
        torch.testing.assert_close(hidden.grad, expected)


def test_no_positions_give_zero_gradients():
    hidden, weight, targets, _ = random_case(0, 4, 7)
    token_logprobs(hidden, weight, targets)[0].sum().backward()
    assert (weight.grad == 0).all()


def test_bf16_reduces_in_fp32():
    # Against the fp32 value at the rounded inputs; 2000 summed rows would drift in bf16.
    hidden, weight, targets, _ = random_case(2000, 8, 50)
    narrow = hidden.detach().bfloat16().requires_grad_()
    rounded = narrow.detach().float()
    logprobs, entropy = token_logprobs(narrow, weight.detach().bfloat16().requires_grad_(), targets)
    assert logprobs.dtype == entropy.dtype == torch.float32
    wide = weight.detach().bfloat16().float().requires_grad_()
    expected = reference(rounded, wide, targets)
    # A logit of size 8 is rounded by at most 8 / 2^8 / 2.
    torch.testing.assert_close(logprobs, expected[0], rtol=0, atol=2**-4)
    weight_bf16 = wide.detach().bfloat16().requires_grad_()
    token_logprobs(rounded.bfloat16(), weight_bf16, targets, chunk=10)[0].sum().backward()
    expected[0].sum().backward()
    error = (weight_bf16.grad.float() - wide.grad).norm() / wide.grad.norm()
    assert error < 2**-7


def test_bf16_gradients_are_those_of_the_rounded_logits():
    # p - onehot, its product and the scaling by the incoming gradient are rounded to 2^-8 each, so
    # the sum is off by less than 2^-6 of its terms' sizes. Row 0 is sure of its target, where p
    # alone would round to 1 and the target's part of the gradient to 0; id 5 has probability 0.
    hidden, weight, targets, _ = random_case(40, 8, 30)
    hidden, weight = (x.detach().bfloat16().requires_grad_() for x in (hidden, weight))
    unknown = torch.tensor([5])
    targets[targets == 5] = 4
    with torch.no_grad():
        targets[0] = weight.float().norm(dim=1).argmax()  # w w' is largest for w' = w
        hidden[0] = weight[targets[0]]
    scale = torch.logspace(-8, 0, 40)
    logprobs, entropy, is_top = token_scores(hidden, weight, targets, unknown=unknown, chunk=7)
    ours = torch.autograd.grad(logprobs, (hidden, weight), scale)

    logits = (hidden @ weight.T).float().index_fill(1, unknown, -torch.inf)
    p = logits.softmax(-1)
    torch.testing.assert_close(logprobs, logits.log_softmax(-1)[range(40), targets])
    torch.testing.assert_close(entropy, torch.special.entr(p).sum(-1))
    assert torch.equal(is_top, logits[range(40), targets] == logits.amax(-1)) and is_top[0]
    assert 1e-6 < 1 - p[0, targets[0]] < 2**-9
    errors = torch.nn.functional.one_hot(targets, 30) - p
    errors[0, targets[0]] = -torch.expm1(logits.log_softmax(-1)[0, targets[0]])
    errors *= scale[:, None]
    expected = errors @ weight.float(), errors.T @ hidden.float()
    sizes = errors.abs() @ weight.float().abs(), errors.abs().T @ hidden.float().abs()
    for got, right, size in zip(ours, expected, sizes, strict=True):
        assert ((got.float() - right).abs() <= 2**-6 * size).all()


class _LargestTensor(TorchDispatchMode):
    num_bytes = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.num_bytes = max(self.num_bytes, tensor.nbytes)
        return out


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_never_holds_positions_times_vocabulary(dtype):
    positions, size, vocab, chunk = 64, 4, 200, 8
    hidden, weight, targets, _ = random_case(positions, size, vocab, dtype)
    with _LargestTensor() as largest:
        logprobs, _ = token_logprobs(hidden, weight, targets, chunk=chunk)
        logprobs.sum().backward()
    assert largest.num_bytes == 4 * chunk * vocab


def test_chunks_fit_a_cpus_cache_where_the_vocabulary_lets_them():
    """2^19 logits of 351 words are 1493.7 positions; of 151,936 words 3.5, too few for a matrix
    product, and 2^25 are 220.8."""
    assert chunk_size(351, "cpu") == 1493
    assert chunk_size(4500, "cpu") == 256
    assert (chunk_size(151_936, "cpu"), chunk_size(151_936, "cuda")) == (220, 441)
    assert chunk_size(351, "cuda") == 2**26 // 351
