"""What `make quickstart` runs: a GRPO baseline and PaW on the household, side by side.

    python examples/quickstart.py [--updates 80] [--seed 0] [--directory runs/quickstart]

Both arms start from the policy that comes with the package, play the same tasks and are evaluated
on the same 200 held-out games. Finished or interrupted arms are resumed, not repeated. The end is
a table, the curves, and a page that shows every token of every episode.
"""

import argparse
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from paw import cli
from paw.runs import read
from paw.runs.console import Bar
from paw.runs.format import EvaluationRecord, MetricsRow

ARMS = {"baseline": ["--paw.enabled", "false"], "paw": ["--paw.enabled", "true"]}
NLL = "wm/next_observation_nll"
"""Measured on diagnostic updates, in both arms on every next observation."""
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
    runs = {arm: options.directory / arm for arm in ARMS}
    metrics = {arm: read.metrics(run) for arm, run in runs.items()}
    evaluations = {arm: read.evaluations(run) for arm, run in runs.items()}
    picture = options.directory / "quickstart.png"
    plot(picture, metrics, evaluations)
    print_table(metrics, evaluations)
    print(f"\ncurves       {picture}")
    for arm, run in runs.items():
        print(f"{arm:12} {run}  (metrics.jsonl, trajectories/, checkpoints/, eval/)")
    print(f"took         {(time.time() - started) / 60:.1f} minutes\n")
    page = options.directory / "report.html"
    return cli.main(["report", *map(str, runs.values()), "-o", str(page)])


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
            "run.diagnostics_every": max(1, updates // 8),  # NLL of the next observation
        }
        command = [sys.executable, "-m", "paw.cli", "train", *flags]
        command += [part for key, value in keys.items() for part in (f"--{key}", str(value))]
        processes[arm] = subprocess.Popen(command, stdout=logs[arm], stderr=subprocess.STDOUT)
    bars = {arm: Bar(updates, "update", f"{arm:8}", line) for line, arm in enumerate(ARMS)}
    done = {arm: advance(bar, -1, directory / arm) for arm, bar in bars.items()}
    try:
        while any(p.poll() is None for p in processes.values()):
            time.sleep(0.5)
            for arm, bar in bars.items():
                done[arm] = advance(bar, done[arm], directory / arm)
    except KeyboardInterrupt:
        for process in processes.values():
            process.wait()
        return 130
    finally:
        for arm, bar in bars.items():
            advance(bar, done[arm], directory / arm)
            bar.close()
            logs[arm].close()
    for arm, process in processes.items():
        if process.returncode:
            text = (directory / f"{arm}.log").read_text(errors="replace").strip()
            print(f"{arm} ended with status {process.returncode}:\n{text[-2000:]}", file=sys.stderr)
            return process.returncode
    return 0


def advance(bar: Bar, done: int, run: Path) -> int:
    """Move a bar from `done` updates to the newest one of a run; its number."""
    rows = read.metrics(run) if (run / "metrics.jsonl").is_file() else []
    newest = rows[-1]["update"] if rows else 0
    if newest > done:
        bar(newest, rows[-1] if rows else {})
    return max(newest, done)


def plot(
    picture: Path,
    metrics: dict[str, list[MetricsRow]],
    evaluations: dict[str, list[EvaluationRecord]],
) -> None:
    """Held-out success, training success and NLL of the next observation in one PNG."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot
    from matplotlib.ticker import MaxNLocator

    figure, (held_out, training, nll) = pyplot.subplots(1, 3, figsize=(13, 4))
    for arm, colour in COLOURS.items():
        found, rows = evaluations[arm], metrics[arm]
        updates = [e.update for e in found]
        held_out.plot(updates, [e.success_rate for e in found], "o-", color=colour, label=arm)
        low, high = zip(*(e.interval for e in found), strict=True)
        held_out.fill_between(updates, low, high, color=colour, alpha=0.12, linewidth=0)
        updates, wins = zip(*read.measured(rows, "rollout/success_rate"), strict=True)
        training.plot(updates, smooth(wins), color=colour, label=arm)
        updates, values = zip(*read.measured(rows, NLL), strict=True)
        nll.plot(updates, values, "o-", color=colour, label=arm)
    held_out.set_title("success on 200 held-out games\n(95 % interval)")
    training.set_title("success in training\n(mean of the last 10 updates)")
    nll.set_title("NLL of the next observation\n(nats a token, in training games)")
    for axis in (held_out, training):
        axis.set_ylim(0, 1)
    nll.set_ylim(0, 1.1 * max(nll.dataLim.ymax, 0.1))
    for axis in (held_out, training, nll):
        axis.set_xlabel("update")
        axis.set_xlim(left=0)
        axis.xaxis.set_major_locator(MaxNLocator(integer=True))
        axis.grid(alpha=0.25)
        axis.legend(loc="lower left" if axis is nll else "upper left")
    figure.tight_layout()
    figure.savefig(picture, dpi=120)


def smooth(values: Sequence[float], window: int = 10) -> list[float]:
    """Means over the last values, as many as there are at the beginning."""
    parts = [values[max(0, i - window + 1) : i + 1] for i in range(len(values))]
    return [sum(part) / len(part) for part in parts]


def print_table(
    metrics: dict[str, list[MetricsRow]], evaluations: dict[str, list[EvaluationRecord]]
) -> None:
    """The result in a few lines."""
    print(f"\n{'':10}  before   after   95 % interval   s/update  next-observation NLL")
    for arm, rows in metrics.items():
        first, last = evaluations[arm][0], evaluations[arm][-1]
        low, high = last.interval
        pace = [value for _, value in read.measured(rows, "time/update")]
        nll = read.measured(rows, NLL)
        (begin, early), (end, late) = nll[0], nll[-1]
        print(
            f"{arm:10}{first.success_rate:8.1%}{last.success_rate:8.1%}   "
            f"[{low:.1%}, {high:.1%}]  {sum(pace) / len(pace):8.2f}  "
            f"{early:.2f} in update {begin}, {late:.2f} in {end}"
        )
    print(
        "\nOne seed proves nothing: the difference between two such runs is mostly chance. It\n"
        "takes paired seeds to say whether PaW helps; see README, Results."
    )


if __name__ == "__main__":
    sys.exit(main())
