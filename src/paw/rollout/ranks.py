"""The processes of a run. One that is alone is the rule, and this class is its; those that share a
run are `train/parallel.py`'s.

Which rank does what changes nothing of what is computed: an episode draws from a seed of its own,
judging sees the whole update on every rank, and denominators stand in the weights.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from paw.model.critic import Critic
from paw.model.policy import Policy

T = TypeVar("T")
A = TypeVar("A")


class Ranks:
    """This process, alone: it has all of everything.

    Attributes:
        rank: its number; rank 0 leads: it owns the run directory and speaks.
        size: how many there are.
        on_machine: of them on this machine.
        sharded: it has a part of what is trained; its passes wait for the others'.
    """

    rank = 0
    size = 1
    on_machine = 1
    sharded = False

    @property
    def leads(self) -> bool:
        """Does this one write and speak?"""
        return self.rank == 0

    def gather(self, mine: T) -> list[T]:
        """What each rank has, by rank; all wait for all."""
        return [mine]

    def agreed(self, mine: T) -> T:
        """What rank 0 has."""
        return self.gather(mine)[0]

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        """A block that rank 0 passes before the others: it makes what they find."""
        yield

    def mine(self, items: Sequence[T], size_of: Callable[[T], int] = lambda item: 1) -> list[T]:
        """This rank's share: items that follow each other, so that what they have in common stays
        together, and of about the same size as the others' shares."""
        return share(items, [size_of(item) for item in items], self.size)[self.rank]

    def spread(
        self, items: Sequence[T], work: Callable[[list[T]], Sequence[A]],
        size_of: Callable[[T], int] = lambda item: 1,
    ) -> list[A]:  # fmt: skip
        """`work` of all items, in their order: each rank does its share. It gives an answer, or any
        fixed number of them, to each item."""
        return [answer for part in self.gather(work(self.mine(items, size_of))) for answer in part]

    def split(self, policy: Policy, critic: Critic | None) -> None:
        """Once, before the optimizers are made: give this rank its part of what is trained."""

    def whole(self, policy: Policy) -> Policy:
        """What plays and scores where `policy` is trained."""
        return policy

    def keep(self, policy: Policy) -> None:
        """Once, after `split`: hold a policy that learns nothing in parts."""

    def gathered(self, policy: Policy) -> contextlib.AbstractContextManager[Any]:
        """A block in which all of a policy is here, on all ranks."""
        return contextlib.nullcontext()

    def hand_over(self) -> None:
        """The policy that plays gets the trained weights."""

    def release(self) -> None:
        """The policy that plays is not needed until the next hand-over: free its memory."""

    def rounds(self, batches: Iterable[list[T]], spare: Callable[[], T]) -> Iterator[list[T]]:
        """The batches, and where passes wait for each other as many on every rank: a rank with
        fewer passes `spare` items, which have no weight."""
        return iter(batches)

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        """Make each gradient the sum of all ranks'."""

    def parts(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        """What this rank holds of tensors that are shaped like parameters."""
        return list(tensors)

    def total(self, number: float) -> float:
        """The sum over all parts of what is a sum over this rank's."""
        return number

    def placed(self, state: Any) -> Any:
        """A state of whole tensors, as this rank holds it."""
        return state

    def room(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        """For a tensor of that shape, as this rank holds it."""
        return torch.empty(shape, dtype=dtype)

    def is_lost(self, error: RuntimeError) -> bool:
        """Does an error say that another rank has gone?"""
        return False

    def close(self) -> None:
        """The run is at its end."""


ALONE = Ranks()


def share(items: Sequence[T], sizes: Sequence[int], count: int) -> list[list[T]]:
    """Cut `items` into `count` parts that follow each other, whose sizes differ from the mean by at
    most the largest item: an item goes where its middle falls. Some may be empty."""
    total, before = max(sum(sizes), 1), 0
    parts: list[list[T]] = [[] for _ in range(count)]
    for item, size in zip(items, sizes, strict=True):
        parts[min((2 * before + size) * count // (2 * total), count - 1)].append(item)
        before += size
    return parts
