"""What is said of addresses that are none, servers that are none, and servers that say no."""

import contextlib
import json
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

import pytest

from paw import envs
from paw.envs.openenv.wire import NoAnswer, ServerError, ask
from paw.errors import UserError


@pytest.mark.parametrize(
    "url",
    ["http://a b", "http://a\tb", "http://a\nb:1", "http://a..b", "http://x:99999", "http://ü",
     "http://x/\x00"],
)  # fmt: skip
def test_what_is_no_address(url: str):
    with pytest.raises(UserError, match="an address such as openenv:http://HOST:8000"):
        envs.make(f"openenv:{url}")


@contextlib.contextmanager
def answering(data: bytes):
    """A server of one request."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve():
            line, _ = listener.accept()
            with line:
                line.recv(4096)
                line.sendall(data)

        thread = Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"SSH-2.0-OpenSSH_9.6\r\n", "what it answers is not HTTP: BadStatusLine"),
        (b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n", "not HTTP: HTTPException"),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 500\r\n\r\n{", "not JSON"),
        (b"", "not HTTP|Remote end closed"),
    ],
)
def test_what_is_no_server(data: bytes, why: str):
    with answering(data) as url, pytest.raises(UserError, match=f"openenv:{url}: .*({why})"):
        envs.make(f"openenv:{url}")


@contextlib.contextmanager
def serving(status: int, body: bytes = b"", **headers: str):
    """Answers everything so; yields its address and what it was asked with."""
    asked: list[str | None] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            asked.append(self.headers.get("Authorization"))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}", asked
        server.shutdown()


def test_the_token_goes_to_no_other_server(monkeypatch):
    monkeypatch.setenv("PAW_ENV_TOKEN", "s3cret")
    with serving(404) as (other, stolen), serving(302, Location=f"{other}/x") as (url, asked):
        with pytest.raises(UserError, match=f"HTTP 302 Found: it sends to '{other}/x'; name the"):
            envs.make(f"openenv:{url}")
        assert (asked, stolen) == (["Bearer s3cret"], [])


@pytest.mark.parametrize(
    ("status", "content", "message"),
    [
        (422, {"detail": "no split\n 'x'"}, "HTTP 422 Unprocessable Entity: no split 'x'"),
        (503, {"detail": "all taken"}, "HTTP 503 Service Unavailable: all taken"),
        (500, {"detail": [{"msg": "m"}]}, r'HTTP 500 Internal Server Error: \[{"msg": "m"}\]'),
        (500, "text", "HTTP 500 Internal Server Error$"),
        (500, {"detail": "x" * 9000}, "HTTP 500 Internal Server Error: x{300}$"),
        (401, {"detail": "a token"}, "HTTP 401 Unauthorized; set PAW_ENV_TOKEN$"),
    ],
)
def test_a_server_that_says_no_says_why(status: int, content, message: str, monkeypatch):
    monkeypatch.delenv("PAW_ENV_TOKEN", raising=False)
    body = json.dumps(content).encode()
    with serving(status, body) as (url, _), pytest.raises(NoAnswer, match=message):
        ask(f"{url}/schema")


def test_errors_of_an_action_and_of_an_environments_own():
    """pydantic's list, as OpenEnv passes it on: `loc` is the field, `input` what was given."""

    def error(*loc: str, given: object = "go") -> dict:
        return {"type": "string_too_long", "loc": list(loc), "msg": "too long", "input": given}

    def is_of_action(*errors: object) -> bool:
        return ServerError("VALIDATION_ERROR", "no", list(errors)).is_of("message", "go")

    assert is_of_action(error("message"))
    assert not is_of_action()
    assert not is_of_action(error("text"))
    assert not is_of_action(error("message", given=None))  # the observation has a field like it
    assert not is_of_action(error("message"), error("text"))
    assert not is_of_action(error(), "x", {"loc": 3})
    assert not ServerError("VALIDATION_ERROR", "no", "message").is_of("message", "go")
