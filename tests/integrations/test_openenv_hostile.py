"""Clients that mean harm, or are broken: the server goes on, and keeps nothing of them."""

import itertools
import json
import os
import random
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path
from urllib.parse import urlsplit

import pytest

pytest.importorskip("openenv", reason="OpenEnv is not installed: pip install .[openenv]")

from openenv_rooms import OPEN, RELEASE, Raw, Rooms, wait_for
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from paw.integrations.openenv import guard, server
from paw.integrations.openenv.guard import MAX_MESSAGE_BYTES, BadMessage, Limits, parse
from paw.integrations.openenv.server import application, running

pytestmark = [pytest.mark.openenv, pytest.mark.filterwarnings("ignore")]

DEEP = "[" * 200 + "]" * 200
REFUSED = {
    "": "INVALID_JSON",
    "{": "INVALID_JSON",
    "\x00": "INVALID_JSON",
    "[" * 100_000: "INVALID_JSON",
    '{"type": "reset", "data": {"seed": ' + "9" * 5000 + "}}": "INVALID_JSON",
    "null": "VALIDATION_ERROR",
    "[]": "VALIDATION_ERROR",
    "3": "VALIDATION_ERROR",
    '"reset"': "VALIDATION_ERROR",
    '{"type": "step", "data": []}': "VALIDATION_ERROR",
    '{"type": "step", "data": "look"}': "VALIDATION_ERROR",
    '{"type": "step", "data": null}': "VALIDATION_ERROR",
    '{"type": "step"}': "VALIDATION_ERROR",
    '{"type": "step", "data": {}}': "VALIDATION_ERROR",
    '{"type": "step", "data": {"command": 3}}': "VALIDATION_ERROR",
    '{"type": "step", "data": {"command": null}}': "VALIDATION_ERROR",
    '{"type": "step", "data": {"command": ["knock"]}}': "VALIDATION_ERROR",
    '{"type": "step", "data": {"command": "knock", "more": 1}}': "VALIDATION_ERROR",
    '{"type": "step", "data": {"command": "\\ud800"}}': "VALIDATION_ERROR",
    '{"type": "step", "data": {"command": "k", "metadata": ' + DEEP + "}}": "VALIDATION_ERROR",
    '{"type": "step", "data": {"command": "' + "x" * 100_001 + '"}}': "VALIDATION_ERROR",
    '{"type": "reset", "data": {"a": ' + DEEP + "}}": "VALIDATION_ERROR",
    '{"type": "reset", "more": 1}': "VALIDATION_ERROR",
    '{"type": "state", "data": {}}': "VALIDATION_ERROR",
    "{}": "UNKNOWN_TYPE",
    '{"type": 3}': "UNKNOWN_TYPE",
    '{"type": ["reset"]}': "UNKNOWN_TYPE",
    '{"type": "mcp", "data": {"method": "openenv/session/create"}}': "UNKNOWN_TYPE",
    '{"type": "reset", "data": {"index": -1}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"index": 10}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"index": 1e9}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"index": ' + "9" * 400 + "}}": "EXECUTION_ERROR",
    '{"type": "reset", "data": {"index": true}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"index": "1"}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"seed": NaN}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"seed": -1}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"split": "../etc"}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"split": {}}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"episode_id": 3}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"episode_id": "' + "x" * 256 + '"}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"indx": 3}}': "EXECUTION_ERROR",
    '{"type": "reset", "data": {"self": 3}}': "EXECUTION_ERROR",
    '{"type": "step", "data": {"command": "knock"}}': "EXECUTION_ERROR",  # before a reset
}  # fmt: skip
"""Message of a fresh session -> what it is answered with; the session goes on."""


@pytest.fixture
def app():
    RELEASE.clear()
    OPEN.clear()  # of servers that other tests stopped while a game hung
    return application(
        {"train": Rooms()}, Limits(max_sessions=80, idle_seconds=60, step_seconds=0.5)
    )


@pytest.fixture
def url(app):
    with running(app) as url:
        yield url
        RELEASE.set()
        wait_for(lambda: app.num_sessions == 0)
        wait_for(lambda: app._stage.num_hanging == 0)
        wait_for(lambda: not OPEN)


def dial(url: str, **options):
    return connect("ws" + url.removeprefix("http") + "/ws", proxy=None, **options).__enter__()


def plays(url: str) -> bool:
    """Does the server still serve a whole episode?"""
    client = Raw(url)
    client.ask("reset", index=0)
    done = [client.ask("step", command="knock")["done"] for _ in range(3)]
    client.close()
    return done == [False, False, True]


def test_bad_messages_are_refused_and_the_session_goes_on(url: str):
    client = dial(url)
    for message, code in REFUSED.items():
        client.send(message)
        answer = json.loads(client.recv(30))
        assert (answer["type"], answer["data"]["code"]) == ("error", code), message[:80]
        assert len(answer["data"]["message"]) < 300, message[:80]
    client.send(b"\xff\x00")
    assert json.loads(client.recv(30))["data"]["code"] == "VALIDATION_ERROR"
    client.send('{"type": "reset"}')
    assert json.loads(client.recv(30))["type"] == "observation"
    client.close()


def test_after_the_end_and_after_a_failure_a_reset_goes_on(url: str):
    client = Raw(url)
    client.ask("reset", index=0)
    for _ in range(3):
        client.ask("step", command="knock")
    assert client.ask("step", command="knock") == {
        "message": "the episode is over: reset begins the next", "code": "EXECUTION_ERROR",
    }  # fmt: skip
    for command, why in (
        ("boom", "ValueError: the ceiling comes down"),
        ("leave", "SystemExit: 3"),
        ("garble", "UnicodeEncodeError"),
        ("infinite", "ValueError: the reward is inf"),
    ):
        client.ask("reset", index=0)
        assert why in client.ask("step", command=command)["message"]
        again = client.ask("step", command="knock")["message"]
        assert again == "the environment failed: reset begins another episode"
    assert len(OPEN) == 0
    assert client.ask("reset", index=0)["done"] is False
    client.close()


def test_a_nul_is_a_character_like_any_other(url: str):
    client = Raw(url)
    client.ask("reset", index=0)
    assert client.ask("step", command="kn\x00ck")["observation"]["valid"] is False
    client.close()


def test_a_message_that_is_too_long_ends_its_session_alone(url: str):
    client = dial(url)
    client.send("x" * (MAX_MESSAGE_BYTES + 1))
    with pytest.raises(ConnectionClosed) as caught:
        client.recv(30)
    assert caught.value.rcvd.code == 1009
    assert plays(url)


def test_a_call_that_hangs_ends_its_session_and_keeps_its_place(app, url: str):
    client = Raw(url)
    client.ask("reset", index=0)
    over = "the environment gave no answer in 0.5 s: the session is over"
    assert client.ask("step", command="hang")["message"] == over
    assert client.ask("reset")["message"] == over
    client.close()
    wait_for(lambda: app.num_sessions == 0)
    assert app._stage.num_hanging == 1 and len(OPEN) == 1
    assert plays(url)
    RELEASE.set()
    wait_for(lambda: app._stage.num_hanging == 0 and not OPEN)


def test_places_are_not_given_away_while_calls_hang():
    RELEASE.clear()
    app = application({"train": Rooms()}, Limits(max_sessions=2, step_seconds=0.1))
    with running(app) as url:
        for _ in range(2):
            client = Raw(url)
            client.ask("reset", index=0)
            client.ask("step", command="hang")
            client.close()
        wait_for(lambda: app.num_sessions == 0)
        full = Raw(url).receive()
        assert full["message"] == "all 2 sessions are taken, 2 of them hang"
        RELEASE.set()
        wait_for(lambda: app._stage.num_hanging == 0)
        assert plays(url)


def test_a_client_that_leaves_in_mid_step_leaves_nothing(app, url: str):
    for leave in ("close", "shutdown"):
        client = dial(url)
        client.send('{"type": "reset", "data": {"index": 0}}')
        client.recv(30)
        client.send('{"type": "step", "data": {"command": "wait"}}')
        if leave == "close":
            client.close()
        else:
            client.socket.shutdown(socket.SHUT_RDWR)
    wait_for(lambda: app.num_sessions == 0 and not OPEN)
    assert plays(url)


def test_sessions_that_say_nothing_are_closed():
    app = application({"train": Rooms()}, Limits(idle_seconds=0.2))
    with running(app) as url:
        silent, started = dial(url), dial(url)
        started.send('{"type": "reset"}')
        started.recv(30)
        for client in (silent, started):
            with pytest.raises(ConnectionClosed) as caught:
                client.recv(30)
            assert (caught.value.rcvd.code, caught.value.rcvd.reason) == (
                1001, "no message for 0.2 s",
            )  # fmt: skip
        wait_for(lambda: app.num_sessions == 0 and not OPEN)


def raw_http(url: str, data: bytes) -> bytes:
    place = urlsplit(url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as line:
        line.sendall(data)
        answer = b""
        while part := line.recv(1 << 16):
            answer += part
    return answer


def post(path: str, body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode() + body


HTTP = {
    b"garbage\r\n\r\n": b"400",
    b"GET /" + b"x" * 100_000 + b" HTTP/1.1\r\n\r\n": b"400",
    post("/reset", b"{"): b"400",
    post("/reset", b"[]"): b"400",
    post("/reset", b'{"a": "\\ud800"}'): b"400",
    post("/reset", b"\xff"): b"400",
    post("/reset", b'{"a": ' + DEEP.encode() + b"}"): b"400",
    post("/reset", b"x" * (MAX_MESSAGE_BYTES + 1)): b"413",
    post("/mcp", b'{"jsonrpc": "2.0", "method": "openenv/session/create", "id": 1}'): b"200",
    b"GET /mcp HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n": b"404",
}


def test_bad_requests_are_answered_and_make_no_session(app, url: str):
    for request, code in HTTP.items():
        answer = raw_http(url, request)
        assert answer.startswith(b"HTTP/1.1 " + code), (request[:80], answer[:200])
    assert app.num_sessions == 0 and plays(url)


def test_connections_and_bodies_that_never_come_are_given_up(monkeypatch):
    monkeypatch.setattr(server, "HEAD_SECONDS", 0.2)
    monkeypatch.setattr(guard, "BODY_SECONDS", 0.2)
    with running(application({"train": Rooms()})) as url:
        for sent in (b"", b"GET /health HT", post("/reset", b"{", 100)):
            answer = raw_http(url, sent)  # returns: the server hangs up
            assert answer == b"" or answer.startswith(b"HTTP/1.1 408"), answer
        assert plays(url)


def hostile(url: str, number: int) -> None:
    """One of the evils of this file."""
    rng = random.Random(number)
    messages = [*REFUSED, '{"type": "reset"}', '{"type": "step", "data": {"command": "boom"}}']
    match number % 5:
        case 0:
            raw_http(url, rng.choice(list(HTTP)))
        case 1:
            place = urlsplit(url)
            with socket.create_connection((place.hostname, place.port)) as line:
                line.sendall(rng.randbytes(200))
        case 2:
            client = dial(url)
            client.socket.close()  # no good-bye
        case _:
            client = dial(url)
            for message in rng.choices(messages, k=6):
                client.send(message)
            for _ in range(rng.randrange(6)):
                client.recv(60)
            client.close()


def attack(url: str, num_requests: int, num_threads: int = 8) -> None:
    numbers, lock, faults = itertools.count(), threading.Lock(), []

    def run() -> None:
        while True:
            with lock:
                number = next(numbers)
            if number >= num_requests:
                return
            try:
                hostile(url, number)
            except Exception as error:
                faults.append((number, repr(error)))

    threads = [threading.Thread(target=run) for _ in range(num_threads)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [f for f in faults if "ConnectionClosed" not in f[1] and "Reset" not in f[1]] == []


def many_sessions(url: str, num_sessions: int) -> None:
    """All at once, each with its own episode, in turn."""
    clients = [Raw(url) for _ in range(num_sessions)]
    for number, client in enumerate(clients):
        client.send("reset", index=number % 10)
    for number, client in enumerate(clients):
        assert client.receive()["observation"]["text"].startswith(f"Open door {number % 10}.")
    for turn in range(3):
        for number, client in enumerate(clients):
            client.send("step", command="knock" if number % 2 else "sing")
        for number, client in enumerate(clients):
            answer = client.receive()
            assert answer["done"] is (turn == 2 and number % 2 == 1)
            assert answer["observation"]["valid"] is (number % 2 == 1)
    for client in clients:
        client.close()


def held(process: int) -> tuple[int, int, float]:
    """(threads, descriptors, megabytes) of a process."""
    place = Path(f"/proc/{process}")
    resident = int((place / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return len(os.listdir(place / "task")), len(os.listdir(place / "fd")), resident / 1e6


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
@pytest.mark.parametrize(
    ("num_sessions", "num_requests"), [(16, 60), pytest.param(64, 1000, marks=pytest.mark.slow)]
)
def test_the_server_survives_and_keeps_nothing(num_sessions, num_requests):
    """Of a second attack, as the first leaves what a process needs and not what clients leave.
    Afterwards as many sessions as there may be can be had."""
    command = [sys.executable, "-m", "paw", "serve-env", "openenv_rooms:Rooms", "--port", "0"]
    command += ["--max-sessions", str(num_sessions)]
    with subprocess.Popen(
        command, stderr=subprocess.PIPE, text=True, cwd=Path(__file__).parent
    ) as process:
        assert process.stderr is not None
        said: list[str] = [process.stderr.readline()]
        url = said[0].partition(" at ")[2].partition(";")[0]
        reader = threading.Thread(target=lambda: said.extend(process.stderr or ()))
        reader.start()

        def rounds() -> tuple[int, int, float]:
            attack(url, num_requests)
            most = before[0] + 2, before[1] + 2
            wait_for(lambda: all(x <= y for x, y in zip(held(process.pid), most, strict=False)))
            many_sessions(url, num_sessions)
            return held(process.pid)

        try:
            before = held(process.pid)
            _, _, first = rounds()
            _, _, second = rounds()
            assert second - first < 16  # a thousand messages of 100 kB would be 100
            process.send_signal(signal.SIGTERM)
            assert process.wait(30) == 0
        finally:
            process.kill()
            reader.join()
    assert not [line for line in said if "Traceback" in line]


def test_depth_is_counted_whatever_it_is_made_of():
    assert parse('{"a": [{"b": "[[[[["}]}') == {"a": [{"b": "[[[[["}]}
    parse('{"a":' * 31 + "1" + "}" * 31)
    with pytest.raises(BadMessage, match="nested deeper than 32"):
        parse('{"a":' * 33 + "1" + "}" * 33)
