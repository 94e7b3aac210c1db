"""`paw keys`."""

import argparse

from paw.commands.arguments import Declare

HELP = "every configuration key, its default and its meaning"


def add(declare: Declare) -> None:
    """Declare the command."""
    keys = declare("keys", run, HELP)
    keys.add_argument("tables", nargs="*", metavar="TABLE", help="only these tables")


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.config.describe import describe

    print(describe(known.tables))
    return 0
