"""Checkpoints: an ordinary HF directory, the policy's card, and what training needs to go on.

    update-000050/   model.safetensors config.json tokenizer.json …   any HF tool reads it
                     paw.toml                                          how the policy is prompted
                     trainer.pt                                        optimizers, critic, counters

Written beside its place and renamed, so that a checkpoint that exists is complete. A run draws all
its randomness from (seed, update), so no generator state is kept.
"""

import os
import shutil
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from paw.errors import UserError
from paw.model.policy import Policy
from paw.train.config import Config
from paw.train.learner import Learner
from paw.train.run import name_of, write_atomically
from paw.train.settings import Table, read_toml, to_toml

SHIPPED = Path(__file__).parents[1] / "policies"
"""Policies in the package, by name."""

CARD = "paw.toml"
CARD_KEYS = {
    "env": ("name",),
    "rollout": (
        "max_turns", "context", "history_turns", "response_format",
        "max_prompt_tokens", "max_response_tokens",
    ),
    "eval": ("max_turns",),
}  # fmt: skip
"""What a policy remembers of its training: how to prompt it."""


def resolve_model(path: str) -> str:
    """A shipped policy's name, a run directory (its newest checkpoint), or the path as it is."""
    if (SHIPPED / path).is_dir():
        return str(SHIPPED / path)
    if (Path(path) / "checkpoints").is_dir():
        newest = newest_checkpoint(Path(path) / "checkpoints")
        if newest is None:
            raise UserError(f"{path}: the run has no complete checkpoint yet")
        return str(newest)
    return path


def read_card(path: str) -> Table:
    """The policy's own layer of the configuration; empty for a model that has none."""
    card = Path(resolve_model(path)) / CARD
    return read_toml(card) if card.is_file() else {}


def card_text(config: Config) -> str:
    """The card of a policy trained under `config`."""
    import tomllib

    whole = tomllib.loads(to_toml(config))
    lines = ["# How this policy was trained to be prompted; a layer below your own configuration."]
    for table, keys in CARD_KEYS.items():
        lines.append(f"[{table}]")
        for key in keys:
            if key not in whole[table]:
                continue
            value = whole[table][key]
            lines.append(f"{key} = {value}" if isinstance(value, int) else f'{key} = "{value}"')
    return "\n".join(lines) + "\n"


def save_policy(
    directory: Path, policy: Policy, tokenizer: PreTrainedTokenizerBase, card: str
) -> None:
    """Write an HF directory with tokenizer and card into an existing or new directory."""
    policy.save(directory)
    tokenizer.save_pretrained(directory)
    (directory / CARD).write_text(card, encoding="utf-8")


def save(
    folder: Path,
    update: int,
    config: Config,
    learner: Learner,
    tokenizer: PreTrainedTokenizerBase,
) -> Path:
    """Write `update-<number>` whole, then delete all but the newest `keep_checkpoints`."""
    final = folder / name_of(update)
    temporary = folder / (name_of(update) + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        save_policy(temporary, learner.policy, tokenizer, card_text(config))
        torch.save(_trainer_state(update, config, learner), temporary / "trainer.pt")
        for file in [*temporary.iterdir(), temporary]:
            _sync(file)
        if final.exists():
            shutil.rmtree(final)
        os.replace(temporary, final)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise UserError(
            f"cannot write the checkpoint {final}: {error.strerror or error}; free some space or "
            "mend the directory and run the same command again: it goes on from the last checkpoint"
        ) from error
    for old in complete(folder)[: -config.run.keep_checkpoints]:
        shutil.rmtree(old)
    return final


def complete(folder: Path) -> list[Path]:
    """Complete checkpoints, oldest first."""
    return sorted(p for p in folder.glob("update-??????") if (p / "trainer.pt").is_file())


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, if any."""
    return (complete(folder) or [None])[-1]


def restore(checkpoint: Path, learner: Learner) -> int:
    """Load optimizers, critic, counters (and the adapter, with LoRA); returns the update reached.

    The policy's weights themselves are loaded from the checkpoint as from any HF directory.
    """
    state = torch.load(checkpoint / "trainer.pt", map_location="cpu", weights_only=True)
    learner.optimizer.load_state_dict(state["optimizer"])
    learner.num_steps = state["num_steps"]
    if "adapter" in state:
        learner.policy.load_state_dict(state["adapter"])
    if learner.critic is not None and learner.critic_optimizer is not None:
        learner.critic.load_state_dict(state["critic"])
        learner.critic_optimizer.load_state_dict(state["critic_optimizer"])
    return state["update"]


def write_card(directory: Path, card: str) -> None:
    """Write a policy's card atomically."""
    write_atomically(directory / CARD, card.encode())


def _trainer_state(update: int, config: Config, learner: Learner) -> dict[str, Any]:
    state: dict[str, Any] = {
        "update": update,
        "num_steps": learner.num_steps,
        "optimizer": learner.optimizer.state_dict(),
    }
    if config.model.lora_rank:
        state["adapter"] = learner.policy.state_dict()
    if learner.critic is not None and learner.critic_optimizer is not None:
        state["critic"] = learner.critic.state_dict()
        state["critic_optimizer"] = learner.critic_optimizer.state_dict()
    return state


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
