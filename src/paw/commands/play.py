"""`paw play`: an environment in the terminal."""

import argparse
import sys

from paw.commands.arguments import SEED, Declare, task_source
from paw.errors import UserError

HELP = "play an environment in the terminal"
OPTIONS = "Any --env.option value of the environment may follow."


def add(declare: Declare) -> None:
    """Declare the command."""
    play = declare("play", run, HELP, OPTIONS, ("--env.",))
    play.add_argument("env", metavar="ENV")
    play.add_argument("--split")
    play.add_argument("--task", type=SEED, default=0, help="number of the task in its split")
    play.add_argument("--seed", type=SEED, default=0)
    play.add_argument("--data-dir")


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.play import play

    if sys.stdin is None:
        raise UserError("play: the standard input is closed; run it in a terminal")
    play(task_source(known, keys), task_index=known.task, seed=known.seed)
    return 0
