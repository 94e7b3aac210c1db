"""One thread against all: sampling and learning, by model size, alone or beside busy processes.

    python benchmarks/threads.py [--busy 2] [--threads 2] [--pairs 5] [--sizes 0.2M 4M 30M]

Wall time, since threads that wait for a core spin. `--busy N` keeps N processes computing
meanwhile. Prints medians in milliseconds and the ratio many / one: what `run.threads = 0` rests on.
"""

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable

import torch

from paw.model.packing import pack
from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.rollout.local import LocalSampler
from paw.rollout.sampler import SampleRequest

SIZES = {"0.2M": (64, 2, 2), "4M": (256, 4, 4), "30M": (576, 8, 9)}
"""Hidden size, layers, heads."""
VOCAB = 2000
ROWS, LENGTH, SAMPLED = 16, 200, 8


def spin() -> None:
    """Keep a core busy for ever."""
    while True:
        sum(range(1_000_000))


def policy_of(size: str) -> Policy:
    hidden, layers, heads = SIZES[size]
    return Policy(
        create_policy_model(
            vocab_size=VOCAB, hidden_size=hidden, num_layers=layers, num_heads=heads,
            num_kv_heads=heads, intermediate_size=3 * hidden, max_positions=4096, seed=0,
        )
    )  # fmt: skip


def sample(policy: Policy) -> None:
    """A turn of `ROWS` conversations."""
    prompt = tuple(range(1, LENGTH))
    requests = [SampleRequest(i, prompt, (i,)) for i in range(ROWS)]
    LocalSampler(policy, end_ids=()).sample(requests, temperature=1.0, max_tokens=SAMPLED)


def learn(policy: Policy) -> None:
    """Forward and backward of `ROWS` rows."""
    packed = pack([list(range(1, LENGTH))] * ROWS, policy.device)
    positions = torch.cat([torch.arange(a + 1, a + LENGTH - 1) for a in packed.boundaries[:-1]])
    policy.logprobs(packed, positions)[0].sum().backward()


def milliseconds(work: Callable[[Policy], None], policy: Policy, threads: int) -> float:
    torch.set_num_threads(threads)
    start = time.perf_counter()
    work(policy)
    return 1e3 * (time.perf_counter() - start)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--busy", type=int, default=0, help="processes that compute meanwhile")
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--sizes", nargs="+", choices=SIZES, default=list(SIZES))
    args = parser.parse_args()
    others = [multiprocessing.Process(target=spin, daemon=True) for _ in range(args.busy)]
    for other in others:
        other.start()
    print(
        f"{os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}, {args.busy} busy processes started"
    )
    print(f"{'':18}{'1 thread':>12}{f'{args.threads} threads':>12}{'ratio':>8}")
    for size in args.sizes:
        policy = policy_of(size)
        for work in (sample, learn):
            milliseconds(work, policy, 1)  # first use
            one, many = [], []
            for _ in range(args.pairs):
                one.append(milliseconds(work, policy, 1))
                many.append(milliseconds(work, policy, args.threads))
            left, right = statistics.median(one), statistics.median(many)
            name = f"{size} {work.__name__}"
            print(f"{name:18}{left:9.1f} ms{right:9.1f} ms{right / left:8.2f}")
    for other in others:
        other.terminate()


if __name__ == "__main__":
    main()
