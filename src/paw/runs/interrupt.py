"""Ctrl-C and SIGTERM ask a run to stop where nothing is lost."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Self

from paw.errors import tell


class InterruptGuard:
    """Turns the first Ctrl-C or SIGTERM into a request to stop after the update (or whatever `unit`
    says); the second stops at once."""

    def __init__(self, unit: str = "update") -> None:
        self.asked = False
        self._unit = unit
        self._at_once = False

    def __enter__(self) -> Self:
        self._before = {}
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._ask)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """A block in which there is nothing to finish: the first stops at once."""
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _ask(self, *_: object) -> None:
        if self.asked or self._at_once:
            raise KeyboardInterrupt
        self.asked = True
        tell(f"\npaw: finishing this {self._unit} and saving; Ctrl-C again stops at once")
