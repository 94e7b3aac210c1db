"""Learning with beginnings that rows have in common computed once, against every row by itself.

    python benchmarks/prefixes.py [--worlds household] [--pairs 5] [--seconds 60]

Rows of real rollouts of each world in three settings (as in paw_overhead.py: `append` and `window`
as the shipped or recipe's policy plays, `window` with the paper's prompts on an expert's episodes;
8 groups of 8, 4 of 8 for the paper's), their prediction targets included. Forward and backward of
them, packing included, in alternating order on one thread; seconds are the process's own. Twice:
with the policy that played, and with random weights of 31 M parameters on the first rows (`--rows`)
alone. ALFWorld is measured where ALFWORLD_DATA says where the games are, search-QA where
SEARCH_QA_DATA names a folder with `tiny_corpus` and `tiny_train`.
"""

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from paw_overhead import ALFWORLD, PAPER, SETTINGS, expert_groups, session

from paw.commands.measure import samples_of
from paw.envs.retrieval import build_index
from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.model.spans import micro_batches
from paw.train.batching import make_batch
from paw.train.loop import act
from paw.types import TrainingSample

SEARCH_QA = str(Path(__file__).parents[1] / "recipes" / "search_qa_small.toml")
GROUPS = {PAPER: "4"}


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--worlds", default="household,alfworld,search_qa")
    parser.add_argument("--pairs", type=int, default=5, help="of each measurement, at most")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each, after one pair")
    parser.add_argument("--tokens", type=int, default=16384, help="of a micro-batch")
    parser.add_argument("--rows", type=int, default=16, help="for the larger model; 0: not at all")
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory(prefix="paw-bench-") as folder:
        for world in options.worlds.split(","):
            files, flags = sources(world, Path(folder))
            for number, (setting, keys) in enumerate(SETTINGS.items()):
                place = f"{folder}/{world}{number}"
                samples, policy = rollouts(files, [*keys, *flags], place, setting)
                print(f"{world}, {setting}: {measure(policy, samples, options)}", flush=True)
                if options.rows:
                    chosen = samples[: options.rows]
                    found = measure(larger(policy.config.vocab_size), chosen, options)
                    print(f"    31 M parameters: {found}", flush=True)


def sources(world: str, folder: Path) -> tuple[list[str], list[str]]:
    """Configuration files and flags of a world."""
    if world == "alfworld":
        return [ALFWORLD], []
    if world != "search_qa":
        return [], []
    data, index = Path(os.environ["SEARCH_QA_DATA"]), folder / "index"
    build_index(data / "tiny_corpus.jsonl.gz", index, progress=False)
    questions = str(data / "tiny_train.jsonl.gz")
    return [SEARCH_QA], [
        "--env.questions", questions, "--env.retriever", str(index), "--env.data_dir", str(data),
    ]  # fmt: skip


def rollouts(
    files: list[str], flags: list[str], directory: str, setting: str
) -> tuple[list[TrainingSample], Policy]:
    """Samples with a weight of one update, and the policy that is to learn from them."""
    groups = ["--rollout.groups", GROUPS.get(setting, "8"), "--rollout.group_size", "8"]
    opened = session(files, [*flags, *groups, "--rollout.workers", "0"], directory, "true")
    try:
        played = (expert_groups if setting == PAPER else act)(opened, 1)
        samples = samples_of(
            [t for group in played for t in group.trajectories],
            opened.run.config,
            opened.source.max_return,
            opened.actor.serializer,
        )
        return [s for s in samples if s.has_weight], opened.learner.policy
    finally:
        opened.close()


def larger(vocab_size: int) -> Policy:
    """Random weights: 8 layers of 512."""
    model = create_policy_model(
        vocab_size=vocab_size,
        hidden_size=512,
        num_layers=8,
        num_heads=8,
        num_kv_heads=4,
        intermediate_size=2048,
        max_positions=4096,
        seed=0,
    )
    return Policy(model)


def measure(policy: Policy, samples: Sequence[TrainingSample], options: argparse.Namespace) -> str:
    """Tokens and the median ratio of seconds, shared over whole."""
    learn(policy, samples[:2], options.tokens, True)  # warms up
    ratios, found = [], {}
    end = time.monotonic() + options.seconds
    while not ratios or (len(ratios) < options.pairs and time.monotonic() < end):
        for share in (True, False) if len(ratios) % 2 else (False, True):
            found[share] = learn(policy, samples, options.tokens, share)
        ratios.append(found[True][0] / found[False][0])
    tokens = [found[share][1] for share in (False, True)]
    return (
        f"{len(samples)} rows, tokens {tokens[0]:,} -> {tokens[1]:,} "
        f"({tokens[1] / tokens[0]:.2f})   seconds {statistics.median(ratios):.2f} "
        f"[{min(ratios):.2f}, {max(ratios):.2f}] (median, range of {len(ratios)} pairs)   "
        f"whole {found[False][0]:.2f} s, shared {found[True][0]:.2f} s"
    )


def learn(
    policy: Policy, samples: Sequence[TrainingSample], tokens: int, share: bool
) -> tuple[float, int]:
    """Processor seconds of a forward and backward pass, and the tokens computed in it."""
    started, count = time.process_time(), 0
    for members in micro_batches(samples, tokens):
        batch = make_batch(members, policy.device, share)
        logprobs, _ = policy.logprobs(batch.packed, batch.positions)
        logprobs.sum().backward()
        count += batch.packed.num_computed
    seconds = time.process_time() - started
    for parameter in policy.parameters():
        parameter.grad = None
    return seconds, count


if __name__ == "__main__":
    main()
