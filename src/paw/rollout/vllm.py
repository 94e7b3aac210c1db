"""vLLM as the engine of `rollout.sampler = "vllm"`: in this process, on the policy's device.

The one file that imports vllm, when an engine starts. It begins with random weights, by the
policy's configuration alone; the sampler hands over the real ones. Written for vLLM 0.32.
"""

import atexit
import contextlib
import gc
import os
import tempfile
import warnings
from collections.abc import Collection, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from paw.config.tree import Config
from paw.errors import RunFailure, UserError, first_line
from paw.model.policy import Policy
from paw.rollout.engine import ROW_TOKENS, Asked, EngineSampler, Reply

TRIED = "0.32"
"""Whose calls are made here."""
WHAT = 'rollout.sampler = "vllm"'
NEVER = -100.0
"""Added to the logit of a row that is no token: vLLM's lowest."""


def vllm_sampler(config: Config, policy: Policy, end_ids: Collection[int]) -> EngineSampler:
    """Start vLLM for the conversations of `config`.

    Raises:
        UserError: vLLM is missing, or cannot compute this policy on its device.
    """
    length = length_of(config, policy)
    engine = VllmEngine(policy, end_ids, length, config.rollout.vllm_memory)
    return EngineSampler(engine, policy, end_ids, length)


def length_of(config: Config, policy: Policy) -> int:
    """Tokens of the longest conversation."""
    rollout, limit = config.rollout, policy.positions.limit
    length = max(rollout.max_prompt_tokens + rollout.max_response_tokens, ROW_TOKENS + 1)
    return length if limit is None else min(length, limit)


def dtype_of(policy: Policy) -> str:
    """In which vLLM is to compute. Raises UserError where it cannot."""
    dtype = policy.model.dtype if policy.compute_dtype is None else policy.compute_dtype
    if dtype == torch.float64:
        raise UserError(f'{WHAT} computes no float64: set model.dtype to "float32"')
    return str(dtype).removeprefix("torch.")


def bias_of(policy: Policy) -> dict[int, float] | None:
    """Added to logits, so that no row is drawn that is no token."""
    unknown = policy.head.unknown
    return None if unknown is None else dict.fromkeys(unknown.tolist(), NEVER)


def of_response(
    asked: Asked, temperature: float, end_ids: Sequence[int], bias: dict[int, float] | None
) -> dict[str, Any]:
    """vLLM's SamplingParams for a response."""
    return {
        "temperature": temperature,
        "top_k": 0,
        "top_p": 1.0,
        "seed": asked.seed if temperature else None,
        "max_tokens": asked.max_tokens,
        "stop_token_ids": list(end_ids),
        "ignore_eos": True,  # ours may be others than config.json's
        "logit_bias": bias,
        "logprobs": 0,
        "detokenize": False,
    }


OF_ROW = {"temperature": 0.0, "max_tokens": 1, "prompt_logprobs": 0, "detokenize": False}
"""vLLM's SamplingParams for the log-probs of a row."""


class VllmEngine:
    """An `Engine`: one vLLM, without a tokenizer."""

    def __init__(
        self, policy: Policy, end_ids: Collection[int], max_length: int, memory: float
    ) -> None:
        """Start it.

        Args:
            policy: whose shape, type and device it has.
            end_ids: tokens that end a response and belong to it.
            max_length: longest conversation in tokens.
            memory: share of a GPU's memory that it may take, its weights included.

        Raises:
            UserError: vLLM is missing, or cannot compute this policy on its device.
        """
        dtype = dtype_of(policy)
        self.vllm = _load(policy.device)
        self.end_ids = sorted(end_ids)
        self.on_gpu = policy.device.type == "cuda"
        self.bias = bias_of(policy)
        self.folder = tempfile.TemporaryDirectory(prefix="paw-vllm-")
        policy.config.architectures = [type(policy.model).__name__]
        policy.config.save_pretrained(self.folder.name)
        many = int(os.environ.get("WORLD_SIZE", "1")) > 1  # torchrun: each process its own
        threads = torch.get_num_threads()
        try:
            devices = [policy.device] if self.on_gpu else []
            with warnings.catch_warnings(action="ignore"), torch.random.fork_rng(devices):
                self.llm: Any = self.vllm.LLM(
                    model=self.folder.name,
                    skip_tokenizer_init=True,
                    load_format="dummy",
                    generation_config="vllm",
                    dtype=dtype,
                    max_model_len=max_length,
                    enable_prefix_caching=True,
                    # A prompt in pieces draws tokens that are dropped, and turns the seed back
                    # by what a GPU would have used for them: on a CPU an error.
                    enable_chunked_prefill=False,
                    logprobs_mode="raw_logprobs",
                    enforce_eager=not self.on_gpu,
                    enable_sleep_mode=self.on_gpu,
                    gpu_memory_utilization=memory,
                    distributed_executor_backend="external_launcher" if many else None,
                    seed=0,
                )
            self.logprobs([[0, 0]])  # some shapes fail when they are first computed
        except Exception as error:  # vLLM raises what its parts raise
            raise UserError(f"{WHAT} cannot play this policy: {first_line(error)}") from error
        finally:
            torch.set_num_threads(threads)
        if many:  # at its own end it would end the run's process group
            self.llm.llm_engine.engine_core._finalizer.detach()
            atexit.register(gc.unfreeze)  # all that is left of that end

    def take(self, weights: Iterable[tuple[str, Tensor]]) -> None:
        """See `Engine`."""
        with _in_words():
            self.llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights)})
            emptied = self.llm.reset_prefix_cache()
        if not emptied:
            raise RunFailure("vLLM keeps what old weights computed: its prefix cache is in use")

    def logprobs(self, rows: Sequence[Sequence[int]]) -> list[list[float | None]]:
        """See `Engine`."""
        asked = self.vllm.SamplingParams(**OF_ROW)
        outputs = self._generate(rows, [asked] * len(rows))
        return [
            _of_tokens(row, out.prompt_logprobs)[1:] for row, out in zip(rows, outputs, strict=True)
        ]

    def generate(self, asked: Sequence[Asked], temperature: float) -> list[Reply]:
        """See `Engine`."""
        parameters = [
            self.vllm.SamplingParams(**of_response(one, temperature, self.end_ids, self.bias))
            for one in asked
        ]
        replies = []
        for output in self._generate([one.prompt_ids for one in asked], parameters):
            (drawn,) = output.outputs
            ids = list(drawn.token_ids)
            logprobs = _of_tokens(ids, drawn.logprobs)
            replies.append(Reply(output.prompt_token_ids, ids, logprobs, drawn.finish_reason))
        return replies

    def _generate(self, prompts: Sequence[Sequence[int]], parameters: list[Any]) -> list[Any]:
        """vLLM's outputs, in order."""
        tokens = [self.vllm.TokensPrompt(prompt_token_ids=list(ids)) for ids in prompts]
        with _in_words():
            return self.llm.generate(tokens, parameters, use_tqdm=False)

    def sleep(self) -> None:
        """On a GPU: weights to the host, keys and values dropped."""
        if self.on_gpu:
            with _in_words():
                self.llm.sleep(level=1)

    def wake(self) -> None:
        """See `Engine`."""
        if self.on_gpu:
            torch.cuda.empty_cache()  # vLLM takes its memory past torch's allocator
            with _in_words():
                self.llm.wake_up()


@contextlib.contextmanager
def _in_words() -> Iterator[None]:
    """What vLLM raises while it works, as one line."""
    try:
        yield
    except Exception as error:  # its parts raise what they like
        raise RunFailure(f"vLLM failed: {first_line(error)}") from error


def _load(device: torch.device) -> Any:
    """The package, set up for one engine in this process on `device`."""
    settings = {"VLLM_LOGGING_LEVEL": "CRITICAL", "VLLM_NO_USAGE_STATS": "1"}
    if device.type == "cpu":
        settings |= {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    for name, value in settings.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"  # the weights are handed over in memory
    try:
        with warnings.catch_warnings(action="ignore"):
            vllm: Any = import_module("vllm")
            built_for = import_module("vllm.platforms").current_platform.device_type
    except ModuleNotFoundError as error:
        if error.name != "vllm":
            raise UserError(f"{WHAT}: vLLM does not load: {first_line(error)}") from error
        raise UserError(
            f"{WHAT}: vLLM is not installed: pip install 'paw-rl[vllm]' (for a CPU: "
            'docs/vllm.md), or set it to "local"'
        ) from error
    except Exception as error:  # builds that do not fit each other raise anything
        raise UserError(f"{WHAT}: vLLM does not load: {first_line(error)}") from error
    if not vllm.__version__.startswith(f"{TRIED}."):
        raise UserError(
            f"{WHAT}: vLLM {vllm.__version__} was not tried: pip install 'vllm=={TRIED}.*'"
        )
    if built_for != device.type:
        raise UserError(
            f"{WHAT}: this vLLM computes on {built_for}, the policy on "
            f"{device.type}: set model.device, or install the other build (docs/vllm.md)"
        )
    if device.type == "cpu":
        # Weights packed for oneDNN would be dropped by a hand-over, without a word.
        operations: Any = import_module("vllm._custom_ops")
        operations._supports_onednn = False
    elif device.index not in (None, int(os.environ.get("LOCAL_RANK", "0"))):
        raise UserError(
            f"{WHAT} computes on the first GPU that it sees: choose one by CUDA_VISIBLE_DEVICES, "
            f'not by model.device = "{device}"'
        )
    return vllm


def _of_tokens(ids: Sequence[int], found: Sequence[Any] | None) -> list[float | None]:
    """The log-prob of each token from vLLM's tables; None where there is none."""
    tables = [table or {} for table in found or ()]
    pairs = zip(ids, tables, strict=len(tables) > 0)
    return [table[i].logprob if i in table else None for i, table in pairs]
