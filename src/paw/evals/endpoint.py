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
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from typing import Any, NoReturn
from urllib.parse import urlsplit

from paw import __version__
from paw.errors import UserError, warn
from paw.evals.refusals import CONTENT_FILTER, refuses, said
from paw.evals.replies import Passing, Reply, read_reply

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
ADAPTED = frozenset({200, 400, 422, 500, 501})
"""Statuses under which endpoints refuse a parameter."""
NO_CREDIT = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")
TOO_LONG = re.compile(
    r"context.?(length|window|size)|too long|too many tokens|maximum.*tokens", re.I
)
LONGER_NAME = "max_completion_tokens"
"""What some models call `max_tokens`."""
USE_LONGER_NAME = re.compile(rf"use\W+{LONGER_NAME}|{LONGER_NAME}\W+instead", re.IGNORECASE)
LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class EndpointError(Exception):
    """No usable answer after all tries: the episode is lost, the run goes on."""


class Stopped(Exception):
    """The run is being stopped: no further request."""


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
        say: is told, once each, which parameters the endpoint refuses and is asked without.

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
        say: Callable[[str], None] = warn,
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
        self._left_out: set[str] = set()
        self._say = say
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
                    return read_reply(answer, self._absent(body))
                continue  # refused one way of asking; it is asked another way now
            except Passing as error:
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
        asked = {"temperature": self._temperature, self._limit_name: self._max_tokens, "seed": seed}
        body: dict[str, Any] = {"model": self.model, "messages": list(messages)}
        return body | {name: value for name, value in asked.items() if name not in self._left_out}

    def _absent(self, body: dict[str, Any]) -> tuple[str, ...]:
        """The parameters that a request went without."""
        limited = "max_tokens" in body or LONGER_NAME in body
        absent = [name for name in ("temperature", "seed") if name not in body]
        return tuple(absent if limited else [*absent, "max_tokens"])

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
            error = b'"error"' in answer and b'"choices"' not in answer
            refused = error and self._adapt(body, 200, answer.decode(errors="replace"))
            return None if refused else answer
        except urllib.error.HTTPError as error:
            self._reached = True
            with error:
                return self._refused(error, body)
        except urllib.error.URLError as error:
            raise Passing(_describe(error.reason), reached=False) from error
        except (OSError, http.client.HTTPException) as error:
            raise Passing(_describe(error)) from error

    def _refused(self, error: urllib.error.HTTPError, body: dict[str, Any]) -> None:
        """Retry, put differently, or a UserError."""
        try:
            text = _read(error, time.monotonic() + self._timeout).decode(errors="replace")
        except (Passing, OSError, http.client.HTTPException):
            text = ""
        status, no_credit = error.code, any(code in text for code in NO_CREDIT)
        if self._adapt(body, status, text):
            return
        if (status in RETRIED or status >= 500) and not no_credit:
            pause = _retry_after(error.headers.get("Retry-After"))
            raise Passing(f"HTTP {status}", pause)
        if status in (400, 422) and CONTENT_FILTER.search(text):
            raise EndpointError(f"endpoint: HTTP {status}: its content filter refused the prompt")
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
        reason = self._masked(said(text))
        raise UserError(f"{self._url}: HTTP {status}{': ' if reason else ''}{reason}{hint}")

    def _adapt(self, sent: dict[str, Any], status: int, text: str) -> bool:
        """Does the refusal name a parameter that can be spelled otherwise or left out?"""
        if status not in ADAPTED:
            return False
        if "max_tokens" in sent and (refuses(text, "max_tokens") or USE_LONGER_NAME.search(text)):
            self._limit_name = LONGER_NAME
            return True
        names = [name for name in ("temperature", "seed", LONGER_NAME) if name in sent]
        names = [name for name in names if refuses(text, name)]
        for name in names:
            with self._lock:
                known, _ = name in self._left_out, self._left_out.add(name)
            if not known:
                self._say(
                    f"the endpoint refuses {name} and is asked without it: its own default counts, "
                    f"not {sent[name]} ({self._masked(said(text))})"
                )
        return bool(names)

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
    """The whole body, however slowly it drips. Raises Passing."""
    answer = bytearray()
    while chunk := response.read1(1 << 16):
        answer += chunk
        if time.monotonic() > deadline:
            raise Passing("timed out")
        if len(answer) > MAX_ANSWER_BYTES:
            raise Passing(f"an answer of more than {MAX_ANSWER_BYTES >> 20} MiB")
    if getattr(response, "length", None):
        raise Passing("the answer was cut")
    return bytes(answer)


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
