"""A running `vllm serve` as the engine of `rollout.vllm_server`: on other GPUs than the policy's.

    GET  /version, /server_info                 what it is: refused before anything is played
    POST /update_weight_version, /collective_rpc {"method": "reload_weights"}, /reset_prefix_cache
                                                a hand-over, in files that both see
    POST /inference/v1/generate                 tokens in, tokens out; each answer names its weights

Written for vLLM 0.32. What it answers is checked by the sampler, as any engine's.
"""

import re
import shutil
import tempfile
import uuid
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from paw.config.tree import Config
from paw.errors import RunFailure, UserError
from paw.model.policy import Policy
from paw.rollout.engine import Asked, EngineSampler, Reply
from paw.rollout.ranks import Ranks
from paw.rollout.vllm import OF_ROW, TRIED, bias_of, dtype_of, length_of, of_response
from paw.rollout.vllm_client import Client, Passing, Refused

KEY = "rollout.vllm_server"
GENERATE = "/inference/v1/generate"
START_SECONDS = 60.0
"""For an answer at the start; the first /server_info takes seconds."""
FILE_BYTES = 10**9
NO_NUMBER = -9999.0
"""What vLLM's server writes for a log-prob that is none or not finite."""
OUT_OF_REACH = 2**31 - 1
"""No token's id: vLLM refuses it by the size of its vocabulary, and computes nothing."""

T = TypeVar("T")


class _Version(msgspec.Struct):
    version: str


class _Model(msgspec.Struct):
    max_model_len: int
    dtype: str
    logprobs_mode: str


class _Scheduler(msgspec.Struct):
    enable_chunked_prefill: bool


class _Settings(msgspec.Struct):
    model_config: _Model
    scheduler_config: _Scheduler


class _Info(msgspec.Struct):
    vllm_config: _Settings


class _Success(msgspec.Struct):
    success: bool


class _OfPrompt(msgspec.Struct):
    logprob: float | None = None


class _OfToken(msgspec.Struct):
    token_id: int
    logprob: float | None = None


class _Logprobs(msgspec.Struct):
    content: list[_OfToken] | None = None


class _Span(msgspec.Struct):
    version: str


class _Choice(msgspec.Struct):
    token_ids: list[int]
    finish_reason: str | None = None
    logprobs: _Logprobs | None = None
    weight_versions: list[_Span] | None = None


class _Generated(msgspec.Struct):
    choices: list[_Choice]
    prompt_token_ids: list[int]
    prompt_logprobs: list[dict[int, _OfPrompt] | None] | None = None


def server_sampler(
    config: Config,
    policy: Policy,
    end_ids: Collection[int],
    ranks: Ranks,
    directory: Path | None,
) -> EngineSampler:
    """Sample by the server at `rollout.vllm_server`; see `Actor`.

    Raises:
        UserError: it is not there, or cannot play this policy.
    """
    url, length = config.rollout.vllm_server, length_of(config, policy)
    try:
        client = Client(url)
    except ValueError:
        raise UserError(f"{KEY} = {url!r}: an address such as http://HOST:8000") from None
    _check(client, policy, length)
    place = Path(tempfile.gettempdir()) if directory is None else directory
    engine = ServerEngine(client, policy, end_ids, ranks, place)
    return EngineSampler(engine, policy, end_ids, length)


class ServerEngine:
    """An `Engine`: the server, which has GPUs of its own and never sleeps."""

    def __init__(
        self,
        client: Client,
        policy: Policy,
        end_ids: Collection[int],
        ranks: Ranks,
        directory: Path,
    ) -> None:
        """Weights are handed over in files in `directory`, once for all ranks."""
        self.client, self.ranks, self.directory = client, ranks, directory
        self.end_ids, self.bias = sorted(end_ids), bias_of(policy)
        self.label = ""
        """Of the weights that were handed over: no other run's, nor another update's."""

    def take(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine`; all ranks at once."""
        self.label = self.ranks.agreed(uuid.uuid4().hex)
        with self.ranks.first():
            if self.ranks.leads:
                self._hand_over(weights)

    def _hand_over(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """Write files, have them read, remove them."""
        place = (self.directory / f"vllm-{self.label}.tmp").resolve()
        url, ask = self.client.url, self.client.ask
        try:
            write_weights(weights, place)
            # First, so that what another run still draws does not pass for its own.
            ask("/update_weight_version", _Success, {"new_version": self.label})
            reload = {"method": "reload_weights", "kwargs": {"weights_path": str(place)}}
            ask("/collective_rpc", dict, reload)
            emptied = ask("/reset_prefix_cache", _Success, {}).success
        except (OSError, SafetensorError) as error:
            raise RunFailure(f"cannot write the weights for {url} in {place}: {error}") from error
        except RunFailure as error:
            raise RunFailure(
                f"the weights in {place} were not taken over (does the server see them, and was it "
                f"started with this model? Start it anew, then go on): {error}"
            ) from error
        finally:
            shutil.rmtree(place, ignore_errors=True)
        if not emptied:
            raise RunFailure(f"{url} keeps what old weights computed: its prefix cache is in use")

    def logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float | None]]:
        """See `Engine`."""
        found = []
        for row, answer in zip(rows, self._generate(rows, [OF_ROW] * len(rows)), strict=True):
            tables = answer.prompt_logprobs or [None] * len(row)
            if answer.prompt_token_ids != list(row) or len(tables) != len(row):
                raise RunFailure(f"{self.client.url} answers for another row than the one asked")
            pairs = zip(row[1:], tables[1:], strict=True)
            found.append([_number((table or {}).get(i, _OfPrompt()).logprob) for i, table in pairs])
        return found

    def generate(self, asked: Sequence[Asked], temperature: float) -> list[Reply]:
        """See `Engine`."""
        wishes = [of_response(one, temperature, self.end_ids, self.bias) for one in asked]
        replies = []
        for answer in self._generate([one.prompt_ids for one in asked], wishes):
            (drawn,) = answer.choices
            content = (drawn.logprobs or _Logprobs()).content or []
            logprobs = [
                _number(one.logprob) if one.token_id == i else None
                for i, one in zip(drawn.token_ids, content, strict=False)
            ]
            replies.append(
                Reply(answer.prompt_token_ids, drawn.token_ids, logprobs, drawn.finish_reason)
            )
        return replies

    def _generate(
        self, prompts: Sequence[Sequence[int]], wishes: Sequence[dict[str, Any]]
    ) -> list[_Generated]:
        """The server's answers, in order, all of the weights that were handed over."""
        contents = [
            {"token_ids": list(ids), "return_token_ids": True, "sampling_params": wish}
            for ids, wish in zip(prompts, wishes, strict=True)
        ]
        answers = self.client.ask_all(GENERATE, _Generated, contents)
        for answer in answers:
            if len(answer.choices) != 1:
                raise RunFailure(f"{self.client.url} gives {len(answer.choices)} answers to one")
            labels = {span.version for span in answer.choices[0].weight_versions or ()}
            if labels != {self.label}:
                raise RunFailure(
                    f"{self.client.url} computes with other weights than were handed over: it was "
                    "started anew, or another run uses it (a server for each)"
                )
        return answers

    def sleep(self) -> None:
        """See `Engine`."""

    def wake(self) -> None:
        """See `Engine`."""


def write_weights(weights: Iterable[tuple[str, Tensor]], place: Path) -> None:
    """Write a new folder of safetensors files, whose tensors are on the host one file at a time.

    Args:
        weights: all there at once: two of one address are one, tied.
        place: of the folder.

    Raises:
        OSError, SafetensorError: it cannot be written.
    """
    place.mkdir()
    written: set[int] = set()
    part: dict[str, Tensor] = {}

    def flush() -> None:
        file = place / f"model-{len(written):05}.safetensors"
        save_file(part, file)
        file.chmod(0o644)  # safetensors leaves its files readable by their owner alone
        part.clear()

    for name, tensor in weights:
        if tensor.data_ptr() in written:  # tied, as the model's configuration says
            continue
        if part and sum(x.nbytes for x in part.values()) + tensor.nbytes > FILE_BYTES:
            flush()
        written.add(tensor.data_ptr())
        part[name] = tensor.detach().contiguous().cpu()
    flush()


def _check(client: Client, policy: Policy, length: int) -> None:
    """Can the server play this policy? Raises UserError."""

    def refused(what: str) -> UserError:
        return UserError(f"{KEY} = {client.url!r}: {what} (docs/vllm.md)")

    def asked(path: str, kind: type[T], missing: str, content: Any = None) -> T:
        try:
            return client.once(path, kind, content, START_SECONDS)
        except Passing as error:
            raise refused(f"no answer: {error}; does `vllm serve` run there?") from None
        except Refused as error:
            if error.status in (403, 404, 405):
                raise refused(missing) from None
            raise refused(f"{path}: {error}") from None

    dtype, rows = dtype_of(policy), policy.head.embedding.weight.shape[0]
    version = asked("/version", _Version, "what answers there is no vLLM").version
    if not version.startswith(f"{TRIED}."):
        raise refused(f"vLLM {version} was not tried: {TRIED} is")
    path = "/server_info?config_format=json"
    settings = asked(path, _Info, "start it with VLLM_SERVER_DEV_MODE=1").vllm_config
    model = settings.model_config
    if model.max_model_len < length:
        raise refused(
            f"it reads {model.max_model_len} tokens, rollout.max_prompt_tokens + "
            f"max_response_tokens are {length}: start it with --max-model-len {length}"
        )
    if model.dtype.removeprefix("torch.") != dtype:
        raise refused(f"it computes in {model.dtype}: start it with --dtype {dtype}")
    if model.logprobs_mode != "raw_logprobs":
        raise refused("start it with --logprobs-mode raw_logprobs")
    if settings.scheduler_config.enable_chunked_prefill:
        raise refused("start it with --no-enable-chunked-prefill: seeds hold without alone")
    probe = {"token_ids": [0], "sampling_params": {"logit_bias": {OUT_OF_REACH: 1.0}}}
    try:
        asked(GENERATE, dict, "start it with --tokens-only", probe)
        raise refused("it takes tokens that are none")
    except UserError as error:
        found = re.search(r"Vocabulary size: (\d+)", str(error))
        if found is None:
            raise
    if int(found[1]) != rows:
        raise refused(f"its model has {found[1]} tokens, the policy {rows}: start it with that")


def _number(found: float | None) -> float | None:
    return None if found == NO_NUMBER else found
