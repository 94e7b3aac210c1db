"""Client of chat endpoints in OpenAI's protocol: hosted services, vLLM, SGLang, llama.cpp, Ollama.

    POST {base}/chat/completions {"model", "messages", "temperature", "max_tokens", "seed"}
    200 {"choices": [{"message": {"content"}}], "usage": {"prompt_tokens", "completion_tokens"}}

Standard library only; one connection a request, any number of threads.
"""

import http.client
import json
import math
import random
import re
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn
from urllib.parse import urlsplit

from paw import __version__
from paw.errors import UserError

Message = dict[str, str]
"""{"role": "user" | "assistant", "content": text}"""

MAX_ANSWER_BYTES = 64 << 20
MAX_BACKOFF_SECONDS = 60.0
MAX_RETRY_AFTER_SECONDS = 600.0
"""An endpoint that asks for a longer pause than this (a daily limit) fails the episode instead."""
TRIES_TO_REACH = 3
"""Tries of an address that has never answered: it is probably wrong."""
RETRIED = frozenset({408, 409, 425, 429})
"""Refusals that pass; so do all 5xx."""
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
TOO_LONG = re.compile(
    r"context.?(length|window|size)|too long|too many tokens|maximum.*tokens", re.I
)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class EndpointError(Exception):
    """No usable answer after all tries: the episode is lost, the run goes on."""


class Stopped(Exception):
    """The run is being stopped: no further request."""


class _Passing(Exception):
    """Worth another try. `pause`: seconds that the endpoint asked for, if it did."""

    def __init__(self, reason: str, pause: float | None = None, reached: bool = True) -> None:
        super().__init__(reason)
        self.pause = pause
        self.reached = reached


@dataclass(frozen=True, slots=True)
class Reply:
    """One response of the model."""

    text: str
    reasoning: str = ""
    """What the server took out of the text as the model's own reasoning, if it does that."""
    prompt_tokens: int = 0
    completion_tokens: int = 0
    counted: bool = True
    """False where the answer said nothing of the tokens used."""


class Endpoint:
    """A model behind an address.

    Args:
        base: up to `/chat/completions`, usually ending in `/v1`.
        model: its name there.
        key: sent as `Authorization: Bearer`; none where the endpoint wants none.
        key_name: environment variable that held the key, for messages.
        temperature: of sampling.
        max_tokens: per response.
        timeout: seconds for one whole answer.
        tries: requests per response, at least 1; between them waits of `backoff` seconds, doubled
            each time, with jitter, or as long as the endpoint asks for (`Retry-After`).

    Raises:
        UserError: `base` is no HTTP address, or `key` cannot be sent.
    """

    def __init__(
        self,
        base: str,
        model: str,
        *,
        key: str | None = None,
        key_name: str = "OPENAI_API_KEY",
        temperature: float = 0.0,
        max_tokens: int = 512,
        timeout: float = 300.0,
        tries: int = 6,
        backoff: float = 1.0,
    ) -> None:
        self.host = check_address(base)
        self.model = model
        self.num_retries = 0
        """Requests that had to be repeated, of all threads."""
        self._url = base.rstrip("/") + "/chat/completions"
        self._key, self._key_name = key, key_name
        self._temperature, self._max_tokens = temperature, max_tokens
        self._timeout, self._tries, self._backoff = timeout, tries, backoff
        if key is not None and not (key.isascii() and key.isprintable() and " " not in key):
            raise UserError(f"the key in {key_name} holds characters that no key has")
        # A proxy of the environment is used, except for this machine; no redirect is followed, as
        # it would carry the key to another host.
        direct = [urllib.request.ProxyHandler({})] if self.host in LOOPBACK else []
        self._opener = urllib.request.build_opener(_NoRedirect, *direct)
        self._limit_name = "max_tokens"
        self._sends_seed = True
        self._reached = False
        self._resume_at = 0.0
        self._stop = threading.Event()
        self._lock = threading.Lock()

    def stop(self) -> None:
        """Let every present and later `chat` raise Stopped instead of sending anything more."""
        self._stop.set()

    def chat(self, messages: Sequence[Message], seed: int) -> Reply:
        """The model's response to a conversation.

        Raises:
            EndpointError: no usable answer after all tries.
            UserError: refused for good (key, model, parameters, prompt too long), or nothing has
                ever answered at this address.
            Stopped: after `stop`.
        """
        attempt = 0
        while True:
            self._wait_until(self._resume_at)
            body = self._body(messages, seed)
            try:
                answer = self._post(body)
                if answer is not None:
                    return _reply(answer)
                continue  # refused one way of asking; it is asked the other way now
            except _Passing as error:
                self._reached |= error.reached
                attempt += 1
                reason = self._masked(str(error))
                tries = self._tries if self._reached else min(self._tries, TRIES_TO_REACH)
                if attempt >= tries:
                    self._give_up(reason, f"after {attempt} tries")
                if error.pause is not None and error.pause > MAX_RETRY_AFTER_SECONDS:
                    self._give_up(reason, f"and a pause of {error.pause:.0f} s asked for")
                self._rest(attempt, error.pause)

    def _body(self, messages: Sequence[Message], seed: int) -> dict[str, Any]:
        body: dict[str, Any] = {
            "model": self.model,
            "messages": list(messages),
            "temperature": self._temperature,
            self._limit_name: self._max_tokens,
        }
        return body | {"seed": seed} if self._sends_seed else body

    def _post(self, body: dict[str, Any]) -> bytes | None:
        """The body of a 2xx answer; None where the request has to be put differently."""
        headers = {"Content-Type": "application/json", "User-Agent": f"paw/{__version__}"}
        if self._key:
            headers["Authorization"] = f"Bearer {self._key}"
        request = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        try:
            with self._opener.open(request, timeout=self._timeout) as response:
                answer = _read(response, time.monotonic() + self._timeout)
            self._reached = True
            return answer
        except urllib.error.HTTPError as error:
            self._reached = True
            with error:
                return self._refused(error, body)
        except urllib.error.URLError as error:
            raise _Passing(_describe(error.reason), reached=False) from error
        except (OSError, http.client.HTTPException) as error:
            raise _Passing(_describe(error)) from error

    def _refused(self, error: urllib.error.HTTPError, body: dict[str, Any]) -> None:
        """Retry, put differently, or a UserError."""
        try:
            text = _read(error, time.monotonic() + self._timeout).decode(errors="replace")
        except (_Passing, OSError, http.client.HTTPException):
            text = ""
        status, no_credit = error.code, any(code in text for code in NO_CREDIT)
        if (status in RETRIED or status >= 500) and not no_credit:
            pause = _retry_after(error.headers.get("Retry-After"))
            raise _Passing(f"HTTP {status}", pause)
        if status in (400, 422) and self._adapt(body, text):
            return
        if 300 <= status < 400:
            hint = f"; it redirects to {error.headers.get('Location')}: give that as --api-base"
        elif status == 402 or no_credit:
            hint = "; the account has no credit left"
        elif status in (401, 403):
            state = "set, but not accepted" if self._key else "not set"
            hint = f"; the key is read from {self._key_name}, which is {state} (--api-key-env)"
        elif status == 404:
            hint = f"; does --api-base end as it should (often /v1) and is {self.model!r} served?"
        elif TOO_LONG.search(text):
            hint = (
                "; the prompt and --rollout.max_response_tokens pass the model's context: shorten "
                "them (--agent plain keeps only the last turns) or take a model with a longer one"
            )
        else:
            hint = ""
        said = self._masked(_said(text))
        raise UserError(f"{self._url}: HTTP {status}{': ' if said else ''}{said}{hint}")

    def _adapt(self, sent: dict[str, Any], text: str) -> bool:
        """Does the refusal name a parameter that can be spelled otherwise or left out?"""
        if "max_tokens" in sent and "max_completion_tokens" in text:
            self._limit_name = "max_completion_tokens"
            return True
        if "seed" in sent and re.search(r"\bseed\b", text):
            self._sends_seed = False
            return True
        return False

    def _rest(self, attempt: int, pause: float | None) -> None:
        backoff = min(self._backoff * 2 ** (attempt - 1), MAX_BACKOFF_SECONDS)
        wait = backoff * random.uniform(0.5, 1.0)
        until = time.monotonic() + wait
        with self._lock:
            self.num_retries += 1
            if pause is not None:  # holds for every thread: the limit is the key's, not a request's
                self._resume_at = max(self._resume_at, time.monotonic() + pause)
                until = self._resume_at + wait
        self._wait_until(until)

    def _wait_until(self, moment: float) -> None:
        if self._stop.wait(max(0.0, moment - time.monotonic())):
            raise Stopped

    def _give_up(self, reason: str, when: str) -> NoReturn:
        if not self._reached:
            raise UserError(f"cannot reach {self._url}: {reason}; is --api-base right?")
        raise EndpointError(f"endpoint: {reason} {when}")

    def _masked(self, text: str) -> str:
        return text.replace(self._key, "***") if self._key else text


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


def check_address(base: str) -> str:
    """The host of an API base. Raises UserError for what is no plain HTTP address."""
    try:
        address = urlsplit(base)
        host, _ = address.hostname, address.port
    except ValueError as error:
        raise UserError(f"--api-base: no HTTP address ({error})") from error
    if address.username or address.password:
        raise UserError("--api-base: no name or key belongs there; put the key in the environment")
    if address.scheme not in ("http", "https") or not host or address.query or address.fragment:
        raise UserError(f"--api-base {base!r}: an address like http://127.0.0.1:8000/v1 is wanted")
    if not base.isascii() or any(c <= " " for c in base):
        raise UserError(f"--api-base {base!r}: an address has only ASCII characters and no blanks")
    return host


def _read(response: Any, deadline: float) -> bytes:
    """The whole body, however slowly it drips. Raises _Passing."""
    answer = bytearray()
    while chunk := response.read1(1 << 16):
        answer += chunk
        if time.monotonic() > deadline:
            raise _Passing("timed out")
        if len(answer) > MAX_ANSWER_BYTES:
            raise _Passing(f"an answer of more than {MAX_ANSWER_BYTES >> 20} MiB")
    if getattr(response, "length", None):
        raise _Passing("the answer was cut")
    return bytes(answer)


def _reply(answer: bytes) -> Reply:
    """Raises _Passing for an answer that is not in the protocol."""
    try:
        data = json.loads(answer)
    except (ValueError, RecursionError):
        raise _Passing("the answer is no JSON") from None
    data = data if isinstance(data, dict) else {}
    choices = data.get("choices")
    if not isinstance(choices, list) or not choices:
        raise _Passing("the answer has no choices" + ("" if "error" not in data else ": an error"))
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    if not isinstance(message, dict):
        raise _Passing("the answer has no message")
    usage = data.get("usage")
    usage = usage if isinstance(usage, dict) else {}
    counts = [usage.get(name) for name in ("prompt_tokens", "completion_tokens")]
    prompt, completion = (c if isinstance(c, int) and c >= 0 else 0 for c in counts)
    reasoning = message.get("reasoning_content") or message.get("reasoning")
    return Reply(
        _text(message.get("content")),
        _text(reasoning),
        prompt,
        completion,
        counted=all(isinstance(c, int) for c in counts),
    )


def _text(content: Any) -> str:
    """A message's content: a string, a list of parts, or nothing. Lone surrogates are replaced."""
    if isinstance(content, list):
        parts = [p.get("text") for p in content if isinstance(p, dict)]
        content = "".join(p for p in parts if isinstance(p, str))
    if content is None:
        return ""
    if not isinstance(content, str):
        raise _Passing("the message is no text")
    return content.encode("utf-8", "replace").decode()


def _retry_after(value: str | None) -> float | None:
    """Seconds, of a number or an HTTP date."""
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except ValueError:
            return None
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _describe(error: Any) -> str:
    """A short reason, the same for the same cause."""
    if isinstance(error, TimeoutError):
        return "timed out"
    if isinstance(error, socket.gaierror):
        return "the host's name is unknown"
    if isinstance(error, http.client.IncompleteRead):
        return "the answer was cut"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"{type(error).__name__}: {error}" if isinstance(error, Exception) else str(error)


def _said(text: str) -> str:
    """What an error body says, in one short line."""
    try:
        data: Any = json.loads(text)
    except (ValueError, RecursionError):
        data = text
    for key in ("error", "message", "detail"):
        if isinstance(data, dict) and data.get(key):
            data = data[key]
    shown = data if isinstance(data, str) else json.dumps(data) if data else ""
    shown = " ".join(shown.split())
    return shown if len(shown) <= 300 else shown[:300] + " …"
