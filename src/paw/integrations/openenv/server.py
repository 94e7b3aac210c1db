"""OpenEnv's application over environments of ours, and the process that serves it."""

import asyncio
import contextlib
import functools
import signal
import socket
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse
from openenv.core.env_server import create_fastapi_app
from uvicorn.protocols.http.h11_impl import H11Protocol

from paw.envs.base import TaskSource
from paw.errors import UserError
from paw.integrations.openenv.guard import MAX_MESSAGE_BYTES, Guard, Limits
from paw.integrations.openenv.models import PawAction, PawObservation, PawState
from paw.integrations.openenv.session import Refused, Session, Stage

HEAD_SECONDS = 30.0
"""What a new connection gets to send the head of its first request."""
MAX_BACKLOG_BYTES = 16 << 20
"""Of what a client was sent and has not taken: pongs have no end."""
DRAIN_SECONDS = 5
"""What calls that run get to end when the server stops, and a client to take the last of what it
was sent."""


def application(
    sources: Mapping[str, TaskSource], limits: Limits | None = None, token: str | None = None
) -> Guard:
    """An ASGI application that plays tasks of these splits, the first of them by default.

    Sessions share the sources, each with a thread of its own: what episodes have in common must
    only be read, or locked.
    """
    limits = limits or Limits()
    stage = Stage(sources, limits.step_seconds)
    app: FastAPI = create_fastapi_app(
        functools.partial(Session, stage),  # pyright: ignore[reportArgumentType]
        PawAction,
        PawObservation,
        max_concurrent_envs=limits.max_sessions,
        env_name=stage.sources[stage.default].name.replace("/", "-"),  # stands in paths
        state_cls=PawState,
        mode="simulation",
    )

    @app.exception_handler(Refused)
    async def refuse(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"detail": str(error)}, 422)

    return Guard(app, stage, limits, token)


class _Protocol(H11Protocol):
    """Hangs up on connections that do not ask for anything, and on those that take no answer;
    also where they have become WebSockets, which keep the transport."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.loop.call_later(HEAD_SECONDS, self._hang_up)
        self.loop.call_later(DRAIN_SECONDS, self._watch)

    def _hang_up(self) -> None:
        if self in self.connections and self.cycle is None:
            self.transport.close()

    def _watch(self) -> None:
        """A closed transport waits without an end for its buffer to be taken."""
        line = self.transport
        is_over = line.is_closing() or line.get_write_buffer_size() > MAX_BACKLOG_BYTES
        self.loop.call_later(DRAIN_SECONDS, line.abort if is_over else self._watch)


class _Server(uvicorn.Server):
    """Ends on SIGTERM and Ctrl-C with status 0, a second Ctrl-C at once."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        numbers = (signal.SIGTERM, signal.SIGINT)
        handlers = {number: signal.signal(number, self.handle_exit) for number in numbers}
        try:
            yield
        finally:
            for number, handler in handlers.items():
                signal.signal(number, handler)


def _listen(host: str, port: int) -> socket.socket:
    """Raises UserError where the address cannot be had."""
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family, backlog=1024)
    except OSError as error:
        raise UserError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error


def _url(listener: socket.socket) -> str:
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def _config(app: Guard) -> uvicorn.Config:
    return uvicorn.Config(
        app,
        http=_Protocol,
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        proxy_headers=False,
        ws_max_size=MAX_MESSAGE_BYTES,
        ws_ping_timeout=None,  # a client that is busy with its model answers none
        ws_per_message_deflate=False,
        timeout_graceful_shutdown=DRAIN_SECONDS,
    )


def serve(app: Guard, what: str, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve until SIGTERM or Ctrl-C; port 0 takes any free one.

    Raises:
        UserError: the address cannot be had.
    """
    with _listen(host, port) as listener:
        ready = f"serving {what} at {_url(listener)}; Ctrl-C stops"
        server = _Server(_config(app), lambda: print(ready, file=sys.stderr, flush=True))
        asyncio.run(server.serve(sockets=[listener]))


@contextlib.contextmanager
def running(app: Guard) -> Iterator[str]:
    """The address of a server in a thread of this process, on any free port of this machine."""
    with _listen("127.0.0.1", 0) as listener:
        up = threading.Event()
        server = _Server(_config(app), up.set)
        thread = threading.Thread(target=lambda: asyncio.run(server.serve(sockets=[listener])))
        thread.start()
        try:
            if not up.wait(60):
                raise RuntimeError("the server does not start")
            yield _url(listener)
        finally:
            server.should_exit = True
            thread.join()
