"""Client of retrieval servers that speak Search-R1's protocol, ours included.

    POST /retrieve {"queries": [str, …], "topk": 3, "return_scores": true}
    200 {"result": [[{"document": {"id", "contents"}, "score"}, …], …]}     one list per query

Servers that take one `"query": str` (verl-agent) are told by their 422 and asked query by query.
"""

import http.client
import json
import random
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from paw.envs.retrieval.base import Passage, RetrievalError, Retriever, split_contents
from paw.envs.retrieval.index import open_index
from paw.errors import UserError

MAX_ANSWER_BYTES = 256 << 20
QUERIES_PER_REQUEST = 256


class _Unavailable(Exception):
    """Worth another attempt: no connection, time-out, cut or garbled body, 429 or 5xx."""


class _SingleQueryServer(Exception):
    """The server knows `query`, not `queries`."""


class RetrieverClient:
    """Searches through a server; keeps one connection per thread and the latest answers.

    Args:
        url: `http://host:port` or with the path, `/retrieve` by default.
        timeout: seconds for one whole answer.
        connect_timeout: seconds for a connection.
        attempts: tries per request; between them waits of `backoff` seconds, doubled each time.
        cache_size: answers kept, per query and top_k.

    Raises:
        UserError: `url` is no HTTP address.
    """

    def __init__(
        self,
        url: str,
        timeout: float = 60.0,
        connect_timeout: float = 5.0,
        attempts: int = 6,
        backoff: float = 0.2,
        cache_size: int = 4096,
    ) -> None:
        self.url = url
        self._settings = (url, timeout, connect_timeout, attempts, backoff, cache_size)
        self._timeout, self._connect_timeout = timeout, connect_timeout
        self._attempts, self._backoff, self._cache_size = attempts, backoff, cache_size
        try:
            address = urlsplit(url)
            self._host, self._port = address.hostname, address.port
        except ValueError as error:
            raise UserError(f"retriever {url!r}: no HTTP address ({error})") from error
        if address.scheme not in ("http", "https") or not self._host:
            raise UserError(f"retriever {url!r}: an address like http://127.0.0.1:8000 is wanted")
        self._secure = address.scheme == "https"
        self._path = address.path if address.path not in ("", "/") else "/retrieve"
        self._single = False
        self._local = threading.local()
        self._cache: OrderedDict[tuple[str, int], list[Passage]] = OrderedDict()
        self._lock = threading.Lock()

    def __reduce__(self) -> tuple[type["RetrieverClient"], tuple[Any, ...]]:
        return RetrieverClient, self._settings

    def passage(self, passage_id: str) -> Passage | None:
        """The protocol has no such request: None."""
        return None

    def check(self) -> None:
        """Send one query, without retries.

        Raises:
            UserError: nothing answers there in this protocol.
        """
        probe = RetrieverClient(
            self.url, min(self._timeout, 30.0), self._connect_timeout, attempts=1
        )
        try:
            probe.search(["what is the capital of France?"], 1)
        except RetrievalError as error:
            raise UserError(f"{error}; start a server: paw retriever serve DIR --port N") from error

    def search(self, queries: list[str], top_k: int) -> list[list[Passage]]:
        """At most `top_k` passages a query, in the server's order.

        Raises:
            RetrievalError: no usable answer after all attempts.
        """
        found: dict[str, list[Passage]] = {}
        with self._lock:
            for query in queries:
                if (query, top_k) in self._cache:
                    self._cache.move_to_end((query, top_k))
                    found[query] = self._cache[query, top_k]
        missing = [query for query in dict.fromkeys(queries) if query not in found]
        for start in range(0, len(missing), QUERIES_PER_REQUEST):
            batch = missing[start : start + QUERIES_PER_REQUEST]
            found |= zip(batch, self._fetch(batch, top_k), strict=True)
        with self._lock:
            self._cache |= {(query, top_k): found[query] for query in missing}
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        return [list(found[query]) for query in queries]

    def _fetch(self, queries: list[str], top_k: int) -> list[list[Passage]]:
        if not self._single:
            try:
                return self._ask({"queries": queries}, len(queries), top_k)
            except _SingleQueryServer:
                self._single = True
        return [self._ask({"query": query}, 1, top_k)[0] for query in queries]

    def _ask(self, request: dict[str, Any], size: int, top_k: int) -> list[list[Passage]]:
        body = json.dumps(request | {"topk": top_k, "return_scores": True}).encode()
        reason = ""
        for attempt in range(self._attempts):
            if attempt:
                time.sleep(self._backoff * 2 ** (attempt - 1) * random.uniform(0.5, 1.0))
            try:
                status, answer = self._post(body)
                if status == 200:
                    return self._passages(_decode(answer), size, top_k)
            except _Unavailable as error:
                reason = str(error)
                continue
            reason = f"HTTP {status}: {answer[:200].decode(errors='replace')}"
            if status == 422 and "queries" in request:
                raise _SingleQueryServer
            if status != 429 and status < 500:
                break
        raise RetrievalError(f"retriever {self.url}: {' '.join(reason.split())}")

    def _post(self, body: bytes) -> tuple[int, bytes]:
        """(status, body) of one request over this thread's connection."""
        deadline = time.monotonic() + self._timeout
        connection = self._connection()
        try:
            if connection.sock is None:
                connection.timeout = self._connect_timeout
                connection.connect()
            if connection.sock is not None:
                connection.sock.settimeout(self._timeout)
            connection.request("POST", self._path, body, {"Content-Type": "application/json"})
            response = connection.getresponse()
            answer = bytearray()
            while chunk := response.read1(1 << 16):
                answer += chunk
                if time.monotonic() > deadline:
                    raise TimeoutError(f"no whole answer within {self._timeout:g} s")
                if len(answer) > MAX_ANSWER_BYTES:
                    raise _Unavailable(f"an answer of more than {MAX_ANSWER_BYTES >> 20} MiB")
            response.close()  # else the next request on this connection is refused
            if response.length:
                raise _Unavailable(f"the answer was cut {response.length} bytes before its end")
        except (OSError, http.client.HTTPException, _Unavailable) as error:
            connection.close()
            raise _Unavailable(str(error) or type(error).__name__) from error
        if response.will_close:
            connection.close()
        return response.status, bytes(answer)

    def _connection(self) -> http.client.HTTPConnection:
        connection = getattr(self._local, "connection", None)
        if connection is None:
            kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
            connection = self._local.connection = kind(self._host or "", self._port)
        return connection

    def _passages(self, answer: Any, size: int, top_k: int) -> list[list[Passage]]:
        """Read the documented answer; bare documents (`return_scores: false`) are accepted too."""
        lists = answer.get("result") if isinstance(answer, dict) else None
        if not isinstance(lists, list) or not all(isinstance(found, list) for found in lists):
            raise RetrievalError(f'retriever {self.url}: the answer has no list of lists "result"')
        if len(lists) != size:
            raise RetrievalError(f"retriever {self.url}: {len(lists)} results for {size} queries")
        return [[self._passage(item) for item in found[:top_k]] for found in lists]

    def _passage(self, item: Any) -> Passage:
        document = item.get("document", item) if isinstance(item, dict) else item
        if not isinstance(document, dict):
            raise RetrievalError(f"retriever {self.url}: a result is no document: {item!r:.100}")
        score = item.get("score")
        title, text, contents = (document.get(key) for key in ("title", "text", "contents"))
        if not isinstance(text, str):
            if not isinstance(contents, str):
                raise RetrievalError(f'retriever {self.url}: a document has no "contents"')
            title, text = split_contents(contents)
        title = title.strip().strip('"') if isinstance(title, str) else ""
        return Passage(
            _valid(str(document.get("id", ""))),
            _valid(title),
            _valid(text),
            float(score) if isinstance(score, int | float) else 0.0,
        )


def _valid(text: str) -> str:
    """Without the lone surrogates that JSON can carry and UTF-8 cannot."""
    return text.encode("utf-8", "replace").decode()


def _decode(answer: bytes) -> Any:
    try:
        return json.loads(answer)
    except (ValueError, RecursionError) as error:
        raise _Unavailable(f"the answer is no JSON ({error})") from error


def open_retriever(place: str | Path) -> Retriever:
    """The retriever of an index directory, or of a server's URL once it has answered one query.

    Raises:
        UserError: no index there, or no server.
    """
    if str(place).startswith(("http://", "https://")):
        client = RetrieverClient(str(place))
        client.check()
        return client
    return open_index(place)
