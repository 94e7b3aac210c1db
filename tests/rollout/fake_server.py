"""A server in place of `vllm serve`: it speaks its protocol, computes with a tiny policy, and goes
wrong on request."""

import json
import struct
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from socket import SO_LINGER, SOL_SOCKET
from typing import Any

from fake_engine import FakeEngine
from safetensors.torch import load_file

from paw.model.policy import Policy
from paw.rollout.engine import Asked

GENERATE = "/inference/v1/generate"


class FakeServer:
    """Honest, until told otherwise. Notes the paths that were posted to."""

    def __init__(self, policy: Policy, length: int = 64) -> None:
        """Starts it; `policy` gives the shape alone."""
        self.engine = FakeEngine(policy, ())
        self.own = self.engine.own
        self.label, self.told = "default", []
        self.version: Any = "0.32.0"
        self.model = {
            "max_model_len": length, "dtype": "torch.float32", "logprobs_mode": "raw_logprobs",
        }  # fmt: skip
        self.scheduler = {"enable_chunked_prefill": False}
        self.faults: list[Fault] = []
        """Of the next answers to generate; the others are honest."""
        self.instead: dict[str, tuple[int, str]] = {}
        """Status and text of every answer on a path."""
        self.change: Callable[[dict], Any] = lambda answer: answer
        """Goes over every response, not over the log-probs of rows."""
        self.reads = True
        self.folders: list[list[str]] = []
        """Names of the files in each folder of weights that was read."""
        self._lock = threading.Lock()
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self._answer(None)

            def do_POST(self) -> None:
                self._answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

            def _answer(self, content: Any) -> None:
                path = self.path.partition("?")[0]
                with fake._lock:
                    posted = content is not None
                    fault = fake.faults.pop(0) if path == GENERATE and fake.faults else None
                    status, text = fake.instead.get(path) or fake.answer(path, content)
                    fake.told += [path] if posted else []
                (fault or whole)(self, status, text.encode())

            def log_message(self, *args: Any) -> None:
                pass

        class Http(ThreadingHTTPServer):
            request_queue_size = 128  # all responses are asked for at once

        self._http = Http(("127.0.0.1", 0), Handler)
        self._http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._http.server_port}"
        threading.Thread(target=self._http.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._http.shutdown()
        self._http.server_close()

    def answer(self, path: str, content: Any) -> tuple[int, str]:
        """Status and text."""
        found: Any = {"detail": "Not Found"}
        if path == "/version":
            found = {"version": self.version}
        elif path == "/server_info":
            settings = {"model_config": self.model, "scheduler_config": self.scheduler}
            found = {"vllm_config": settings}
        elif path == "/update_weight_version":
            self.label = content["new_version"]
            found = {"success": True, "new_version": self.label}
        elif path == "/collective_rpc":
            assert content["method"] == "reload_weights"
            self._read(Path(content["kwargs"]["weights_path"]))
            found = {"results": [None]}
        elif path == "/reset_prefix_cache":
            found = {"success": True}
        elif path == GENERATE:
            return self._generate(content["token_ids"], content["sampling_params"])
        return (404 if "detail" in found else 200), json.dumps(found)

    def _read(self, place: Path) -> None:
        """In vLLM's way: all files of a folder; tied weights stand in them once."""
        files = sorted(place.glob("*.safetensors"))
        self.folders.append([file.name for file in files])
        weights = {name: x for file in files for name, x in load_file(file).items()}
        assert self.own.model.state_dict().keys() - weights.keys() <= {"lm_head.weight"}
        if self.reads:
            self.own.model.load_state_dict(weights, strict=False)

    def _generate(self, ids: list[int], wish: dict[str, Any]) -> tuple[int, str]:
        rows = self.own.head.embedding.weight.shape[0]
        bias = {int(i): x for i, x in (wish.get("logit_bias") or {}).items()}
        odd = [i for i in bias if i >= rows]
        if odd:
            line = f"token_id(s) {odd} in logit_bias: out-of-vocab. Vocabulary size: {rows}"
            return 400, json.dumps({"error": {"message": line}})
        choice: dict[str, Any] = {"index": 0, "finish_reason": "length", "token_ids": [0]}
        answer: dict[str, Any] = {"prompt_token_ids": ids, "choices": [choice]}
        self.own.head.forget(bias)
        self.engine.end_ids = frozenset(wish.get("stop_token_ids") or ())
        if "prompt_logprobs" in wish:
            found = zip(ids[1:], self.engine.logprobs([ids])[0], strict=True)
            answer["prompt_logprobs"] = [None, *({str(i): {"logprob": x}} for i, x in found)]
        else:
            assert wish["ignore_eos"] and not wish["top_k"] and wish["top_p"] == 1
            asked = Asked(tuple(ids), wish["seed"] or 0, wish["max_tokens"])
            (reply,) = self.engine.generate([asked], wish["temperature"])
            choice["token_ids"], choice["finish_reason"] = list(reply.token_ids), reply.reason
            pairs = zip(reply.token_ids, reply.logprobs, strict=True)
            choice["logprobs"] = {"content": [{"token_id": i, "logprob": x} for i, x in pairs]}
        end = len(choice["token_ids"])
        choice["weight_versions"] = [{"version": self.label, "start": 0, "end": end}]
        return 200, json.dumps(answer if "prompt_logprobs" in wish else self.change(answer))


Fault = Callable[[BaseHTTPRequestHandler, int, bytes], None]


def whole(handler: BaseHTTPRequestHandler, status: int, body: bytes, length: int = -1) -> None:
    """As it should be; `length` is what the header says of another one."""
    handler.send_response(status)
    handler.send_header("Content-Length", str(len(body) if length < 0 else length))
    handler.end_headers()
    handler.wfile.write(body)


def failing(status: int) -> Fault:
    return lambda handler, _, body: whole(handler, status, b'{"error": {"message": "no\\nluck"}}')


def cut(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    whole(handler, status, body[: len(body) // 2], len(body))


def truncated(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    whole(handler, status, body[: len(body) // 2])


def late(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    time.sleep(2.0)


def reset(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    handler.connection.setsockopt(SOL_SOCKET, SO_LINGER, struct.pack("ii", 1, 0))
    handler.connection.close()


def silent(handler: BaseHTTPRequestHandler, status: int, body: bytes) -> None:
    """It closes the connection without a word."""


def first_token(**new: Any) -> Callable[[dict], dict]:
    """Other values of the first token's log-prob."""

    def changed(answer: dict) -> dict:
        answer["choices"][0]["logprobs"]["content"][0].update(new)
        return answer

    return changed


def choice(**new: Any) -> Callable[[dict], dict]:
    """Other values of a response."""

    def changed(answer: dict) -> dict:
        answer["choices"][0].update(new)
        return answer

    return changed
