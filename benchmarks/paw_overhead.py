"""Seconds of an update with PaW on and off, on the same rollouts, in pairs.

    python benchmarks/paw_overhead.py [CONFIG.toml ...] [--updates 8] [--table.key value ...]

For each context mode: two sessions (PaW on, PaW off) from the same policy. In every round one of
them plays the update's episodes; then both learn from those same groups, in alternating order. The
ratio is (act + judge + serialise + learn) with PaW over the same without it; act is the round's own
time for both sides, since PaW does not touch it.
"""

import argparse
import statistics
import tempfile
import time

from paw.train.checkpoint import read_card
from paw.train.loop import act, learn_from
from paw.train.settings import resolve
from paw.train.setup import open_session


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="*")
    parser.add_argument("--updates", type=int, default=8)
    options, flags = parser.parse_known_args()
    for context in ("append", "window"):
        measure(options.configs, flags, context, options.updates)


def measure(files: list[str], flags: list[str], context: str, updates: int) -> None:
    """Print the ratio for one context mode."""
    sessions = {}
    for side in ("on", "off"):
        own = [
            "--rollout.context", context, "--run.directory", tempfile.mkdtemp(prefix="paw-bench-"),
            "--paw.enabled", "true" if side == "on" else "false", "--run.threads", "1",
            "--run.save_trajectories_every", "0",
        ]  # fmt: skip
        card = read_card(resolve(files, flags).model.path)
        sessions[side] = open_session(resolve(files, [*flags, *own], card))
    ratios, acts, learns = [], [], {"on": [], "off": []}
    tokens = {}
    for update in range(1, updates + 1):
        started = time.perf_counter()
        groups = act(sessions["off"], update)
        acted = time.perf_counter() - started
        acts.append(acted)
        seconds = {}
        for side in ("on", "off") if update % 2 else ("off", "on"):
            started = time.perf_counter()
            metrics = learn_from(sessions[side], update, groups)
            seconds[side] = time.perf_counter() - started
            learns[side].append(seconds[side])
            tokens[side] = metrics["tokens/trained"]
        if update > 1:  # the first round warms up
            ratios.append((acted + seconds["on"]) / (acted + seconds["off"]))
    for session in sessions.values():
        session.close()
    print(
        f"{context:6}  update with PaW / without: {statistics.median(ratios):.3f} "
        f"(min {min(ratios):.3f}, max {max(ratios):.3f}; {len(ratios)} pairs)   "
        f"act {statistics.median(acts):.2f} s, learn on {statistics.median(learns['on']):.2f} s, "
        f"off {statistics.median(learns['off']):.2f} s   tokens of the last update "
        f"{tokens['on']:.0f} / {tokens['off']:.0f} ({tokens['on'] / tokens['off']:.3f})"
    )


if __name__ == "__main__":
    main()
