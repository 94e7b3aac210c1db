"""Learning: packed rows with a head on scored positions against a bare transformers model.

    python benchmarks/learner.py [--rows 16] [--low 150] [--high 400] [--pairs 5]

Forward and backward of the same rows with the same scored tokens (two fifths of each row), one
thread, alternating. The bare model is given its better way: a padded batch or row after row.
Prints real tokens per CPU second and the median ratio.
"""

import argparse
import copy
import random
import statistics
import time

import torch

from paw.model.packing import pack
from paw.model.policy import Policy
from paw.model.small import create_policy_model

VOCAB = 2000


def learn_packed(policy: Policy, rows: list[list[int]], scored: list[list[int]]) -> float:
    """CPU seconds of one forward and backward on packed rows."""
    start = time.process_time()
    packed = pack(rows, policy.device)
    positions = [a + p for a, ps in zip(packed.boundaries, scored, strict=False) for p in ps]
    logprobs, _ = policy.logprobs(packed, torch.tensor(positions))
    logprobs.sum().backward()
    return time.process_time() - start


def learn_bare(model, rows: list[list[int]], scored: list[list[int]]) -> float:
    """CPU seconds of one forward and backward of a padded batch with the model's own loss."""
    start = time.process_time()
    width = max(map(len, rows))
    ids = torch.zeros(len(rows), width, dtype=torch.long)
    labels = torch.full((len(rows), width), -100)
    mask = torch.zeros(len(rows), width, dtype=torch.long)
    for i, (row, positions) in enumerate(zip(rows, scored, strict=True)):
        ids[i, : len(row)] = torch.tensor(row)
        mask[i, : len(row)] = 1
        labels[i, positions] = ids[i, positions]
    model(ids, attention_mask=mask, labels=labels, use_cache=False).loss.backward()
    return time.process_time() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--low", type=int, default=150, help="shortest row in tokens")
    parser.add_argument("--high", type=int, default=400, help="longest row in tokens")
    parser.add_argument("--pairs", type=int, default=5)
    args = parser.parse_args()
    torch.set_num_threads(1)
    model = create_policy_model(
        vocab_size=VOCAB,
        hidden_size=192,
        num_layers=4,
        num_heads=6,
        num_kv_heads=2,
        intermediate_size=576,
        max_positions=4096,
        seed=0,
    )
    bare = copy.deepcopy(model)
    policy = Policy(model)
    rng = random.Random(0)
    lengths = [rng.randint(args.low, args.high) for _ in range(args.rows)]
    rows = [[rng.randrange(VOCAB) for _ in range(n)] for n in lengths]
    scored = [sorted(rng.sample(range(1, n), 2 * n // 5)) for n in lengths]
    num = sum(lengths)
    print(f"{num} tokens in {len(rows)} rows")
    ratios = []
    for pair in range(args.pairs + 1):
        ours = learn_packed(policy, rows, scored)
        padded = learn_bare(bare, rows, scored)
        single = sum(learn_bare(bare, [r], [s]) for r, s in zip(rows, scored, strict=True))
        if pair == 0:
            continue  # the first pair warms up
        ratios.append(min(padded, single) / ours)
        print(
            f"packed {num / ours:.0f} tokens/s, bare padded {num / padded:.0f}, "
            f"bare one by one {num / single:.0f}, ratio to the better {ratios[-1]:.2f}"
        )
    print(f"median ratio {statistics.median(ratios):.2f}")


if __name__ == "__main__":
    main()
