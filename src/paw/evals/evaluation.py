"""`paw eval`: a trained run or any model directory on a split."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from paw.config.tree import Config
from paw.evals.play import evaluate
from paw.model.load import device_of, shape_of
from paw.rollout.actor import (
    Actor,
    check_lengths,
    check_vocabulary,
    load_policy,
    on_split,
    open_source,
)
from paw.rollout.fit import settle, usable_bytes
from paw.runs.console import Bar
from paw.runs.facts import environment_facts
from paw.runs.files import check_writable, write_atomically
from paw.runs.gguf import unpack
from paw.runs.layout import resolve_model, tokenizer_place
from paw.runs.records import trajectory_record, write_trajectories
from paw.runs.threads import set_threads
from paw.text.tokenizer import load_tokenizer
from paw.types import Trajectory


def evaluate_model(
    config: Config,
    split: str | None,
    episodes: int | None,
    seed: int,
    output: str | None,
    *,
    save_trajectories: str | None = None,
) -> dict[str, Any]:
    """Play a split (every task once by default); `write_result` writes what it returns.

    Args:
        config: model, environment and limits.
        split: None: the one on which the environment is evaluated.
        episodes: None: every task once.
        seed: of the sampling.
        output: where the caller will write the result.
        save_trajectories: file that gets the episodes.

    Raises:
        UserError: bad input, or a file that cannot be written: before anything is played.
    """
    for file in (output, save_trajectories):
        if file:
            check_writable(Path(file))

    def save(played: Sequence[Trajectory]) -> None:
        if save_trajectories:
            records = [trajectory_record(trajectory, update=0) for trajectory in played]
            write_trajectories(Path(save_trajectories), records, config.env.name)

    path = unpack(resolve_model(config.model.path))
    source = open_source(on_split(config, split))
    room = usable_bytes(device_of(config.model.device))
    # Adapters of the card's training are merged into its weights.
    policy = load_policy(config, path, lora=False)
    tokenizer = load_tokenizer(tokenizer_place(config.model.adapter, path))
    config = settle(config, shape_of(policy.config), room, learns=False)
    check_vocabulary(policy, tokenizer, config.model.path)
    set_threads(config.run.threads, policy.num_parameters)
    actor, episodes = Actor(config, policy, tokenizer), episodes or len(source)
    check_lengths(config, policy.positions, actor.serializer, learns=False)
    with Bar(episodes, "episode") as bar:
        result = evaluate(
            actor,
            split,
            episodes,
            config.eval.temperature,
            seed,
            lambda finished, won, left: bar(finished, {"won": won}, left),
            on_played=save,
        )
    model = {"model": path}
    if config.model.adapter:
        model["adapter"] = config.model.adapter
    return {**model, "data_dir": config.env.data_dir, **result, **environment_facts()}


def write_result(result: dict[str, Any], output: str | None) -> None:
    """The result as JSON in `output`, if any: after printing, so that a full disk loses no score.

    Raises:
        OSError: it cannot be written.
    """
    if output:
        write_atomically(Path(output), json.dumps(result, indent=1).encode() + b"\n")
