"""`paw data --download` against a local server: whole, broken off, damaged, in the way."""

import hashlib
import io
import json
import stat
import threading
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import pytest

from paw.cli import main
from paw.commands.data import download
from paw.envs.download import RECORD, Remote, fetch, is_here, read_record, remote_size, unpack
from paw.envs.verify import WITH_DATA, verifier
from paw.errors import RunFailure, UserError

BODY = bytes(range(256)) * 40
SHA = hashlib.sha256(BODY).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves `files`; a name in `cut` breaks off after that many bytes, once."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.etags: dict[str, str] = {}
        self.cut: dict[str, int] = {}
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []

    def url(self, name: str) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_HEAD(self) -> None:
        self.answer(with_body=False)

    def do_GET(self) -> None:
        self.answer(with_body=True)

    def answer(self, with_body: bool) -> None:
        name = self.path.strip("/")
        if name not in self.server.files:
            self.send_error(404, "Not Found")
            return
        body, asked = self.server.files[name], self.headers["Range"]
        etag = self.server.etags.get(name)
        if with_body:
            self.server.asked.append((name, asked))
        if self.headers["If-Range"] not in (None, etag) or not self.server.ranges:
            asked = None
        start = int(asked.removeprefix("bytes=").rstrip("-")) if asked else 0
        if asked and start >= len(body):
            self.send_response(416)
            self.send_header("Content-Range", f"bytes */{len(body)}")
            self.end_headers()
            return
        self.send_response(206 if asked else 200)
        if asked:
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if etag:
            self.send_header("ETag", etag)
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        if with_body:
            sent = body[start:]
            self.wfile.write(sent[: self.server.cut.pop(name, len(sent))])

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def web() -> Iterator[Server]:
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def quiet(name: str, have: int, total: int | None) -> None:
    pass


def archive(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for name, body in files.items():
            opened.writestr(name, body)
    return buffer.getvalue()


def names(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_a_file_is_fetched_and_recorded(web: Server, tmp_path: Path):
    web.files["a.json"] = BODY
    remote = Remote("a.json", web.url("a.json"))
    told = []
    assert remote_size(remote) == len(BODY)
    assert not is_here(remote, tmp_path)
    assert fetch(remote, tmp_path, lambda *there: told.append(there)) == SHA
    assert (tmp_path / "a.json").read_bytes() == BODY
    assert names(tmp_path) == {"a.json", RECORD}
    assert told[-1] == ("a.json", len(BODY), len(BODY))
    entry = {"url": remote.url, "size": len(BODY), "sha256": SHA, "unpacked": False}
    assert json.loads((tmp_path / RECORD).read_text()) == {"a.json": entry}
    assert is_here(remote, tmp_path)


def test_a_connection_that_breaks_off_is_taken_up(web: Server, tmp_path: Path):
    web.files["a.json"], web.cut["a.json"] = BODY, 1000
    assert fetch(Remote("a.json", web.url("a.json")), tmp_path, quiet) == SHA
    assert web.asked == [("a.json", None), ("a.json", "bytes=1000-")]


@pytest.mark.parametrize(
    ("etag", "ranges", "sent"),
    [
        ('"1"', True, "bytes=10-"),  # goes on
        ('"2"', True, "bytes=10-"),  # another version: the server sends all of it
        ('"1"', False, "bytes=10-"),  # a server without ranges sends all of it
    ],
)
def test_a_part_of_an_earlier_command(
    web: Server, tmp_path: Path, etag: str, ranges: bool, sent: str
):
    web.files["a.json"], web.etags["a.json"], web.ranges = BODY, etag, ranges
    kept = BODY[:10] if etag == '"1"' and ranges else b"x" * 10
    (tmp_path / "a.json.part").write_bytes(kept)
    (tmp_path / "a.json.part.etag").write_text('"1"')
    assert fetch(Remote("a.json", web.url("a.json")), tmp_path, quiet) == SHA
    assert web.asked == [("a.json", sent)]
    assert names(tmp_path) == {"a.json", RECORD}


def test_a_part_that_is_whole_already(web: Server, tmp_path: Path):
    web.files["a.json"] = BODY
    (tmp_path / "a.json.part").write_bytes(BODY)
    assert fetch(Remote("a.json", web.url("a.json"), sha256=SHA), tmp_path, quiet) == SHA


@pytest.mark.parametrize(("size", "sha256"), [(len(BODY), "0" * 64), (5, None)])
def test_what_is_not_as_on_record_is_deleted(web: Server, tmp_path: Path, size: int, sha256: str):
    web.files["a.json"] = BODY
    with pytest.raises(RunFailure, match="not the official file, deleted"):
        fetch(Remote("a.json", web.url("a.json"), size, sha256), tmp_path, quiet)
    assert names(tmp_path) == set()


def test_a_file_that_is_not_there(web: Server, tmp_path: Path):
    remote = Remote("a.json", web.url("a.json"))
    with pytest.raises(RunFailure, match="HTTP 404 Not Found"):
        remote_size(remote)
    with pytest.raises(RunFailure, match="HTTP 404 Not Found; 0 bytes are kept"):
        fetch(remote, tmp_path, quiet)


def test_other_files_are_never_overwritten(web: Server, tmp_path: Path):
    (tmp_path / "a.json").write_text("mine")
    for sha256 in (SHA, None):
        with pytest.raises(UserError, match=r"a\.json is there and is not the file"):
            is_here(Remote("a.json", web.url("a.json"), sha256=sha256), tmp_path)
    (tmp_path / "a.json").write_bytes(BODY)  # brought by hand
    assert is_here(Remote("a.json", web.url("a.json"), sha256=SHA), tmp_path)


# --- archives


def test_an_archive_is_unpacked(web: Server, tmp_path: Path):
    """Only what is wanted; the archive goes, and is not fetched again."""
    web.files["g.zip"] = archive({"games/1/game": b"one", "games/2/game": b"two", "games/x": b"-"})
    remote = Remote("g.zip", web.url("g.zip"), unpack=("game",))
    fetch(remote, tmp_path, quiet)
    assert names(tmp_path) == {"games/1/game", "games/2/game", RECORD}
    assert read_record(tmp_path)["g.zip"]["unpacked"] and is_here(remote, tmp_path)


def test_what_stands_there_has_to_be_the_same(tmp_path: Path):
    file, place = tmp_path / "g.zip", tmp_path / "games"
    file.write_bytes(archive({"1/game": b"one", "2/game": b"two"}))
    (place / "2").mkdir(parents=True)
    (place / "2" / "game").write_bytes(b"two")
    assert unpack(file, place, ("game",)) == 2
    (place / "2" / "game").write_bytes(b"TWO")
    (place / "1" / "game").unlink()
    with pytest.raises(UserError, match="is there with other contents"):
        unpack(file, place, ("game",))
    assert names(place) == {"2/game"}  # nothing before everything is known to be safe


@pytest.mark.parametrize("name", ["../game", "/tmp/game", "a/../../game", "a\\..\\game"])
def test_archives_that_lead_out_of_the_folder(tmp_path: Path, name: str):
    file = tmp_path / "g.zip"
    file.write_bytes(archive({"1/game": b"one", name: b"bad"}))
    with pytest.raises(UserError, match="not unpacked"):
        unpack(file, tmp_path / "games", ("game",))
    assert names(tmp_path) == {"g.zip"}


def test_archives_with_links(tmp_path: Path):
    link = zipfile.ZipInfo("1/game")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "g.zip", "w") as opened:
        opened.writestr(link, "/etc/passwd")
    with pytest.raises(UserError, match="not unpacked"):
        unpack(tmp_path / "g.zip", tmp_path / "games", ("game",))


def test_no_archive(tmp_path: Path):
    (tmp_path / "g.zip").write_bytes(BODY)
    with pytest.raises(RunFailure, match="delete it and fetch again"):
        unpack(tmp_path / "g.zip", tmp_path, ("game",))


# --- the command


def test_the_command_says_what_it_fetches(web: Server, tmp_path: Path, capsys):
    web.files["a.json"], web.files["b.json"] = BODY, BODY * 100
    files = (
        Remote("a.json", web.url("a.json"), len(BODY), SHA),
        Remote("b.json", web.url("b.json")),
        Remote("c.json", "https://drive.google.com/uc?id=1", by_hand="gdown 1 -O c.json"),
    )
    own = SimpleNamespace(FILES=files, LICENCE="MIT licence")
    folder = tmp_path / "data"
    assert download("webshop", own, folder) == 1  # one is still to be fetched
    out = capsys.readouterr().out
    shown = [line.split() for line in out.splitlines()]
    assert shown[0] == ["fetch", "a.json", "0.0", "MB", web.url("a.json")]
    assert shown[1][:4] == ["fetch", "b.json", "1.0", "MB"]
    assert shown[2][:3] == ["by", "hand", "c.json"]
    assert "licence  MIT licence\nin all   1.0 MB, into " in out
    assert f"a.json: SHA-256 {SHA[:16]}… (as on record)" in out
    assert "(recorded, none was on record)" in out and "    gdown 1 -O c.json\n" in out
    own.FILES = files[:2]
    asked = len(web.asked)
    assert download("webshop", own, folder) == 0
    out = capsys.readouterr().out
    assert out.count("there ") == 2 and "in all" not in out and len(web.asked) == asked
    assert f"next     paw data webshop --check {folder}" in out


def test_webshop_is_fetched_by_hand(tmp_path: Path, capsys):
    """Nothing is asked of Google Drive; the commands are shown."""
    assert main(["data", "webshop", "--download", str(tmp_path / "data")]) == 1
    out = capsys.readouterr().out
    assert out.count("    gdown ") == 5 and "MIT licence" in out
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("more", [["--check"], ["--split", "train"]])
def test_downloads_alone(capsys, more: list[str]):
    assert main(["data", "alfworld", "--download", "x", *more]) == 2
    assert "check afterwards" in capsys.readouterr().err


@pytest.mark.parametrize("name", WITH_DATA)
def test_tables_of_addresses(name: str):
    """Every file once, over https, under a licence."""
    own = verifier(name)
    assert own.LICENCE and len({f.name for f in own.FILES}) == len(own.FILES)
    assert all(f.url.startswith("https://") and "/" not in f.name for f in own.FILES)
    assert all(f.sha256 is None or len(f.sha256) == 64 for f in own.FILES)
