"""Processes that share a run: `torchrun --nproc-per-node N -m paw train …`.

`replicate`: every rank has the whole policy; gradients are added up before each optimizer step.
`shard`: what is trained, its gradients and the optimizer's state are divided among the ranks
(FSDP2: `torch.distributed.fsdp.fully_shard`, per layer and root). Beside its shards a rank has the
weights whole while it plays and scores: gathered once an update, freed before learning.

The one file that names torch.distributed. What is exchanged in an update: episodes as played, the
scores of rows, sums for the metrics (pickled, over gloo), and gradients or weights.
"""

import contextlib
import datetime
import errno
import itertools
import os
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.checkpoint.api import CheckpointException
from torch.distributed.checkpoint.state_dict_loader import load
from torch.distributed.checkpoint.state_dict_saver import save
from torch.distributed.device_mesh import DeviceMesh, init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor, Shard, empty

from paw.config.tree import Config
from paw.errors import RunFailure, UserError, first_line, speak_as
from paw.model.critic import Critic
from paw.model.load import decoder_of, device_of, read_shape
from paw.model.policy import Policy
from paw.rollout.fit import learning_bytes, usable_bytes
from paw.rollout.ranks import Ranks
from paw.runs.layout import resolve_model

T = TypeVar("T")
BUCKET = 2**24
"""Numbers of gradients that are added up in one message"""
WAIT = datetime.timedelta(hours=2)
"""How long a rank waits for another, that may still play: a dead one is noticed at once."""
PLACE = "tensor"
"""Key of the name of a tensor that stands elsewhere"""


class Replicas(Ranks):
    """Ranks with the whole policy each."""

    def __init__(self, device: str = "auto") -> None:
        """Joins the others, as torchrun's variables say; `device` is that of the weights."""
        self.rank, self.size = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
        self.on_machine = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
        on_gpu = device_of(device) != "cpu"
        if on_gpu:
            local = int(os.environ.get("LOCAL_RANK", "0"))
            if local >= torch.cuda.device_count():
                raise UserError(
                    f"{self.on_machine} processes on a machine with {torch.cuda.device_count()} "
                    "GPUs: one a GPU; lower --nproc-per-node"
                )
            torch.cuda.set_device(local)
        if not dist.is_initialized():
            dist.init_process_group("cpu:gloo,cuda:nccl" if on_gpu else "gloo", timeout=WAIT)
        group = dist.new_group(backend="gloo", timeout=WAIT) if on_gpu else None
        self._objects = cast(dist.ProcessGroup | None, group)
        speak_as(self.rank)

    def gather(self, mine: T) -> list[T]:
        found: list[Any] = [None] * self.size
        dist.all_gather_object(found, mine, group=self._objects)
        return found

    def agreed(self, mine: T) -> T:
        found: list[Any] = [mine if self.leads else None]
        dist.broadcast_object_list(found, src=0, group=self._objects)
        return found[0]

    @contextlib.contextmanager
    def first(self) -> Iterator[None]:
        if not self.leads:
            self._wait()
        yield
        if self.leads:
            self._wait()

    def _wait(self) -> None:
        dist.barrier(group=self._objects)

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        have = self.gather([p.grad is not None for p in parameters])
        somewhere = [any(one) for one in zip(*have, strict=True)]
        wanted = [p for p, there in zip(parameters, somewhere, strict=True) if there]
        gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in wanted]
        for bucket in _buckets(gradients):
            flat = torch.cat([g.flatten() for g in bucket])
            dist.all_reduce(flat)
            for g, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                g.copy_(part.view_as(g))
        for p, g in zip(wanted, gradients, strict=True):
            p.grad = g

    def is_lost(self, error: RuntimeError) -> bool:
        return isinstance(error, dist.DistError) or "gloo" in str(error)

    def close(self) -> None:
        """All are done."""
        self._wait()
        dist.destroy_process_group()


class Shards(Replicas):
    """Ranks with a part of the policy each."""

    sharded = True

    _policy: Policy
    _twin: Policy
    _mesh: DeviceMesh
    _kept: Policy | None = None
    _parts: Sequence[Tensor] = ()
    """Of the one that is kept"""

    def split(self, policy: Policy, critic: Critic | None) -> None:
        self._mesh = init_device_mesh(policy.device.type, (self.size,))
        methods = ("set_gradient_divide_factor", "set_force_sum_reduction_for_comms")
        if not all(hasattr(FSDPModule, name) for name in methods):
            raise UserError(
                f'parallel.mode = "shard" needs a newer torch than {torch.__version__} (2.13 is '
                'tested): update it, or set parallel.mode = "replicate"'
            )
        self._policy, self._twin = policy, policy.twin()
        self._shard(policy.core, decoder_of(policy.model))
        if critic is not None:
            self._shard(critic.core, critic.backbone)

    def _shard(self, root: nn.Module, decoder: nn.Module) -> None:
        names = set(getattr(decoder, "_no_split_modules", None) or ())
        layers = [m for m in decoder.modules() if type(m).__name__ in names]
        for module in [*layers, root]:
            dtype = next(module.parameters()).dtype
            # Sums over ranks are wide, as those over micro-batches.
            wide = MixedPrecisionPolicy(reduce_dtype=torch.promote_types(dtype, torch.float32))
            fully_shard(module, mesh=self._mesh, mp_policy=wide)
            assert isinstance(module, FSDPModule)
            # Losses are sums (see `objective`), and so are gradients; gloo knows plain ones alone.
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)
        if not all(isinstance(p, DTensor) for p in root.parameters()):
            raise AssertionError("a parameter is not sharded")

    def whole(self, policy: Policy) -> Policy:
        return self._twin

    def keep(self, policy: Policy) -> None:
        self._kept = policy
        self._parts = [self._placed(p) for p in policy.model.parameters()]
        for own in policy.model.parameters():
            own.data = torch.empty_like(own)  # the memory of a file's map is of one size
        _empty(policy)

    @contextlib.contextmanager
    def gathered(self, policy: Policy) -> Iterator[None]:
        if policy is self._kept:
            _fill(policy, self._parts)
        yield
        if policy is self._kept:
            _empty(policy)

    def hand_over(self) -> None:
        _fill(self._twin, self._policy.model.parameters())

    def release(self) -> None:
        _empty(self._twin)

    def rounds(self, batches: Iterable[list[T]], spare: Callable[[], T]) -> Iterator[list[T]]:
        own = list(batches)
        most = max(self.gather(len(own)))
        yield from own
        for _ in range(most - len(own)):
            yield [spare()]

    def add_up(self, parameters: Sequence[nn.Parameter]) -> None:
        pass  # the backward pass did

    def parts(self, tensors: Sequence[Tensor]) -> list[Tensor]:
        return [t.to_local() if isinstance(t, DTensor) else t for t in tensors]

    def total(self, number: float) -> float:
        return sum(self.gather(number))

    def placed(self, state: Any) -> Any:
        return _mapped(state, is_leaf=torch.is_tensor, of=self._placed)

    def _placed(self, tensor: Tensor) -> Tensor:
        if not tensor.ndim:
            return tensor
        # Every rank has it whole: nothing is sent. A copy, else all of it would stay.
        chunks = tensor.detach().chunk(self.size)
        own = chunks[self.rank] if self.rank < len(chunks) else tensor.detach()[:0]
        own = own.to(self._mesh.device_type, copy=True)
        places, size = [Shard(0)], tensor.size()
        return DTensor.from_local(own, self._mesh, places, shape=size, stride=tensor.stride())

    def room(self, shape: Sequence[int], dtype: torch.dtype) -> Tensor:
        if not shape:
            return super().room(shape, dtype)
        return empty(*shape, dtype=dtype, device_mesh=self._mesh, placements=[Shard(0)])


@torch.no_grad()
def _fill(policy: Policy, parts: Iterable[Tensor]) -> None:
    """Gather a policy's weights, about `BUCKET` numbers in a message."""
    whole, size = iter(policy.model.parameters()), dist.get_world_size()
    for bucket in _buckets(list(parts)):
        own = [_padded(cast(DTensor, part), size) for part in bucket]
        flat = torch.cat(own)
        found = flat.new_empty(size * flat.numel())
        dist.all_gather_into_tensor(found, flat)
        columns = found.view(size, -1).split([one.numel() for one in own], dim=1)
        for column, weight in zip(columns, itertools.islice(whole, len(own)), strict=True):
            weight.untyped_storage().resize_(weight.numel() * weight.element_size())
            weight.copy_(column.reshape(-1)[: weight.numel()].view_as(weight))


def _padded(part: DTensor, size: int) -> Tensor:
    """A rank's rows, flat and as many as the first rank's: the last ranks may have fewer."""
    own = part.to_local().flatten()
    rows = -(-part.shape[0] // size)
    return nn.functional.pad(own, (0, rows * (part.numel() // part.shape[0]) - own.numel()))


def _empty(policy: Policy) -> None:
    """Free the memory of a policy's weights."""
    for own in policy.model.parameters():
        own.untyped_storage().resize_(0)


def join(config: Config) -> Ranks:
    """The ranks of a run, `parallel.mode` of it: this process waits for the others.

    Raises:
        UserError: more processes than GPUs, one GPU for all, no way to the others.
        RunFailure: one of them has gone.
    """
    if ":" in config.model.device:
        raise UserError(
            f'model.device = "{config.model.device}" is one for all processes: set it to "auto"'
        )
    try:
        ranks = Replicas(config.model.device)
    except RuntimeError as error:  # gloo's own is no DistError
        raise UserError(f"cannot join the other processes: {first_line(error)}") from error
    mode = config.parallel.mode
    try:
        if mode == "auto":  # what is free differs from one to the other
            with ranks.first():
                fits = _fits(config, ranks.on_machine)
            mode = "replicate" if all(ranks.gather(fits)) else "shard"
        return ranks if mode == "replicate" else Shards()
    except RuntimeError as error:
        if not ranks.is_lost(error):
            raise
        raise RunFailure("another process of this run has gone before it began") from error


def _fits(config: Config, on_machine: int) -> bool:
    """Is there room to learn from a row with all of what is trained, on the device as it is now?"""
    shape = read_shape(resolve_model(config.model.path), ask_hub=True)
    if shape is None:  # nor are its weights to be had, which says so
        return False
    room = usable_bytes(device_of(config.model.device), on_machine)
    return learning_bytes(config, shape) <= room


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one type that follow each other, of about `BUCKET` numbers together."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(t.numel() for t in bucket) + tensor.numel() > BUCKET
        if bucket and (full or bucket[0].dtype != tensor.dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


def _mapped(state: Any, *, is_leaf: Callable[[Any], bool], of: Callable[[Any], Any]) -> Any:
    """A state of dicts and lists with `of` each leaf in its place."""
    if is_leaf(state):
        return of(state)
    if isinstance(state, dict):
        return {key: _mapped(value, is_leaf=is_leaf, of=of) for key, value in state.items()}
    if isinstance(state, list):
        return [_mapped(value, is_leaf=is_leaf, of=of) for value in state]
    return state


def write_shards(state: dict[str, Any], directory: Path) -> dict[str, Any]:
    """Write the tensors of a state into `directory`, each rank its own parts.

    Returns:
        The state with a name, shape and type in the place of each tensor.
    """
    tensors: dict[str, Tensor] = {}

    def note(tensor: Tensor) -> dict[str, Any]:
        name = str(len(tensors))
        tensors[name] = tensor
        dtype = str(tensor.dtype).removeprefix("torch.")
        return {PLACE: name, "shape": list(tensor.shape), "dtype": dtype}

    plain = _mapped(state, is_leaf=torch.is_tensor, of=note)
    try:
        save(tensors, checkpoint_id=directory)
    except CheckpointException as error:
        raise UserError(
            f"cannot write {directory}: {_reason(error)}; make room or mend the directory"
        ) from error
    return plain


def read_shards(plain: dict[str, Any], directory: Path, ranks: Ranks) -> dict[str, Any]:
    """The state of which `write_shards` returned `plain`, as `ranks` hold it.

    Raises:
        ValueError: a file is missing or broken.
    """
    tensors: dict[str, Tensor] = {}

    def make_room(place: dict[str, Any]) -> Tensor:
        tensor = ranks.room(place["shape"], getattr(torch, place["dtype"]))
        return tensors.setdefault(place[PLACE], tensor)

    state = _mapped(plain, is_leaf=lambda x: isinstance(x, dict) and PLACE in x, of=make_room)
    with warnings.catch_warnings():  # that no process group is asked, which is meant
        warnings.filterwarnings("ignore", "torch.distributed is disabled", UserWarning)
        try:
            load(tensors, checkpoint_id=directory, no_dist=not ranks.sharded)
        except CheckpointException as error:
            raise ValueError(_reason(error)) from error
    return state


def _reason(error: CheckpointException) -> str:
    """What went wrong on the first of the ranks on which something did."""
    found, _ = next(iter(error.failures.values()))
    for cause in (found, found.__cause__, found.__context__):
        if isinstance(cause, OSError) and cause.errno:
            return os.strerror(cause.errno)
    if "unexpected pos" in str(found):  # torch writes without a look at the disk's own answer
        return os.strerror(errno.ENOSPC)
    return first_line(found) if isinstance(found, Exception) else repr(found)
