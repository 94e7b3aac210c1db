"""Several processes on one machine against one: seconds of an update, and memory of a rank.

    python benchmarks/ranks.py speed --data DIR [--ranks 2] [--pairs 3] [--updates 4]
    python benchmarks/ranks.py memory [--ranks 1 2 4] [--hidden 768]

`speed`: updates of the size of ALFWorld's small recipe (one thread a rank) by one process and by
several, in turns in changing order; the first update of a run warms up. Prints the ratio of seconds
with the 95 % interval of the median, and what each stage took.
`memory`: resident bytes of a rank between two optimizer steps with `parallel.mode = shard`, over
those before the model was made.
"""

import argparse
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from paw_overhead import interval

ROOT = Path(__file__).parents[1]
SPEED = {
    "env.name": "alfworld", "rollout.groups": 8, "rollout.group_size": 8, "rollout.max_turns": 30,
    "rollout.workers": 1, "run.threads": 1, "run.save_trajectories_every": 0,
    "optimizer.learning_rate": 1e-6, "run.checkpoint_every": 1000,
}  # fmt: skip
STAGES = ("act", "score", "judge", "serialise", "learn", "hand_over")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    modes = parser.add_subparsers(dest="what", required=True)
    speed = modes.add_parser("speed")
    speed.add_argument("--data", required=True, help="ALFWorld's folder")
    speed.add_argument("--policy", default=str(ROOT / "recipes/policies/alfworld_small"))
    speed.add_argument("--mode", default="replicate", choices=["replicate", "shard"])
    speed.add_argument("--ranks", type=int, default=2)
    speed.add_argument("--pairs", type=int, default=3)
    speed.add_argument("--updates", type=int, default=4)
    memory = modes.add_parser("memory")
    memory.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    memory.add_argument("--hidden", type=int, default=768)
    rank = modes.add_parser("rank")
    rank.add_argument("--hidden", type=int)
    options = parser.parse_args()
    if options.what == "speed":
        measure_speed(options)
    elif options.what == "memory":
        measure_memory(options)
    else:
        print(json.dumps(resident_bytes(options.hidden)))


def launch(size: int, command: list[str]) -> list[str]:
    """What `size` ranks print; torchrun's variables without torchrun, which costs a second."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    ranks = []
    for rank in range(size):
        # Or the C library keeps what was freed, up to 32 MiB a piece.
        where = {"OMP_NUM_THREADS": "1", "MALLOC_MMAP_THRESHOLD_": "1048576"}
        if size > 1:
            where |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "WORLD_SIZE": str(size)}
            where |= {"LOCAL_WORLD_SIZE": str(size), "MASTER_ADDR": "127.0.0.1"}
            where |= {"MASTER_PORT": port}
        environ = os.environ | where
        ranks.append(subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True))
    said = [process.communicate()[0] for process in ranks]
    if any(process.returncode for process in ranks):
        raise SystemExit("a rank has failed")
    return said


def measure_speed(options: argparse.Namespace) -> None:
    seconds: dict[int, list[list[dict[str, float]]]] = {1: [], options.ranks: []}
    with tempfile.TemporaryDirectory(prefix="paw-bench-") as folder:
        for pair in range(options.pairs):
            for size in (1, options.ranks) if pair % 2 else (options.ranks, 1):
                directory = Path(folder) / f"{pair}-{size}"
                keys = SPEED | {"env.data_dir": options.data, "run.directory": directory}
                keys |= {"run.updates": options.updates, "parallel.mode": options.mode}
                keys["model.path"] = options.policy
                flags = [x for key, value in keys.items() for x in (f"--{key}", str(value))]
                launch(size, [sys.executable, "-m", "paw", "train", *flags])
                lines = (directory / "metrics.jsonl").read_text().splitlines()[1:]
                seconds[size].append([json.loads(line) for line in lines])
    for size, runs in seconds.items():
        told = {s: statistics.median(r[f"time/{s}"] for run in runs for r in run) for s in STAGES}
        whole = statistics.median(r["time/update"] for run in runs for r in run)
        print(f"{size} of one thread: {whole:.2f} s an update; {format_stages(told)}")
    updates = [
        one["time/update"] / other["time/update"]
        for ours, theirs in zip(seconds[1], seconds[options.ranks], strict=True)
        for one, other in zip(ours, theirs, strict=True)
    ]
    low, high = interval(updates)
    print(f"1 / {options.ranks}: {statistics.median(updates):.2f} [{low:.2f}, {high:.2f}]")


def format_stages(seconds: dict[str, float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in seconds.items())


def measure_memory(options: argparse.Namespace) -> None:
    """By the difference of two models: what a process takes besides is the same for both."""
    alone: float | None = None
    for size in options.ranks:
        found = []
        for hidden in (options.hidden // 2, options.hidden):
            command = [sys.executable, __file__, "rank", "--hidden", str(hidden)]
            rows = [json.loads(text.splitlines()[-1]) for text in launch(size, command)]
            found.append((rows[0]["parameters"], max(row["bytes"] for row in rows)))
        (few, less), (many, more) = found
        each = (more - less) / (many - few)
        alone = alone or each * size
        print(
            f"{size} ranks: {more / 2**20:,.0f} MiB with {many / 1e6:.1f} M parameters, "
            f"{less / 2**20:,.0f} with {few / 1e6:.1f} M: {each:.2f} bytes a parameter and rank, "
            f"1 / {alone / each:.2f} of one rank's"
        )


def resident_bytes(hidden: int) -> dict[str, int]:
    """Of this rank, after two optimizer steps."""
    import torch
    from transformers import Qwen3Config, Qwen3ForCausalLM

    from paw.config.tree import AlgorithmConfig, OptimizerConfig, PawConfig
    from paw.model.policy import Policy
    from paw.rollout.ranks import ALONE
    from paw.train.learner import Learner
    from paw.train.losses import choose_losses
    from paw.types import Role, TrainingSample

    torch.set_num_threads(1)
    torch.manual_seed(0)
    ranks = ALONE
    if "RANK" in os.environ:
        from paw.train.parallel import Shards

        ranks = Shards()
    before = resident()
    config = Qwen3Config(
        vocab_size=8192, hidden_size=hidden, intermediate_size=4 * hidden, num_hidden_layers=8,
        num_attention_heads=hidden // 64, num_key_value_heads=hidden // 64, head_dim=64,
        tie_word_embeddings=True,
    )  # fmt: skip
    policy = Policy(Qwen3ForCausalLM(config))
    parameters = policy.num_parameters
    ranks.split(policy, None)
    losses = choose_losses(AlgorithmConfig(), PawConfig())
    learner = Learner(policy, None, losses, OptimizerConfig(), ranks=ranks)
    row = TrainingSample(
        token_ids=tuple(range(64)), roles=(int(Role.ACTION),) * 64, old_logprobs=(-9.0,) * 64,
        advantages=(1.0,) * 64, policy_weights=(0.0,) + (0.01,) * 63, target_weights=(0.0,) * 64,
        base_length=64, transitions=(0,),
    )  # fmt: skip
    for _ in range(2):
        learner.step([row] * 4)
    found = resident() - before
    ranks.close()
    return {"bytes": found, "parameters": parameters}


def resident() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    main()
