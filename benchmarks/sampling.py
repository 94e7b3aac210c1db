"""Multi-turn sampling: the slot cache against `generate` on the whole conversation each turn.

    python benchmarks/sampling.py [--size small|tiny] [--conversations 64] [--turns 8] [--pairs 3]

Both sides run in this process on the same weights, one thread, alternating; actions have a fixed
number of tokens, observations 20 to 60. `generate` returns token ids alone, the sampler also
log-probabilities and entropies. Prints sampled tokens/s of each pair and the median ratio.
"""

import argparse
import copy
import random
import statistics
import time
from typing import Any

import torch

from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.rollout.local import LocalSampler
from paw.rollout.sampler import SampleRequest

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {"hidden_size": 64, "num_layers": 2, "num_heads": 2, "num_kv_heads": 1},
    "small": {"hidden_size": 192, "num_layers": 4, "num_heads": 6, "num_kv_heads": 2},
}
VOCAB = 2000
ACTION_TOKENS = 6


def conversations(num: int, turns: int) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Prompts of 150 to 200 tokens, in groups of 8, and an observation per turn."""
    rng = random.Random(0)

    def ids(low: int, high: int) -> list[int]:
        return [rng.randrange(VOCAB) for _ in range(rng.randint(low, high))]

    prompts = [ids(150, 200) for _ in range(-(-num // 8))]
    observations = [[ids(20, 60) for _ in range(num)] for _ in range(turns)]
    return [prompts[i // 8] for i in range(num)], observations


def run_sampler(sampler: LocalSampler, prompts, observations) -> float:
    """CPU seconds for all turns with the slot cache."""
    sampler.reset()
    rows = [list(prompt) for prompt in prompts]
    start = time.process_time()
    for turn, texts in enumerate(observations):
        requests = [SampleRequest(i, tuple(row), (i, turn)) for i, row in enumerate(rows)]
        actions = sampler.sample(requests, temperature=1.0, max_tokens=ACTION_TOKENS)
        for row, action, text in zip(rows, actions, texts, strict=True):
            row += action.token_ids
            row += text
    return time.process_time() - start


@torch.inference_mode()
def run_generate(model, prompts, observations) -> float:
    """CPU seconds for all turns with `generate` on the left-padded whole conversations."""
    rows = [list(prompt) for prompt in prompts]
    start = time.process_time()
    for texts in observations:
        width = max(map(len, rows))
        padded = torch.tensor([[0] * (width - len(row)) + row for row in rows])
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows])
        out = model.generate(
            padded,
            attention_mask=mask,
            do_sample=True,
            temperature=1.0,
            top_k=0,
            top_p=1.0,
            max_new_tokens=ACTION_TOKENS,
            pad_token_id=0,
        )
        for row, action, text in zip(rows, out[:, width:].tolist(), texts, strict=True):
            row += action
            row += text
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--conversations", type=int, default=64)
    parser.add_argument("--turns", type=int, default=8)
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--sampler-only", action="store_true", help="for profilers")
    args = parser.parse_args()
    torch.set_num_threads(1)
    shape = SIZES[args.size]
    model = create_policy_model(
        vocab_size=VOCAB,
        intermediate_size=3 * shape["hidden_size"],
        max_positions=4096,
        seed=0,
        **shape,
    )
    reference = copy.deepcopy(model)
    sampler = LocalSampler(Policy(model), end_ids=())
    prompts, observations = conversations(args.conversations, args.turns)
    num_tokens = args.conversations * args.turns * ACTION_TOKENS
    print(
        f"{sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters, {num_tokens} tokens"
    )
    ratios = []
    for _ in range(args.pairs):
        ours = run_sampler(sampler, prompts, observations)
        if args.sampler_only:
            print(f"slot cache {num_tokens / ours:.0f} tokens/s")
            continue
        theirs = run_generate(reference, prompts, observations)
        ratios.append(theirs / ours)
        print(
            f"slot cache {num_tokens / ours:.0f} tokens/s, generate {num_tokens / theirs:.0f} "
            f"tokens/s, ratio {ratios[-1]:.2f}"
        )
    if ratios:
        print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
