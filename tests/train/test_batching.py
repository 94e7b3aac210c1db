"""Mini- and micro-batches: nothing dropped, nothing twice, balanced, and blind to forks."""

from itertools import pairwise

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from paw.config.tree import OptimizerConfig
from paw.model.spans import micro_batches
from paw.train.batching import mini_batches, optimizer_steps
from paw.types import TrainingSample


def sample(turns: tuple[int, ...], length: int = 3, predicts_only: bool = False) -> TrainingSample:
    nothing = (0.0,) * length
    return TrainingSample(
        (0,) * length, (0,) * length, nothing, nothing, nothing, nothing, length,
        predicts_only=predicts_only, transitions=turns,
    )  # fmt: skip


@st.composite
def updates(draw):
    """Rows of one or more turns, and forks of some of the turns, at the end."""
    rows, turn = [], 0
    for count in draw(st.lists(st.integers(1, 4), min_size=1, max_size=20)):
        rows.append(sample(tuple(range(turn, turn + count)), draw(st.integers(1, 50))))
        turn += count
    forked = draw(st.lists(st.integers(0, turn - 1), unique=True))
    return rows, [sample((t,), predicts_only=True) for t in forked]


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


@given(updates(), st.integers(1, 8))
@settings(deadline=None)
def test_mini_batches(update, count):
    rows, forks = update
    parts = mini_batches(rows + forks, count, generator())
    assert len(parts) == count
    # Nothing dropped or duplicated.
    assert sorted(id(s) for p in parts for s in p) == sorted(id(s) for s in rows + forks)
    # Balanced in rows that train actions.
    sizes = [sum(not s.predicts_only for s in p) for p in parts]
    assert max(sizes) - min(sizes) <= 1
    # A fork stands with its action, behind the rows.
    for part in parts:
        order = [s.predicts_only for s in part]
        assert order == sorted(order)
        turns = {t for s in part if not s.predicts_only for t in s.transitions}
        assert all(s.transitions[0] in turns for s in part if s.predicts_only)
    # The rows are split as if there were no forks.
    alone = mini_batches(rows, count, generator())
    assert [[id(s) for s in p if not s.predicts_only] for p in parts] == [
        [id(s) for s in p] for p in alone
    ]


def test_one_mini_batch_keeps_the_order_and_more_shuffle():
    rows = [sample((i,)) for i in range(12)]
    assert mini_batches(rows, 1, generator()) == [rows]
    order = [s.transitions[0] for p in mini_batches(rows, 3, generator()) for s in p]
    assert order != sorted(order) and sorted(order) == list(range(12))


def test_epochs_pass_over_the_update_again_in_another_order():
    """The first pass is that of one epoch alone; in each every row comes once."""
    rows = [sample((i,)) for i in range(12)]
    alone = mini_batches(rows, 3, generator())
    assert optimizer_steps(rows, OptimizerConfig(mini_batches=3), generator()) == alone
    steps = optimizer_steps(rows, OptimizerConfig(mini_batches=3, epochs=2), generator())
    assert len(steps) == 6 and steps[:3] == alone
    again = [s.transitions[0] for part in steps[3:] for s in part]
    assert sorted(again) == list(range(12)) and steps[3:] != alone
    assert optimizer_steps(rows, OptimizerConfig(epochs=2), generator()) == [rows, rows]


@given(updates(), st.integers(1, 60))
@settings(deadline=None)
def test_micro_batches(update, max_tokens):
    rows, forks = update
    batches = list(micro_batches(rows + forks, max_tokens))
    assert [s for b in batches for s in b] == rows + forks
    for batch in batches:
        assert batch and (len(batch) == 1 or sum(s.base_length for s in batch) <= max_tokens)
    for batch, following in pairwise(batches):  # no smaller than need be
        assert sum(s.base_length for s in batch) + following[0].base_length > max_tokens
    # Rows are split as if there were no forks.
    members = [[id(s) for s in b if not s.predicts_only] for b in batches]
    alone = [[id(s) for s in b] for b in micro_batches(rows, max_tokens)]
    assert [m for m in members if m] == alone
