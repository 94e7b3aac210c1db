"""Token log-probabilities and entropies without a [positions, vocabulary] tensor.

The LM head runs over chunks of positions and keeps one log-normaliser per position; the backward
pass computes each chunk's logits again. Every loss of this package (clipped surrogate, KL,
cross-entropy, clipped MAE) is ordinary torch on the returned vectors, so the head needs exactly
one gradient: d loss / d logprob.
"""

from collections.abc import Collection
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

LOGITS_PER_CHUNK = {"cpu": 2**25, "cuda": 2**26}
"""Logits alive at a time: 128 and 256 MiB in fp32. Each chunk's part of the weight's gradient is
added to all of it, which on an H200 took as long as the matrix products with half as many."""
LOGITS_IN_CACHE = 2**19
"""On a CPU: 2 MiB in fp32, which the passes over them find in its cache."""


def chunk_size(vocabulary: int, device: str) -> int:
    """Positions whose logits are alive at a time, for V = `vocabulary` on "cpu" or "cuda"."""
    chunk = max(1, LOGITS_PER_CHUNK[device] // vocabulary)
    if device == "cpu":  # below 256 positions the matrix products get slow
        chunk = min(chunk, max(256, LOGITS_IN_CACHE // vocabulary))
    return chunk


class TokenLogprobs(nn.Module):
    """An output embedding as the log-probabilities of chosen tokens.

    It holds the model's own layer, not a copy: one weight, trained and sharded with the model.

    Attributes:
        unknown: ids of rows that no token uses (embeddings are padded to round sizes). They have
            probability 0 wherever the policy samples, scores and learns.
    """

    unknown: Tensor | None

    def __init__(self, embedding: Any):
        """`embedding`: a linear layer from hidden states to the vocabulary."""
        super().__init__()
        self.embedding = embedding
        self.register_buffer("unknown", None, persistent=False)

    def forget(self, unknown: Collection[int]) -> None:
        """Set `unknown`, at start; none leaves every logit as it is."""
        place = self.embedding.weight.device
        self.unknown = torch.tensor(sorted(unknown), device=place) if unknown else None

    def forward(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Log-probabilities [S] of targets [S] and entropies [S]; see `token_logprobs`."""
        return self.scores(hidden, targets)[:2]

    def scores(self, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same, and which targets are the most probable token; see `token_scores`."""
        bias = getattr(self.embedding, "bias", None)
        return token_scores(hidden, self.embedding.weight, targets, bias, unknown=self.unknown)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [S, V] of hidden states [S, H], in fp32 or wider: for sampling, a token a row."""
        logits = self.embedding(hidden)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return _without(logits, self.unknown)


def token_logprobs(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    chunk: int | None = None,
    unknown: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Log-probability of each target and entropy of the distribution it was drawn from.

    With z = hidden W^T + bias: logprob_s = z[s, y_s] - logsumexp(z[s]) and, in nats,
    entropy_s = logsumexp(z[s]) - sum_v p[s, v] z[s, v], both at temperature 1.

    Args:
        hidden: [S, H] final hidden states. The matrix products run in its dtype, everything
            after them in fp32 (float64 for float64 input).
        weight: [V, H] output embedding.
        targets: [S] long.
        bias: [V] of the output embedding, where it has one.
        chunk: positions whose logits are alive at a time; by default `chunk_size`.
        unknown: [U] ids of probability 0.

    Returns:
        logprobs: [S], differentiable once with respect to hidden, weight and bias. Rows whose
            incoming gradient is 0 (clipped or unselected tokens) cost nothing in the backward.
        entropy: [S], not differentiable.
    """
    return token_scores(hidden, weight, targets, bias, chunk, unknown)[:2]


def token_scores(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None = None,
    chunk: int | None = None,
    unknown: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same as `token_logprobs`, and is_top [S] bool: no token is more probable than the target.
    Where several are the most probable, each of them is on top."""
    if chunk is None:
        chunk = chunk_size(weight.shape[0], weight.device.type)
    return _TokenLogprobs.apply(hidden, weight, targets, bias, unknown, chunk)


def _logits(hidden: Tensor, weight: Tensor, bias: Tensor | None, unknown: Tensor | None) -> Tensor:
    """In fp32 or wider, unless `_is_narrow`."""
    logits = hidden @ weight.T
    if not _is_narrow(hidden, bias):
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return _without(logits if bias is None else logits.add_(bias), unknown)


def _without(logits: Tensor, unknown: Tensor | None) -> Tensor:
    """`logits` with the lowest finite number for ids of probability 0: 0 x infinity would make
    entropies NaN."""
    if unknown is None:
        return logits
    return logits.index_fill_(1, unknown, torch.finfo(logits.dtype).min)


def _is_narrow(hidden: Tensor, bias: Tensor | None) -> bool:
    """Softmax reads logits of a narrow dtype as they are, computes in fp32 and rounds what it
    writes: a quarter of the backward's bytes, and bytes are what a GPU waits for here. A bias would
    be rounded with them."""
    return hidden.dtype.itemsize < 4 and bias is None


def _statistics(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """Of each row of wide logits: log-prob of its target, entropy, log-normaliser, is the target
    on top."""
    # log-sum-exp by hand: its exponentials serve the entropy too.
    top = logits.amax(-1)
    masses = (logits - top[:, None]).exp_()
    mass = masses.sum(-1)
    lse = mass.log() + top
    chosen = logits.gather(1, targets[:, None]).squeeze(1)
    entropy = lse - torch.linalg.vecdot(masses, logits) / mass
    return chosen - lse, entropy, lse, chosen == top


def _narrow_statistics(logits: Tensor, targets: Tensor) -> tuple[Tensor, ...]:
    """The same of narrow logits."""
    logprobs = logits.log_softmax(-1, dtype=torch.float32)
    chosen, logprob = (x.gather(1, targets[:, None]).squeeze(1) for x in (logits, logprobs))
    entropy = -torch.linalg.vecdot(logprobs.exp(), logprobs)
    return logprob, entropy, chosen - logprob, chosen == logits.amax(-1)


class _TokenLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx, hidden, weight, targets, bias, unknown, chunk):
        narrow = weight.to(hidden.dtype)
        wide = torch.promote_types(hidden.dtype, torch.float32)
        logprobs = hidden.new_empty(len(hidden), dtype=wide)
        entropy = torch.empty_like(logprobs)
        log_normaliser = torch.empty_like(logprobs)
        is_top = torch.empty_like(logprobs, dtype=torch.bool)
        columns = logprobs, entropy, log_normaliser, is_top
        statistics = _narrow_statistics if _is_narrow(hidden, bias) else _statistics
        for i in range(0, len(hidden), chunk):
            rows = slice(i, i + chunk)
            found = statistics(_logits(hidden[rows], narrow, bias, unknown), targets[rows])
            for column, values in zip(columns, found, strict=True):
                column[rows] = values
        ctx.save_for_backward(hidden, weight, targets, bias, unknown, log_normaliser)
        ctx.chunk = chunk
        ctx.mark_non_differentiable(entropy, is_top)
        ctx.set_materialize_grads(False)
        return logprobs, entropy, is_top

    @staticmethod
    @once_differentiable
    def backward(ctx, *grad_outputs):  # pyright: ignore[reportIncompatibleMethodOverride]
        grad_logprobs = grad_outputs[0]
        if grad_logprobs is None:
            return None, None, None, None, None, None
        hidden, weight, targets, bias, unknown, log_normaliser = ctx.saved_tensors
        wants_hidden, wants_weight, _, wants_bias, _, _ = ctx.needs_input_grad
        narrow = weight.to(hidden.dtype)
        grad_hidden = torch.zeros_like(hidden) if wants_hidden else None
        # Sums over many chunks drift in bf16, so they are kept in fp32.
        wide = log_normaliser.dtype
        grad_weight = torch.zeros_like(weight, dtype=wide) if wants_weight else None
        grad_bias = torch.zeros_like(bias, dtype=wide) if wants_bias else None
        is_narrow = _is_narrow(hidden, bias)
        chunk = ctx.chunk * (wide.itemsize // hidden.dtype.itemsize if is_narrow else 1)  # as bytes
        for rows in grad_logprobs.nonzero().squeeze(1).split(chunk):
            h, g, chosen = hidden[rows], grad_logprobs[rows, None], targets[rows, None]
            lse, logits = log_normaliser[rows, None], _logits(h, narrow, bias, unknown)
            if is_narrow:
                # d logprob / d logits = onehot - p. `g` scales rows of H instead of V numbers, and
                # 1 - p of the target comes from its log: p itself is rounded.
                grad_logits = logits.softmax(-1)
                errors = torch.expm1(logits.gather(1, chosen) - lse)
                grad_logits.scatter_(1, chosen, errors.to(grad_logits.dtype))
                scale, h = -g, (h * -g).to(h.dtype)
            else:
                grad_logits = logits.sub_(lse).exp_()
                grad_logits.mul_(-g).scatter_add_(1, chosen, g)
                if grad_bias is not None:
                    grad_bias += grad_logits.sum(0)
                grad_logits, scale = grad_logits.to(hidden.dtype), None
            del logits  # before the products, and before the next chunk's
            if grad_hidden is not None:
                of_rows = grad_logits @ narrow
                grad_hidden[rows] = of_rows if scale is None else of_rows.mul_(scale)
            if grad_weight is not None:
                if grad_weight.dtype == h.dtype:
                    grad_weight.addmm_(grad_logits.T, h)
                else:
                    grad_weight += grad_logits.T @ h
            del grad_logits
        if grad_weight is not None:
            grad_weight = grad_weight.to(weight.dtype)
        if grad_bias is not None:
            grad_bias = grad_bias.to(bias.dtype)
        return grad_hidden, grad_weight, None, grad_bias, None, None
