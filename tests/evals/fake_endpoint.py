"""A chat endpoint on 127.0.0.1 that plays, counts and misbehaves as scripted."""

import json
import re
import threading
import time
from collections.abc import Callable, Iterable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from paw.envs.base import Observation
from paw.envs.household import HouseholdExpert

Body = dict[str, Any]
Policy = Callable[[Body], str]


class FakeEndpoint:
    """Answers `policy(body)`; the first answers go as `faults` say.

    Faults: an int is a status; ("429", seconds) has Retry-After; "cut", "drop", "hang", "json",
    "list", "empty", "no message" are bad answers; bytes are a whole body; None is a good answer;
    (status, bytes) is a status with that body.
    """

    def __init__(
        self, policy: Policy = lambda body: "ok", faults: Iterable[Any] = (), delay: float = 0.0
    ) -> None:
        self.policy, self.delay = policy, delay
        self.faults = list(faults)
        self.bodies: list[Body] = []
        self.headers: list[dict[str, str]] = []
        self.times: list[float] = []
        self.most_at_once = self._now = 0
        self.lock = threading.Lock()
        self._closing = threading.Event()
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.01,))
        self.base = f"http://127.0.0.1:{self._server.server_port}/v1"

    def __enter__(self) -> "FakeEndpoint":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._closing.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _handler(fake):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with fake.lock:
                    fake.bodies.append(body)
                    fake.headers.append(dict(self.headers))
                    fake.times.append(time.monotonic())
                    fake._now += 1
                    fake.most_at_once = max(fake.most_at_once, fake._now)
                    fault = fake.faults.pop(0) if fake.faults else None
                fake._closing.wait(fake.delay)
                with fake.lock:  # before the answer: the next request may come at once
                    fake._now -= 1
                try:
                    if self.path != "/v1/chat/completions":
                        self._send(404, b'{"detail": "Not Found"}')
                    else:
                        self._answer(body, fault)
                except BrokenPipeError:
                    pass

            def _answer(self, body: Body, fault: Any) -> None:
                good = answer(fake.policy(body)) if fault is None else b""
                match fault:
                    case None:
                        self._send(200, good)
                    case ("429", seconds):
                        self._send(429, b"{}", {"Retry-After": str(seconds)})
                    case (int(status), bytes(text)):
                        self._send(status, text)
                    case (int(status), dict(headers)):
                        self._send(status, b"", headers)
                    case int(status):
                        self._send(status, b'{"error": {"message": "scripted"}}')
                    case bytes(text):
                        self._send(200, text)
                    case "cut":
                        self._send(200, answer("whole"), cut=20)
                    case "drop":
                        self.connection.close()
                    case "hang":
                        fake._closing.wait(5)
                    case "json":
                        self._send(200, b'{"choices": [')
                    case "list":
                        self._send(200, b"[]")
                    case "empty":
                        self._send(200, b'{"choices": []}')
                    case "no message":
                        self._send(200, b'{"choices": [{"text": "x"}]}')
                    case _:
                        raise AssertionError(fault)

            def _send(
                self, status: int, data: bytes, headers: dict[str, str] | None = None, cut: int = 0
            ) -> None:
                self.send_response(status)
                self.send_header("Content-Length", str(len(data)))
                for name, value in (headers or {}).items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(data[: len(data) - cut])

            def log_message(self, *_: Any) -> None:
                pass

        return Handler


def answer(text: str, usage: Any = (10, 5), **message: Any) -> bytes:
    """A whole answer with `text`."""
    data: dict[str, Any] = {
        "choices": [{"message": {"role": "assistant", "content": text, **message}}]
    }
    if usage is not None:
        data["usage"] = {"prompt_tokens": usage[0], "completion_tokens": usage[1]}
    return json.dumps(data).encode()


ADMISSIBLE = re.compile(r"\nYour admissible commands are: \[(.*)\]\.")


def react_expert(body: Body) -> str:
    """Wins household tasks asked in the `react` way: the expert reads the whole conversation."""
    read = [m["content"].rpartition("Observation: ")[2] for m in body["messages"][::2]]
    expert, command = HouseholdExpert("fake"), ""
    for text in read:
        listed = ADMISSIBLE.search(text)
        shown = tuple(listed[1][1:-1].split("', '")) if listed else ()
        command = expert.act(Observation(ADMISSIBLE.sub("", text), shown))
    return f"Thought: the expert knows.\nAction: {command}"


class PlainExpert:
    """Wins household tasks asked in the `plain` way, one episode at a time."""

    def __init__(self) -> None:
        self._expert = HouseholdExpert("fake")

    def __call__(self, body: Body) -> str:
        prompt = body["messages"][0]["content"]
        if "So far you have taken" not in prompt:
            self._expert = HouseholdExpert("fake")
        text = prompt.partition("Your current observation is: ")[2]
        command = self._expert.act(Observation(ADMISSIBLE.split(text)[0]))
        return f"<think>the expert knows</think><action>{command}</action>"
