"""Seconds of learning from the same rollouts by the tokens of a micro-batch.

    python benchmarks/micro_batch.py [CONFIG.toml ...] [--rounds 5] [--table.key=value ...]

One session a size, all from one policy, learn in turn from the same groups; what an automatic
`optimizer.tokens_per_micro_batch` is chosen by. Set `--model.device=cuda` on a GPU.
"""

import argparse
import statistics
import tempfile
import time

from paw.train.checkpoint import read_card
from paw.train.loop import act, learn_from
from paw.train.settings import resolve
from paw.train.setup import open_session

SIZES = (16384, 8192, 4096, 2048, 1024)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="*")
    parser.add_argument("--rounds", type=int, default=5)
    options, flags = parser.parse_known_args()
    for context in ("append", "window"):
        measure(context, options.configs, flags, options.rounds)


def measure(context: str, files: list[str], flags: list[str], rounds: int) -> None:
    """Print seconds of `learn_from` for each size, and the ratio to the largest."""
    card = read_card(resolve(files, flags).model.path)
    sessions = {}
    for size in SIZES:
        own = [
            "--rollout.context", context, "--run.directory", tempfile.mkdtemp(prefix="paw-bench-"),
            "--run.threads", "1", "--run.save_trajectories_every", "0",
            "--optimizer.tokens_per_micro_batch", str(size),
        ]  # fmt: skip
        sessions[size] = open_session(resolve(files, [*flags, *own], card))
    seconds: dict[int, list[float]] = {size: [] for size in SIZES}
    for update in range(1, rounds + 2):
        groups = act(sessions[SIZES[0]], update)
        for size in SIZES if update % 2 else reversed(SIZES):
            started = time.perf_counter()
            learn_from(sessions[size], update, groups)
            if update > 1:  # the first round warms up
                seconds[size].append(time.perf_counter() - started)
    for session in sessions.values():
        session.close()
    for size in SIZES:
        ratios = [a / b for a, b in zip(seconds[size], seconds[SIZES[0]], strict=True)]
        print(
            f"{context}: {size:6,} tokens  {statistics.median(seconds[size]):6.2f} s   "
            f"x {statistics.median(ratios):.2f} of {SIZES[0]:,} "
            f"(min {min(ratios):.2f}, max {max(ratios):.2f}; {rounds} pairs)"
        )


if __name__ == "__main__":
    main()
