"""Files and directories that are there whole or not at all, and a probe of what can be written."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path

from paw.errors import UserError


def write_atomically(path: Path, data: bytes) -> None:
    """All of the file or none of it, also when the machine stops in the middle."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, error.strerror, str(path)) from error


def check_writable(path: Path, num_bytes: int = 1) -> None:
    """Ask before hours of work whether `num_bytes` can be written at `path`: a probe is, beside it.

    Raises:
        UserError: they cannot.
    """
    probe, block = path.with_name(path.name + ".probe"), bytes(1 << 20)
    try:
        if path.is_dir():
            raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
        probe.parent.mkdir(parents=True, exist_ok=True)
        try:
            with open(probe, "wb", buffering=0) as file:
                while (left := num_bytes - file.tell()) > 0:
                    file.write(block[:left])
        finally:
            probe.unlink(missing_ok=True)
    except OSError as error:
        room = f" ({num_bytes / 1e6:,.1f} MB are wanted)" if num_bytes > 1 else ""
        raise UserError(
            f"cannot write {path}{room}: {error.strerror or error}; make room or choose another"
        ) from error


@contextlib.contextmanager
def new_directory(final: Path) -> Iterator[Path]:
    """A directory to fill that becomes `final` when the block ends: whole or not at all.

    Raises:
        UserError: the disk is full or `final` cannot be written; what stood there still does.
    """
    temporary = final.with_name(final.name + ".tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        yield temporary
        for file in [*temporary.iterdir(), temporary]:
            _sync(file)
        if final.exists():
            discard(final)
        os.replace(temporary, final)
        _sync(final.parent)
    # Python raises OSError, safetensors an error of its own, tokenizers plain Exception.
    except Exception as error:
        shutil.rmtree(temporary, ignore_errors=True)
        reason = disk_trouble(error)
        if reason is None:
            raise
        raise UserError(
            f"cannot write {final}: {reason}; make room or mend the directory"
        ) from error


def disk_trouble(error: Exception) -> str | None:
    """Why the disk refused, if that is what the error says."""
    if isinstance(error, OSError):
        return error.strerror or str(error)
    if number := re.search(r"os error (\d+)", str(error)):
        return os.strerror(int(number[1]))
    return None


def discard(directory: Path) -> None:
    """Delete a directory so that no half of it is ever seen under its name."""
    leftover = directory.with_name(directory.name + ".old.tmp")
    os.replace(directory, leftover)
    shutil.rmtree(leftover)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
