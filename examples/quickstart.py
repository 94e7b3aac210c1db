"""What `make quickstart` runs: a GRPO baseline and PaW on the household, side by side.

    python examples/quickstart.py [--updates 80] [--seed 0] [--directory runs/quickstart]

Both arms start from the policy that comes with the package, play the same tasks and are evaluated
on the same 200 held-out games. Finished or interrupted arms are resumed, not repeated.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

from paw.runs.console import Bar

ARMS = {"baseline": ["--paw.enabled", "false"], "paw": ["--paw.enabled", "true"]}
COLOURS = {"baseline": "#555555", "paw": "#c2410c"}


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--updates", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--directory", type=Path, default=Path("runs/quickstart"))
    options = parser.parse_args()
    options.directory.mkdir(parents=True, exist_ok=True)

    print(f"GRPO with and without PaW on the household, {options.updates} updates each, seed")
    print(
        f"{options.seed}, one process of one thread each. Ctrl-C stops; the same command goes on."
    )
    print()
    started = time.time()
    status = train_side_by_side(options.directory, options.updates, options.seed)
    if status:
        return status
    results = {arm: evaluations(options.directory / arm) for arm in ARMS}
    plot(options.directory, results)
    print_table(options.directory, results, time.time() - started)
    return 0


def train_side_by_side(directory: Path, updates: int, seed: int) -> int:
    """Start both arms, follow their metrics with a bar each, wait. Returns an exit status."""
    processes, logs = {}, {}
    for arm, flags in ARMS.items():
        logs[arm] = open(directory / f"{arm}.log", "wb")  # noqa: SIM115
        keys = {
            "run.directory": directory / arm,
            "run.updates": updates,
            "run.seed": seed,
            "run.threads": 1,
            "eval.every": max(1, updates // 4),
        }
        command = [sys.executable, "-m", "paw.cli", "train", *flags]
        command += [part for key, value in keys.items() for part in (f"--{key}", str(value))]
        processes[arm] = subprocess.Popen(command, stdout=logs[arm], stderr=subprocess.STDOUT)
    bars = {arm: Bar(updates, "update", f"{arm:8}") for arm in ARMS}
    done = dict.fromkeys(ARMS, 0)
    try:
        while any(p.poll() is None for p in processes.values()):
            time.sleep(0.5)
            for arm, bar in bars.items():
                done[arm] = advance(bar, done[arm], directory / arm / "metrics.jsonl")
    except KeyboardInterrupt:
        for process in processes.values():
            process.wait()
        return 130
    finally:
        for arm, bar in bars.items():
            advance(bar, done[arm], directory / arm / "metrics.jsonl")
            bar.close()
            logs[arm].close()
    for arm, process in processes.items():
        if process.returncode:
            text = (directory / f"{arm}.log").read_text(errors="replace").strip()
            print(f"{arm} ended with status {process.returncode}:\n{text[-2000:]}", file=sys.stderr)
            return process.returncode
    return 0


def advance(bar: Bar, done: int, metrics: Path) -> int:
    """Move a bar from `done` updates to the last complete line of a metrics file; its number."""
    lines = metrics.read_text().split("\n")[:-1] if metrics.is_file() else []
    if len(lines) > done:
        row = json.loads(lines[-1])
        bar(len(lines), {"rollout/success_rate": row["rollout/success_rate"]})
    return len(lines)


def evaluations(run: Path) -> list[dict]:
    """The held-out results of a run, by update."""
    return [json.loads(f.read_text()) for f in sorted((run / "eval").glob("update-*.json"))]


def plot(directory: Path, results: dict[str, list[dict]]) -> None:
    """Held-out success and training success of both arms in one PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, (held_out, training) = pyplot.subplots(1, 2, figsize=(11, 4), sharey=True)
    for arm, rows in results.items():
        updates = [r["update"] for r in rows]
        held_out.plot(
            updates, [r["success_rate"] for r in rows], "o-", color=COLOURS[arm], label=arm
        )
        low, high = zip(*(r["interval"] for r in rows), strict=True)
        held_out.fill_between(updates, low, high, color=COLOURS[arm], alpha=0.12, linewidth=0)
        lines = (directory / arm / "metrics.jsonl").read_text().splitlines()
        wins = [json.loads(line)["rollout/success_rate"] for line in lines]
        smooth = [
            sum(wins[max(0, i - 9) : i + 1]) / len(wins[max(0, i - 9) : i + 1])
            for i in range(len(wins))
        ]
        training.plot(range(1, len(wins) + 1), smooth, color=COLOURS[arm], label=arm)
    held_out.set_title("held-out games (200 valid tasks, 95 % interval)")
    training.set_title("training games (mean of the last 10 updates)")
    held_out.set_ylabel("success")
    held_out.set_ylim(0, 1)
    for axis in (held_out, training):
        axis.set_xlabel("update")
        axis.grid(alpha=0.25)
        axis.legend()
    figure.tight_layout()
    figure.savefig(directory / "quickstart.png", dpi=120)


def print_table(directory: Path, results: dict[str, list[dict]], seconds: float) -> None:
    """The result in a few lines, and where everything lies."""
    print(f"\n{'':10}  before   after   95 % interval   s/update  next-observation NLL")
    for arm, rows in results.items():
        first, last = rows[0], rows[-1]
        low, high = last["interval"]
        lines = (directory / arm / "metrics.jsonl").read_text().splitlines()
        metrics = [json.loads(line) for line in lines]
        pace = sum(m["time/update"] for m in metrics) / len(metrics)
        nll = (
            f"{metrics[0]['wm/nll']:.2f} -> {metrics[-1]['wm/nll']:.2f}"
            if arm == "paw"
            else "not trained"
        )
        print(
            f"{arm:10}{first['success_rate']:8.1%}{last['success_rate']:8.1%}   "
            f"[{low:.1%}, {high:.1%}]  {pace:8.2f}  {nll}"
        )
    print(
        "\nOne seed proves nothing: the difference between two such runs is mostly chance. It\n"
        "takes paired seeds to say whether PaW helps; see README, Results."
    )
    print(f"\ncurves       {directory / 'quickstart.png'}")
    for arm in results:
        print(f"{arm:12} {directory / arm}  (metrics.jsonl, trajectories/, checkpoints/, eval/)")
    print(f"took         {seconds / 60:.1f} minutes")


if __name__ == "__main__":
    sys.exit(main())
