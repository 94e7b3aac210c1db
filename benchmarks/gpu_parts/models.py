"""Models of published shapes with random weights, made on the device: nothing is fetched."""

from typing import Any

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from gpu_parts.bench import Bench

VOCAB = 151_936
SHAPES: dict[str, dict[str, Any]] = {
    "0.5B": {
        "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
        "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": VOCAB,
    },
    "1.5B": {
        "hidden_size": 1536, "intermediate_size": 8960, "num_hidden_layers": 28,
        "num_attention_heads": 12, "num_key_value_heads": 2, "vocab_size": VOCAB,
    },
}  # fmt: skip
"""Of Qwen2.5, embeddings tied."""
TOY: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 2000,
}  # fmt: skip


def shapes(bench: Bench) -> list[str]:
    """Names of the shapes to measure, the smaller first."""
    return ["toy"] if bench.toy else list(SHAPES)


def build(bench: Bench, shape: str) -> Any:
    """A causal LM of a shape: bf16 on a GPU, fp32 on a CPU."""
    config = Qwen2Config(
        **(TOY if shape == "toy" else SHAPES[shape]),
        max_position_embeddings=32_768,
        rope_parameters={"rope_type": "default", "rope_theta": 1e6},
        tie_word_embeddings=True,
        use_sliding_window=False,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float32 if bench.toy else torch.bfloat16)
    try:
        with bench.device:
            return Qwen2ForCausalLM(config).eval()
    finally:
        torch.set_default_dtype(before)


def training_flops(model: Any, lengths: list[int], num_scored: int) -> float:
    """Floating-point operations of a forward and backward pass that anyone needs.

    6 a weight of the layers and token; 6 V H a scored position, the head's; and for causal
    attention over a row of n tokens n^2 / 2 pairs, each 4 q forward (q = heads x head size) and
    twice that backward: 6 L q n^2.
    """
    config = model.config
    embedding = config.vocab_size * config.hidden_size
    layers = sum(p.numel() for p in model.base_model.parameters()) - embedding
    attention = 6 * config.num_hidden_layers * config.hidden_size * sum(n * n for n in lengths)
    return 6.0 * (layers * sum(lengths) + embedding * num_scored) + attention
