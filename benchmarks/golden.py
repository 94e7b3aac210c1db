"""Do two commits compute the same? Weights, optimizer, metrics and trajectories, to the bit.

    python benchmarks/golden.py --against e05256c [--only grpo] [--keep DIR]

Trains the household's shipped policy (seed 7, three updates) in each setting of SETTINGS with the
working tree and with the other commit, one after the other on this machine, one thread each, and
compares what the runs leave. Both sides have to be on the same machine: bits of attention and of
matrix products depend on the processor (docs/limits.md says what is promised for what).

Metrics of seconds and bytes are left out; so is what one side alone writes, which is listed.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
import zstandard
from safetensors.torch import load_file

ROOT = Path(__file__).parents[1]
CHECKPOINT = Path("checkpoints") / "update-000003"
VARYING = ("time/", "memory/")
"""Metrics that differ between equal runs."""
UNMEASURED = ("[].wm/loss", "[].wm/nll", "[].wm/clipped_token_fraction")
"""0.0 meant "nothing was predicted" (a baseline's updates, the policy's of `alternate`), and also a
perfect prediction; now null says so, or a diagnostic update measures it."""
OURS = {"model.share_prefixes": False}
"""Of the working tree alone: what the other commit does not do, since it changes the rounding."""
COMMON = {
    "run.seed": 7,
    "run.updates": 3,
    "run.checkpoint_every": 3,
    "run.diagnostics_every": 3,
    "run.threads": 1,
    "rollout.groups": 4,
    "rollout.group_size": 4,
    "rollout.workers": 0,
    "optimizer.mini_batches": 2,
    "optimizer.tokens_per_micro_batch": 3000,
    "eval.every": 3,
    "eval.episodes": 8,
}
ALGORITHMS = ("grpo", "rloo", "gigpo", "ppo")
VARIANTS: dict[str, dict[str, Any]] = {
    "baseline": {"paw.enabled": False},
    "kl": {"algorithm.kl_coefficient": 0.01, "algorithm.old_logprobs": "score"},
    "shuffled": {"paw.target": "shuffled"},
    "random-append": {"paw.target": "random", "rollout.context": "append"},
    "no-action": {"paw.condition": "no_action", "rollout.context": "append"},
    "alternate": {"paw.schedule": "alternate", "paw.alternate_every": 2, "paw.loss": "ce"},
    "turn": {"algorithm.statistics": "turn", "algorithm.aggregation": "token"},
    "episode": {"algorithm.penalty": "episode", "paw.entropy": "sampled"},
    "similar": {"algorithm.name": "gigpo", "algorithm.anchor_similarity": 0.9},
    "lowest": {"paw.select": "lowest", "paw.weight": "constant", "paw.loss": "mae"},
}
SETTINGS: dict[str, dict[str, Any]] = {
    **{
        f"{name}-{context}": {"algorithm.name": name, "rollout.context": context}
        for name in ALGORITHMS
        for context in ("window", "append")
    },
    **{name: {"rollout.context": "window", **keys} for name, keys in VARIANTS.items()},
}
ROUNDED = {"alternate": "5d36f80"}
"""Settings equal up to rounding alone with commits up to this one: rows without any weight, here
those of prediction updates without a target, are passed over since: the micro-batches are
others."""
RUNNER = """
import json, sys
from paw.cli import main
import paw
assert paw.__file__.startswith(sys.argv[1]), paw.__file__
for arguments in json.load(sys.stdin):
    status = main(arguments)
    assert not status, (status, arguments)
"""


def main() -> int:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--against", required=True, metavar="COMMIT")
    parser.add_argument("--only", help="settings whose name holds this")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="runs of the other commit, kept")
    options = parser.parse_args()
    chosen = {n: k for n, k in SETTINGS.items() if (options.only or "") in n}
    differing = 0
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        theirs, ours = options.keep or place / "theirs", place / "ours"
        missing = {n: k for n, k in chosen.items() if not (theirs / n / "metrics.jsonl").is_file()}
        if missing:
            checkout = place / "checkout"
            archive = subprocess.run(
                ["git", "-C", str(ROOT), "archive", options.against],
                check=True,
                capture_output=True,
            )
            checkout.mkdir()
            subprocess.run(["tar", "-x", "-C", str(checkout)], input=archive.stdout, check=True)
            train(checkout, theirs, missing, {})
        train(ROOT, ours, chosen, OURS)
        for name in chosen:
            if name in ROUNDED and is_older(options.against, ROUNDED[name]):
                found = rounded(theirs / name, ours / name)
            else:
                found = differences(theirs / name, ours / name)
            print(f"{name:16}{'; '.join(found) or 'equal to the bit'}")
            differing += any(not f.startswith("only") for f in found)
    return 1 if differing else 0


def train(
    checkout: Path, folder: Path, settings: dict[str, dict[str, Any]], own: dict[str, Any]
) -> None:
    """Train every setting with the package of one checkout, in one process."""
    commands = []
    for name, keys in settings.items():
        flags = COMMON | own | keys | {"run.directory": folder / name}
        commands.append(["train", *(x for k, v in flags.items() for x in (f"--{k}", written(v)))])
    source = checkout / "src"
    subprocess.run(
        [sys.executable, "-c", RUNNER, str(source)],
        input=json.dumps(commands),
        text=True,
        check=True,
        cwd=checkout,
        env=os.environ | {"PYTHONPATH": str(source), "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )


def is_older(commit: str, other: str) -> bool:
    """Is `commit` the other one or one of its ancestors?"""
    command = ["git", "-C", str(ROOT), "merge-base", "--is-ancestor", commit, other]
    return subprocess.run(command, check=False).returncode == 0


def rounded(one: Path, other: Path) -> list[str]:
    """As `differences`, of weights alone and up to the rounding of fp32."""
    weights = [load_file(side / CHECKPOINT / "model.safetensors") for side in (one, other)]
    apart = max(float((weights[0][k] - weights[1][k]).abs().max()) for k in weights[0])
    if apart > 1e-5:
        return [f"weights differ by up to {apart:.2g}"]
    return [f"only rounding: weights differ by at most {apart:.2g}"]


def written(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def differences(one: Path, other: Path) -> list[str]:
    """What differs between two runs, in words; "only …" is what one side alone writes."""
    found = []
    weights = CHECKPOINT / "model.safetensors"
    if (one / weights).read_bytes() != (other / weights).read_bytes():
        found.append("weights differ")
    states = [
        torch.load(side / CHECKPOINT / "trainer.pt", weights_only=True) for side in (one, other)
    ]
    for key in states[0].keys() & states[1].keys():
        if not same(states[0][key], states[1][key]):
            found.append(f"trainer.pt: {key} differs")
    found += compared("metrics", metrics(one), metrics(other))
    for file in sorted(p.name for p in (one / "trajectories").iterdir()):
        sides = [rows(side / "trajectories" / file) for side in (one, other)]
        found += compared(file, sides[0], sides[1])
    for file in sorted(p.name for p in (one / "eval").iterdir()):
        sides = [[json.loads((side / "eval" / file).read_text())] for side in (one, other)]
        found += compared(f"eval/{file}", sides[0], sides[1])
    return list(dict.fromkeys(found))


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return isinstance(other, torch.Tensor) and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[k], other[k]) for k in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(same(a, b) for a, b in zip(one, other, strict=True))
    return one == other


def metrics(run: Path) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if not k.startswith(VARYING)} for line in lines]


def rows(file: Path) -> list[dict[str, Any]]:
    with zstandard.open(file, "rt", encoding="utf-8") as stream:
        return [json.loads(line) for line in stream]


def compared(what: str, one: Any, other: Any, path: str = "") -> list[str]:
    """Differences of two JSON values: values that differ, and keys of one side alone."""
    if isinstance(one, dict) and isinstance(other, dict):
        found = []
        for key in one.keys() ^ other.keys():
            found.append(f"only {'here' if key in other else 'there'}: {what}{path}.{key}")
        for key in sorted(one.keys() & other.keys()):
            found += compared(what, one[key], other[key], f"{path}.{key}")
        return found
    if isinstance(one, list) and isinstance(other, list):
        if len(one) != len(other):
            return [f"{what}{path}: {len(one)} there, {len(other)} here"]
        return [
            x for a, b in zip(one, other, strict=True) for x in compared(what, a, b, f"{path}[]")
        ]
    if one != other and not (path in UNMEASURED and one == 0.0):
        return [f"{what}{path}: {one!r:.60} there, {other!r:.60} here"]
    return []


if __name__ == "__main__":
    sys.exit(main())
