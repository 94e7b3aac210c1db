"""Fetches a benchmark's official files: resumed where it broke off, checked, never over others.

    NAME.part, NAME.part.etag   a file on its way, and which version of it
    paw-downloads.json          address, size and SHA-256 of every file that came

A hash that is not on record cannot be held against one: then it is recorded here, so that a second
download, or another person's, can be compared. Archives are unpacked and deleted.
"""

import hashlib
import http.client
import json
import os
import shutil
import stat
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from paw.errors import RunFailure, UserError

RECORD = "paw-downloads.json"
BLOCK = 1 << 20
TRIES = 5
"""Connections in a row that bring nothing, after which it is given up."""
TIMEOUT = 60.0
TROUBLE = (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError)

Progress = Callable[[str, int, int | None], None]
"""(file, bytes there, bytes in all or None) after every block"""


@dataclass(frozen=True, slots=True)
class Remote:
    """A file of the official release."""

    name: str
    """In the data folder; of an archive, while it is fetched"""
    url: str
    size: int | None = None
    """Bytes, where they are on record"""
    sha256: str | None = None
    """Where it is on record"""
    unpack: tuple[str, ...] = ()
    """File names in an archive that are unpacked; others in it are not needed"""
    by_hand: str = ""
    """The command that fetches it, where its address is a page for people and no file"""


def remote_size(remote: Remote) -> int | None:
    """Bytes by the record, else by the server; None where neither tells.

    Raises:
        RunFailure: there is no connection, or no such file.
    """
    if remote.size is not None:
        return remote.size
    request = urllib.request.Request(remote.url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:
            return _number(answer.headers["Content-Length"])
    except TROUBLE as error:
        raise RunFailure(f"data: {remote.url}: {_reason(error)}") from error


def is_here(remote: Remote, folder: Path) -> bool:
    """Has it been fetched (and unpacked) already, or does it stand there as on record?

    Raises:
        UserError: another file of its name does.
    """
    path, known = folder / remote.name, read_record(folder).get(remote.name)
    if not path.exists():
        return bool(remote.unpack and known and known.get("unpacked"))
    expected = remote.sha256 or (known or {}).get("sha256")
    if expected is not None and sha256_of(path) == expected:
        return not remote.unpack
    raise UserError(
        f"data: {path} is there and is not the file that would be fetched: move it away, or choose "
        "another folder"
    )


def fetch(remote: Remote, folder: Path, progress: Progress) -> str:
    """Fetch one file into `folder`, check it, record it, unpack it. Returns its SHA-256.

    Raises:
        RunFailure: the connection broke for good (what came is kept), or the file is not the one on
            record (it is deleted).
        UserError: files in the way, or an archive that would write elsewhere.
    """
    folder.mkdir(parents=True, exist_ok=True)
    part = folder / f"{remote.name}.part"
    idle = 0
    while True:
        before = part.stat().st_size if part.exists() else 0
        try:
            total = _receive(remote, part, progress)
            break
        except TROUBLE as error:
            came = part.stat().st_size if part.exists() else 0
            idle = 0 if came > before else idle + 1
            if idle == TRIES or _is_final(error):
                raise RunFailure(
                    f"data: {remote.url}: {_reason(error)}; {came:,} bytes are kept, the same "
                    "command goes on from there"
                ) from error
            time.sleep(idle)
    found = sha256_of(part)
    _check(remote, part, total, found)
    if remote.unpack:
        unpack(part, folder, remote.unpack)
        part.unlink()
    else:
        os.replace(part, folder / remote.name)
    _etag_file(part).unlink(missing_ok=True)
    entry = {"url": remote.url, "size": total, "sha256": found, "unpacked": bool(remote.unpack)}
    _write_record(folder, read_record(folder) | {remote.name: entry})
    return found


def _receive(remote: Remote, part: Path, progress: Progress) -> int:
    """Bring `part` to its full length over one connection. Returns that length."""
    have = part.stat().st_size if part.exists() else 0
    etag = _etag_file(part)
    headers = {"Accept-Encoding": "identity"}
    if have:
        headers["Range"] = f"bytes={have}-"
        if etag.exists():  # another version of the file is sent from its start
            headers["If-Range"] = etag.read_text(encoding="utf-8")
    request = urllib.request.Request(remote.url, headers=headers)
    try:
        answer = urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        if error.code == 416 and have == _total(error.headers):
            return have
        if error.code == 416:
            part.unlink()
        raise
    with answer:
        if answer.status != 206:
            have = 0
        total = _total(answer.headers) if have else _number(answer.headers["Content-Length"])
        tag = answer.headers["ETag"] or ""
        if tag.startswith('"'):  # a weak one, W/"…", is no ground to go on
            etag.write_text(tag, encoding="utf-8")
        with open(part, "ab" if have else "wb") as file:
            while block := answer.read(BLOCK):
                file.write(block)
                have += len(block)
                progress(remote.name, have, total)
    if total is not None and have < total:
        raise http.client.IncompleteRead(b"", total - have)
    return have


def _check(remote: Remote, part: Path, size: int, sha256: str) -> None:
    """Hold what came against the record."""
    wrong = remote.size is not None and size != remote.size
    if not wrong and remote.sha256 in (None, sha256):
        return
    part.unlink()
    _etag_file(part).unlink(missing_ok=True)
    raise RunFailure(
        f"data: {remote.url} sent {size:,} bytes with SHA-256 {sha256[:16]}…, on record are "
        f"{remote.size or size:,} with {(remote.sha256 or 'none')[:16]}: not the official file, "
        "deleted"
    )


def unpack(archive: Path, folder: Path, wanted: Sequence[str]) -> int:
    """Unpack the files named `wanted` of a ZIP archive below `folder`. Returns how many.

    Nothing is written before every name is known to be safe; a file that stands there already has
    to be the same.

    Raises:
        UserError: a name that leads out of the folder, a link, another file in the way, no room.
        RunFailure: no ZIP archive, or a damaged one.
    """
    try:
        with zipfile.ZipFile(archive) as opened:
            members = list(_members(opened, folder, wanted))
            size = sum(member.file_size for member, _ in members)
            if size > (free := shutil.disk_usage(folder).free):
                raise UserError(f"data: {size:,} bytes to unpack, {free:,} are free in {folder}")
            for member, path in members:
                if path.exists():
                    continue
                path.parent.mkdir(parents=True, exist_ok=True)
                temporary = path.with_name(path.name + ".part")
                with opened.open(member) as source, open(temporary, "wb") as target:
                    shutil.copyfileobj(source, target, BLOCK)
                os.replace(temporary, path)
    except (zipfile.BadZipFile, NotImplementedError, EOFError) as error:
        raise RunFailure(f"data: {archive}: {error}; delete it and fetch again") from error
    return len(members)


def _members(
    archive: zipfile.ZipFile, folder: Path, wanted: Sequence[str]
) -> Iterator[tuple[zipfile.ZipInfo, Path]]:
    """Members to unpack, and where."""
    for member in archive.infolist():
        place = PurePosixPath(member.filename)
        unsafe = place.is_absolute() or ".." in place.parts or "\\" in member.filename
        if unsafe or stat.S_ISLNK(member.external_attr >> 16):
            raise UserError(f"data: the archive holds {member.filename!r}: not unpacked")
        if member.is_dir() or place.name not in wanted:
            continue
        path = folder / place
        if path.exists() and not _same(archive, member, path):
            raise UserError(f"data: {path} is there with other contents: move it away")
        yield member, path


def _same(archive: zipfile.ZipFile, member: zipfile.ZipInfo, path: Path) -> bool:
    if not path.is_file() or path.stat().st_size != member.file_size:
        return False
    return archive.read(member) == path.read_bytes()


def read_record(folder: Path) -> dict[str, Any]:
    """What was fetched into `folder`: name -> url, size, sha256, unpacked."""
    try:
        found = json.loads((folder / RECORD).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write_record(folder: Path, record: dict[str, Any]) -> None:
    temporary = folder / f"{RECORD}.part"
    temporary.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    os.replace(temporary, folder / RECORD)


def sha256_of(path: Path) -> str:
    """In hex."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _etag_file(part: Path) -> Path:
    return part.with_name(part.name + ".etag")


def _number(text: str | None) -> int | None:
    return int(text) if text and text.isdigit() else None


def _total(headers: Any) -> int | None:
    """The whole length, of `Content-Range: bytes 5-9/10` or `bytes */10`."""
    return _number((headers["Content-Range"] or "").rpartition("/")[2])


def _is_final(error: Exception) -> bool:
    """Will another try be answered alike?"""
    return isinstance(error, urllib.error.HTTPError) and 400 <= error.code < 500 and (
        error.code not in (408, 416, 429)
    )  # fmt: skip


def _reason(error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code} {error.reason}"
    if isinstance(error, http.client.IncompleteRead):
        return "the connection broke off"
    return str(getattr(error, "reason", error)) or type(error).__name__
