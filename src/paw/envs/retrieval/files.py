"""Rows of JSON-lines and Parquet files, plain, gzip or zstandard; every error names the line."""

import gzip
import hashlib
import html
import re
import unicodedata
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import zstandard

from paw.errors import UserError, first_line
from paw.utf8 import utf8

CHUNK_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
PARQUET_MAGIC = b"PAR1"
ENTITY = re.compile(r"&#?\w{1,32};")


def read_rows(path: str | Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """(line number, row) of every row, from 1; the format is told by the file's first bytes.

    Raises:
        UserError: no such file, cut or damaged compression, a line that is no JSON object.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            magic = file.read(4)
    except OSError as error:
        raise _unreadable(path, error) from error
    if magic == PARQUET_MAGIC:
        yield from _parquet_rows(path)
        return
    for number, line in enumerate(_lines(path, magic), start=1):
        try:
            text = utf8(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}: {error}") from None
        if not text.strip():
            continue
        try:
            row = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise UserError(
                f"{path}, line {number}: not a JSON object ({error}); one a line is wanted"
            ) from error
        if not isinstance(row, dict):
            kind = type(row).__name__
            raise UserError(f"{path}, line {number}: a JSON object is wanted, not a {kind}")
        yield number, row


def _chunks(path: Path, magic: bytes) -> Iterator[bytes]:
    with path.open("rb") as file:
        if magic.startswith(GZIP_MAGIC):
            with gzip.open(file) as unpacked:
                while chunk := unpacked.read(CHUNK_BYTES):
                    yield chunk
        elif magic == ZSTD_MAGIC:
            frame = zstandard.ZstdDecompressor().decompressobj()
            while chunk := file.read(CHUNK_BYTES):
                while chunk:
                    if frame.eof:
                        frame = zstandard.ZstdDecompressor().decompressobj()
                    yield frame.decompress(chunk)
                    chunk = frame.unused_data
            if not frame.eof:
                raise EOFError("compressed file ended before its end marker")
        else:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk


def _lines(path: Path, magic: bytes) -> Iterator[bytes]:
    rest = b""
    number = 0
    try:
        for chunk in _chunks(path, magic):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                number += 1
                yield line
            if len(rest) > MAX_LINE_BYTES:
                raise UserError(
                    f"{path}, line {number + 1}: longer than {MAX_LINE_BYTES >> 20} MiB; "
                    "one JSON object a line is wanted"
                )
    except (EOFError, OSError, zlib.error, zstandard.ZstdError) as error:
        raise UserError(
            f"{path}, behind line {number}: the file is cut or damaged ({error}); fetch it again"
        ) from error
    if rest:
        yield rest


def _parquet_rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise UserError(
            f"{path} is a Parquet file, which needs pyarrow: pip install 'paw-rl[search]'"
        ) from error
    number = 0
    try:
        with pyarrow.parquet.ParquetFile(path) as table:
            for batch in table.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield number, row
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(
            f"{path}, behind row {number}: damaged Parquet file ({first_line(error)})"
        ) from error


def clean(text: str) -> str:
    """Unicode NFC, HTML entities decoded: done once, when a file is read."""
    if "&" in text:
        text = ENTITY.sub(lambda match: html.unescape(match.group()), text)
    return unicodedata.normalize("NFC", text)


def _unreadable(path: str | Path, error: OSError) -> UserError:
    reason = error.strerror or error
    return UserError(f"cannot read {path}: {reason}; name a JSON-lines or Parquet file")


def file_hash(path: str | Path) -> str:
    """SHA-256 of the file's bytes, in hex."""
    try:
        with Path(path).open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise _unreadable(path, error) from error
