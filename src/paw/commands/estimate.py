"""How many tokens and bytes an update takes, from the configuration and the model's shape alone.

    N = groups x group_size trajectories, T = max_turns, P, A, O = the limits of prompt, response
    and target tokens; n parameters, L layers of width H, q query and k key features, f of the MLP,
    V tokens; w bytes of a weight, c bytes of a value in a matrix product

Nothing is loaded or run. Tokens are upper bounds: every turn played, every limit reached. Bytes are
estimates of what stands in memory at once; beside it stand the process itself (0.4 GiB with torch
and transformers) and, on a GPU, its context and what the allocator cannot use.
"""

import math
from dataclasses import dataclass

from paw.config.tree import Config
from paw.evals.play import BATCH
from paw.model.head import LOGITS_PER_CHUNK
from paw.rollout.local import PREFILL_TOKENS

SCAFFOLD_TOKENS = 16
"""Allowance for the template's tokens between an action and the target behind it (Qwen: 5)."""
BYTES = {"float32": 4, "bfloat16": 2, "float64": 8}


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


@dataclass(frozen=True, slots=True)
class Tokens:
    """Upper bounds for one update."""

    read: int
    """Prompt tokens that the sampler computes"""
    sampled: int
    trained: int
    """Tokens of all rows that the learner passes through, targets included"""
    predicted: int
    """Those of them that are there for the prediction alone"""
    micro_batch: int
    """Tokens of a forward and backward pass whose rows reach their limits"""


@dataclass(frozen=True, slots=True)
class Memory:
    """Bytes on the device, by what they are for."""

    weights: int
    gradients: int
    optimizer: int
    critic: int
    reference: int
    cache: int
    """Keys and values of the sampler; they stay until the next rollout begins"""
    activations: int
    head: int
    copies: int
    """Weights in the compute type, where it is another"""
    sampling: int
    """Logits and activations of the sampler"""
    step: int
    """Temporaries of the optimizer's step"""

    @property
    def peak(self) -> int:
        """What stands all the time, and the largest of learning, sampling (its cache is dropped
        before learning) and stepping."""
        fixed = self.weights + self.gradients + self.optimizer + self.critic + self.reference
        learning = self.activations + self.head + self.copies
        return fixed + max(learning, self.cache + self.sampling + self.copies, self.step)


def tokens_of(config: Config) -> Tokens:
    """Upper bounds of an update's tokens.

    `window`: N T rows of P + A tokens; each of the ceil(alpha N T) selected transitions (Eq. 4)
    appends at most O. `append`: N rows of P + A (a longer conversation ends), in which the targets
    stand already; only the last one of each is appended. A target that cannot stand behind its
    action (`paw.condition = "no_action"`; placebos in `append`) makes a row of its own.
    """
    rollout, paw = config.rollout, config.paw
    num = rollout.groups * rollout.group_size
    turns = num * rollout.max_turns
    prompt, response = rollout.max_prompt_tokens, rollout.max_response_tokens
    length, target = prompt + response, SCAFFOLD_TOKENS + paw.max_observation_tokens
    append = rollout.context == "append"
    rows = num if append else turns
    predicts = paw.enabled and paw.coefficient > 0 and paw.selection_fraction > 0
    share = 1.0 if paw.select == "all" else paw.selection_fraction
    selected = math.ceil(share * turns - 1e-9) if predicts else 0
    alone = paw.condition == "no_action" or (append and paw.target != "next")
    appended = 0 if paw.condition == "no_action" else min(selected, rows)
    own_row = (prompt if paw.condition == "no_action" else length) + target
    predicted = appended * target + (selected * own_row if alone else 0)
    trained = rows * length + predicted
    allowed = config.optimizer.tokens_per_micro_batch
    fitting = max(allowed // length, 1)
    micro_batch = max(fitting * length, min(allowed, trained))
    if appended:  # micro-batches are cut by the rows' base tokens
        micro_batch += fitting * target
    if alone:
        micro_batch = max(micro_batch, own_row)
    # A mini-batch holds this many rows at most, and never more than all of them together.
    of_mini_batch = math.ceil(rows / config.optimizer.mini_batches) * (length + target * predicts)
    return Tokens(
        read=num * prompt if append else turns * prompt,
        sampled=num * min(rollout.max_turns * response, length) if append else turns * response,
        trained=trained,
        predicted=predicted,
        micro_batch=micro_batch if alone else min(micro_batch, of_mini_batch),
    )


def memory_of(config: Config, shape: ModelShape) -> Memory:
    """Bytes on the device.

    weights     w n                            (+ 4 or w a LoRA parameter, r x `lora_features`)
    gradients   w a trained parameter          optimizer  2 w (AdamW's two moments)
    critic      weights, gradients and moments of a second decoder (PPO)
    reference   w n                            (where `algorithm.kl_coefficient` > 0)
    cache       N (P + A) L k (w + c)          keys keep the weights' type, values the compute type
    activations m (L a + 3 w H), m the tokens of a micro-batch and a bytes a token and layer:
                a = 4 w H + 2 c H + 3 c q + 2 c k + 4 c f, and 3 c H more under autocast
                with gradient checkpointing m (L w H + a + 3 w H): layer inputs, one layer in full
    head        3 x 4 min(m V, 2^25) logits, fewer on a CPU; the output embedding's gradient in
                fp32 and its copy
    copies      c n, where c is not w
    sampling    4 x 4 N V for logits, log-probs, probabilities and their sum, and one layer of
                8,192 prompt tokens
    step        w a trained parameter (the fused lists of AdamW)

    `a` was measured: the saved tensors of a Qwen2 layer with SDPA; attention scores are not kept.
    """
    model, rollout = config.model, config.rollout
    width = BYTES[model.dtype]
    compute = width if model.compute_dtype == "same" else BYTES[model.compute_dtype]
    adapter = model.lora_rank * shape.lora_features
    adapter_width = max(width, 4)
    trained = adapter * adapter_width if adapter else shape.parameters * width
    weights = shape.parameters * width + adapter * adapter_width
    critic = 0
    if config.algorithm.name == "ppo":
        backbone = shape.backbone_parameters * width
        learned = adapter * adapter_width if adapter else backbone
        critic = backbone + (adapter * adapter_width) + 3 * learned
    episodes = rollout.groups * rollout.group_size
    if config.eval.every:
        episodes = max(episodes, min(config.eval.episodes, BATCH))
    length = rollout.max_prompt_tokens + rollout.max_response_tokens
    layer = _layer_bytes(shape, width, compute)
    tokens = tokens_of(config).micro_batch
    inputs = shape.hidden * width
    kept = inputs * shape.layers + layer if model.gradient_checkpointing else shape.layers * layer
    embedding = shape.vocabulary * shape.hidden
    copied = compute != width
    return Memory(
        weights=weights,
        gradients=trained,
        optimizer=2 * trained,
        critic=critic,
        reference=shape.parameters * width if config.algorithm.kl_coefficient else 0,
        cache=episodes * length * shape.layers * shape.key * (width + compute),
        activations=tokens * (kept + 3 * inputs),
        head=12 * min(tokens * shape.vocabulary, LOGITS_PER_CHUNK)
        + (0 if adapter else 4 * embedding)
        + (compute * embedding if copied else 0),
        copies=shape.parameters * compute if copied else 0,
        sampling=16 * episodes * shape.vocabulary + min(PREFILL_TOKENS, episodes * length) * layer,
        step=trained,
    )


def _layer_bytes(shape: ModelShape, width: int, compute: int) -> int:
    """What one layer keeps of one token for the backward pass."""
    norms = 4 * width * shape.hidden + 2 * compute * shape.hidden
    attention = compute * (3 * shape.query + 2 * shape.key)
    casts = 3 * compute * shape.hidden if compute != width else 0
    return norms + attention + 4 * compute * shape.intermediate + casts
