"""The memory estimate of `--dry-run` against measured peaks: learning and playing, each by itself.

    python benchmarks/memory.py [--shapes 0.3M 4M 30M] [--ways fp32 bf16 ...] [--rows 16]
        [--length 256] [--sampled 8]

Each line is a process of its own with random weights: two optimizer steps on `--rows` rows of
`--length` tokens in one micro-batch, half of them scored, or as many conversations that reach that
length with `--sampled` tokens. Its peak is the process's (VmHWM), less what stood before the model
was made. `135M` is the shape of SmolLM2-135M: 3 GiB and more. Without bf16 instructions bf16 is 60
times slower: leave it to the small shapes there.
"""

import argparse
import json
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from paw.config.tree import AlgorithmConfig, OptimizerConfig, PawConfig
from paw.model.load import shape_of
from paw.model.memory import Memory, Precision, Work, bytes_of
from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.rollout.local import LocalSampler
from paw.rollout.sampler import SampleRequest
from paw.train.learner import Learner
from paw.train.losses import choose_losses
from paw.types import Role, TrainingSample

SHAPES = {
    "0.3M": (64, 4, 2, 1, 176, 2_000),
    "4M": (192, 4, 6, 2, 576, 8_192),
    "30M": (512, 8, 8, 4, 1408, 8_192),
    "135M": (576, 30, 9, 3, 1536, 49_152),
}
"""Hidden size, layers, heads, key heads, MLP, vocabulary (tied)."""
WAYS: dict[str, dict[str, Any]] = {
    "fp32": {},
    "fp32-checkpointed": {"gradient_checkpointing": True},
    "fp32-lora": {"lora_rank": 8},
    "bf16-products": {"compute_dtype": "bfloat16"},
    "bf16-products-checkpointed": {"compute_dtype": "bfloat16", "gradient_checkpointing": True},
    "bf16": {"dtype": "bfloat16"},
    "bf16-checkpointed": {"dtype": "bfloat16", "gradient_checkpointing": True},
    "bf16-lora": {"dtype": "bfloat16", "lora_rank": 8},
}
MIB = 2**20


def model_of(shape: str, length: int) -> Any:
    hidden, layers, heads, kv_heads, intermediate, vocabulary = SHAPES[shape]
    return create_policy_model(
        vocab_size=vocabulary, hidden_size=hidden, num_layers=layers, num_heads=heads,
        num_kv_heads=kv_heads, intermediate_size=intermediate, max_positions=length + 64, seed=0,
    )  # fmt: skip


def policy_of(shape: str, length: int, way: dict[str, Any]) -> Policy:
    options = {k: v for k, v in way.items() if k != "dtype"}
    model = model_of(shape, length).to(getattr(torch, way.get("dtype", "float32")))
    return Policy(model, **options)


def learn(policy: Policy, rows: int, length: int, steps: int) -> None:
    """Optimizer steps of one micro-batch, half of whose tokens are predicted."""
    rng = random.Random(0)
    zeros = (0.0,) * length
    samples = [
        TrainingSample(
            token_ids=tuple(rng.randrange(policy.config.vocab_size) for _ in range(length)),
            roles=(int(Role.CONTEXT),) * length,
            old_logprobs=zeros,
            advantages=zeros,
            policy_weights=zeros,
            target_weights=tuple(float(i % 2) for i in range(length)),
            base_length=length,
        )
        for _ in range(rows)
    ]
    settings = OptimizerConfig(tokens_per_micro_batch=rows * length)
    losses = choose_losses(AlgorithmConfig(), PawConfig(loss="ce"))
    learner = Learner(policy, None, losses, settings)
    for _ in range(steps):
        learner.step(samples)


def play(policy: Policy, rows: int, length: int, sampled: int) -> None:
    """A turn of different conversations."""
    rng = random.Random(0)
    prompts = [
        tuple(rng.randrange(policy.config.vocab_size) for _ in range(length - sampled))
        for _ in range(rows)
    ]
    requests = [SampleRequest(i, prompt, (i,)) for i, prompt in enumerate(prompts)]
    LocalSampler(policy, end_ids=()).sample(requests, temperature=1.0, max_tokens=sampled)


def status(field: str) -> int:
    """Bytes of a line of /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return 1024 * int(next(line.split()[1] for line in lines if line.startswith(field)))


def measure(arguments: dict[str, Any]) -> None:
    """One setting, in this process; prints bytes and seconds as JSON."""
    torch.set_num_threads(1)
    rows, length, way = arguments["rows"], arguments["length"], arguments["way"]
    for warm in (learn, play):  # libraries load, and workspaces are made
        warm(policy_of("0.3M", 16, way), 1, 16, 1)
    before = status("VmRSS")
    policy = policy_of(arguments["shape"], length, way)
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
    start = time.perf_counter()
    if arguments["mode"] == "learn":
        learn(policy, rows, length, 2)
    else:
        play(policy, rows, length, arguments["sampled"])
    seconds = time.perf_counter() - start
    print(json.dumps({"peak": status("VmHWM") - before, "seconds": seconds}))


def estimate(arguments: dict[str, Any]) -> Memory:
    way, widths = arguments["way"], {"float32": 4, "bfloat16": 2}
    weight = widths[way.get("dtype", "float32")]
    precision = Precision(
        weight,
        widths.get(way.get("compute_dtype", ""), weight),
        way.get("lora_rank", 0),
        way.get("gradient_checkpointing", False),
    )
    rows, length = arguments["rows"], arguments["length"]
    work = Work(
        micro_batch=rows * length,
        conversations=rows,
        length=length,
        learns=arguments["mode"] == "learn",
    )
    with torch.device("meta"):
        shape = shape_of(model_of(arguments["shape"], length).config)
    return bytes_of(shape, precision, work)


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--shapes", nargs="+", choices=SHAPES, default=["0.3M", "4M"])
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--modes", nargs="+", choices=["learn", "play"], default=["learn", "play"])
    parser.add_argument("--rows", type=int, default=16)
    parser.add_argument("--length", type=int, default=256)
    parser.add_argument("--sampled", type=int, default=8)
    parser.add_argument("--one", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        measure(json.loads(args.one))
        return
    print(f"{args.rows} rows of {args.length} tokens; MiB")
    print(f"{'':41}estimated  measured  ratio  seconds")
    for shape in args.shapes:
        for name in args.ways:
            for mode in args.modes:
                one = {
                    "shape": shape,
                    "way": WAYS[name],
                    "mode": mode,
                    "rows": args.rows,
                    "length": args.length,
                    "sampled": args.sampled,
                }
                command = [sys.executable, __file__, "--one", json.dumps(one)]
                found = json.loads(subprocess.check_output(command, text=True))
                memory = estimate(one)
                expected = memory.learning if mode == "learn" else memory.playing
                print(
                    f"{shape:6}{name:29}{mode:6}{expected / MIB:9.0f}{found['peak'] / MIB:10.0f}"
                    f"{expected / found['peak']:7.2f}{found['seconds']:9.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
