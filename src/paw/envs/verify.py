"""`paw data`: is a folder of benchmark data whole? A line for each thing, with what mends it.

Each environment with data of its own has a module `verify` with `verify(folder, splits)`,
`inventory(folder)`, `folder_of(named)` and `SOURCES`; this one holds what they share.
"""

import importlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

from paw.envs.download import Remote
from paw.errors import UserError, nearest

WITH_DATA = ("alfworld", "webshop", "search_qa")
"""Environments that read files; the household is part of the package."""

MOST_NAMES = 20
"""Bad files that are named; the rest is counted."""

Status = Literal["ok", "--", "warn", "FAIL"]
"""`--`: not there, and nothing needs it unless it is asked for."""

Progress = Callable[[Iterable, int, str], Iterable]
"""(things, how many, what they are) -> the same things, with a bar where one is wanted."""


@dataclass(frozen=True, slots=True)
class Line:
    """What was found about one thing."""

    status: Status
    what: str
    found: str
    mend: str = ""
    """The command or sentence that mends it."""


class Verifier(Protocol):
    """The module `verify` of an environment."""

    SOURCES: str
    """Where the data come from and how they are laid out, for people."""

    LICENCE: str
    """Of the data."""
    FILES: Sequence[Remote]
    """What `paw data NAME --download` fetches."""

    def folder_of(self, named: str | None) -> Path | None:
        """The folder `named`, else that of the environment's variable or its default."""
        ...

    def inventory(self, folder: Path) -> list[Line]:
        """What is there by name, in well under a second; nothing is opened."""
        ...

    def verify(self, folder: Path, splits: Sequence[str], progress: Progress) -> list[Line]:
        """Read everything. Raises UserError for a split that does not exist."""
        ...


def verifier(name: str) -> Verifier:
    """The verifier of an environment.

    Raises:
        UserError: it has no data, or does not exist.
    """
    if name not in WITH_DATA:
        if name == "household":
            raise UserError("data: the household needs no files; it is part of the package")
        raise UserError(f"data: no benchmark {name!r}{nearest(name, WITH_DATA)}")
    return cast(Verifier, importlib.import_module(f"paw.envs.{name}.verify"))


def passed(lines: Sequence[Line]) -> bool:
    """Whether nothing failed."""
    return not any(line.status == "FAIL" for line in lines)


def format_lines(lines: Sequence[Line]) -> str:
    """A table: status, what, what was found; the mend on a line of its own."""
    width = max((len(line.what) for line in lines), default=0)
    rows = []
    for line in lines:
        rows.append(f"{line.status:4}  {line.what:{width}}  {line.found}")
        if line.mend:
            rows.append(f"{'':6}{'':{width}}  -> {line.mend}")
    return "\n".join(rows)


def named(names: Sequence[str]) -> str:
    """`a, b and 3 more`."""
    more = len(names) - MOST_NAMES
    shown = ", ".join(names[:MOST_NAMES])
    return f"{shown} and {more:,} more" if more > 0 else shown
