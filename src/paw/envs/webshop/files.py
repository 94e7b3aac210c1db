"""Reading the official files: plain, .gz or .zst, whole or as a stream; damage is a UserError."""

import contextlib
import gzip
import io
import json
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast

import msgspec
import zstandard

from paw.errors import UserError
from paw.utf8 import utf8

T = TypeVar("T")

_CHUNK = 4 << 20  # characters
_LONGEST = 64 << 20  # characters one product may take


def find(directory: Path, *names: str) -> Path | None:
    """The first of `names` that is there, as it is or with .gz or .zst behind it."""
    for name in names:
        for suffix in ("", ".gz", ".zst"):
            path = directory / (name + suffix)
            if path.is_file():
                return path
    return None


def _open(path: Path) -> BinaryIO:
    if path.suffix == ".gz":
        return cast(BinaryIO, gzip.open(path, "rb"))
    raw = path.open("rb")
    if path.suffix == ".zst":
        reader = zstandard.ZstdDecompressor().stream_reader(
            raw, closefd=True, read_across_frames=True
        )
        return cast(BinaryIO, reader)
    return raw


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn what a missing, truncated or damaged file raises into a UserError that names it."""
    try:
        yield
    except UserError:
        raise
    except (EOFError, zlib.error, gzip.BadGzipFile, zstandard.ZstdError) as error:
        raise UserError(f"{path} is truncated or damaged ({error}); fetch it again") from error
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}; fetch it again") from error
    except (ValueError, RecursionError) as error:
        # json, msgspec and UTF-8 errors are all ValueErrors.
        raise UserError(
            f"{path} is damaged or of another format ({error}); fetch it again"
        ) from error


def read(path: Path) -> bytes:
    """The whole file, decompressed."""
    with reading(path), _open(path) as file:
        return file.read()


def read_json(path: Path, kind: type[T]) -> T:
    """The whole file, parsed and checked to be of a kind."""
    data = read(path)
    with reading(path):
        return msgspec.json.decode(utf8(data), type=kind)


def stream(path: Path) -> Iterator[Any]:
    """The elements of a top-level JSON list, one after the other, in constant memory."""
    decode = json.JSONDecoder().raw_decode
    with reading(path), _open(path) as binary:
        buffered = io.BufferedReader(cast(io.RawIOBase, binary))
        utf8(buffered.peek(4))
        file = io.TextIOWrapper(buffered, encoding="utf-8-sig")
        buffer = file.read(_CHUNK).lstrip()
        if not buffer.startswith("["):
            raise UserError(f"{path} holds no JSON list of products; fetch it again")
        position, count = 1, 0
        while True:
            position = _skip(buffer, position, " \t\r\n,")
            if buffer[position : position + 1] == "]":
                return
            element, end = None, None
            if position < len(buffer):
                with contextlib.suppress(json.JSONDecodeError):
                    element, end = decode(buffer, position)
            if end is not None:
                yield element
                position, count = end, count + 1
                continue
            more = file.read(_CHUNK)
            if not more or len(buffer) - position > _LONGEST:
                what = "is damaged" if more else "ends early"
                raise UserError(f"{path} {what} after {count} products; fetch it again")
            buffer, position = buffer[position:] + more, 0


def _skip(text: str, position: int, characters: str) -> int:
    while position < len(text) and text[position] in characters:
        position += 1
    return position
