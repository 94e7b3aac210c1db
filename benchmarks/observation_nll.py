"""How well models predict what an environment says next, on the same frozen episodes for all.

    python benchmarks/observation_nll.py MODEL [MODEL ...] --env alfworld --split valid_seen \\
        [--episodes 64] [--seed 0] [--set rollout.max_prompt_tokens=1800 ...] [-o result.json]

Episodes of the environment's expert (noise and junk as in `paw imitate`), `append`, responses are
commands. Prints the mean negative log-likelihood of next-observation tokens (nats a token and nats
an observation), the share of tokens with p > 0.2 (Eq. 9 clips those) and the mean over the
observations that no earlier turn of the episode said. First observations are no targets.
"""

import argparse
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import torch

from paw.config.read import resolve
from paw.config.tree import Config
from paw.imitate.demonstrations import Demonstration, expert_demonstrations
from paw.imitate.rows import demonstration_rows
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.rollout.actor import load_policy, make_serializer, open_source
from paw.runs.layout import resolve_model
from paw.text.dialogue import Serializer
from paw.text.tokenizer import load_tokenizer
from paw.types import Role

RHO = 0.2


@dataclass(slots=True)
class Sums:
    """Sums over observations."""

    tokens: int = 0
    nll: float = 0.0
    known: int = 0
    observations: int = 0
    new_tokens: int = 0
    new_nll: float = 0.0

    def add(self, logprobs: Sequence[float], new: bool) -> None:
        nll = -math.fsum(logprobs)
        self.tokens, self.nll = self.tokens + len(logprobs), self.nll + nll
        self.known += sum(math.exp(p) > RHO for p in logprobs)
        self.observations += 1
        if new:
            self.new_tokens, self.new_nll = self.new_tokens + len(logprobs), self.new_nll + nll

    def result(self) -> dict[str, Any]:
        return {
            "nll_per_token": self.nll / self.tokens,
            "nll_per_observation": self.nll / self.observations,
            "share_above_0.2": self.known / self.tokens,
            "nll_per_token_of_new": self.new_nll / self.new_tokens if self.new_tokens else None,
            "tokens": self.tokens,
            "observations": self.observations,
        }


def episode_row(
    serializer: Serializer, episode: Demonstration, config: Config
) -> tuple[list[int], list[tuple[int, int, bool]]]:
    """The tokens of an episode, and (start, stop, said for the first time) of each observation
    between two actions."""
    (row,) = demonstration_rows(serializer, episode, config)
    texts = [o.text for o in episode.observations[: len(episode.responses)]]
    shown = iter(i for i, text in enumerate(texts) if i and text)
    spans, start = [], 0
    for role, tokens in groupby(row.roles):
        stop = start + len(list(tokens))
        if role == Role.OBSERVATION and start > row.roles.index(Role.ACTION):
            i = next(shown)
            spans.append((start, stop, texts[i] not in texts[:i]))
        start = stop
    return list(row.token_ids), spans


@torch.no_grad()
def measure(policy: Policy, rows: Sequence[tuple[list[int], list[tuple[int, int, bool]]]]) -> Sums:
    sums = Sums()
    for ids, spans in rows:
        packed = pack([ids], policy.device)
        positions = torch.cat([torch.arange(a, b) for a, b, _ in spans]).to(policy.device)
        logprobs = policy.logprobs(packed, positions)[0].double().tolist()
        for start, stop, new in spans:
            sums.add(logprobs[: stop - start], new)
            logprobs = logprobs[stop - start :]
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("models", nargs="+", metavar="MODEL")
    parser.add_argument("--env", default="household")
    parser.add_argument("--split", default="valid")
    parser.add_argument("--episodes", type=int, default=64)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--set", action="append", default=[], metavar="TABLE.KEY=VALUE")
    parser.add_argument("-o", "--output")
    args = parser.parse_args()
    torch.set_num_threads(1)
    results: dict[str, Any] = {}
    print(f"{args.env} {args.split}, {args.episodes} expert episodes, seed {args.seed}")
    print(f"{'model':40}{'nats/token':>11}{'new only':>10}{'p > 0.2':>9}{'nats/obs.':>11}")
    for model in args.models:
        flags = [
            f"--env.name={args.env}", f"--env.split={args.split}", f"--model.path={model}",
            f"--imitate.demonstrations={args.episodes}", f"--run.seed={args.seed}",
            "--imitate.observation_weight=0",
            "--rollout.context=append", "--rollout.response_format=command",
            "--rollout.max_prompt_tokens=4000", *(f"--{item}" for item in args.set),
        ]  # fmt: skip
        config = resolve([], flags)
        episodes = expert_demonstrations(open_source(config), config)
        path = resolve_model(config.model.path)
        serializer = make_serializer(config, load_tokenizer(path))
        rows = [row for e in episodes if (row := episode_row(serializer, e, config))[1]]
        found = measure(load_policy(config, path), rows).result()
        results[model] = found
        new = found["nll_per_token_of_new"]
        print(
            f"{model[-40:]:40}{found['nll_per_token']:11.3f}{new or math.nan:10.3f}"
            f"{found['share_above_0.2']:9.1%}{found['nll_per_observation']:11.2f}",
            flush=True,
        )
    facts = {k: getattr(args, k) for k in ("env", "split", "episodes", "seed")}
    if args.output:
        Path(args.output).write_text(json.dumps({**facts, "models": results}, indent=1) + "\n")


if __name__ == "__main__":
    main()
