"""Small policies from scratch, for CPUs and tests."""

from typing import Any

import torch
from transformers import Qwen2Config

from paw.model.load import fresh_model


def create_policy_model(
    *,
    vocab_size: int,
    hidden_size: int,
    num_layers: int,
    num_heads: int,
    num_kv_heads: int,
    intermediate_size: int,
    max_positions: int,
    tie_embeddings: bool = True,
    seed: int,
) -> Any:
    """A Qwen2 decoder with fresh weights in fp32; equal arguments give equal weights.

    Args:
        max_positions: longest sequence in tokens.
        tie_embeddings: the output embedding is the input embedding.
        seed: of the initial weights; the global generator is left as it was.
    """
    config = Qwen2Config(
        vocab_size=vocab_size,
        hidden_size=hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=num_heads,
        num_key_value_heads=num_kv_heads,
        intermediate_size=intermediate_size,
        max_position_embeddings=max_positions,
        tie_word_embeddings=tie_embeddings,
        use_sliding_window=False,
        attention_dropout=0.0,
        bos_token_id=None,
        eos_token_id=None,
        dtype="float32",
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return fresh_model(config).eval()
