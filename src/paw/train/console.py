"""What a person sees while a run goes on: one progress bar, the numbers that matter."""

import sys
import warnings
from typing import Any, Self

from tqdm import tqdm

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


def quiet() -> None:
    """Leave the console to the bar: no bars and hints of transformers, only its errors."""
    import transformers

    transformers.utils.logging.disable_progress_bar()
    transformers.utils.logging.set_verbosity_error()
    for package in ("transformers", "peft", "torch"):
        warnings.filterwarnings("ignore", category=FutureWarning, module=package)


class Bar:
    """A progress callback over updates or steps; shows nothing before its first call."""

    def __init__(self, total: int, unit: str) -> None:
        self._total, self._unit = total, unit
        self._seen: dict[str, Any] = {}
        self._bar: tqdm | None = None

    def __call__(self, number: int, metrics: dict[str, Any]) -> None:
        if self._bar is None:
            # A terminal is redrawn often, a log file gets a line now and then.
            self._bar = tqdm(
                total=self._total,
                initial=number,
                unit=self._unit,
                dynamic_ncols=True,
                mininterval=0.5 if sys.stderr.isatty() else 30.0,
            )
        self._seen |= {short: metrics[name] for name, short in SHOWN.items() if name in metrics}
        shown = {k: f"{v:.3g}" if isinstance(v, float) else v for k, v in self._seen.items()}
        self._bar.set_postfix(shown, refresh=False)
        self._bar.update(number - self._bar.n)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Leave the bar as it is."""
        if self._bar is not None:
            self._bar.close()
