"""OpenEnv's protocol, the client's half: one HTTP request, and one session over a WebSocket.

GET /schema                         what an action and an observation look like
POST /NAME/num_tasks, /NAME/task    OpenEnv's task API, where a server has it
WS /ws                              {"type": "reset"|"step", "data": …} -> {"type": "observation", …}
"""  # noqa: E501

import contextlib
import http.client
import json
import urllib.error
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from paw.envs.openenv.access import is_loopback, read_token
from paw.errors import UserError

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 600.0
"""For one answer; `rollout.step_seconds` is what ends a slow step in training."""
MAX_ANSWER_BYTES = 64 << 20
MAX_DETAIL_BYTES = 1 << 16
MAX_COMMAND_CHARS = 100_000
"""More than a response holds; OpenEnv's servers bound their messages."""


class NoAnswer(RuntimeError):
    """The server is not there, or what it says is not of the protocol."""


class ServerError(RuntimeError):
    """An answer of the type `error`; `code` is one of OpenEnv's, `errors` pydantic's list."""

    def __init__(self, code: str, message: str, errors: Any = None) -> None:
        found = [x for x in errors if isinstance(x, dict)] if isinstance(errors, list) else []
        first = found[0] if found else {}
        what = f": {'.'.join(map(str, _listed(first.get('loc'))))}: {first.get('msg')}"
        super().__init__(f"{message}{what if found else ''} ({code})")
        self.code, self.message, self.errors = code, message, found

    def is_of(self, field: str, value: str) -> bool:
        """Is it the value of an action's field that was not taken? Environments make such errors
        too, of their own observations."""
        return bool(self.errors) and all(
            _listed(x.get("loc"))[:1] == [field] and x.get("input") == value for x in self.errors
        )


def _listed(found: Any) -> list[Any]:
    return found if isinstance(found, list) else []


def checked_url(url: str) -> str:
    """An address without a slash at its end. Raises UserError."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        known = known and url.isascii() and url.isprintable() and " " not in url
        (parts.hostname or "").encode("idna")
    except ValueError:
        known = False
    if not known:
        raise UserError(f"env.name: openenv:{url}: an address such as openenv:http://HOST:8000")
    return url.rstrip("/")


def _headers() -> dict[str, str]:
    token = read_token()
    return {} if token is None else {"Authorization": f"Bearer {token}"}


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """The token is for the server that was named, and no other."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _opener(url: str) -> urllib.request.OpenerDirector:
    """No proxy to this machine itself."""
    here = is_loopback(urlsplit(url).hostname or "")
    proxies = [urllib.request.ProxyHandler({})] if here else []
    return urllib.request.build_opener(_NoRedirect, *proxies)


def ask(url: str, content: dict[str, Any] | None = None, absent: int = 404) -> Any:
    """The JSON that a GET, or with `content` a POST, is answered with; None where the server has no
    such thing (405, 501, and `absent`).

    Raises:
        NoAnswer: with the reason.
    """
    body = None if content is None else json.dumps(content).encode()
    headers = _headers() | {"Content-Type": "application/json"}
    request = urllib.request.Request(url, body, headers)
    try:
        with _opener(url).open(request, timeout=CONNECT_SECONDS) as answer:
            return json.loads(answer.read(MAX_ANSWER_BYTES))
    except urllib.error.HTTPError as error:
        if error.code in (absent, 405, 501):
            return None
        raise NoAnswer(_refusal(error.code, error.reason, error.headers, _read(error))) from None
    except urllib.error.URLError as error:
        raise NoAnswer(str(getattr(error.reason, "strerror", None) or error.reason)) from None
    except OSError as error:
        raise NoAnswer(error.strerror or str(error) or type(error).__name__) from None
    except http.client.HTTPException as error:
        raise NoAnswer(f"what it answers is not HTTP: {type(error).__name__}") from None
    except (ValueError, RecursionError):
        raise NoAnswer("what it answers is not JSON") from None


def _read(error: urllib.error.HTTPError) -> bytes:
    with contextlib.suppress(OSError, http.client.HTTPException), error:
        return error.read(MAX_DETAIL_BYTES)
    return b""


def _refusal(status: int, reason: str, headers: Any, body: bytes) -> str:
    """`HTTP 422 …: why`, from what a server says of it."""
    said = f"HTTP {status} {reason}"
    if status in (401, 403):
        token = "it takes another token than PAW_ENV_TOKEN" if _headers() else "set PAW_ENV_TOKEN"
        return f"{said}; {token}"
    if 300 <= status < 400 and headers.get("Location"):
        return f"{said}: it sends to {headers['Location']!r:.200}; name the address itself"
    try:
        detail = json.loads(body)["detail"]
    except (ValueError, RecursionError, LookupError, TypeError):
        return said
    detail = detail if isinstance(detail, str) else json.dumps(detail)
    return f"{said}: {' '.join(detail.split())[:300]}"


class Wire:
    """A session. Raises NoAnswer, which names the server, where there is no connection to be had.

    Args:
        url: of the server, http or https.
    """

    def __init__(self, url: str) -> None:
        try:
            from websockets.exceptions import InvalidStatus, WebSocketException
            from websockets.sync.client import connect
        except ImportError:
            raise ImportError("openenv:URL needs websockets: pip install websockets") from None
        self._where = f"openenv:{url}"
        here: dict[str, Any] = {"proxy": None} if is_loopback(urlsplit(url).hostname or "") else {}
        try:
            self._socket = connect(
                "ws" + url.removeprefix("http") + "/ws",
                additional_headers=_headers(),
                open_timeout=CONNECT_SECONDS,
                max_size=MAX_ANSWER_BYTES,
                compression=None,
                ping_interval=None,  # a server may be busy with a step for longer
                **here,
            ).__enter__()
        except InvalidStatus as error:
            said = error.response
            why = _refusal(said.status_code, said.reason_phrase, said.headers, said.body or b"")
            raise self._no_answer(why) from None
        except (OSError, EOFError, ValueError, WebSocketException) as error:
            raise self._no_answer(str(error) or type(error).__name__) from None

    def _no_answer(self, why: str) -> NoAnswer:
        return NoAnswer(f"{self._where}: {why}")

    def ask(self, kind: str, data: dict[str, Any]) -> dict[str, Any]:
        """Send a `reset` or `step` and wait for its observation.

        Raises:
            ServerError: the server says no.
            NoAnswer: the connection ended, or the answer is none of the protocol.
        """
        from websockets.exceptions import ConnectionClosed

        try:
            with contextlib.suppress(ConnectionClosed):  # what it said before is still to be read
                self._socket.send(json.dumps({"type": kind, "data": data}))
            answer = json.loads(self._socket.recv(ANSWER_SECONDS))
            said = answer["data"]
            if answer["type"] == "error":
                raise ServerError(
                    str(said.get("code")), str(said.get("message")), said.get("errors")
                )
            if answer["type"] != "observation" or not isinstance(said["observation"], dict):
                raise self._no_answer(f"an answer of the type {answer['type']!r:.50}")
        except ConnectionClosed as error:
            reason = f": {error.rcvd.reason}" if error.rcvd and error.rcvd.reason else ""
            raise self._no_answer(f"the connection ended{reason}") from None
        except TimeoutError:
            raise self._no_answer(f"no answer within {ANSWER_SECONDS:g} s") from None
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            raise self._no_answer("an answer that is none of OpenEnv's") from None
        return said

    def close(self) -> None:
        """Say good-bye; may be called twice."""
        with contextlib.suppress(Exception):
            self._socket.close()
