"""`paw data`: where a benchmark's data come from, and are they whole?"""

import argparse
from collections.abc import Iterable
from typing import Any

from paw.commands.arguments import Declare
from paw.errors import UserError

HELP = "where a benchmark's data come from; --check: are they whole?"


def add(declare: Declare) -> None:
    """Declare the command."""
    data = declare("data", run, HELP)
    data.add_argument("env", metavar="ENV", help="alfworld, webshop or search_qa")
    data.add_argument(
        "--check", nargs="?", const="", metavar="DIR",
        help="read all of DIR (default: the environment's own variable)",
    )  # fmt: skip
    data.add_argument("--split", action="append", default=[], help="only this one; may be repeated")


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.verify import format_lines, passed, verifier

    own = verifier(known.env)
    if known.check is None:
        print(own.SOURCES)
        return 0
    folder = own.folder_of(known.check or None)
    if folder is None:
        raise UserError(f"data: name the folder: paw data {known.env} --check DIR")
    if not folder.is_dir():
        raise UserError(f"data: {folder} is no folder; paw data {known.env} says how to fill one")
    lines = own.verify(folder, known.split, _bar)
    print(format_lines(lines))
    return 0 if passed(lines) else 1


def _bar(things: Iterable[Any], count: int, what: str) -> Iterable[Any]:
    """A progress bar on a terminal; gone when it is done."""
    from tqdm import tqdm

    return tqdm(things, what, count or None, leave=False, mininterval=1.0, disable=None)
