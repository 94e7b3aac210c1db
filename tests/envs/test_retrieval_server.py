"""Server and client: the protocol, concurrent load, and servers that misbehave."""

import http.client
import json
import pickle
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from paw.envs.retrieval import (
    Passage,
    RetrievalError,
    RetrieverClient,
    RetrieverServer,
    build_index,
    open_index,
    open_retriever,
    open_server,
)
from paw.envs.retrieval.server import MAX_BODY_BYTES, MAX_QUERIES
from paw.envs.search_qa import evaluate
from paw.errors import UserError

ANIMALS = "ant bear cat dog eel fox goat hen ibis jay kite lion mole newt owl pig"
WORDS = ANIMALS.split()


@pytest.fixture(scope="module")
def index(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("server")
    rows = [
        {"id": str(i), "title": f"{a} «{b}»", "text": f"The {a} and the {b}: “é”."}
        for i, (a, b) in enumerate((a, b) for a in WORDS for b in WORDS)
    ]
    corpus = folder / "corpus.jsonl"
    corpus.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    build_index(corpus, folder / "index", progress=False)
    return folder / "index"


@pytest.fixture(scope="module")
def server(index: Path) -> Iterator[RetrieverServer]:
    server = open_server(index, port=0)
    server.start()
    yield server
    server.close()


def post(
    server: RetrieverServer, body: bytes, path: str = "/retrieve", method: str = "POST"
) -> tuple[int, Any]:
    host, port = server.server_address[:2]
    connection = http.client.HTTPConnection(str(host), port, timeout=10)
    connection.request(method, path, body)
    response = connection.getresponse()
    answer = response.status, json.loads(response.read())
    connection.close()
    return answer


def test_both_forms_of_request(server: RetrieverServer) -> None:
    many = {"queries": ["ant bear", "zebra"], "topk": 2, "return_scores": True}
    status, answer = post(server, json.dumps(many).encode())
    first, nothing = answer["result"]
    assert status == 200 and len(first) == 2 and nothing == []
    assert set(first[0]) == {"document", "score"} and first[0]["score"] >= first[1]["score"] > 0
    assert first[0]["document"] == {
        "id": "1",
        "contents": '"ant «bear»"\nThe ant and the bear: “é”.',
        "title": "ant «bear»",
        "text": "The ant and the bear: “é”.",
    }
    # one query, the server's top_k, bare documents
    status, answer = post(server, b'{"query": "ant bear", "topk": null}', "/retrieve/")
    assert status == 200 and len(answer["result"][0]) == 3
    assert answer["result"][0][:2] == [hit["document"] for hit in first]


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"", 422, "not JSON"),
        (b"\xff\x00", 422, "not JSON"),
        (b"[" * 100_000, 422, "not JSON"),
        (b"[]", 422, "JSON object"),
        (b"{}", 422, "queries"),
        (b'{"queries": "x"}', 422, "queries"),
        (b'{"queries": [1]}', 422, "queries"),
        (b'{"queries": ["x"], "topk": 0}', 422, "topk"),
        (b'{"queries": ["x"], "topk": 1e9}', 422, "topk"),
        (b'{"queries": ["x"], "topk": true}', 422, "topk"),
        (b'{"queries": ["x"], "return_scores": "false"}', 422, "return_scores"),
        (b'{"queries": ["x"], "return_scores": 0}', 422, "return_scores"),
        (b'{"queries": ["x"], "return_scores": null}', 200, ""),
        (b" " * (MAX_BODY_BYTES + (1 << 20)), 413, "at most 8388608 bytes"),
        (json.dumps({"queries": ["x"] * (MAX_QUERIES + 1)}).encode(), 422, "at most"),
        (b'{"queries": ["\\ud800", ""]}', 200, ""),
    ],
)
def test_requests_of_another_form(
    server: RetrieverServer, body: bytes, status: int, message: str
) -> None:
    found, answer = post(server, body)
    assert found == status and message in answer.get("detail", "")


def test_bounds_and_paths(server: RetrieverServer) -> None:
    assert post(server, b'{"query": "x"}', "/other")[0] == 404
    for length, status in ((str(MAX_BODY_BYTES + 1), b"413"), ("9" * 5000, b"413"), ("-1", b"411")):
        with socket.create_connection(server.server_address[:2], timeout=10) as raw:
            raw.sendall(f"POST /retrieve HTTP/1.1\r\nContent-Length: {length}\r\n\r\n".encode())
            assert status in raw.recv(100).splitlines()[0]
    with socket.create_connection(server.server_address[:2], timeout=10) as raw:
        raw.sendall(b"POST /retrieve HTTP/1.1\r\nContent-Length: 50\r\n\r\n{")
        raw.shutdown(socket.SHUT_WR)  # a cut body is refused, and does not hang
        assert b"400" in raw.recv(100).splitlines()[0]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/retrieve", 405),
        ("PUT", "/retrieve/?x=1", 405),
        ("GET", "/", 404),
        ("DELETE", "/other", 404),
        ("POST", "/" + "x" * 100_000, 414),
        ("GET", "/" + "x" * 10_000_000, 414),
    ],
)
def test_other_methods_and_paths_are_answered_in_json(
    server: RetrieverServer, method: str, path: str, status: int
) -> None:
    found, answer = post(server, b'{"query": "x"}' * 10_000, path, method)
    assert found == status and isinstance(answer["detail"], str)


def test_a_refused_connection_is_not_read_for_ever(
    server: RetrieverServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("paw.envs.retrieval.server.LINGER_SECONDS", 0.2)
    with socket.create_connection(server.server_address[:2], timeout=10) as raw:
        raw.sendall(b"POST /retrieve HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n")
        started = time.monotonic()
        with pytest.raises(OSError):  # the server hangs up on a client that drips
            while time.monotonic() < started + 5:
                raw.sendall(b"x")
                time.sleep(0.05)


def test_client_finds_what_the_index_finds(server: RetrieverServer, index: Path) -> None:
    client, local = RetrieverClient(server.url), open_index(index)
    queries = ["ant bear", "", "zebra", "the cat\ud800", "ant bear", 'x" OR (', "猫 fox"]
    assert client.search(queries, 5) == local.search(queries, 5)
    copy = pickle.loads(pickle.dumps(client))
    assert copy.search(["owl"], 1) == local.search(["owl"], 1)
    assert client.passage("1") is None


def test_concurrent_load(server: RetrieverServer, index: Path) -> None:
    client, local = RetrieverClient(server.url, cache_size=0), open_index(index)

    def ask(number: int) -> bool:
        queries = [f"{WORDS[number % 16]} {WORDS[(number + i) % 16]}" for i in range(4)]
        return client.search(queries, 3) == local.search(queries, 3)

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(ask, range(200)))


class Batches:
    """Finds each query itself, `top_k` times; holds the first batch until it is let go."""

    merged = True

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.begun, self.go_on = threading.Event(), threading.Event()

    def search(self, queries: list[str], top_k: int) -> list[list[Passage]]:
        self.batches.append(queries)
        self.begun.set()
        assert self.go_on.wait(10)
        if "bad" in queries:
            raise RetrievalError("out of order")
        return [[Passage(query, "", "x")] * top_k for query in queries]

    def passage(self, passage_id: str) -> None:
        return None


def test_requests_that_wait_are_searched_together() -> None:
    """The first request is alone; the 40 that come meanwhile make one batch for each `topk`. A
    failure reaches the requests of its batch and no other."""
    retriever = Batches()
    server = RetrieverServer(retriever, "127.0.0.1", 0)
    server.start()

    def ask(number: int) -> bool:
        queries = [f"{number} a", f"{number} b", "bad"][: 3 if number == 41 else 2]
        top_k = 3 if number == 41 else 1 + number % 2
        body = json.dumps({"queries": queries, "topk": top_k}).encode()
        status, answer = post(server, body)
        if number == 41:
            return status == 503 and answer["detail"] == "out of order"
        ids = [[hit["id"] for hit in hits] for hits in answer["result"]]
        return ids == [[query] * top_k for query in queries]

    with ThreadPoolExecutor(42) as pool:
        first = pool.submit(ask, 0)
        assert retriever.begun.wait(10)
        others = [pool.submit(ask, number) for number in range(1, 42)]
        deadline = time.monotonic() + 10
        while len(server.retriever._waiting) < 41 and time.monotonic() < deadline:  # type: ignore[attr-defined]
            time.sleep(0.01)
        retriever.go_on.set()
        assert first.result(10) and all(other.result(10) for other in others)
    server.close()
    assert sorted(map(len, retriever.batches)) == [2, 3, 40, 40]


def test_evaluation_through_a_server(server: RetrieverServer, index: Path, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    row = {"id": "0", "question": "ant bear", "golden_answers": ["BEAR"], "supporting_ids": ["1"]}
    questions.write_text(json.dumps(row))
    remote, local = evaluate(server.url, questions), evaluate(index, questions)
    assert remote["recall"] == local["recall"] == remote["answer_recall"] == 1.0


def test_close_finishes_requests_in_flight(index: Path) -> None:
    class Slow:
        started = threading.Event()
        finished = threading.Event()

        def search(self, queries: list[str], top_k: int) -> list[list[Passage]]:
            self.started.set()
            time.sleep(0.5)
            self.finished.set()
            return [[Passage("slow", "", "x")] for _ in queries]

        def passage(self, passage_id: str) -> None:
            return None

    server = RetrieverServer(Slow(), "127.0.0.1", 0)
    server.start()
    with ThreadPoolExecutor(1) as pool:
        asked = pool.submit(RetrieverClient(server.url).search, ["x"], 1)
        Slow.started.wait(5)
        server.close()
        assert Slow.finished.is_set()
        assert asked.result(5)[0][0].id == "slow"
    with pytest.raises(UserError, match="paw retriever serve"):
        open_retriever(server.url)  # nobody listens any more


def test_serve_until_terminated(index: Path) -> None:
    code = f"from paw.envs.retrieval import serve; serve({str(index)!r}, port=0)"
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.PIPE, text=True)
    try:
        assert process.stderr is not None
        line = process.stderr.readline()
        assert "serving 256 passages (bm25) at http://127.0.0.1:" in line
        url = line.split(" at ")[1].split(";")[0]
        assert len(open_retriever(url).search(["owl"], 2)[0]) == 2
        process.send_signal(signal.SIGTERM)
        assert process.wait(10) == 0
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.wait()


def test_addresses_that_cannot_be_had(server: RetrieverServer, index: Path) -> None:
    for port in (server.server_address[1], 99999):
        with pytest.raises(UserError, match="cannot listen on"):
            open_server(index, port=port)
    for url in ("http://", "ftp://x", "http://x:port"):
        with pytest.raises(UserError, match="address"):
            RetrieverClient(url)


GOOD = b'{"result": [[{"document": {"id": 7, "contents": "\\"T\\"\\nfine"}, "score": 2}]]}'


def reply(handler: BaseHTTPRequestHandler, status: int, body: bytes, cut: int = 0) -> None:
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body)))
    handler.end_headers()
    handler.wfile.write(body[: len(body) - cut])
    handler.close_connection = bool(cut)


def drip(handler: BaseHTTPRequestHandler) -> None:
    handler.send_response(200)
    handler.send_header("Content-Length", "1000")
    handler.end_headers()
    for _ in range(25):
        handler.wfile.write(b" ")
        handler.wfile.flush()
        time.sleep(0.1)


Behaviour = Callable[[BaseHTTPRequestHandler], None]
GOOD_ANSWER: Behaviour = lambda h: reply(h, 200, GOOD)  # noqa: E731
RETRIED: dict[str, Behaviour] = {
    "500": lambda h: reply(h, 500, b"oops"),
    "503": lambda h: reply(h, 503, b""),
    "429": lambda h: reply(h, 429, b"slow down"),
    "garbage": lambda h: reply(h, 200, b"<html>\xff"),
    "cut body": lambda h: reply(h, 200, GOOD, cut=10),
    "time-out": lambda h: time.sleep(2.5),
    "drip": drip,
    "no HTTP": lambda h: h.connection.sendall(b"\x00\x01garbage\r\n\r\n"),
    "hangs up": lambda h: h.connection.shutdown(socket.SHUT_RDWR),
}
PATIENCE = {"time-out": 0.7, "drip": 0.7}
FATAL: dict[str, tuple[Behaviour, str]] = {
    "404": (lambda h: reply(h, 404, b"no such\npath"), "HTTP 404: no such path"),
    "other shape": (lambda h: reply(h, 200, b'{"results": []}'), "no list of lists"),
    "too few": (lambda h: reply(h, 200, b'{"result": []}'), "0 results for 1 queries"),
    "no document": (lambda h: reply(h, 200, b'{"result": [[3]]}'), "no document"),
    "no contents": (lambda h: reply(h, 200, b'{"result": [[{"id": "0"}]]}'), 'no "contents"'),
}


class Scripted:
    """A server that behaves badly in the given order, then keeps to the last behaviour."""

    def __init__(self, *behaviours: Behaviour, timeout: float = 20.0) -> None:
        self.behaviours = list(behaviours)
        self.timeout = timeout
        self.requests: list[Any] = []
        outer = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                length = int(self.headers["Content-Length"])
                outer.requests.append(json.loads(self.rfile.read(length)))
                number = min(len(outer.requests), len(outer.behaviours)) - 1
                self.close_connection = True
                try:
                    outer.behaviours[number](self)
                except OSError:
                    return

            def log_message(self, format: str, *args: Any) -> None:
                return

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        threading.Thread(target=self.server.serve_forever, args=(0.05,), daemon=True).start()

    def __enter__(self) -> RetrieverClient:
        url = f"http://127.0.0.1:{self.server.server_address[1]}"
        return RetrieverClient(url, timeout=self.timeout, attempts=2, backoff=0.01)

    def __exit__(self, *_: object) -> None:
        self.server.shutdown()
        self.server.server_close()


@pytest.mark.parametrize("name", RETRIED)
def test_passing_faults_are_tried_again(name: str) -> None:
    script = Scripted(RETRIED[name], GOOD_ANSWER, timeout=PATIENCE.get(name, 20.0))
    with script as client:
        (found,) = client.search(["q"], 3)[0]
        assert (found.id, found.title, found.text, found.score) == ("7", "T", "fine", 2.0)
        assert len(script.requests) == 2


@pytest.mark.parametrize("name", RETRIED)
def test_lasting_faults_end_in_one_error(name: str) -> None:
    script = Scripted(RETRIED[name], timeout=PATIENCE.get(name, 20.0))
    with script as client:
        started = time.monotonic()
        with pytest.raises(RetrievalError, match="retriever http") as caught:
            client.search(["q"], 3)
        assert time.monotonic() - started < 60 and len(script.requests) == 2
        assert "\n" not in str(caught.value)
        assert name != "drip" or "no whole answer within" in str(caught.value)


@pytest.mark.parametrize("name", FATAL)
def test_wrong_servers_are_not_asked_again(name: str) -> None:
    behaviour, message = FATAL[name]
    script = Scripted(behaviour)
    with script as client:
        with pytest.raises(RetrievalError, match=message):
            client.search(["q"], 3)
        assert len(script.requests) == 1
        with pytest.raises(UserError, match="start a server"):
            client.check()


def test_servers_that_take_one_query() -> None:
    script = Scripted(lambda h: reply(h, 422, b'{"detail": "query missing"}'), GOOD_ANSWER)
    with script as client:
        found = client.search(["a", "b"], 3)
        assert [passages[0].text for passages in found] == ["fine", "fine"]
        client.search(["c"], 3)  # remembered: no second attempt with "queries"
    assert [request.get("query") for request in script.requests] == [None, "a", "b", "c"]
    assert script.requests[0]["queries"] == ["a", "b"] and script.requests[1]["topk"] == 3


def test_bare_documents_and_separate_fields() -> None:
    body = b'{"result": [[{"id": "1", "title": "\\"A\\"", "text": "b\\ud800"}, {"contents": "c"}]]}'
    with Scripted(lambda h: reply(h, 200, body)) as client:
        first, second = client.search(["q"], 3)[0]
        assert (first.title, first.text, second.text) == ("A", "b?", "c")
        assert len(client.search(["q"], 1)[0]) == 1  # never more than asked for


def test_answers_are_cached_per_query_and_top_k() -> None:
    script = Scripted(GOOD_ANSWER)
    with script as client:
        for _ in range(3):
            client.search(["q"], 3)
            client.search(["q"], 2)
        assert len(script.requests) == 2
        client.search(["q"], 3)[0].clear()  # a caller's change does not reach the cache
        assert len(client.search(["q"], 3)[0]) == 1
        small = RetrieverClient(client.url, cache_size=2)
        for query in ("a", "b", "c", "b", "c", "a"):
            small.search([query], 1)
        assert [request["queries"] for request in script.requests[2:]] == [
            ["a"],
            ["b"],
            ["c"],
            ["a"],
        ]
