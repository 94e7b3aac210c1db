"""Finished episodes on disk, so that none is paid for twice.

JSON lines: the settings, then one object per finished episode, each written at once. A line that a
crash has cut is dropped on opening; a journal of other settings is refused.
"""

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NoReturn, Self

from paw.errors import UserError

HEAD = b'{"settings": '
"""How a journal begins."""


def journal_path(output: str | Path) -> Path:
    """`result.json` -> `result.json.journal.jsonl`."""
    output = Path(output)
    return output.with_name(output.name + ".journal.jsonl")


class Journal:
    """An open journal; one process at a time, one thread.

    Args:
        path: is made where it is not there yet.
        settings: JSON-able; has to equal what the journal was begun with.

    Raises:
        UserError: begun with other settings, no journal, in use, or not writable.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        self.path = path
        self.records: list[dict[str, Any]] = []
        """What the journal held on opening, in the order written."""
        try:
            self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o644)
        except OSError as error:
            raise UserError(f"cannot write {path}: {error.strerror}; choose another") from error
        try:
            self._lock()
            self._read(json.loads(json.dumps(settings)))
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def append(self, record: Mapping[str, Any]) -> None:
        """Write one line and wait until the disk has it."""
        line = json.dumps(record).encode() + b"\n"
        while line:
            line = line[os.write(self._file, line) :]
        os.fsync(self._file)

    def close(self) -> None:
        """Give the file free."""
        if self._file >= 0:
            os.close(self._file)
        self._file = -1

    def _lock(self) -> None:
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise UserError(f"{self.path}: another process is writing it; wait for it") from None
        except OSError:
            return  # a file system without locks

    def _read(self, settings: dict[str, Any]) -> None:
        with open(self.path, "rb") as file:
            data = file.read()
        whole = data[: data.rfind(b"\n") + 1]
        if data and not whole and not HEAD.startswith(data[: len(HEAD)]):
            self._refuse()
        try:
            rows = [json.loads(line) for line in whole.splitlines()]
        except ValueError:
            self._refuse()
        if not all(isinstance(row, dict) for row in rows):
            self._refuse()
        if len(whole) < len(data):
            os.ftruncate(self._file, len(whole))
        if not rows:
            return self.append({"settings": settings})
        begun = rows[0].get("settings")
        if not isinstance(begun, dict):
            self._refuse()
        for key in [*begun, *(k for k in settings if k not in begun)]:
            if begun.get(key) != settings.get(key):
                raise UserError(
                    f"{self.path} was begun with {key} = {_shown(begun.get(key))}, now it is "
                    f"{_shown(settings.get(key))}; choose another --output, or delete it"
                )
        self.records = rows[1:]

    def _refuse(self) -> NoReturn:
        raise UserError(f"{self.path} is no journal of paw eval; choose another --output")


def _shown(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 80 else text[:80] + " …"
