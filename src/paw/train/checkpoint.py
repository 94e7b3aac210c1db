"""Checkpoints: an ordinary HF directory, the policy's card, and what training needs to go on.

    update-000050/   model.safetensors config.json tokenizer.json …   any HF tool reads it
                     paw.toml                                          its card, see runs/card.py
                     trainer.pt                                        optimizers, critic, counters
                     trainer/                                          their tensors, if sharded

Written beside its place and renamed, so that a checkpoint that exists is complete. A run draws all
its randomness from (seed, update), so no generator state is kept.
"""

import contextlib
import pickle
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedTokenizerBase

from paw.config.tree import Config
from paw.errors import UserError, first_line
from paw.model.policy import Policy
from paw.rollout.ranks import Ranks
from paw.runs.card import card_text
from paw.runs.files import discard, new_directory
from paw.runs.layout import CARD, complete, name_of, newest_checkpoint
from paw.text.turns import turn_format
from paw.train.learner import Learner

SHARDS = "trainer"
"""Folder of tensors in the parts of several ranks"""


def save_policy(
    directory: Path,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    card: str,
    *,
    in_place: bool = False,
) -> None:
    """Write an HF directory with tokenizer and card into an existing or new directory; in it
    `generate` of any tool stops where the policy learned to. `in_place`: see `Policy.save`."""
    ends, pad = turn_format(tokenizer).end_ids, cast(int | None, tokenizer.pad_token_id)
    policy.save(directory, ends, pad, in_place=in_place)
    tokenizer.save_pretrained(directory)
    (directory / CARD).write_text(card, encoding="utf-8")


def save(
    folder: Path,
    update: int,
    config: Config,
    learner: Learner,
    tokenizer: PreTrainedTokenizerBase,
    *,
    made_by: str = "paw train, update",
    beside: Mapping[str, bytes] | None = None,
) -> Path:
    """Write `update-<number>` whole, then delete all but the newest `keep_checkpoints`.

    Args:
        made_by: what the card says before the number.
        beside: further files, by name.

    Raises:
        UserError: the disk is full; earlier checkpoints are untouched.
    """
    final, ranks = folder / name_of(update), learner.ranks
    try:
        with _new_directory(final, ranks) as directory:
            state: dict[str, Any] = {"update": update, **learner.state()}
            if ranks.sharded:
                from paw.train.parallel import write_shards

                state = write_shards(state, directory / SHARDS)
            if ranks.leads:
                card = card_text(config, f"{made_by} {update}")
                player = ranks.whole(learner.policy)
                save_policy(directory, player, tokenizer, card, in_place=ranks.sharded)
                for name, data in (beside or {}).items():
                    (directory / name).write_bytes(data)
                _write_state(state, directory / "trainer.pt")
    except UserError as error:
        newest = newest_checkpoint(folder)
        where = "the start" if newest is None else newest.name
        raise UserError(f"{error}; the same command then goes on from {where}") from error
    if learner.policy.lora_rank:
        ranks.hand_over()  # rank 0's was merged: one model on it, none on its host
    for old in complete(folder)[: -config.run.keep_checkpoints] if ranks.leads else ():
        discard(old)
    return final


@contextlib.contextmanager
def _new_directory(final: Path, ranks: Ranks) -> Iterator[Path]:
    """A directory to fill on all ranks, which rank 0 makes and, when all have, renames."""
    if not ranks.leads:
        yield ranks.agreed(final)
        ranks.gather(None)
    else:
        with new_directory(final) as directory:
            yield ranks.agreed(directory)
            ranks.gather(None)
    ranks.gather(None)


def restore(checkpoint: Path, learner: Learner) -> int:
    """Load optimizers, critic, counters (and the adapter, with LoRA); returns the update reached.

    The policy's weights themselves are loaded from the checkpoint as from any HF directory, within
    `explain_broken`.

    Raises:
        UserError: `trainer.pt` is broken or of another model; says how to go back.
    """
    file = checkpoint / "trainer.pt"
    ranks = learner.ranks
    try:
        # Of many ranks each needs a part of it: not all of it in the memory of each.
        state = torch.load(file, map_location="cpu", weights_only=True, mmap=ranks.sharded)
        if (checkpoint / SHARDS).is_dir():
            from paw.train.parallel import read_shards

            state = read_shards(state, checkpoint / SHARDS, ranks)
        else:
            state = ranks.placed(state)
        learner.load_state(state)
        return state["update"]
    except (
        OSError, EOFError, RuntimeError, ValueError, KeyError, TypeError, AttributeError,
        pickle.PickleError,
    ) as error:  # fmt: skip
        if isinstance(error, RuntimeError) and (
            isinstance(error, torch.OutOfMemoryError) or ranks.is_lost(error)
        ):
            raise  # which is not the file's fault
        raise UserError(
            f"{file}: cannot read it ({first_line(error)}){_how_to_go_on(checkpoint)}"
        ) from error


@contextlib.contextmanager
def explain_broken(checkpoint: Path) -> Iterator[None]:
    """Around loading the policy of a checkpoint that a run goes on from.

    Raises:
        UserError: as the block does, and how to go back.
    """
    try:
        yield
    except UserError as error:
        raise UserError(f"{checkpoint} is broken ({error}){_how_to_go_on(checkpoint)}") from error


def _how_to_go_on(checkpoint: Path) -> str:
    """What to do about a broken checkpoint."""
    older = [c for c in complete(checkpoint.parent) if c.name < checkpoint.name]
    where = older[-1].name if older else "the start"
    return f"; delete the directory {checkpoint}: the same command then goes on from {where}"


def _write_state(state: dict[str, Any], file: Path) -> None:
    with open(file, "wb") as stream:
        try:
            torch.save(state, stream)
        except RuntimeError as error:  # torch hides the reason behind one of its own
            if isinstance(error.__context__, OSError):
                raise error.__context__ from None
            raise
