"""The packed learner against a padded batch of transformers, and both against the card's peak."""

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from gpu_parts.bench import Bench, Cell, Numbers
from gpu_parts.models import build, shapes, training_flops
from paw.model.packing import pack, use_packed_attention
from paw.model.policy import Policy

SCORED = 0.7
"""Share of a row's tokens that are actions: 64 of about 94 a turn."""
PADDED_TOKENS = 8192
"""Of one padded batch of transformers, whose logits stand in memory at once."""


def cells(bench: Bench) -> Iterator[Cell]:
    """One micro-batch of conversations, forward and backward, a shape."""
    for shape in shapes(bench):
        policy = Policy(build(bench, shape))
        yield f"{shape}, forward + backward", 20, partial(compare, bench, policy)
        del policy


def compare(bench: Bench, policy: Policy) -> Numbers:
    """Tokens a second and shares of the peak of both."""
    rng = random.Random(0)
    total, low, high = (200, 10, 60) if bench.toy else (16_384, 600, 3000)
    lengths: list[int] = []
    while sum(lengths) < total:
        lengths.append(min(rng.randint(low, high), max(total - sum(lengths), 2)))
    rows = [rng.choices(range(policy.config.vocab_size), k=n) for n in lengths]
    scored = [sorted(rng.sample(range(1, n), int(SCORED * (n - 1)) or 1)) for n in lengths]
    flops = training_flops(policy.model, lengths, sum(map(len, scored)))
    found: Numbers = {"tokens": sum(lengths)}
    for name, work in (
        ("packed", partial(learn_packed, policy, rows, scored)),
        ("padded", partial(learn_padded, bench, policy.model, rows, scored)),
    ):
        try:
            seconds = _measured(bench, policy, work, found, f"{name}_peak_gib")
        except torch.OutOfMemoryError:
            found[name] = "out of memory"
            continue
        found[f"{name}_s"] = seconds
        found[f"{name}_tokens_per_s"] = sum(lengths) / seconds
        if bench.peak_flops:
            found[f"{name}_of_peak"] = flops / seconds / bench.peak_flops
    return found


def _measured(bench: Bench, policy: Policy, work: Any, found: Numbers, peak: str) -> float:
    """The fastest of a few seconds of `work`, gradients dropped between."""

    def drop() -> None:
        for parameter in policy.parameters():
            parameter.grad = None

    work()  # warms up
    drop()
    times = []
    with bench.peak(found, peak):
        for _ in range(1 if bench.toy else 3):
            times.append(bench.seconds(work))
            drop()
    return min(times)


def learn_packed(policy: Policy, rows: list[list[int]], scored: list[list[int]]) -> None:
    """Forward and backward of all rows in one pack, the head on scored positions."""
    packed = pack(rows, policy.device)
    positions = [a + p for a, ps in zip(packed.boundaries, scored, strict=False) for p in ps]
    logprobs, _ = policy.logprobs(packed, torch.tensor(positions, device=policy.device))
    logprobs.sum().backward()


def learn_padded(bench: Bench, model: Any, rows: list[list[int]], scored: list[list[int]]) -> None:
    """The same with transformers' own loss, in padded batches of rows of like length."""
    model.set_attn_implementation("sdpa")
    try:
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        while order:
            width = len(rows[order[-1]])
            size = max(1, PADDED_TOKENS // width)
            chosen, order = order[-size:], order[:-size]
            ids = torch.zeros(len(chosen), width, dtype=torch.long)
            labels, mask = torch.full_like(ids, -100), torch.zeros_like(ids)
            for k, i in enumerate(chosen):
                ids[k, : len(rows[i])] = torch.tensor(rows[i])
                mask[k, : len(rows[i])] = 1
                labels[k, scored[i]] = ids[k, scored[i]]
            inputs = {"input_ids": ids, "attention_mask": mask, "labels": labels}
            on_device = {name: tensor.to(bench.device) for name, tensor in inputs.items()}
            model(**on_device, use_cache=False).loss.backward()
    finally:
        use_packed_attention(model)
