"""`paw check-env`."""

import argparse

from paw.commands.arguments import Declare, task_source, whole
from paw.commands.play import OPTIONS
from paw.visible import visible

HELP = "does an environment keep the contract?"


def add(declare: Declare) -> None:
    """Declare the command."""
    check = declare("check-env", run, HELP, OPTIONS, ("--env.",))
    check.add_argument("env", metavar="NAME|MODULE:FACTORY")
    check.add_argument("--split")
    check.add_argument("--tasks", type=whole(1, 1000), default=8, help="how many tasks to try")
    check.add_argument("--data-dir")


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.check import check_environment, format_report

    report = check_environment(task_source(known, keys), num_tasks=known.tasks)
    print(visible(format_report(report)))
    return 0 if report.passed else 1
