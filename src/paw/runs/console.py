"""What a person sees while a run goes on: one progress bar, the numbers that matter."""

import sys
import time
import warnings
from collections.abc import Callable
from typing import Any, Self

from tqdm import tqdm

Progress = Callable[[int, dict[str, Any]], None]
"""Called after each update or step with its number and metrics; a `Bar` is one."""

SHOWN = {
    "rollout/return_mean": "return",
    "rollout/success_rate": "success",
    "eval/success_rate": "eval",
    "wm/nll": "wm nll",
    "imitate/nll": "nll",
    "demonstrations": "demonstrations",
    "time/update": "s/update",
}
"""Metrics beside the bar, and their short names."""
LINE_SECONDS = 30.0
"""Between the lines of a log file."""


def quiet() -> None:
    """Leave the console to the bar: no bars and hints of transformers, only its errors."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for package in ("transformers", "peft", "torch"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=package)


class Bar:
    """A progress callback over updates or steps; shows nothing before its first call.

    A terminal has a bar that is redrawn; a log file gets a line now and then, and the last one.
    `name` stands before it where there are several.
    """

    def __init__(self, total: int, unit: str, name: str = "") -> None:
        self._total, self._unit, self._name = total, unit, name
        self._seen: dict[str, Any] = {}
        self._bar: tqdm | None = None
        self._start = time.monotonic()
        self._next_line = 0.0
        self._pending = ""

    def __call__(self, number: int, metrics: dict[str, Any]) -> None:
        self._seen |= {short: metrics[name] for name, short in SHOWN.items() if name in metrics}
        shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in self._seen.items()}
        if sys.stderr.isatty():
            self._draw(number, shown)
        else:
            self._log(number, shown)

    def _draw(self, number: int, shown: dict[str, Any]) -> None:
        if self._bar is None:
            self._bar = tqdm(
                total=self._total,
                desc=self._name or None,
                initial=number,
                unit=self._unit,
                dynamic_ncols=True,
                mininterval=0.5,
            )
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(number - self._bar.n)

    def _log(self, number: int, shown: dict[str, Any]) -> None:
        now = time.monotonic()
        name = f"{self._name} " if self._name else ""
        parts = [f"{name}{self._unit} {number}/{self._total}", f"{now - self._start:.0f} s"]
        parts += [f"{name} {value}" for name, value in shown.items()]
        self._pending = ", ".join(parts)
        if now >= self._next_line:
            self._next_line = now + LINE_SECONDS
            self._print()

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
