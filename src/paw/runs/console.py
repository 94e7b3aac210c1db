"""What a person sees while a run goes on: one progress bar, the numbers that matter, plain lines.

All of it on stderr, in ASCII: stdout is for results.
"""

import os
import shutil
import sys
import time
import warnings
from collections import deque
from collections.abc import Callable
from typing import Any, Self

from tqdm import tqdm

from paw.runs.health import HealthLines
from paw.visible import in_ascii

Progress = Callable[[int, dict[str, Any]], None]
"""Called after each update or step with its number and metrics; a `Bar` is one."""
Say = Callable[[str], None]
"""Shows lines above the bar; `Bar.say` is one."""

SHOWN = {
    "rollout/success_rate": "success",
    "rollout/return_mean": "return",
    "eval/success_rate": "eval",
    "wm/nll": "wm nll",
    "imitate/nll": "nll",
    "demonstrations": "demonstrations",
    "won": "won",  # a count: of episodes side by side those that win are finished first
}
"""Metrics beside the bar and their short names, what matters most first."""
LINE_SECONDS = 30.0
"""Between the lines of a log file."""
DRAW_SECONDS = 0.1
"""Between two drawings of the bar."""
RECENT = 20
"""Calls from which the pace is taken."""
CELLS = 12
"""Width of the bar itself."""


def quiet() -> None:
    """Leave the console to the bar: no bars and hints of transformers, only its errors."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for package in ("transformers", "peft", "torch"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=package)


class Bar:
    """A progress callback over updates or steps; shows nothing before its first call.

    A terminal has a bar that is redrawn and fits a line; a log file gets a line now and then, and
    the last one. Where there are several, `name` stands before it and `line` says which it is, from
    the top; each is to be called once before any goes on.
    """

    def __init__(self, total: int, unit: str, name: str = "", line: int | None = None) -> None:
        self._total, self._unit, self._name, self._line = total, unit, name, line
        self._seen: dict[str, Any] = {}
        self._health = HealthLines()
        self._bar: tqdm | None = None
        self._start = time.monotonic()
        self._calls: deque[tuple[int, float]] = deque(maxlen=RECENT)
        self._next_line = 0.0
        self._pending = ""
        self._left: float | None = None

    def __call__(self, number: int, metrics: dict[str, Any], left: float | None = None) -> None:
        """`left`: seconds to go at most, where the pace of `number` does not say it."""
        self._left = left
        now = time.monotonic()
        if self._calls and self._calls[-1][0] == number and metrics:
            self._calls.pop()  # news before the next step: the clock starts anew
        if not self._calls or self._calls[-1][0] != number:
            self._calls.append((number, now))
        found = {short: metrics.get(name) for name, short in SHOWN.items()}
        self._seen |= {short: value for short, value in found.items() if value is not None}
        if sys.stderr.isatty():
            self._draw(number, now)
        else:
            self._log(number, now)
        for line in self._health.of(number, metrics.get("health", ())):
            self.say(f"paw: warning: {line}")

    def say(self, text: str) -> None:
        """Show lines above the bar."""
        tqdm.write(in_ascii(text), file=sys.stderr)

    def _parts(self) -> list[str]:
        """Pace, what is left, numbers; what matters first."""
        seconds = self._pace() if self._left is None else None
        parts = [] if seconds is None else [f"{_short(seconds)} s/{self._unit}"]
        number = self._calls[-1][0]
        if number >= self._total:
            parts.append(f"{duration(time.monotonic() - self._start)} in all")
        elif self._left is not None:
            parts.append(f"at most {duration(self._left)} left")
        elif seconds is not None:
            parts.append(f"{duration(seconds * (self._total - number))} left")
        shown = [name for name in SHOWN.values() if name in self._seen]
        return parts + [f"{name} {_short(self._seen[name])}" for name in shown]

    def _pace(self) -> float | None:
        """Seconds of one update, over the newest calls; None before the second."""
        (first, start), (last, end) = self._calls[0], self._calls[-1]
        return (end - start) / (last - first) if last > first else None

    def _draw(self, number: int, now: float) -> None:
        count = self._count(number)
        room = columns() - 1 - len(count) - len(" || ") - CELLS
        line = f"{count} |{{bar:{CELLS}}}| {fitting(self._parts(), room)}"
        if self._bar is None:
            self._bar = tqdm(
                total=self._total,
                initial=number,
                ascii=True,
                position=self._line,
                bar_format=line,
            )
        self._bar.n, self._bar.bar_format = number, line
        if now >= self._next_line:
            self._next_line = now + DRAW_SECONDS
            self._bar.refresh()

    def _log(self, number: int, now: float) -> None:
        self._pending = ", ".join([self._count(number), *self._parts()])
        if now >= self._next_line:
            self._next_line = now + LINE_SECONDS
            self._print()

    def _count(self, number: int) -> str:
        name = f"{self._name} " if self._name else ""
        return f"{name}{self._unit} {number}/{self._total}"

    def _print(self) -> None:
        if self._pending:
            print(self._pending, file=sys.stderr, flush=True)
        self._pending = ""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        self._print()
        if self._bar is not None:
            self._bar.close()


def columns() -> int:
    """Columns of the terminal."""
    try:
        return os.get_terminal_size(sys.stderr.fileno()).columns
    except OSError:  # stderr is none
        return shutil.get_terminal_size().columns


def fitting(parts: list[str], room: int) -> str:
    """As many of the first parts as fit into `room` columns."""
    while parts and len(", ".join(parts)) > room:
        parts = parts[:-1]
    return ", ".join(parts)


def duration(seconds: float) -> str:
    """Seconds as a person says them: "40 s", "12 min", "3.5 h", "2.0 days"."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 90 * 60:
        return f"{seconds / 60:.0f} min"
    if seconds < 48 * 3600:
        return f"{seconds / 3600:.1f} h"
    return f"{seconds / 86400:.1f} days"


def _short(value: Any) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)
