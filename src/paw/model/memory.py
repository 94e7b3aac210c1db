"""How many bytes a model takes while it learns and plays, from its shape alone.

    n parameters, L layers of width H, q query and k key features, f of the MLP, V tokens;
    w bytes of a weight, c bytes of a value in a matrix product, W = max(w, 4); m tokens of a
    micro-batch, N conversations of at most l tokens each

    weights     w n                            (+ W a LoRA parameter, r x `lora_features`)
    masters     4 n, where w is less           (LoRA parameters need none)
    gradients   W a trained parameter          optimizer  2 W (AdamW's two moments)
    critic      weights, masters, gradients and moments of a second decoder
    reference   w n
    cache       N l L k (w + c)                keys keep the weights' type, values the compute type
    activations m (L a + 3 w H), a bytes a token and layer:
                a = 2 W H + 2 w H + 2 c H + 3 c q + 2 c k + 4 c f, and 3 c H more under autocast
                with gradient checkpointing m (L w H + a + 3 w H): layer inputs, one layer in full
    head        3 x 4 V logits of the positions of one chunk, and where c is less c V; the output
                embedding's gradient in fp32 and its copy
    copies      c n, where c is not w
    sampling    4 x 4 N V for logits, log-probs, probabilities and their sum, and one layer of
                8,192 prompt tokens: the MLP's three tensors or those of attention
    shards      of N ranks each has a part of weights, masters, gradients, moments and reference;
                whole: w n to play with, and as much of the reference to score with, freed for
                learning; gathered: two layers and the embeddings, twice
    step        temporaries of AdamW: W a trained parameter on a GPU, which steps them all at once,
                3 W V H on a CPU
    holes       on a CPU half of what comes and goes in a pass, at most 256 MiB: what the C library
                cannot give back, nor use again

`a` was measured: the saved tensors of a Qwen2 layer with SDPA; attention scores are not kept. The
whole is held against measured peaks by benchmarks/memory.py.
These are estimates of what stands in memory at once; beside it stand the process itself (0.4 GiB
with torch and transformers) and, on a GPU, its context and what the allocator cannot use.
"""

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

import torch

from paw.model.head import chunk_size
from paw.model.positions import Positions

MOST_TOKENS = 16384
"""Tokens of a forward and backward pass beyond which nothing gets faster."""
PREFILL_TOKENS = 8192
"""Prompt tokens that the sampler reads in one pass: bounds the memory of activations."""
MOST_HOLES = 256 * 2**20
"""Bytes; tensors of 32 MiB and more leave none, since glibc gives each a mapping of its own."""
FREE_SHARE = {"cpu": 0.5, "cuda": 0.8}
"""Of the memory that is free when a run begins, what it may plan with: other programs grow too, and
a kernel that runs out kills, where a GPU raises an error."""


@dataclass(frozen=True, slots=True)
class ModelShape:
    """What of a model sets its memory."""

    parameters: int
    """n; a tied embedding counts once"""
    backbone_parameters: int
    """Without an LM head of its own"""
    lora_features: int
    """Sum of inputs and outputs of the linear layers that adapters are put on"""
    layers: int
    hidden: int
    query: int
    """Heads x head size"""
    key: int
    """Key heads x head size"""
    intermediate: int
    vocabulary: int
    positions: Positions = field(default_factory=Positions)


@dataclass(frozen=True, slots=True)
class Precision:
    """How a model is held and trained."""

    weight: int
    """w: bytes of a weight"""
    compute: int
    """c: bytes of a value in a matrix product"""
    lora_rank: int = 0
    checkpointing: bool = False
    device: str = "cpu"
    """cpu | cuda"""


@dataclass(frozen=True, slots=True)
class Work:
    """What a model is asked to do."""

    micro_batch: int
    """m: tokens of a forward and backward pass"""
    conversations: int
    """N: played side by side"""
    length: int
    """l: tokens of a conversation at most"""
    learns: bool = True
    critic: bool = False
    reference: bool = False
    shards: int = 1
    """Ranks among which what is trained is divided"""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the device, by what they are for."""

    weights: int
    masters: int
    """fp32 copies of narrower weights, on which the optimizer steps"""
    gradients: int
    optimizer: int
    critic: int
    reference: int
    cache: int
    """Keys and values of the sampler; they stay until the conversations end"""
    activations: int
    head: int
    copies: int
    """Weights in the compute type, where it is another"""
    sampling: int
    """Logits and activations of the sampler"""
    step: int
    """Temporaries of the optimizer's step"""
    gathered: int
    """Of sharded weights, what is whole in a pass: two layers, embeddings"""
    whole: int
    """Weights to play with, where those that are trained are sharded; freed for learning"""
    in_holes: bool
    """Whether the allocator leaves holes: on a CPU"""

    @property
    def standing(self) -> int:
        """What stands all the time."""
        trained = self.weights + self.masters + self.gradients + self.optimizer
        return trained + self.critic + self.reference

    @property
    def learning(self) -> int:
        """At the height of a backward pass, and of the optimizer's step."""
        passing = self.activations + self.head + self.copies + self.gathered
        return self.standing + max(self._with_holes(passing), self.step)

    @property
    def playing(self) -> int:
        """At the last token of the longest conversations."""
        stays = self.standing + self.whole + self.cache
        return stays + self._with_holes(self.sampling + self.copies)

    def _with_holes(self, passing: int) -> int:
        return passing + (min(passing // 2, MOST_HOLES) if self.in_holes else 0)

    @property
    def peak(self) -> int:
        """The larger of learning and playing: the cache is dropped before learning."""
        return max(self.learning, self.playing)


def bytes_of(shape: ModelShape, precision: Precision, work: Work) -> Memory:
    """Bytes on the device; the formulas stand above."""
    width, compute = precision.weight, precision.compute
    wide = max(width, 4)
    adapter = precision.lora_rank * shape.lora_features
    shards = work.shards
    trained = (adapter or shape.parameters) * wide // shards if work.learns else 0
    masters = 0 if adapter or width == wide else 1  # of the size of a gradient
    critic = 0
    if work.learns and work.critic:
        learned = (adapter or shape.backbone_parameters) * wide
        critic = shape.backbone_parameters * width + adapter * wide + (3 + masters) * learned
        critic //= shards
    reference = shape.parameters * width if work.learns and work.reference else 0
    layer = layer_bytes(shape, width, compute)
    inputs = shape.hidden * width
    kept = inputs * shape.layers + layer if precision.checkpointing else shape.layers * layer
    embedding = shape.vocabulary * shape.hidden
    copied = compute != width
    chunk = min(work.micro_batch, chunk_size(shape.vocabulary, precision.device))
    read = min(PREFILL_TOKENS, work.conversations * work.length)
    on_cpu = precision.device == "cpu"
    return Memory(
        weights=(shape.parameters * width + adapter * wide) // shards,
        masters=masters * trained,
        gradients=trained,
        optimizer=2 * trained,
        critic=critic,
        reference=reference // shards,
        cache=work.conversations * work.length * shape.layers * shape.key * (width + compute),
        activations=work.micro_batch * (kept + 3 * inputs),
        head=(12 + (compute if compute < 4 else 0)) * chunk * shape.vocabulary
        + (0 if adapter else 4 * embedding)
        + (compute * embedding if copied or width < 4 else 0),
        copies=shape.parameters * compute if copied else 0,
        sampling=16 * work.conversations * shape.vocabulary
        + read * _read_bytes(shape, width, compute),
        step=min(3 * wide * embedding // shards, trained) if on_cpu else trained,
        gathered=_gathered(shape, width) if shards > 1 else 0,
        whole=shape.parameters * width + adapter * wide + reference if shards > 1 else 0,
        in_holes=on_cpu,
    )


def _gathered(shape: ModelShape, width: int) -> int:
    """Whole layers of sharded weights: the one that computes and the next, with their gradients;
    and all that is in no layer."""
    embeddings = shape.vocabulary * shape.hidden
    outside = min(2 * embeddings, shape.parameters)
    layer = max(shape.parameters - outside, 0) // max(shape.layers, 1)
    return 2 * width * (2 * layer + outside)


def layer_bytes(shape: ModelShape, width: int, compute: int) -> int:
    """`a`: what one layer keeps of one token for the backward pass."""
    # Norms compute in fp32 and keep their input so, and its normalised value as it comes out.
    norms = (2 * max(width, 4) + 2 * width + 2 * compute) * shape.hidden
    attention = compute * (3 * shape.query + 2 * shape.key)
    casts = 3 * compute * shape.hidden if compute != width else 0
    return norms + attention + 4 * compute * shape.intermediate + casts


def _read_bytes(shape: ModelShape, width: int, compute: int) -> int:
    """What one layer holds at once of one token where nothing is kept."""
    attention = 4 * shape.query + 3 * shape.key
    passing = compute * max(3 * shape.intermediate, attention)
    return passing + 2 * (width + compute) * shape.hidden


def fitting_tokens(
    shape: ModelShape, precision: Precision, work: Work, room: int, beside: float = 0.0
) -> int:
    """Tokens of a micro-batch with which learning fits: a power of two up to `MOST_TOKENS`.

    Args:
        shape: of the policy.
        precision: of the policy.
        work: `micro_batch` is not read.
        room: bytes.
        beside: targets appended to the rows, per token that a micro-batch counts (it does not count
            them).

    Returns:
        1, which makes every row a pass of its own, where nothing fits.
    """
    tokens = MOST_TOKENS
    while tokens > 1:
        counted = replace(work, micro_batch=round(tokens * (1 + beside)))
        if bytes_of(shape, precision, counted).learning <= room:
            break
        tokens //= 2
    return tokens


def fitting_conversations(shape: ModelShape, precision: Precision, work: Work, room: int) -> int:
    """How many of `work.conversations` fit side by side: all, half of them, a quarter, … or 1.

    The sampler's cache may be half as long again as the longest conversation.
    """
    count = work.conversations
    while count > 1:
        played = replace(work, conversations=count, length=work.length * 3 // 2)
        if bytes_of(shape, precision, played).playing <= room:
            break
        count = (count + 1) // 2
    return count


def free_bytes(device: str) -> int:
    """Bytes of memory that nobody uses now; `device` as `device_of` gives it."""
    if device.startswith("cuda"):
        return torch.cuda.mem_get_info(torch.device(device))[0]
    free = os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():  # counts what the kernel can give back, which the above does not
        fields = dict(line.split(":") for line in meminfo.read_text().splitlines())
        free = 1024 * int(fields["MemAvailable"].split()[0])
    limits = [_container_bytes(folder) for folder in CONTAINER]
    return min(free, *limits)


CONTAINER = (
    ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory.current"),
    ("/sys/fs/cgroup/memory/memory.limit_in_bytes", "/sys/fs/cgroup/memory/memory.usage_in_bytes"),
)
"""Where a container's limit stands, and what it has used: of control groups 2 and 1."""
UNLIMITED = 1 << 62


def _container_bytes(files: tuple[str, str]) -> int:
    """What a container may still take; very much where there is no limit."""
    try:
        limit, used = (Path(file).read_text().strip() for file in files)
    except OSError:
        return UNLIMITED
    return UNLIMITED if limit == "max" else max(int(limit) - int(used), 0)
