"""OpenEnv's protocol, the client's half: one HTTP request, and one session over a WebSocket.

GET /schema                         what an action and an observation look like
POST /NAME/num_tasks, /NAME/task    OpenEnv's task API, where a server has it
WS /ws                              {"type": "reset"|"step", "data": …} -> {"type": "observation", …}
"""  # noqa: E501

import contextlib
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
MAX_COMMAND_CHARS = 100_000
"""More than a response holds; OpenEnv's servers bound their messages."""


class NoAnswer(RuntimeError):
    """The server is not there, or what it says is not of the protocol."""


class ServerError(RuntimeError):
    """An answer of the type `error`; `code` is one of OpenEnv's."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(f"{message} ({code})")
        self.code, self.message = code, message


def checked_url(url: str) -> str:
    """An address without a slash at its end. Raises UserError."""
    try:
        parts = urlsplit(url)
        known = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        known = False
    if not known:
        raise UserError(f"env.name: openenv:{url}: an address such as openenv:http://HOST:8000")
    return url.rstrip("/")


def _headers() -> dict[str, str]:
    token = read_token()
    return {} if token is None else {"Authorization": f"Bearer {token}"}


def _opener(url: str) -> urllib.request.OpenerDirector:
    """No proxy to this machine itself."""
    here = is_loopback(urlsplit(url).hostname or "")
    return urllib.request.build_opener(*([urllib.request.ProxyHandler({})] if here else []))


def ask(url: str, content: dict[str, Any] | None = None) -> Any:
    """The JSON that a GET, or with `content` a POST, is answered with; None where the server has no
    such thing (404, 405, 501).

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
        if error.code in (404, 405, 501):
            return None
        raise NoAnswer(f"HTTP {error.code} {error.reason}{_hint(error.code)}") from None
    except urllib.error.URLError as error:
        raise NoAnswer(str(getattr(error.reason, "strerror", None) or error.reason)) from None
    except OSError as error:
        raise NoAnswer(error.strerror or str(error) or type(error).__name__) from None
    except (ValueError, RecursionError):
        raise NoAnswer("what it answers is not JSON") from None


def _hint(status: int) -> str:
    if status not in (401, 403):
        return ""
    return "; it takes another token than PAW_ENV_TOKEN" if _headers() else "; set PAW_ENV_TOKEN"


class Wire:
    """A session. Raises NoAnswer where there is no connection to be had.

    Args:
        url: of the server, http or https.
    """

    def __init__(self, url: str) -> None:
        try:
            from websockets.exceptions import InvalidStatus, WebSocketException
            from websockets.sync.client import connect
        except ImportError:
            raise ImportError("openenv:URL needs websockets: pip install websockets") from None
        here: dict[str, Any] = {"proxy": None} if is_loopback(urlsplit(url).hostname or "") else {}
        try:
            self._socket = connect(
                "ws" + url.removeprefix("http") + "/ws",
                additional_headers=_headers(),
                open_timeout=CONNECT_SECONDS,
                max_size=MAX_ANSWER_BYTES,
                compression=None,
                **here,
            ).__enter__()
        except InvalidStatus as error:
            status = error.response.status_code
            raise NoAnswer(f"HTTP {status}{_hint(status)}") from None
        except (OSError, WebSocketException) as error:
            raise NoAnswer(str(error) or type(error).__name__) from None

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
                raise ServerError(str(said.get("code")), str(said.get("message")))
            if answer["type"] != "observation" or not isinstance(said["observation"], dict):
                raise NoAnswer(f"an answer of the type {answer['type']!r:.50}")
        except ConnectionClosed as error:
            reason = f": {error.rcvd.reason}" if error.rcvd and error.rcvd.reason else ""
            raise NoAnswer(f"the connection ended{reason}") from None
        except TimeoutError:
            raise NoAnswer(f"no answer within {ANSWER_SECONDS:g} s") from None
        except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
            raise NoAnswer("an answer that is none of OpenEnv's") from None
        return said

    def close(self) -> None:
        """Say good-bye; may be called twice."""
        with contextlib.suppress(Exception):
            self._socket.close()
