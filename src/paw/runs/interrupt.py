"""Ctrl-C and SIGTERM ask a run to stop where nothing is lost."""

import signal
import threading
from typing import Self

from paw.errors import tell


class InterruptGuard:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the update (or whatever `unit`
    says); the second stops at once."""

    def __init__(self, unit: str = "update") -> None:
        self.asked = False
        self._unit = unit

    def __enter__(self) -> Self:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _ask(self, *_: object) -> None:
        if self.asked:
            raise KeyboardInterrupt
        self.asked = True
        tell(f"\npaw: finishing this {self._unit} and saving; Ctrl-C again stops at once")
