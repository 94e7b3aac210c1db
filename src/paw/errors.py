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


def warn(message: str) -> None:
    """One line on stderr."""
    tell(f"paw: warning: {visible(message)}")


def tell(text: str) -> None:
    """Plain text on stderr, from the process that speaks for a run."""
    if _speaks:
        print(text, file=sys.stderr)


def speak_no_more() -> None:
    """Another process of this run says the same."""
    global _speaks
    _speaks = False


_speaks = True
