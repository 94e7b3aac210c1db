"""What ends a command with one line: a user's mistake, or a run that cannot go on."""

import difflib
import sys
from collections.abc import Iterable

from paw.visible import visible


class UserError(Exception):
    """Bad input: one line that says what, where and how to mend it. The command line exits 2."""


def nearest(name: str, known: Iterable[str]) -> str:
    """`"; did you mean 'x'?"` for the nearest known name, else the list of what there is."""
    known = list(known)
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; known: {', '.join(known)}" if known else ""


def first_line(error: Exception) -> str:
    """What an error of a library says first, else its name."""
    return next((x.strip() for x in str(error).splitlines() if x.strip()), type(error).__name__)


class RunFailure(Exception):
    """A run that cannot go on through no fault of its input; the command line exits 1."""


def warn(message: str, *, of_one: bool = False) -> None:
    """One line on stderr. `of_one`: of this process of a run alone, which says it even if another
    speaks for the run."""
    line = f"warning: {visible(message)}"
    if _rank == 0:
        print(f"paw: {line}", file=sys.stderr)
    elif of_one:
        print(f"paw: rank {_rank}: {line}", file=sys.stderr)


def tell(text: str) -> None:
    """Plain text on stderr, from the process that speaks for a run."""
    if _rank == 0:
        print(text, file=sys.stderr)


def speak_as(rank: int) -> None:
    """This process is one of a run for which that of rank 0 speaks."""
    global _rank
    _rank = rank


_rank = 0
