"""A retrieval server in Search-R1's protocol over an index directory; see `client` for the form.

No authentication: it listens on the loopback address unless told otherwise.
"""

import contextlib
import itertools
import json
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from paw.envs.retrieval.base import Passage, RetrievalError, Retriever
from paw.envs.retrieval.index import index_facts, open_index
from paw.errors import UserError

MAX_BODY_BYTES = 8 << 20
MAX_QUERIES = 4096
MAX_TOP_K = 1000
MAX_CONNECTIONS = 256
IDLE_SECONDS = 30.0
DRAIN_SECONDS = 10.0
"""What requests in flight get to finish at shutdown."""
USAGE = "POST /retrieve is all there is"
LINGER_SECONDS = 5.0
LINGER_BYTES = 64 << 20
"""How long and how much of a refused request is still read; see `_Handler.finish`."""


class Merged:
    """A retriever whose searches wait for the one that runs, then go together as one batch.

    For retrievers that cost less per query in a batch, as an encoder does. A batch has one `top_k`
    and at most `MAX_QUERIES` queries.
    """

    def __init__(self, retriever: Retriever) -> None:
        self._retriever = retriever
        self._waiting: list[tuple[list[str], int, Future[list[list[Passage]]]]] = []
        self._changing, self._searching = threading.Lock(), threading.Lock()

    def passage(self, passage_id: str) -> Passage | None:
        """As the retriever's own."""
        return self._retriever.passage(passage_id)

    def search(self, queries: list[str], top_k: int) -> list[list[Passage]]:
        """As the retriever's own; a failure is every waiting request's of that batch."""
        mine: Future[list[list[Passage]]] = Future()
        with self._changing:
            self._waiting.append((queries, top_k, mine))
        while not mine.done():
            with self._searching:
                if not mine.done():
                    self._search_next()
        return mine.result()

    def _search_next(self) -> None:
        with self._changing:
            batch, rest, num_queries = [], [], 0
            for request in self._waiting:
                fits = not batch or num_queries + len(request[0]) <= MAX_QUERIES
                chosen = fits and request[1] == self._waiting[0][1]
                (batch if chosen else rest).append(request)
                num_queries += len(request[0]) if chosen else 0
            self._waiting = rest
        asked = [query for queries, _, _ in batch for query in queries]
        try:
            found = iter(self._retriever.search(asked, batch[0][1]))
        except Exception as error:  # raised again by every request that waits for this batch
            for _, _, future in batch:
                future.set_exception(error)
            return
        for queries, _, future in batch:
            future.set_result(list(itertools.islice(found, len(queries))))


class _BadRequest(Exception):
    """The JSON is not of the documented form."""


class RetrieverServer(ThreadingHTTPServer):
    """One thread per connection, at most `MAX_CONNECTIONS`; searches run one per core, those
    of a dense index as one batch of all that wait.

    Use as a context manager around `serve_forever`, or `start` it in a thread of its own.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, retriever: Retriever, host: str, port: int, top_k: int = 3) -> None:
        self.retriever = Merged(retriever) if getattr(retriever, "merged", False) else retriever
        self.top_k = top_k
        # searches that are merged must be let in to wait for each other
        num_searches = MAX_CONNECTIONS if self.retriever is not retriever else os.cpu_count() or 1
        self.searches = threading.BoundedSemaphore(num_searches)
        self._places = threading.BoundedSemaphore(MAX_CONNECTIONS)
        self._in_flight = 0
        self._changed = threading.Condition()
        super().__init__((host, port), _Handler)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://{self.server_address[0]}:{self.server_address[1]}"

    def start(self) -> threading.Thread:
        """Serve in a background thread until `close`."""
        thread = threading.Thread(target=self.serve_forever, args=(0.1,), daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Accept nothing more, let requests in flight finish, free the port."""
        self.shutdown()
        self.server_close()
        self.drain()

    def drain(self) -> None:
        """Wait until no request is in flight, at most `DRAIN_SECONDS`."""
        deadline = time.monotonic() + DRAIN_SECONDS
        with self._changed:
            while self._in_flight and (left := deadline - time.monotonic()) > 0:
                self._changed.wait(left)

    @contextlib.contextmanager
    def in_flight(self) -> Iterator[None]:
        """Around the work on one request."""
        with self._changed:
            self._in_flight += 1
        try:
            yield
        finally:
            with self._changed:
                self._in_flight -= 1
                self._changed.notify_all()

    def process_request(self, request: Any, client_address: Any) -> None:
        """A thread for the connection, or 503 where there are too many."""
        if self._places.acquire(blocking=False):
            super().process_request(request, client_address)
            return
        with contextlib.suppress(OSError):
            request.sendall(b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
        self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """Serve one connection."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._places.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that hang up are no error of ours."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version = "paw-retriever"
    sys_version = ""
    timeout = IDLE_SECONDS
    _refused = False

    @property
    def retriever_server(self) -> RetrieverServer:
        """The server, by its own type."""
        assert isinstance(self.server, RetrieverServer)
        return self.server

    def setup(self) -> None:
        super().setup()
        # without this every answer on a kept connection waits 40 ms for the client's ACK
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def finish(self) -> None:
        # Closing with unread bytes resets the connection, and a client that is still sending would
        # see a broken pipe instead of the answer.
        if self._refused:
            with contextlib.suppress(OSError):
                self._linger()
        super().finish()

    def _linger(self) -> None:
        self.connection.shutdown(socket.SHUT_WR)
        deadline, num_left = time.monotonic() + LINGER_SECONDS, LINGER_BYTES
        while num_left > 0 and (seconds := deadline - time.monotonic()) > 0:
            self.connection.settimeout(seconds)
            read = len(self.rfile.read1(min(num_left, 1 << 16)))
            if not read:
                return
            num_left -= read

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the base class refuses (other methods, over-long or malformed lines), as JSON."""
        if code == HTTPStatus.NOT_IMPLEMENTED:
            code = HTTPStatus.METHOD_NOT_ALLOWED if self._is_retrieve else HTTPStatus.NOT_FOUND
            message = USAGE
        self._refuse(code, message or HTTPStatus(code).phrase)

    @property
    def _is_retrieve(self) -> bool:
        return self.path.partition("?")[0].rstrip("/") == "/retrieve"

    def do_POST(self) -> None:
        with self.retriever_server.in_flight():
            self._retrieve()

    def _retrieve(self) -> None:
        length = self.headers.get("Content-Length", "")
        if not (length.isascii() and length.isdigit()):
            return self._refuse(411, "Content-Length is needed")
        if len(length) > 9 or int(length) > MAX_BODY_BYTES:
            return self._refuse(413, f"at most {MAX_BODY_BYTES} bytes")
        body = self.rfile.read(int(length))
        if len(body) < int(length):
            return self._refuse(400, "the body was cut")
        if not self._is_retrieve:
            return self._answer(404, {"detail": USAGE})
        server = self.retriever_server
        try:
            queries, top_k, with_scores = _read_request(body, server.top_k)
        except _BadRequest as error:
            return self._answer(422, {"detail": str(error)})
        try:
            with server.searches:
                found = server.retriever.search(queries, top_k)
        except RetrievalError as error:
            return self._answer(503, {"detail": str(error)})
        result = [[_document(passage, with_scores) for passage in passages] for passages in found]
        self._answer(200, {"result": result})

    def _refuse(self, status: int, reason: str) -> None:
        """Answer without having read the body: the connection cannot be used again."""
        self.close_connection = self._refused = True
        self._answer(status, {"detail": reason})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "POST")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """A rollout sends thousands of requests: none is logged."""


def _read_request(body: bytes, default_top_k: int) -> tuple[list[str], int, bool]:
    try:
        request = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _BadRequest(f"not JSON: {error}") from error
    if not isinstance(request, dict):
        raise _BadRequest("a JSON object is wanted")
    queries = request.get("queries")
    if queries is None and isinstance(request.get("query"), str):
        queries = [request["query"]]
    if not isinstance(queries, list) or not all(isinstance(query, str) for query in queries):
        raise _BadRequest('"queries" (a list of strings) or "query" (a string) is needed')
    if len(queries) > MAX_QUERIES:
        raise _BadRequest(f"at most {MAX_QUERIES} queries a request")
    top_k = request.get("topk")
    top_k = default_top_k if top_k is None else top_k
    if isinstance(top_k, bool) or not isinstance(top_k, int) or not 1 <= top_k <= MAX_TOP_K:
        raise _BadRequest(f'"topk" must be a whole number from 1 to {MAX_TOP_K}')
    with_scores = request.get("return_scores")
    if with_scores is not None and not isinstance(with_scores, bool):
        raise _BadRequest('"return_scores" must be true or false')
    return queries, top_k, bool(with_scores)


def _document(passage: Passage, with_score: bool) -> dict[str, Any]:
    document = {
        "id": passage.id,
        "contents": passage.contents,
        "title": passage.title,
        "text": passage.text,
    }
    return {"document": document, "score": passage.score} if with_score else document


def open_server(
    index_directory: str | Path, host: str = "127.0.0.1", port: int = 8000, top_k: int = 3
) -> RetrieverServer:
    """A server over an index, bound but not yet serving; port 0 takes any free one.

    Raises:
        UserError: bad index, or the address cannot be had.
    """
    retriever = open_index(index_directory)
    try:
        return RetrieverServer(retriever, host, port, top_k)
    except (OSError, OverflowError) as error:
        raise UserError(f"cannot listen on {host}:{port}: {error}") from error


def serve(
    index_directory: str | Path, host: str = "127.0.0.1", port: int = 8000, top_k: int = 3
) -> None:
    """Serve an index until interrupted (Ctrl-C or SIGTERM); requests in flight are finished.

    Raises:
        UserError: bad index, or the address cannot be had.
    """
    facts = index_facts(index_directory)
    with open_server(index_directory, host, port, top_k) as server:
        what = f"{facts['num_passages']:,} passages ({facts['kind']})"
        print(f"serving {what} at {server.url}/retrieve; Ctrl-C stops", file=sys.stderr, flush=True)
        previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            server.drain()
        finally:
            signal.signal(signal.SIGTERM, previous)
