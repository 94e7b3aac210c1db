"""Learning on a CPU with glibc's memory as it is, and in huge pages that are kept.

    python benchmarks/huge_pages.py [--shapes 0.3M 4M 135M] [--pairs 3] [--rows 8] [--length 256]

Both ways in turns, each a process of its own with one thread: an optimizer step on `--rows` rows of
`--length` tokens, half of them scored, after one that warms up. Prints medians and the paired ratio
with / without, and whether both end with the same weights. The kernel decides whether a program may
ask for huge pages: /sys/kernel/mm/transparent_hugepage/enabled has to be `madvise` or `always`.
"""

import argparse
import hashlib
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
from memory import SHAPES, learn, policy_of

KEPT = {
    "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1:"
    "glibc.malloc.mmap_threshold=33554432:glibc.malloc.trim_threshold=8000000000"
}
"""Huge pages are asked for, and blocks of up to 32 MiB are not given back after each pass."""


def measure(shape: str, rows: int, length: int) -> None:
    """One way, in this process; prints seconds, page faults and the weights' digest as JSON."""
    torch.set_num_threads(1)
    policy = policy_of(shape, length, {})
    learn(policy, rows, length, 1)
    faults, start = resource.getrusage(resource.RUSAGE_SELF).ru_minflt, time.perf_counter()
    learn(policy, rows, length, 1)
    seconds = time.perf_counter() - start
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - faults
    digest = hashlib.sha256()
    for weights in policy.parameters():
        digest.update(weights.detach().numpy().tobytes())
    print(json.dumps({"seconds": seconds, "faults": faults, "digest": digest.hexdigest()}))


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["0.3M", "4M", "135M"])
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(args.one, args.rows, args.length)
        return
    print(Path("/sys/kernel/mm/transparent_hugepage/enabled").read_text().strip())
    print(f"{args.rows} rows of {args.length} tokens, seconds and page faults of a step")
    print(f"{'':6}{'as it is':>20}{'huge pages, kept':>20}  ratio")
    sizes = ["--rows", str(args.rows), "--length", str(args.length)]
    for shape in args.shapes:
        command = [sys.executable, __file__, "--one", shape, *sizes]
        found: tuple[list[dict], list[dict]] = ([], [])
        for _ in range(args.pairs):
            for ran, extra in zip(found, ({}, KEPT), strict=True):
                environment = os.environ | extra
                ran.append(json.loads(subprocess.check_output(command, env=environment, text=True)))
        ratios = sorted(b["seconds"] / a["seconds"] for a, b in zip(*found, strict=True))
        cells = [
            f"{statistics.median(r['seconds'] for r in ran):10.2f}"
            f"{statistics.median(r['faults'] for r in ran):10,.0f}"
            for ran in found
        ]
        same = len({r["digest"] for ran in found for r in ran}) == 1
        print(
            f"{shape:6}{''.join(cells)}  {statistics.median(ratios):.2f} "
            f"[{ratios[0]:.2f}, {ratios[-1]:.2f}], weights {'equal' if same else 'DIFFER'}",
            flush=True,
        )


if __name__ == "__main__":
    main()
