"""What a GPU makes of it: tests, head, learner, a whole update and the sampler, in one command.

    python benchmarks/gpu.py [-o gpu.json] [--budget 480] [--parts tests,head,...]
    python benchmarks/gpu.py --cpu          # everything at toy size: does it run?

Needs torch 2.11 or later with CUDA, one card, no network: models have the shapes of Qwen2.5-0.5B
and 1.5B and random weights, made on the card. `benchmarks/gpu_wheels.sh` carries packages to a
machine that cannot fetch them. Runs the tests marked `gpu`, then measures, each side of a
comparison in the same run; what does not fit into the budget of seconds is left out and says so,
and a part that fails does not stop the others. Prints a table, writes JSON.
"""

import argparse
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from gpu_parts import heads, learning, sampling, update
from gpu_parts.bench import Bench, Cell, Numbers, facts

ROOT = Path(__file__).parents[1]
TESTS_SECONDS = 150
PARTS: dict[str, tuple[Callable[[Bench], Iterator[Cell]], float]] = {
    "tests": (lambda bench: tests(bench), 0.35),
    "head": (heads.cells, 0.4),
    "learner": (learning.cells, 0.5),
    "update": (update.cells, 0.75),
    "sampler": (sampling.cells, 1.0),
}
"""What measures a part, and the share of the budget by whose end it stops."""


def tests(bench: Bench) -> Iterator[Cell]:
    """The tests marked `gpu`, in a process of their own."""
    yield "marked gpu", 30, partial(run_tests, bench)


def run_tests(bench: Bench) -> Numbers:
    """How they went."""
    if bench.toy:
        return {"note": "left out: they need a GPU"}
    files = [
        str(file)
        for file in sorted((ROOT / "tests").rglob("test_*.py"))
        if "mark.gpu" in file.read_text(encoding="utf-8")
    ]
    command = [sys.executable, "-m", "pytest", "-q", "-m", "gpu", "-rf", "-p", "no:cacheprovider"]
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [*command, *files],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=TESTS_SECONDS,
        check=False,
    )
    if done.returncode:
        print(done.stdout[-6000:], done.stderr[-2000:], flush=True)
    lines = [x for x in done.stdout.splitlines() if re.search(r"passed|failed|skipped|error", x)]
    return {"exit": done.returncode, "result": lines[-1].strip("= ") if lines else "no result"}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--cpu", action="store_true", help="everything at toy size, on the CPU")
    parser.add_argument("--budget", type=float, default=480, help="seconds for everything")
    parser.add_argument("--parts", default=",".join(PARTS), help="of: %(default)s")
    parser.add_argument("-o", "--output", type=Path, help="JSON file")
    args = parser.parse_args()
    parts = args.parts.split(",")
    if unknown := set(parts) - PARTS.keys():
        parser.error(f"no part {min(unknown)!r}; there are {', '.join(PARTS)}")
    if not args.cpu and not torch.cuda.is_available():
        parser.error("torch sees no GPU here; --cpu runs everything at toy size")
    bench = Bench(torch.device("cpu" if args.cpu else "cuda:0"), args.cpu, args.budget)
    where = facts(bench)
    print("   ".join(f"{k} {v}" for k, v in where.items()), flush=True)
    for part in parts:
        cells, until = PARTS[part]
        for _ in bench.run(part, cells(bench), until):
            if args.output:  # after each row: a run that is cut short has what it found
                args.output.write_text(json.dumps({**where, "rows": bench.rows}, indent=1) + "\n")
    failed = [row for row in bench.rows if "error" in row or row.get("exit")]
    print(f"{len(bench.rows)} rows, {len(failed)} failed, {bench.seconds_left:.0f} s left")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
