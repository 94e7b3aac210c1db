"""Client of a running `vllm serve` 0.32: JSON over HTTP, read strictly.

Standard library only; one connection a request, so that vLLM drops what nobody waits for any more.
"""

import http.client
import queue
import re
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from typing import Any, TypeVar
from urllib.parse import urlsplit

import msgspec

from paw.envs.openenv.access import is_loopback
from paw.errors import RunFailure

ANSWER_SECONDS = 1800.0
"""For a response that waits in vLLM's queue, or weights that are read."""
PAUSES = (1.0, 4.0, 16.0)
"""Seconds before each further try."""
THREADS = 512
"""Requests at once: fewer than the 1024 files that a process may open as a rule."""
MAX_SAID = 300
"""Characters of what the server says of an error."""

T = TypeVar("T")


class Refused(Exception):
    """An answer that another try does not change."""

    def __init__(self, status: int, said: str) -> None:
        super().__init__(f"HTTP {status}: {said}" if said else f"HTTP {status}")
        self.status = status


class Passing(Exception):
    """What another try may mend."""


class Client:
    """What is asked of one server, from any thread."""

    def __init__(self, url: str) -> None:
        """Nothing is asked yet.

        Raises:
            ValueError: `url` is no address.
        """
        address = urlsplit(url)
        if address.scheme not in ("http", "https") or not address.hostname or address.port == 0:
            raise ValueError("no address")
        if not (url.isascii() and url.isprintable()) or " " in url:
            raise ValueError("no address")
        if address.username or address.query or address.fragment:
            raise ValueError("more than an address")
        self.url = url.rstrip("/")
        # No proxy to this machine itself.
        direct = [urllib.request.ProxyHandler({})] if is_loopback(address.hostname) else []
        self._opener = urllib.request.build_opener(*direct)

    def once(self, path: str, kind: type[T], content: Any = None, seconds: float = 0.0) -> T:
        """The answer to a GET, or with `content` a POST.

        Args:
            path: below the address.
            kind: of the answer.
            content: sent as JSON.
            seconds: until a silent server is given up; 0: ANSWER_SECONDS.

        Raises:
            Refused, Passing: there is none of that kind.
        """
        body = None if content is None else msgspec.json.encode(content)
        headers = {"Content-Type": "application/json"}
        request = urllib.request.Request(self.url + path, body, headers)
        try:
            with self._opener.open(request, timeout=seconds or ANSWER_SECONDS) as answer:
                return msgspec.json.decode(answer.read(), type=kind)
        except urllib.error.HTTPError as error:
            refused = Refused(error.code, _said(error))
            if error.code >= 500 or error.code in (408, 429):
                raise Passing(str(refused)) from None
            raise refused from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise Refused(200, f"not what vLLM answers ({error})") from None
        except (OSError, http.client.HTTPException) as error:
            raise Passing(_reason(error)) from None

    def ask(self, path: str, kind: type[T], content: Any) -> T:
        """The answer to a POST, tried again where that may help.

        Raises:
            RunFailure: there is none, for the reason that the first try found.
        """
        first: Passing | None = None
        for pause in (*PAUSES, None):
            try:
                return self.once(path, kind, content)
            except Refused as error:
                raise RunFailure(f"{self.url}{path}: {first or error}") from None
            except Passing as error:
                first = first or error
            if pause is not None:
                time.sleep(pause)
        raise RunFailure(f"{self.url}{path}: {first} ({len(PAUSES) + 1} tries)")

    def ask_all(self, path: str, kind: type[T], contents: Sequence[Any]) -> list[T]:
        """An answer to each, in order; they are asked side by side.

        Raises:
            RunFailure: one has none. The others are not waited for.
        """
        todo: queue.SimpleQueue[tuple[int, Any] | None] = queue.SimpleQueue()
        done: queue.SimpleQueue[tuple[int, T | BaseException]] = queue.SimpleQueue()
        ended = threading.Event()

        def work() -> None:
            while (item := todo.get()) is not None and not ended.is_set():
                try:
                    done.put((item[0], self.ask(path, kind, item[1])))
                except BaseException as error:
                    done.put((item[0], error))

        num_threads = min(len(contents), THREADS)
        for item in [*enumerate(contents), *[None] * num_threads]:
            todo.put(item)
        for _ in range(num_threads):  # a process that ends waits for none of them
            threading.Thread(target=work, daemon=True).start()
        answers: dict[int, T] = {}
        try:
            while len(answers) < len(contents):
                index, answer = done.get()
                if isinstance(answer, BaseException):
                    raise answer
                answers[index] = answer
        finally:
            ended.set()
        return [answers[index] for index in range(len(contents))]


def _said(error: urllib.error.HTTPError) -> str:
    """What the server says of an error, on one line."""
    try:
        text = error.read(1 << 16).decode(errors="replace")
    except (OSError, http.client.HTTPException):
        return ""
    found = re.search(r'"(?:message|detail)":\s*"((?:[^"\\]|\\.)*)"', text)
    return " ".join((found[1] if found else text).split())[:MAX_SAID]


def _reason(error: Exception) -> str:
    """Why a connection broke."""
    cause = getattr(error, "reason", error)
    if isinstance(cause, TimeoutError):
        return "timed out"
    if isinstance(cause, http.client.IncompleteRead):
        return "the answer was cut"
    return str(getattr(cause, "strerror", None) or cause or type(cause).__name__)
