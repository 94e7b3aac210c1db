"""The arithmetic of `paw train --dry-run`, worked by hand, and one number of it measured."""

from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import Qwen2Config, Qwen2ForCausalLM

from paw.commands.estimate import SCAFFOLD_TOKENS, memory_of, tokens_of
from paw.config.read import resolve
from paw.model.load import shape_of
from paw.model.memory import ModelShape, layer_bytes
from paw.model.packing import SegmentAttention, pack
from paw.model.policy import Policy

PAPER = Path(__file__).parents[2] / "recipes" / "paper"
GIB = 2**30
GROUPS = ["--rollout.groups", "2", "--rollout.group_size", "3", "--rollout.max_turns", "5"]
LIMITS = ["--rollout.max_prompt_tokens", "100", "--rollout.max_response_tokens", "20"]
TINY = [*GROUPS, *LIMITS, "--paw.max_observation_tokens", "34"]
"""N = 6 trajectories of T = 5 turns, P = 100, A = 20; a target takes 34 + 16 = 50 tokens."""


def tiny(*flags: str):
    return resolve([], [*TINY, "--model.device", "cpu", *flags])


def test_tokens_in_window():
    """30 turns of 120 tokens; ceil(0.75 x 30) = 23 of them with a target: 3,600 + 1,150."""
    tokens = tokens_of(tiny())
    assert (tokens.read, tokens.sampled) == (3000, 600)
    assert (tokens.trained, tokens.predicted) == (3600 + 23 * 50, 23 * 50)


def test_tokens_in_append():
    """6 conversations of at most 120 tokens, each with its last observation appended; the five
    responses of 20 tokens fit: 6 x 100 sampled. 30 turns of 5 would be cut at 120 a row."""
    tokens = tokens_of(tiny("--rollout.context", "append"))
    assert (tokens.read, tokens.sampled) == (600, 600)
    assert (tokens.trained, tokens.predicted) == (6 * 170, 300)
    long = tokens_of(tiny("--rollout.context", "append", "--rollout.max_turns", "30"))
    assert long.sampled == 6 * 120


def test_tokens_of_the_baseline_and_of_rows_of_their_own():
    assert tokens_of(tiny("--paw.enabled", "false")).predicted == 0
    assert tokens_of(tiny("--paw.coefficient", "0")).trained == 3600
    assert tokens_of(tiny("--paw.select", "all")).predicted == 30 * 50
    # `no_action`: 23 rows of a prompt and a target.
    assert tokens_of(tiny("--paw.condition", "no_action")).predicted == 23 * 150
    # A placebo stands behind its action in `window`; in `append` only the last one may.
    assert tokens_of(tiny("--paw.target", "shuffled")).predicted == 23 * 50
    append = tokens_of(tiny("--paw.target", "shuffled", "--rollout.context", "append"))
    assert append.predicted == 6 * 50 + 23 * 170


def test_tokens_of_epochs_and_of_a_horizon():
    """Twice as many in two epochs. K = 3 in a window: two more observations, and an action and the
    template's allowance before and behind each; in a conversation all stand there already."""
    assert tokens_of(tiny("--optimizer.epochs", "2")).trained == 2 * tokens_of(tiny()).trained
    one, far = (tokens_of(tiny(f"--paw.horizon={k}")) for k in (1, 3))
    response = tiny().rollout.max_response_tokens
    more = tiny().paw.max_observation_tokens + response + 2 * SCAFFOLD_TOKENS
    assert far.predicted == one.predicted + 23 * 2 * more
    append = [tokens_of(tiny("--rollout.context=append", f"--paw.horizon={k}")) for k in (1, 3)]
    assert append[0] == append[1]


def test_tokens_of_a_micro_batch():
    """500 tokens allow 4 rows of 120, each with a target of 50; 800 would be 6 rows, but never more
    than a mini-batch: 30 rows in 6 steps are 5 x 170."""
    allowed = ["--optimizer.tokens_per_micro_batch", "500"]
    assert tokens_of(tiny(*allowed)).micro_batch == 4 * 170
    assert tokens_of(tiny(*allowed, "--paw.enabled", "false")).micro_batch == 480
    six = ["--optimizer.tokens_per_micro_batch", "800", "--optimizer.mini_batches", "6"]
    assert tokens_of(tiny(*six)).micro_batch == 850
    long = ["--optimizer.tokens_per_micro_batch", "10"]
    assert tokens_of(tiny(*long)).micro_batch == 170


@given(
    st.integers(1, 6), st.integers(1, 6), st.integers(1, 9), st.sampled_from(["window", "append"])
)
def test_more_of_anything_takes_more(groups: int, size: int, turns: int, context: str):
    def count(groups: int, turns: int) -> int:
        changed = [
            "--rollout.groups", str(groups), "--rollout.group_size", str(size),
            "--rollout.max_turns", str(turns), "--rollout.context", context,
        ]  # fmt: skip
        return tokens_of(tiny(*changed)).trained

    assert count(groups + 1, turns) > count(groups, turns)
    assert count(groups, turns + 1) >= count(groups, turns)


SHAPE = ModelShape(
    parameters=1000, backbone_parameters=900, lora_features=70, layers=2, hidden=8, query=8, key=4,
    intermediate=16, vocabulary=50,
)  # fmt: skip


def test_memory_in_fp32():
    """A layer keeps 4 (4 x 8 + 2 x 8 + 3 x 8 + 2 x 4 + 4 x 16) = 576 bytes of a token; a
    micro-batch is all 4,750 tokens; 6 conversations of 120 tokens are cached."""
    config = tiny()
    memory = memory_of(config, SHAPE)
    tokens = tokens_of(config).micro_batch
    assert tokens == 3600 + 30 * 50  # the mini-batch is the update
    assert (memory.weights, memory.gradients, memory.optimizer) == (4000, 4000, 8000)
    assert (memory.critic, memory.reference, memory.copies) == (0, 0, 0)
    assert memory.cache == 6 * 120 * 2 * 4 * 8
    assert memory.activations == tokens * (2 * 576 + 3 * 32)
    assert memory.head == 12 * tokens * 50 + 4 * 50 * 8
    # Of a prefilled layer the MLP's three tensors, the residual stream and what a norm makes.
    assert memory.sampling == 16 * 6 * 50 + 720 * (4 * 3 * 16 + 4 * 4 * 8)
    assert memory.cache + memory.sampling < memory.activations  # dropped before learning
    assert memory.peak == 16_000 + (memory.activations + memory.head) * 3 // 2  # holes


def test_memory_of_everything_else():
    ppo = memory_of(tiny("--algorithm.name", "ppo", "--algorithm.kl_coefficient", "0.1"), SHAPE)
    assert (ppo.critic, ppo.reference) == (16 * 900, 4000)
    narrow = memory_of(tiny("--algorithm.name", "ppo", "--model.dtype", "bfloat16"), SHAPE)
    assert (narrow.weights, narrow.masters, narrow.gradients) == (2000, 4000, 4000)
    assert (narrow.optimizer, narrow.critic) == (8000, 18 * 900)
    # Adapters: 3 x 70 parameters in fp32 on bf16 weights; only they have gradients and moments.
    lora = memory_of(tiny("--model.lora_rank", "3", "--model.dtype", "bfloat16"), SHAPE)
    assert (lora.weights, lora.gradients, lora.optimizer) == (2000 + 840, 840, 1680)
    assert lora.masters == 0
    # Autocast: 4 x 8 in fp32, the rest in bf16, casts of 3 x 8 and a copy of the weights.
    config = tiny("--model.compute_dtype", "bfloat16", "--model.gradient_checkpointing", "true")
    mixed = memory_of(config, SHAPE)
    layer = 128 + 2 * (16 + 24 + 8 + 64 + 24)
    assert mixed.activations == tokens_of(config).micro_batch * (2 * 32 + layer + 3 * 32)
    assert mixed.copies == 2000 and mixed.cache == 6 * 120 * 2 * 4 * 6
    played = memory_of(tiny("--eval.every", "1", "--eval.episodes", "500"), SHAPE)
    assert played.cache == 128 * 120 * 2 * 4 * 8


def qwen(hidden: int, layers: int, heads: int, kv: int, inner: int, vocabulary: int, tied: bool):
    return shape_of(
        Qwen2Config(
            hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
            num_key_value_heads=kv, intermediate_size=inner, vocab_size=vocabulary,
            tie_word_embeddings=tied,
        )
    )  # fmt: skip


def paper(*names: str):
    return resolve([PAPER / f"{name}.toml" for name in names], ["--model.device", "cuda"])


def test_paper_alfworld_on_1_5b():
    """n = 151,936 x 1,536 (tied) + 28 layers of 46,797,824 + 1,536, the published 1.54 B.

    128 x 50 turns of 2,560 tokens, 4,800 of them with 512 + 16 more. A micro-batch: 6 x
    (2,560 + 528) = 18,528. A layer keeps 4 x 4 x 1,536 + 2 (2 x 1,536 + 3 x 1,536 + 2 x 256 + 4 x
    8,960 + 3 x 1,536) = 121,856 bytes of a token, checkpointed 28 x 6,144 + 121,856 + 18,432.
    """
    shape = qwen(1536, 28, 12, 2, 8960, 151936, True)
    assert shape.parameters == shape.backbone_parameters == 1_543_714_304
    config = paper("alfworld", "qwen2.5-1.5b", "grpo")
    tokens = tokens_of(config)
    assert (tokens.sampled, tokens.read) == (3_276_800, 13_107_200)
    assert (tokens.trained, tokens.micro_batch) == (16_384_000 + 4800 * 528, 18_528)
    memory = memory_of(config, shape)
    assert memory.weights == memory.gradients == memory.step == 6_174_857_216
    assert memory.optimizer == 12_349_714_432
    assert memory.cache == 128 * 2560 * 28 * 256 * 6
    assert memory.activations == 18_528 * (28 * 6144 + 121_856 + 18_432)
    sampling = memory.cache + memory.sampling + memory.copies  # more than learning needs
    assert memory.peak == 24_699_428_864 + sampling == 42_782_280_704  # 39.8 GiB


def test_paper_settings_on_3b_and_7b():
    """7 B: 16 bytes for each of 7,615,616,512 parameters are 113.5 GiB before anything moves;
    PPO's critic is a second decoder without the 152,064 x 3,584 head."""
    shape = qwen(2048, 36, 16, 2, 11008, 151936, True)
    assert shape.parameters == 3_085_938_688
    assert memory_of(paper("webshop", "qwen2.5-3b", "gigpo"), shape).peak > 46 * GIB
    shape = qwen(3584, 28, 28, 4, 18944, 152064, False)
    assert shape.parameters == 7_615_616_512
    assert shape.backbone_parameters == 7_615_616_512 - 152_064 * 3584
    memory = memory_of(paper("search_qa", "qwen2.5-7b", "ppo"), shape)
    assert memory.weights + memory.gradients + memory.optimizer == 16 * 7_615_616_512
    assert memory.critic == 16 * shape.backbone_parameters


def saved_bytes(
    layers: int, compute: str | None, checkpointing: bool, dtype: torch.dtype = torch.float32
) -> float:
    """Bytes a token that autograd keeps of a forward pass through the decoder."""
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=50, hidden_size=64, num_hidden_layers=layers, num_attention_heads=4,
        num_key_value_heads=2, intermediate_size=160, max_position_embeddings=256,
    )  # fmt: skip
    model = Qwen2ForCausalLM(config).to(dtype)
    policy = Policy(model, compute_dtype=compute, gradient_checkpointing=checkpointing)
    parameters = {p.untyped_storage().data_ptr() for p in model.parameters()}
    kept: dict[int, torch.Tensor] = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        place = tensor.untyped_storage().data_ptr()
        if place not in parameters:
            kept[place] = tensor
        return tensor

    packed = pack([[i % 50 for i in range(64)]] * 3, torch.device("cpu"))
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        policy.hidden(packed.token_ids, packed.position_ids, SegmentAttention(packed.boundaries))
    return sum(t.untyped_storage().nbytes() for t in kept.values()) / 192


@pytest.mark.parametrize(
    ("dtype", "compute"), [("float32", None), ("float32", "bfloat16"), ("bfloat16", None)]
)
def test_a_layer_keeps_what_the_formula_says(dtype: str, compute: str | None):
    """Measured: what two more layers add. Beside the formula stand the norms' scale (2 x 4 bytes),
    the attention's log-sum (4 a head) and, under autocast, a copy of the layer's 43,008 weights."""
    shape = ModelShape(0, 0, 0, 0, hidden=64, query=64, key=32, intermediate=160, vocabulary=50)
    three, one = (saved_bytes(n, compute, False, getattr(torch, dtype)) for n in (3, 1))
    measured, width = (three - one) / 2, 4 if dtype == "float32" else 2
    small = 8 + 16 + (2 * 43_008 / 192 if compute else 0)
    expected = layer_bytes(shape, width, 2 if compute else width) + small
    assert measured == pytest.approx(expected, rel=0.02)


def test_checkpointing_keeps_layer_inputs_alone():
    assert (saved_bytes(3, None, True) - saved_bytes(1, None, True)) / 2 == 64 * 4
