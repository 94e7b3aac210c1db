"""Out of memory: once is halved and repeated whole, twice is one line."""

import pytest
import torch

from paw.errors import UserError
from paw.train.memory import TokenLimit, with_less_memory
from paw.train.statistics import Statistics

ROWS = [3, 5, 2, 4]
"""Tokens of the rows; row i adds its tokens to the gradient of one weight."""


class Scripted:
    """A mini-batch on a device where passes of more than `fits` tokens run out of memory."""

    def __init__(self, fits: int):
        self.fits = fits
        self.weight = torch.nn.Parameter(torch.zeros(1))
        self.statistics = Statistics()
        self.tried: list[int] = []

    def attempt(self, tokens: int) -> str:
        self.tried.append(tokens)
        for count, row in enumerate(ROWS, start=1):
            if count == 3 and tokens > self.fits:  # after two rows have been counted
                raise torch.OutOfMemoryError("CUDA out of memory.")
            (self.weight * row).sum().backward()
            self.statistics.add(tokens=row)
        return "done"

    def undo(self) -> None:
        self.weight.grad = None
        self.statistics.sums.clear()

    def run(self, limit: TokenLimit) -> None:
        assert with_less_memory(lambda: self.attempt(limit.tokens), limit, self.undo) == "done"


def test_what_fits_is_done_once(capsys):
    scripted, limit = Scripted(fits=8), TokenLimit(8)
    scripted.run(limit)
    assert scripted.tried == [8] and limit == TokenLimit(8)
    assert capsys.readouterr().err == ""


def test_running_out_once_repeats_the_whole_mini_batch(capsys):
    """Gradient and statistics are those of one attempt: 3 + 5 + 2 + 4 = 14."""
    scripted, limit = Scripted(fits=4), TokenLimit(8)
    scripted.run(limit)
    assert scripted.tried == [8, 4] and limit == TokenLimit(4, halved=True)
    assert scripted.weight.grad.item() == scripted.statistics.total("tokens") == 14
    assert "out of memory with 8 tokens" in capsys.readouterr().err
    scripted.run(limit)  # the next mini-batch begins with what fits
    assert scripted.tried == [8, 4, 4]


@pytest.mark.parametrize("limit", [TokenLimit(8), TokenLimit(4, halved=True), TokenLimit(1)])
def test_running_out_twice_is_one_line_and_leaves_no_gradient(limit, capsys):
    scripted = Scripted(fits=0)
    with pytest.raises(UserError, match=r"lower optimizer\.tokens_per_micro_batch") as error:
        scripted.run(limit)
    assert "\n" not in str(error.value) and error.value.__cause__ is None
    assert scripted.weight.grad is None and scripted.statistics.sums == {}


def test_other_errors_pass():
    def attempt() -> None:
        raise RuntimeError("size mismatch")

    with pytest.raises(RuntimeError, match="size mismatch"):
        with_less_memory(attempt, TokenLimit(8), lambda: None)
