"""`paw eval`: a trained run or any model directory on a split."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from paw.evals.evaluate import VALIDATION
from paw.text.tokenizer import load_tokenizer
from paw.train.checkpoint import resolve_model
from paw.train.config import Config
from paw.train.run import check_writable, environment_facts, write_atomically
from paw.train.setup import Actor, check_vocabulary, load_policy, open_source


def evaluate_model(
    config: Config,
    split: str | None,
    episodes: int | None,
    temperature: float | None,
    seed: int,
    output: str | None,
) -> dict[str, Any]:
    """Play a split (every task once by default) and write the result to `output`, if any.

    Raises:
        UserError: bad input, or an `output` that cannot be written: before anything is played.
    """
    if output:
        check_writable(Path(output))
    split = split or VALIDATION.get(config.env.name, config.env.split)
    path = resolve_model(config.model.path)
    source = open_source(replace(config, env=replace(config.env, split=split)))
    policy, tokenizer = load_policy(config, path), load_tokenizer(path)
    check_vocabulary(policy, tokenizer, config.model.path)
    result = Actor(config, policy, tokenizer).evaluate(
        split,
        episodes or len(source),
        config.eval.temperature if temperature is None else temperature,
        seed,
    )
    result = {"model": path, "num_tasks": len(source), **result, **environment_facts()}
    if output:
        write_atomically(Path(output), json.dumps(result, indent=1).encode() + b"\n")
    return result


def print_evaluation(result: dict[str, Any]) -> None:
    """Success with its interval, over all and per kind."""
    print(
        f"{result['env']} {result['split']}: {result['num_episodes']} of {result['num_tasks']} "
        f"tasks, temperature {result['temperature']}, seed {result['seed']}"
    )
    for kind, row in {"all": result, **result["by_kind"]}.items():
        low, high = row["interval"]
        score = "" if row["score_mean"] is None else f"  score {row['score_mean']:.3f}"
        print(
            f"  {kind:34} {row['success_rate']:6.1%}  [{low:.1%}, {high:.1%}]  "
            f"n = {row['num_episodes']}  turns {row['turns_mean']:.1f}{score}"
        )
    if result["num_failures"]:
        print(f"  {result['num_failures']} episodes failed in their environment and do not count")
