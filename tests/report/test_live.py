"""The page of a run that goes on, served to this machine alone."""

import http.client
import json
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from paw.errors import UserError
from paw.report.gather import material
from paw.report.live import serve

from .test_source import CONFIG, log, save, trajectory


class Server:
    """One that serves a run directory, in a thread."""

    def __init__(self, run: Path) -> None:
        listening = threading.Event()
        self.address = ""

        def tell(address: str) -> None:
            self.address = address
            listening.set()

        arguments = (material([run]), 0, tell)
        threading.Thread(target=serve, args=arguments, daemon=True).start()
        assert listening.wait(20)

    def get(self, path: str, **headers: str) -> tuple[int, dict[str, str], bytes]:
        host = self.address.removeprefix("http://").rstrip("/")
        connection = http.client.HTTPConnection(host, timeout=20)
        connection.request(
            "GET", path, headers={k.replace("_", "-"): v for k, v in headers.items()}
        )
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()


@pytest.fixture
def run(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    log(tmp_path, 1)
    save(tmp_path, 1, trajectory(1, 0, 0), trajectory(1, 0, 1))
    return tmp_path


@pytest.fixture
def server(run: Path) -> Iterator[Server]:
    yield Server(run)


def test_grows_with_the_run(run: Path, server: Server) -> None:
    assert server.address.startswith("http://127.0.0.1:")
    status, headers, data = server.get("/page.json")
    page = json.loads(data)
    assert status == 200 and page["live"] and page["runs"][0]["metrics"]["update"] == [1.0]
    status, _, data = server.get("/page.json", If_None_Match=headers["ETag"])
    assert (status, data) == (304, b"")

    log(run, 2)
    save(run, 2, trajectory(2, 0, 0))
    status, _, data = server.get("/page.json", If_None_Match=headers["ETag"])
    page = json.loads(data)
    assert status == 200 and page["runs"][0]["metrics"]["update"] == [1.0, 2.0]
    episodes = page["runs"][0]["episodes"]
    assert episodes["chunk"] == [0, 0, 1] and episodes["place"] == [0, 1, 0]
    chunk = json.loads(server.get("/chunk/1")[2])
    assert [e["row"] for e in chunk["episodes"]] == [2]
    assert len(json.loads(server.get("/chunk/0")[2])["episodes"]) == 2


def test_page_may_ask_its_own_server_and_nobody_else(server: Server) -> None:
    status, headers, data = server.get("/")
    assert status == 200 and headers["Content-Type"].startswith("text/html")
    assert b"connect-src 'self'" in data


@pytest.mark.parametrize(
    "path", ["/chunk/7", "/chunk/x", "/chunk/-1", "/chunk/", "/chunk/" + "9" * 40,
             "/../config.toml", "/config.toml", "/page.json/x", "/%2e%2e/config.toml"],
)  # fmt: skip
def test_there_is_nothing_else(server: Server, path: str) -> None:
    status, _, data = server.get(path)
    assert (status, data) == (404, b"")


def test_a_name_that_points_here_gets_nothing(server: Server) -> None:
    for host in ("example.org", "example.org:80", "127.0.0.1.example.org:80", ""):
        status, _, data = server.get("/page.json", Host=host)
        assert (status, data) == (403, b"")
    port = server.address.rpartition(":")[2].rstrip("/")
    assert server.get("/page.json", Host=f"localhost:{port}")[0] == 200


def test_a_taken_port_is_said(run: Path, server: Server) -> None:
    port = int(server.address.rpartition(":")[2].rstrip("/"))
    with pytest.raises(UserError, match="cannot listen there"):
        serve(material([run]), port, lambda address: None)
