"""Are a model's log-probabilities of packed rows its own? Asked once, before anything is learned.

In fp32 whatever the weights are, a layer at a time: what bf16 rounds away would hide a wrong
kernel. Windows are shortened meanwhile, so that two short rows go beyond them.
"""

import contextlib
import re
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from paw.errors import UserError, first_line
from paw.model.load import unsupported
from paw.model.packing import SegmentAttention

EXACT = 1e-3
"""Nats by which log-probabilities in fp32 may differ: rounding of other kernels."""
NARROW = 0.3
"""The same in bf16, or five times what bf16 changes in the model's own."""
ROWS = range(6), range(6, 17)
SHORT_WINDOW = 5


def probe_rows(config: Any) -> list[list[int]]:
    """Two short rows of tokens that every tokenizer has, for a model of `config`."""
    size = config.get_text_config(decoder=True).vocab_size
    return [[(7 * i + 3) % size for i in r] for r in ROWS]


@torch.no_grad()
def own_logprobs(model: Any, rows: list[list[int]]) -> Tensor:
    """[S] the model's own log-probabilities of all tokens but the first of each row.

    Raises:
        UserError: it needs more than tokens; they are not finite, which later would look like a
            model of the wrong type.
    """
    parts = []
    for row in rows:
        ids = torch.tensor([row], device=model.device)
        with _in_one_line(model.config, "does not read text alone"):
            logits = model(input_ids=ids, use_cache=False).logits[0, :-1]
        logprobs = logits.float().log_softmax(-1)
        parts.append(logprobs.gather(1, ids[0, 1:, None]).squeeze(1))
    logprobs = torch.cat(parts)
    if not logprobs.isfinite().all():
        odd = [name for name, p in model.named_parameters() if not p.isfinite().all()]
        where = f"weights are not finite ({odd[0]})" if odd else "log-probabilities are not finite"
        raise UserError(
            f"model.path: its {where}: the file is damaged, or the training that wrote it diverged"
        )
    return logprobs


class ProbeAttention(SegmentAttention):
    """Attention of packed rows that knows which layers attended."""

    def __init__(self, boundaries: tuple[int, ...], config: Any):
        super().__init__(boundaries)
        self._config, self.layers = config, set[int]()

    def __call__(self, layer: int, *args: Any, **options: Any) -> Tensor:
        if layer in self.layers:  # the sampler keeps one set of keys and values of each
            raise unsupported(self._config, "attends several times in a layer")
        self.layers.add(layer)
        return super().__call__(layer, *args, **options)


class PackingProbe:
    """A model's own log-probabilities of two short rows, to be compared with those in a pack."""

    def __init__(self, model: Any, autocast: Callable[[], contextlib.AbstractContextManager[Any]]):
        """Computes them; with its own attention, so before it is replaced.

        Args:
            model: of transformers.
            autocast: context in which matrix products are narrow, if they are to be.

        Raises:
            UserError: they are not finite.
        """
        self.model = model
        self._config = model.config.get_text_config(decoder=True)
        self.rows = probe_rows(model.config)
        with short_windows(model), in_float32(model):
            self._exact = own_logprobs(model, self.rows)
        with short_windows(model), autocast():
            self._narrow = own_logprobs(model, self.rows)

    def check(self, packed: Callable[[list[list[int]], bool], Tensor]) -> None:
        """Hold `packed(rows, exact)` against the model's own, in fp32 and then as it computes.

        Raises:
            UserError: they differ.
        """
        with _in_one_line(self._config, "has a decoder of its own kind"), short_windows(self.model):
            with in_float32(self.model):
                self._hold(packed(self.rows, True), EXACT)
            noise = (self._narrow - self._exact).abs().max().item()
            self._hold(packed(self.rows, False), max(NARROW, 5 * noise) if noise > EXACT else EXACT)

    def _hold(self, packed: Tensor, tolerance: float) -> None:
        worst = (packed - self._exact).abs().max().item()
        if not worst < tolerance:
            raise unsupported(
                self._config,
                f"computes otherwise: log-probabilities of packed rows differ from its own by "
                f"{worst:.2g} nats",
            )


@contextlib.contextmanager
def _in_one_line(config: Any, problem: str) -> Iterator[None]:
    """Around a pass of a model that nobody has tried: what its code raises refuses it by name."""
    try:
        yield
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, AttributeError, LookupError, RuntimeError) as error:
        raise unsupported(config, f"{problem} ({first_line(error)})") from error


def without_noise(model: Any) -> None:
    """Switch off all that training mode draws: dropout, dropped layers, jittered routers."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
        for name, value in vars(module).items():
            if isinstance(value, float) and re.search("drop|^(input_)?jitter", name):
                setattr(module, name, 0.0)


@contextlib.contextmanager
def short_windows(model: Any) -> Iterator[None]:
    """Within it, sliding windows of the model are a few tokens long."""
    configs = [getattr(module, "config", None) for module in model.modules()]
    changed = []
    for thing in [*model.modules(), *configs]:
        window = getattr(thing, "__dict__", {}).get("sliding_window")
        if isinstance(window, int) and window > SHORT_WINDOW:
            changed.append((thing, window))
            thing.sliding_window = SHORT_WINDOW
    try:
        yield
    finally:
        for thing, window in reversed(changed):
            thing.sliding_window = window


@contextlib.contextmanager
def in_float32(model: Any) -> Iterator[None]:
    """Within it a narrow model computes in fp32; no more than a layer's weights stand in both."""
    layers = [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]
    inside = {id(part) for layer in layers for part in layer.modules()}
    leaves = [m for m in model.modules() if id(m) not in inside and m._parameters]
    handles = []
    for module in (*layers, *leaves):
        kept: list[tuple[nn.Parameter, Tensor]] = []
        parameters = list(module.parameters(recurse=module in layers))

        def widen(_module: Any, _inputs: Any, kept: Any = kept, parameters: Any = parameters):
            for parameter in parameters:
                kept.append((parameter, parameter.data))
                parameter.data = parameter.data.to(
                    torch.promote_types(parameter.dtype, torch.float32)
                )

        def narrow(_module: Any, _inputs: Any, _outputs: Any, kept: Any = kept):
            while kept:
                parameter, data = kept.pop()
                parameter.data = data

        handles += [
            module.register_forward_pre_hook(widen),
            module.register_forward_hook(narrow, always_call=True),
        ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
