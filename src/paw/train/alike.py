"""What the processes of a run must have alike, held before it begins: a stale copy of a model or a
directory of its own on one machine would make another run of it without a word."""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from paw.config.read import flat
from paw.config.tree import Config
from paw.envs.base import TaskSource
from paw.errors import UserError
from paw.model.policy import Policy
from paw.rollout.ranks import Ranks

PART = 2**24
BITS = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


def check_configuration(config: Config, ranks: Ranks) -> None:
    """UserError: a rank was started with another one."""
    found = ranks.gather(config)
    rank = _odd(found)
    if rank is not None:
        first, other = (flat(found[n]) for n in (0, rank))
        key = next(key for key in first | other if first.get(key) != other.get(key))
        raise UserError(
            f"rank {rank} was started with {key} = {other.get(key)!r}, rank 0 with "
            f"{first.get(key)!r}: give all the same configuration"
        )


def check_tasks(source: TaskSource, ranks: Ranks) -> None:
    """UserError: a rank finds other data."""
    rank = _odd(ranks.gather(source.facts() if ranks.size > 1 else None))
    if rank is not None:
        raise UserError(f"env.data_dir: rank {rank} finds other tasks there than rank 0")


def check_weights(policy: Policy, place: str, ranks: Ranks) -> None:
    """UserError: a rank has loaded others from its `place`."""
    tensors = policy.model.state_dict().values() if ranks.size > 1 else ()
    rank = _odd(ranks.gather([_digest(t) for t in tensors]))
    if rank is not None:
        raise UserError(
            f"rank {rank} has loaded other weights from {place} than rank 0: a copy on its machine "
            "that is older?"
        )


def check_shared(directory: Path, ranks: Ranks) -> None:
    """UserError: a rank does not see what rank 0 writes in its run directory."""
    if ranks.size == 1:
        return
    token = ranks.agreed(directory / f".seen-by-all-{secrets.token_hex(8)}")
    if ranks.leads:
        token.touch()
    ranks.gather(None)
    try:
        check_seen(token, ranks)
    finally:
        if ranks.leads:
            token.unlink()


def check_seen(path: Path, ranks: Ranks) -> None:
    """UserError: a rank does not see a path in the run directory that rank 0 does."""
    seen = ranks.gather((path.exists(), str(Path.cwd())))
    rank = next((n for n, (there, _) in enumerate(seen) if not there), None)
    if rank is not None:
        raise UserError(
            f"run.directory: rank {rank} (in {seen[rank][1]}) does not see {path}, which rank 0 "
            "does: it must be one that all machines share, with its whole path if they start in "
            "different folders"
        )


def _digest(tensor: Tensor) -> int:
    """The sum of its bits as numbers: exact, and so the same on every kind of device."""
    bits = tensor.reshape(-1).view(BITS[tensor.element_size()])
    # In parts: on a CPU a sum in another type is made of a copy.
    return sum(int(part.sum(dtype=torch.int64)) for part in bits.split(PART))


def _odd(found: Sequence[Any]) -> int | None:
    """The first rank whose is not rank 0's."""
    return next((rank for rank, other in enumerate(found) if other != found[0]), None)
