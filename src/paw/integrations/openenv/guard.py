"""What stands between the network and OpenEnv's application: token, limits, well-formed messages.

OpenEnv's own handlers get only what they can take: one JSON object a message, of a known type, of
bounded size and depth, in valid Unicode; so no client ends anything but its own session.
"""

import asyncio
import contextlib
import hmac
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from paw.envs.openenv.access import is_loopback
from paw.integrations.openenv.session import Stage

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]

MAX_MESSAGE_BYTES = 1 << 20
MAX_DEPTH = 32
"""Of lists and objects in a message."""
BODY_SECONDS = 30.0
"""What the body of an HTTP request gets to arrive, and an answer to be taken."""
ASK_SECONDS = 2.0
"""What a client for which there is no session gets to ask for one, before it is told, and what a
request for a task waits for a place."""
PLAYING = ("/reset", "/step", "/task", "/tasks", "/task_range")
"""Ends of the paths whose requests call an environment, each in a thread of its own."""
TYPES = ("reset", "step", "state", "close")
NO_TOOLS = {
    "jsonrpc": "2.0",
    "id": None,
    "error": {"code": -32601, "message": "no tools here: play over the WebSocket /ws"},
}


@dataclass(frozen=True)
class Limits:
    """Of the server."""

    max_sessions: int = 256
    idle_seconds: float = 3600.0
    """A session that sends nothing for so long is closed."""
    step_seconds: float = 60.0
    """A reset or step that takes longer ends its session."""


class BadMessage(ValueError):
    """`code` is one of OpenEnv's `WSErrorCode`."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse(text: str) -> dict[str, Any]:
    """The JSON object in a message. Raises BadMessage."""
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise BadMessage("INVALID_JSON", f"not JSON: {str(error)[:200]}") from None
    if not isinstance(found, dict):
        raise BadMessage("VALIDATION_ERROR", "a message is a JSON object")
    if text.count("[") + text.count("{") >= MAX_DEPTH:
        layer, depth = [found], 0
        while layer := [x for parent in layer for x in _children(parent)]:
            depth += 1
            if depth >= MAX_DEPTH:
                raise BadMessage("VALIDATION_ERROR", f"nested deeper than {MAX_DEPTH}")
    if "\\u" in text:
        try:
            json.dumps(found, ensure_ascii=False).encode()
        except UnicodeEncodeError:
            raise BadMessage("VALIDATION_ERROR", "a text in it is not valid Unicode") from None
    return found


def _children(parent: Any) -> list[Any]:
    found = parent.values() if isinstance(parent, dict) else parent
    return [x for x in found if isinstance(x, dict | list)]


def check(message: Message) -> None:
    """Raises BadMessage for what OpenEnv's handler of a session cannot take."""
    text = message.get("text")
    if text is None:
        raise BadMessage("VALIDATION_ERROR", "messages are text, not bytes")
    found = parse(text)
    if found.get("type") not in TYPES:
        shown = f"{found.get('type')!r:.50}"
        raise BadMessage("UNKNOWN_TYPE", f"no type {shown}; known: {', '.join(TYPES)}")
    if not isinstance(found.get("data", {}), dict):
        raise BadMessage("VALIDATION_ERROR", "data must be a JSON object")


class Guard:
    """An ASGI application around OpenEnv's."""

    def __init__(self, app: Any, stage: Stage, limits: Limits, token: str | None) -> None:
        self._app, self._stage, self._limits = app, stage, limits
        self._token = None if token is None else token.encode()
        self.num_sessions = 0

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request, or one session."""
        if scope["type"] == "lifespan":
            return await self._app(scope, receive, send)
        if scope["type"] == "http":
            send = _closing(send)
        refused = self._refusal(scope)
        if scope["type"] == "websocket":
            if refused is None and scope["path"] != "/ws":
                refused = 404, "sessions are at /ws"
            if refused is not None:
                return await _deny(scope, receive, send, *refused)
            return await self._session(scope, receive, send)
        if refused is not None:
            return await _answer(send, refused[0], {"detail": refused[1]})
        await self._request(scope, receive, send)

    def _refusal(self, scope: Message) -> tuple[int, str] | None:
        """(HTTP status, why) of what is not even looked at; liveness is anybody's to ask."""
        headers = dict(scope["headers"])
        if self._token is not None:
            if scope["type"] == "http" and scope["path"] == "/health":
                return None
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self._token):
                return 401, "Authorization: Bearer TOKEN is needed"
        elif b"origin" in headers and not _is_here(headers[b"origin"].decode("latin-1")):
            return 403, "a page from elsewhere may not use this server"
        return None

    @contextlib.contextmanager
    def _place(self) -> Iterator[bool]:
        """A session's place while it lasts; False where all are taken. Calls that hang keep
        theirs."""
        if not self._has_room:
            yield False
            return
        self.num_sessions += 1
        try:
            yield True
        finally:
            self.num_sessions -= 1

    @property
    def _has_room(self) -> bool:
        return self.num_sessions + self._stage.num_hanging < self._limits.max_sessions

    @property
    def _full(self) -> str:
        hanging = self._stage.num_hanging
        more = f", {hanging} of them hang" if hanging else ""
        return f"all {self._limits.max_sessions} sessions are taken{more}"

    async def _session(self, scope: Message, receive: Receive, send: Send) -> None:
        line = _Line(receive, send, self._limits.idle_seconds)
        with self._place() as has_place:
            if has_place:
                with contextlib.suppress(asyncio.CancelledError):  # the server does not wait longer
                    await self._app(scope, line.receive, line.send)
                return
        await line.receive()
        await line.send({"type": "websocket.accept"})
        with contextlib.suppress(
            TimeoutError
        ):  # a client that sends into a closed line reads nothing
            async with asyncio.timeout(ASK_SECONDS):
                await line.receive()
        await line.send(_error("CAPACITY_REACHED", self._full))
        await line.send({"type": "websocket.close", "code": 1013, "reason": self._full})

    async def _request(self, scope: Message, receive: Receive, send: Send) -> None:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(receive)
            if body:
                parse(body.decode())
        except TimeoutError:
            return await _answer(send, 408, {"detail": f"no body within {BODY_SECONDS:g} s"})
        except ConnectionError:
            return
        except OverflowError:
            return await _answer(send, 413, {"detail": f"at most {MAX_MESSAGE_BYTES} bytes"})
        except (BadMessage, UnicodeDecodeError) as error:
            return await _answer(send, 400, {"detail": str(error)})
        if scope["path"] == "/mcp":  # OpenEnv's own makes sessions that no connection ends
            return await _answer(send, 200, NO_TOOLS)
        whole = iter([{"type": "http.request", "body": body, "more_body": False}])

        async def replay() -> Message:
            return next(whole, None) or await receive()

        if not scope["path"].endswith(PLAYING):
            return await self._app(scope, replay, send)
        if scope["path"] not in PLAYING:  # of the task API, whose clients have sessions besides
            await self._wait_for_room()
        with self._place() as has_place:
            if has_place:
                return await self._app(scope, replay, send)
        await _answer(send, 503, {"detail": self._full})

    async def _wait_for_room(self) -> None:
        """For sessions that are about to end."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(ASK_SECONDS):
                while not self._has_room:
                    await asyncio.sleep(0.05)


class _Line:
    """The two ends of a session's connection, as OpenEnv's handler gets them."""

    def __init__(self, receive: Receive, send: Send, idle_seconds: float) -> None:
        self._receive, self._send, self._idle_seconds = receive, send, idle_seconds
        self._gone = False

    async def receive(self) -> Message:
        """The next well-formed message; others are answered here. An idle session has ended."""
        while not self._gone:
            try:
                async with asyncio.timeout(self._idle_seconds):
                    message = await self._receive()
            except TimeoutError:
                reason = f"no message for {self._idle_seconds:g} s"
                await self.send({"type": "websocket.close", "code": 1001, "reason": reason})
                break
            if message["type"] != "websocket.receive":
                return message
            try:
                check(message)
                return message
            except BadMessage as error:
                await self.send(_error(error.code, str(error)))
        self._gone = True
        return {"type": "websocket.disconnect", "code": 1001}

    async def send(self, message: Message) -> None:
        """Nothing where nobody is left to take it, or nobody takes it."""
        if self._gone:
            return
        try:
            async with asyncio.timeout(BODY_SECONDS):
                await self._send(message)
        except (OSError, RuntimeError):  # a time-out; the client has gone, or was never quite there
            self._gone = True


def _is_here(origin: str) -> bool:
    """Is it a page of this machine? A browser sends where a page is from, other clients nothing."""
    try:
        return is_loopback(urlsplit(origin).hostname or "")
    except ValueError:
        return False


async def _body(receive: Receive) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_MESSAGE_BYTES:
            raise OverflowError
    return bytes(body)


def _error(code: str, message: str) -> Message:
    """As OpenEnv's `WSErrorResponse`."""
    text = json.dumps({"type": "error", "data": {"message": message, "code": code}})
    return {"type": "websocket.send", "text": text}


def _closing(send: Send) -> Send:
    """A request a connection, so that none is kept open for the next."""

    async def closing(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = [*message.get("headers", ()), (b"connection", b"close")]
            message = {**message, "headers": headers}
        await send(message)

    return closing


async def _answer(send: Send, status: int, content: dict[str, Any], kind: str = "http") -> None:
    headers = [(b"content-type", b"application/json")]
    headers += [(b"www-authenticate", b"Bearer")] if status == 401 else []
    body = json.dumps(content).encode()
    headers.append((b"content-length", str(len(body)).encode()))
    start = {"type": f"{kind}.response.start", "status": status, "headers": headers}
    await send(start)
    await send({"type": f"{kind}.response.body", "body": body})


async def _deny(scope: Message, receive: Receive, send: Send, status: int, detail: str) -> None:
    """Refuse a WebSocket before it is one, with its reason where the server can say it."""
    await receive()
    if "websocket.http.response" in scope.get("extensions", {}):
        return await _answer(send, status, {"detail": detail}, "websocket.http")
    await send({"type": "websocket.close", "code": 1008, "reason": detail})
