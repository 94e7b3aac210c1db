"""`paw report --live`: the page of a run that is still going on, for a browser on this machine.

    GET /            the page
    GET /page.json   `Page` again; 304 where the browser has it already
    GET /chunk/N     `Chunk` N, read from the run's file when somebody looks at it

Listens on the loopback interface alone, and answers only those that call it by that name: a site
elsewhere that has its own name point here gets nothing.
"""

import threading
from collections.abc import Callable
from functools import lru_cache
from hashlib import sha256
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from paw.errors import UserError
from paw.report.choose import ROOM
from paw.report.data import Page
from paw.report.gather import Material, page
from paw.report.page import encoded, render_live
from paw.report.source import Group

HOST = "127.0.0.1"
CHUNKS = 16
"""Kept unpacked"""


class Feed:
    """The page as it grows. Thread-safe."""

    def __init__(self, found: Material) -> None:
        self._found, self._lock = found, threading.Lock()
        self._numbers: dict[tuple[int, Group], int] = {}
        """Of every group of every run, in the order in which they appeared"""
        self._page: Page | None = None
        self._encoded, self.tag = b"", ""
        self._read_chunk = lru_cache(CHUNKS)(self._chunk)

    def refresh(self) -> bytes:
        """The page as JSON, with what is new; `tag` is of it."""
        with self._lock:
            changed = [source.refresh() for source in self._found.sources]
            if self._page is None or any(changed):
                self._page = self._current()
                self._encoded = encoded(self._page)
                self.tag = f'"{sha256(self._encoded).hexdigest()[:32]}"'
                self._read_chunk.cache_clear()
            return self._encoded

    def page(self) -> Page:
        """As it is now."""
        self.refresh()
        assert self._page is not None
        return self._page

    def chunk(self, number: int) -> bytes | None:
        """One chunk as JSON; None where there is none."""
        with self._lock:
            return self._read_chunk(number)

    def _current(self) -> Page:
        runs = []
        for index, source in enumerate(self._found.sources):
            kept = [ROOM] * len(source.rows)
            numbers = {
                group: self._numbers.setdefault((index, group), len(self._numbers))
                for group in source.groups(kept)
            }
            runs.append(source.run(kept, numbers, ""))
        return page(self._found, runs, live=True)

    def _chunk(self, number: int) -> bytes | None:
        groups = list(self._numbers)
        if number < len(groups):
            run, group = groups[number]
            for _, chunk in self._found.sources[run].chunks([group], run):
                return encoded(chunk)
        return None


def serve(found: Material, port: int, tell: Callable[[str], None]) -> None:
    """Serve until Ctrl-C.

    Args:
        found: what is shown.
        port: 0 takes a free one.
        tell: gets the address when it listens.

    Raises:
        UserError: the port is taken.
        KeyboardInterrupt: Ctrl-C.
    """
    feed = Feed(found)
    feed.refresh()
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(feed))
    except OSError as error:
        raise UserError(f"report: --port {port}: cannot listen there: {error.strerror}") from None
    server.daemon_threads = True
    with server:
        tell(f"http://{HOST}:{server.server_port}/")
        server.serve_forever()


def _handler(feed: Feed) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        server_version, sys_version = "paw", ""

        def do_GET(self) -> None:
            name = (self.headers.get("Host") or "").rpartition(":")[0]
            if name not in (HOST, "localhost"):
                return self._answer(HTTPStatus.FORBIDDEN, b"", "text/plain")
            path = self.path.partition("?")[0]
            if path == "/":
                text = render_live(feed.page()).encode()
                return self._answer(HTTPStatus.OK, text, "text/html; charset=utf-8")
            if path == "/page.json":
                data = feed.refresh()
                if self.headers.get("If-None-Match") == feed.tag:
                    return self._answer(HTTPStatus.NOT_MODIFIED, b"", None)
                return self._answer(HTTPStatus.OK, data, "application/json", feed.tag)
            number = path.removeprefix("/chunk/")
            chunk = feed.chunk(int(number)) if number.isdecimal() and len(number) < 10 else None
            if chunk is None:
                return self._answer(HTTPStatus.NOT_FOUND, b"", "text/plain")
            return self._answer(HTTPStatus.OK, chunk, "application/json")

        def _answer(
            self, status: HTTPStatus, data: bytes, kind: str | None, tag: str | None = None
        ) -> None:
            self.send_response(status)
            if kind is not None:
                self.send_header("Content-Type", kind)
                self.send_header("Content-Length", str(len(data)))
            if tag is not None:
                self.send_header("ETag", tag)
            self.send_header("Cache-Control", "no-store")
            self.send_header("X-Content-Type-Options", "nosniff")
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: what a browser asks for is no news."""

    return Handler
