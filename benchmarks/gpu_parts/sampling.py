"""Sampled tokens a second: the sampler's first turn and its later ones, against `generate`."""

import random
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from gpu_parts.bench import Bench, Cell, Numbers
from gpu_parts.models import build, shapes
from paw.model.packing import use_packed_attention
from paw.model.policy import Policy
from paw.rollout.local import LocalSampler
from paw.rollout.sampler import SampleRequest

OBSERVATION = 24
"""Tokens that come between two turns."""
LATER_TURNS = 2


def cells(bench: Bench) -> Iterator[Cell]:
    """The sampler and `generate` for each shape, number of conversations and context."""
    new = 8 if bench.toy else 64
    grid = [(4, 16), (8, 32)] if bench.toy else GRID
    for shape in reversed(shapes(bench)):
        policy = Policy(build(bench, shape))
        heavy = 3.0 if shape == "1.5B" else 1.0
        for num, context in grid:
            seconds = heavy * (2 + num * context / 80_000)
            name = f"{shape}, {num} x {context} tokens"
            yield name, seconds, partial(compare, bench, policy, num, context, new)
            if (num, context) == grid[1]:
                yield f"{name}, ragged", 10, partial(ragged, bench, policy, num, context, new)
        del policy


GRID = ((64, 512), (128, 2048), (128, 512), (64, 2048), (64, 1024), (128, 1024), (64, 4096),
        (128, 4096))  # fmt: skip
"""Conversations and tokens of context, the most telling first."""


def compare(bench: Bench, policy: Policy, num: int, context: int, new: int) -> Numbers:
    """Tokens a second of both, and the largest peaks of memory."""
    found: Numbers = {}
    prompts = _prompts(policy, num, context)
    with bench.peak(found):
        first, later = play(bench, LocalSampler(policy, (), fixed_shapes=True), prompts, new)
    found |= {"first_tokens_per_s": num * new / first, "tokens_per_s": num * new / later}
    try:
        with bench.peak(found, "generate_peak_gib"):
            theirs = generate(bench, policy.model, prompts, new)
    except torch.OutOfMemoryError:
        return found | {"generate": "out of memory"}
    rate = num * new / theirs
    return found | {"generate_tokens_per_s": rate, "ratio": theirs / later}


def ragged(bench: Bench, policy: Policy, num: int, context: int, new: int) -> Numbers:
    """The decoder of CPUs, without fixed shapes and graphs."""
    sampler = LocalSampler(policy, (), fixed_shapes=False)
    first, later = play(bench, sampler, _prompts(policy, num, context), new)
    return {"first_tokens_per_s": num * new / first, "tokens_per_s": num * new / later}


def play(
    bench: Bench, sampler: LocalSampler, prompts: list[list[int]], new: int
) -> tuple[float, float]:
    """Seconds of the first turn, which reads whole prompts, and of a later one."""
    rng = random.Random(1)
    vocabulary = sampler.policy.config.vocab_size
    rows, times = [list(prompt) for prompt in prompts], []

    def turn(number: int) -> None:
        requests = [SampleRequest(i, tuple(row), (i, number)) for i, row in enumerate(rows)]
        actions = sampler.sample(requests, temperature=1.0, max_tokens=new)
        for row, action in zip(rows, actions, strict=True):
            row += action.token_ids
            row += rng.choices(range(vocabulary), k=OBSERVATION)

    for number in range(1 + LATER_TURNS):
        times.append(bench.seconds(partial(turn, number)))
    sampler.reset()
    return times[0], sum(times[1:]) / LATER_TURNS


@torch.inference_mode()
def generate(bench: Bench, model: Any, prompts: list[list[int]], new: int) -> float:
    """Seconds of transformers' `generate` over the whole prompts, which it reads every turn."""
    ids = torch.tensor(prompts, device=bench.device)
    model.set_attn_implementation("sdpa")
    try:
        return bench.seconds(
            lambda: model.generate(
                ids,
                attention_mask=torch.ones_like(ids),
                do_sample=True,
                temperature=1.0,
                top_k=0,
                top_p=1.0,
                max_new_tokens=new,
                pad_token_id=0,
            )
        )
    finally:
        use_packed_attention(model)


def _prompts(policy: Policy, num: int, length: int) -> list[list[int]]:
    rng = random.Random(0)
    return [rng.choices(range(policy.config.vocab_size), k=length) for _ in range(num)]
