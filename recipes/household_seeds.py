"""GRPO with and without PaW on the household over several seeds, and the paired difference.

    python recipes/household_seeds.py [--seeds 5] [--directory runs/household] [--updates 80]

Runs `examples/quickstart.py` once per seed (finished runs are not repeated), then prints success on
the 200 valid tasks before and after, per seed and arm, and the mean paired difference with its 95 %
t interval over seeds.
"""

import argparse
import math
import statistics
import subprocess
import sys
from pathlib import Path

from paw.runs import read

QUICKSTART = Path(__file__).parents[1] / "examples" / "quickstart.py"
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""97.5 % quantile of Student's t by degrees of freedom."""


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5, choices=range(2, 11))
    parser.add_argument("--updates", type=int, default=80)
    parser.add_argument("--directory", type=Path, default=Path("runs/household"))
    options = parser.parse_args()
    rows = []
    for seed in range(options.seeds):
        directory = options.directory / f"s{seed}"
        command = [sys.executable, str(QUICKSTART), "--seed", str(seed)]
        command += ["--updates", str(options.updates), "--directory", str(directory)]
        status = subprocess.run(command, check=False).returncode
        if status:
            return status
        rows.append({arm: success(directory / arm) for arm in ("baseline", "paw")})
    print(f"\n{'seed':>4}  before  baseline     paw  difference")
    for seed, row in enumerate(rows):
        before, baseline, paw = row["baseline"][0], row["baseline"][-1], row["paw"][-1]
        print(
            f"{seed:4}  {before:6.1%}  {baseline:8.1%}  {paw:6.1%}  {100 * (paw - baseline):+7.1f}"
        )
    for name, differences in {
        "baseline - before": [r["baseline"][-1] - r["baseline"][0] for r in rows],
        "paw - before": [r["paw"][-1] - r["paw"][0] for r in rows],
        "paw - baseline": [r["paw"][-1] - r["baseline"][-1] for r in rows],
    }.items():
        mean = statistics.mean(differences)
        half = T_975[len(rows) - 1] * statistics.stdev(differences) / math.sqrt(len(rows))
        print(
            f"{name:18} {100 * mean:+5.1f} points  "
            f"[{100 * (mean - half):+.1f}, {100 * (mean + half):+.1f}]  ({len(rows)} seeds)"
        )
    return 0


def success(run: Path) -> list[float]:
    """Held-out success at each evaluation of a run."""
    return [evaluation.success_rate for evaluation in read.evaluations(run)]


if __name__ == "__main__":
    sys.exit(main())
