"""The LM head at Qwen's vocabulary: chunked, plain, and liger's where it is installed."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor

from gpu_parts.bench import Bench, Cell, Numbers
from gpu_parts.models import VOCAB
from paw.model.head import token_logprobs

Loss = Callable[[Tensor, Tensor, Tensor], Tensor]


def cells(bench: Bench) -> Iterator[Cell]:
    """Each head forward and backward on the same positions."""
    yield "chunked, with entropy", 5, partial(measure, bench, chunked)
    yield "plain logits, cross-entropy", 5, partial(measure, bench, plain)
    try:
        liger = _liger()
    except ImportError:
        yield "liger", 0, lambda: {"note": "liger-kernel is not installed"}
    else:
        yield "liger", 10, partial(measure, bench, liger)


def chunked(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Ours: per-token log-probabilities, and entropies beside them."""
    return -token_logprobs(hidden, weight, targets)[0].mean()


def plain(hidden: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """As a causal LM of transformers computes its loss."""
    return F.cross_entropy((hidden @ weight.T).float(), targets)


def _liger() -> Loss:
    from liger_kernel.transformers import (  # pyright: ignore[reportMissingImports]
        LigerFusedLinearCrossEntropyLoss,
    )

    loss = LigerFusedLinearCrossEntropyLoss()
    return lambda hidden, weight, targets: loss(weight, hidden, targets)


def measure(bench: Bench, loss: Loss) -> Numbers:
    """Seconds and peak memory of a forward and backward pass, and its loss."""
    positions, size, vocabulary = (64, 32, 2000) if bench.toy else (8192, 1536, VOCAB)
    dtype = torch.float32 if bench.toy else torch.bfloat16
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(positions, size, generator=generator)
    weight = torch.randn(vocabulary, size, generator=generator) / size**0.5
    targets = torch.randint(vocabulary, (positions,), generator=generator).to(bench.device)
    hidden, weight = (x.to(bench.device, dtype).requires_grad_() for x in (hidden, weight))
    found: Numbers = {}

    def work() -> None:
        hidden.grad = weight.grad = None
        value = loss(hidden, weight, targets)
        value.backward()
        found["loss"] = value.item()

    work()  # warms up
    with bench.peak(found):
        found["seconds"] = min(bench.seconds(work) for _ in range(1 if bench.toy else 3))
    return found
