"""`paw episodes`: what happened, turn by turn, in the terminal."""

import argparse
import os
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from paw.commands.arguments import Declare, whole
from paw.errors import UserError, nearest
from paw.visible import visible

if TYPE_CHECKING:
    from paw.runs.format import TrajectoryRecord, TurnRecord

HELP = "print episodes of a run or an evaluation in the terminal"
EXAMPLES = """\
examples:
  paw episodes runs/x                      the newest update whose episodes were kept
  paw episodes runs/x --update 12 --full   another one, long texts whole
  paw episodes runs/x --failed             those whose environment failed, of all updates
  paw episodes won.jsonl.zst --kind look   a file of paw eval --save-trajectories
"""
LONG = 1500
"""Characters of a text that is shown whole without `--full`; of a longer one both ends are."""
LABELS = 13
"""Columns before a turn's texts."""
COLOURS = {
    "head": "1", "turn": "2", "task": "1", "observation": "36", "response": "32", "command": "1;32",
    "reward": "33", "refused": "31", "notes": "2",
}  # fmt: skip
"""SGR codes by what is shown."""


def add(declare: Declare) -> None:
    """Declare the command."""
    episodes = declare("episodes", run, HELP, EXAMPLES)
    episodes.add_argument("place", metavar="RUN|FILE.jsonl.zst")
    episodes.add_argument(
        "--update", type=whole(0, 999_999), help="of a run; default: the newest that was kept"
    )
    episodes.add_argument(
        "--failed", action="store_true",
        help="only those whose environment failed; without --update of all updates",
    )  # fmt: skip
    episodes.add_argument("--kind", help="only tasks of this kind")
    episodes.add_argument("--full", action="store_true", help="long texts whole")


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.runs import read

    place = Path(known.place)
    if known.update is not None and place.is_file():
        raise UserError("episodes: --update is one of a run directory; a file holds its own")
    if known.failed and known.update is None and place.is_dir():
        files = read.trajectory_files(place)
    else:
        files = [read.trajectory_file(place, known.update)]
    page = _Page(known.full)
    kinds: set[str] = set()
    num_seen = num_shown = 0
    for file in files:
        for record in read.trajectories(file):
            kinds.add(record.task.kind)
            num_seen += known.kind in (None, record.task.kind)
            failed = record.failure is not None
            if known.kind in (None, record.task.kind) and (failed or not known.failed):
                page.show(record)
                num_shown += 1
    if known.kind is not None and known.kind not in kinds and kinds:
        raise UserError(f"episodes: no task of kind {known.kind!r}{nearest(known.kind, kinds)}")
    if not num_shown:
        failed = " failed" if known.failed and num_seen else ""
        print(visible(f"{known.place}: none of {num_seen:,} episodes{failed}"))
    return 0


class _Page:
    """Writes episodes: wrapped and coloured in a terminal, plain lines into a pipe or a file."""

    def __init__(self, full: bool) -> None:
        terminal = sys.stdout.isatty()
        self._colours = terminal and not os.environ.get("NO_COLOR")
        self._width = shutil.get_terminal_size().columns if terminal else 0
        self._full = full

    def show(self, record: "TrajectoryRecord") -> None:
        """One episode: a line that sums it up, the task, its turns, a blank line."""
        self._write("head", heading(record))
        self._write("task", record.task.instruction, "task")
        for number, turn in enumerate(record.turns, start=1):
            self._write("turn", f"-- turn {number}")
            self._turn(turn)
        last = record.turns[-1].next_observation if record.turns else None
        if last:
            self._write("turn", "-- then")
            self._write("observation", last, "observation")
        print()

    def _turn(self, turn: "TurnRecord") -> None:
        self._write("observation", turn.observation, "observation")
        self._write("response", turn.response, "response")
        if turn.command != turn.response:
            self._write("command", turn.command, "command")
        if turn.reward:
            self._write("reward", f"{turn.reward:+g}", "reward")
        if not turn.valid:
            penalty = f", penalty {turn.penalty:g}" if turn.penalty else ""
            self._write("refused", f"not valid{penalty}", "refused")
        notes = [] if turn.finished else ["response cut by max_response_tokens"]
        notes += [f"{n} tokens of the prompt cut"] if (n := turn.prompt_cut_tokens) else []
        if notes:
            self._write("notes", ", ".join(notes), "notes")

    def _write(self, what: str, text: str, label: str = "") -> None:
        from paw.envs.play import wrap

        text = visible(text if self._full else _shortened(text))
        indent = LABELS if label else 0
        if self._width:
            text = wrap(text.expandtabs(), max(20, self._width - indent))
        for number, line in enumerate(text.split("\n")):
            line = f"{'' if number else label:{indent}}{line}".rstrip()
            print(f"\x1b[{COLOURS[what]}m{line}\x1b[0m" if self._colours and line else line)


def heading(record: "TrajectoryRecord") -> str:
    """An episode in a line: where it stands, its task, how it ended, what it is worth."""
    update = [f"update {record.update}"] if record.update else []  # an evaluation has none
    where = ", ".join([*update, f"group {record.group}", f"episode {record.index}"])
    if record.failure is not None:
        end = f"failed ({record.failure})"
    elif record.success:
        end = "won"
    elif record.prompt_limit:
        end = "lost (no room in the prompt)"
    else:
        end = "lost" if record.terminated else "lost (cut by the turn limit)"
    parts = [end, f"return {record.return_:g}"]
    parts += [] if record.score is None else [f"score {record.score:g}"]
    num = len(record.turns)
    parts.append("1 turn" if num == 1 else f"{num} turns")
    parts += [f"{sum(t.valid for t in record.turns) / num:.0%} valid"] if num else []
    line = f"== {where}: {record.task.kind}, {record.task.id}: {', '.join(parts)}"
    return line.replace("\n", "␊")


def _shortened(text: str) -> str:
    """Without the middle of a long text, and how much that is."""
    left = len(text) - LONG
    if left <= 0:
        return text
    half = LONG // 2
    return f"{text[:half]} … {left:,} characters left out, --full shows them … {text[-half:]}"
