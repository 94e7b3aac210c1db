"""What clients and environments of the server may cost it: no connection, thread or place outlives
its use, and no fault of an environment ends more than a call."""

import asyncio
import json
import os
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pytest

pytest.importorskip("openenv", reason="OpenEnv is not installed: pip install .[openenv]")

from openenv_rooms import RELEASE, Raw, Room, Rooms, wait_for
from test_openenv import get, status

from paw.commands.serve_env import application_of
from paw.envs.base import Observation, StepResult
from paw.errors import UserError
from paw.integrations.openenv import server
from paw.integrations.openenv.guard import Limits
from paw.integrations.openenv.server import application, running

pytestmark = [pytest.mark.openenv, pytest.mark.filterwarnings("ignore")]

PACKAGE = Path(__file__).parents[2] / "integrations" / "openenv"


class OddRoom(Room):
    """Raises what no environment should, or returns what JSON has no word for."""

    def play(self, command: str) -> StepResult:
        match command:
            case "stop":
                raise KeyboardInterrupt
            case "cancel":
                raise asyncio.CancelledError
            case "iterate":
                raise StopIteration
            case "score":
                return StepResult(Observation("x"), info={"score": np.float32(0.5)})
            case "end":
                return StepResult(Observation("x"), terminated=np.bool_(True), success=np.True_)
        return super().play(command)


class Many(Rooms):
    """Some tasks fail."""

    name = "odd/Many-v0"

    def __len__(self) -> int:
        return 5000

    def task(self, index: int):
        match index:
            case 7:
                raise KeyError("broken task")
            case 8:
                sys.exit("bad data")
            case 9:
                return None
            case 6:
                RELEASE.wait(60)
        return super().task(index)

    def open(self, task, seed=0) -> OddRoom:
        return OddRoom(task, seed)


@pytest.fixture(scope="module")
def many():
    with running(application({"train": Many()})) as url:
        yield url


def test_a_name_is_a_part_of_paths(many: str):
    assert get(f"{many}/list_environments") == ["odd-Many-v0"]
    assert get(f"{many}/odd-Many-v0/num_tasks", {"split": "train"}) == {"num_tasks": 5000}


def test_more_tasks_than_a_request_gives_are_refused(many: str):
    place = f"{many}/odd-Many-v0/task_range"

    def listed(**part):
        return [t["index"] for t in get(place, {"split": "train", **part})["tasks"]]

    assert listed(start=10, stop=1010) == list(range(10, 1010))
    assert listed(start=4990, stop=9000) == list(range(4990, 5000))
    assert listed(start=10) == list(range(10, 1010))
    assert status(place, {"split": "train", "start": 10, "stop": 1011}) == (
        422, "1001 tasks: at most 1000 a request",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("index", "why"),
    [
        (7, "KeyError: 'broken task'"),
        (8, "SystemExit: bad data"),
        (9, "AttributeError: 'NoneType' object has no attribute 'id'"),
    ],
)
def test_a_task_that_fails_is_told_to_client_and_log_in_a_line(many: str, index, why, capfd):
    told = 422, f"train {index}: the task failed: {why}"
    assert status(f"{many}/odd-Many-v0/task", {"split": "train", "index": index}) == told
    part = {"split": "train", "start": index, "stop": index + 1}
    assert status(f"{many}/odd-Many-v0/task_range", part) == told
    client = Raw(many)
    assert client.ask("reset", index=index)["message"] == f"the environment failed: {why}"
    assert "the environment failed" in client.ask("step", command="knock")["message"]
    assert client.ask("reset", index=0)["done"] is False
    client.close()
    assert len(capfd.readouterr().err.splitlines()) == 3


@pytest.mark.parametrize(
    ("command", "why"),
    [("stop", "KeyboardInterrupt"), ("cancel", "CancelledError"), ("iterate", "StopIteration")],
)
def test_nothing_that_an_environment_raises_ends_more_than_its_episode(many: str, command, why):
    client = Raw(many)
    client.ask("reset", index=0)
    assert why in client.ask("step", command=command)["message"]
    assert client.ask("reset", index=0)["done"] is False
    client.close()


def test_numbers_and_bools_of_numpy_are_told_as_json_has_them(many: str):
    client = Raw(many)
    client.ask("reset", index=0)
    assert client.ask("step", command="score")["metadata"] == {"score": 0.5}
    end = client.ask("step", command="end")
    assert (end["done"], end["observation"]["success"]) == (True, True)
    client.close()


def test_requests_for_tasks_take_places_and_wait_for_them():
    RELEASE.clear()
    app = application({"train": Many()}, Limits(max_sessions=2))
    with running(app) as url, ThreadPoolExecutor(12) as pool:
        place, before = f"{url}/odd-Many-v0/task", threading.active_count()

        def ask(index: int):
            return pool.submit(get, place, {"split": "train", "index": index})

        hanging = [ask(6) for _ in range(2)]
        wait_for(lambda: app.num_sessions == 2)
        full = status(place, {"split": "train", "index": 0})
        assert full == (503, "all 2 sessions are taken")
        waiting = [ask(i) for i in range(10, 18)]
        time.sleep(0.3)
        assert threading.active_count() <= before + 2 + 10  # and those of the pool, which ask
        RELEASE.set()
        indices = [one.result()["task"]["index"] for one in [*hanging, *waiting]]
        assert indices == [6, 6, *range(10, 18)]
    assert app.num_sessions == 0


def test_a_session_whose_call_hangs_takes_one_place():
    RELEASE.clear()
    app = application({"train": Rooms()}, Limits(max_sessions=2, step_seconds=0.2))
    with running(app) as url:
        stays = Raw(url)
        stays.ask("reset", index=0)
        assert "the session is over" in stays.ask("step", command="hang")["message"]
        other = Raw(url)
        assert other.ask("reset", index=0)["done"] is False  # the second place of two
        assert status(f"{url}/reset", {}) == (503, "all 2 sessions are taken")
        stays.close()
        wait_for(lambda: app.num_sessions == 1)
        assert status(f"{url}/reset", {}) == (503, "all 2 sessions are taken, 1 of them hang")
        RELEASE.set()
        wait_for(lambda: app._stage.num_hanging == 0)
        other.close()


def sockets(port: int) -> int:
    """Connections that the server holds: those with an inode, which are not listening."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    mine = [x for x in lines if int(x[1].partition(":")[2], 16) == port]
    return sum(x[3] != "0A" and x[9] != "0" for x in mine)


def slow_reader(url: str) -> socket.socket:
    place = urlsplit(url)
    line = socket.socket()
    line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    line.connect((place.hostname, place.port))
    line.settimeout(0.5)
    return line


def send_all(line: socket.socket, data: bytes) -> None:
    try:
        while True:
            line.sendall(data)
    except OSError:  # the server reads no more
        pass


UPGRADE = (
    b"GET /ws HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)


def frame(kind: int, data: bytes) -> bytes:
    """Of a client: final, and masked with zeros."""
    return bytes([0x80 | kind, 0xFF]) + len(data).to_bytes(8, "big") + b"\0\0\0\0" + data


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads /proc")
def test_connections_of_clients_that_read_nothing_are_cut(monkeypatch):
    monkeypatch.setattr(server, "DRAIN_SECONDS", 0.5)
    monkeypatch.setattr("paw.integrations.openenv.guard.BODY_SECONDS", 0.5)
    app = application({"train": Many()}, Limits(max_sessions=4))
    with running(app) as url:
        port = urlsplit(url).port
        assert port is not None
        session, tasks = slow_reader(url), slow_reader(url)
        session.sendall(UPGRADE)
        session.recv(1000)
        command = {"type": "step", "data": {"command": "x" * 200_000}}
        send_all(session, frame(1, json.dumps(command).encode()))
        body = b'{"split": "train", "start": 10, "stop": 1010}'
        tasks.sendall(
            b"POST /odd-Many-v0/task_range HTTP/1.1\r\nHost: x\r\nContent-Type: application/json"
            b"\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        )
        wait_for(lambda: app.num_sessions == 0 and sockets(port) == 0)
        session.close(), tasks.close()


def test_one_request_a_connection(many: str):
    place = urlsplit(many)
    with socket.create_connection((place.hostname, place.port), timeout=30) as line:
        line.sendall(b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
        answer = b""
        while part := line.recv(4096):  # ends: the server hangs up
            answer += part
    assert answer.count(b"connection: close") == 1 and answer.endswith(b'{"status":"healthy"}')


def test_a_client_that_answers_no_pings_keeps_its_session(monkeypatch):
    """As one that blocks while its model writes: the ping comes, and no pong goes."""
    made = server._config(application({"train": Rooms()}))
    assert made.ws_ping_timeout is None
    made.ws_ping_interval = 0.1
    monkeypatch.setattr(server, "_config", lambda app: made)
    with running(made.app) as url:
        place = urlsplit(url)
        with socket.create_connection((place.hostname, place.port), timeout=30) as line:
            line.sendall(UPGRADE)
            pings = b""
            while pings.count(b"\x89\x04") < 3:
                pings += line.recv(4096)
            line.sendall(frame(1, b'{"type": "reset"}'))
            answer = b""
            while b"Open door" not in answer:
                answer += line.recv(4096)


def test_what_means_nothing_to_an_application_is_refused():
    for words, why in (
        (["household", "--port", "9"], "--port means nothing here"),
        (["household", "--host=0.0.0.0"], "--host means nothing here"),
        (["household", "--prot", "9"], "unrecognized arguments: --prot"),
        (["household", "--rollout.groups", "9"], "unrecognized arguments: --rollout.groups"),
        ([], "the following arguments are required"),
    ):
        with pytest.raises(UserError, match=why):
            application_of(words)


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("householf", "no environment 'householf'; did you mean 'household'?"),
        ("household 'x", "No closing quotation"),
    ],
)
def test_a_container_says_in_a_line_what_it_cannot_serve(words: str, why: str):
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "server.app"], cwd=PACKAGE, text=True,
        capture_output=True, env=os.environ | {"PAW_SERVE_ENV": words}, timeout=120,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (1, f"PAW_SERVE_ENV={words!r}: {why}\n")


@pytest.mark.slow
def test_a_container_serves_as_the_command_does():
    dockerfile = (PACKAGE / "server" / "Dockerfile").read_text()
    command = json.loads(dockerfile.partition("\nCMD ")[2])
    assert command[:3] == ["python", "-m", "server.app"]
    with subprocess.Popen(
        [sys.executable, "-W", "ignore", *command[1:3], "--port", "0"], cwd=PACKAGE, text=True,
        stderr=subprocess.PIPE, env=os.environ | {"PAW_SERVE_ENV": "household --env.level 2"},
    ) as process:  # fmt: skip
        assert process.stderr is not None
        url = process.stderr.readline().partition(" at ")[2].partition(";")[0]
        try:
            client = Raw(url)
            assert client.ask("reset", index=0)["done"] is False
            client.close()
            process.terminate()
            assert process.wait(30) == 0
        finally:
            process.kill()
