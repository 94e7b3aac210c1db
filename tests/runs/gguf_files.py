"""GGUF files made on the spot: a tiny Llama as llama.cpp writes one, with a ChatML tokenizer."""

from pathlib import Path
from typing import Any

import gguf
import torch
from transformers import LlamaConfig, LlamaForCausalLM

HEADS, KV_HEADS, HIDDEN, LAYERS = 4, 2, 32, 2
TEMPLATE = (
    "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
    "{{ '<|im_start|>system\nBe short.<|im_end|>\n' }}{% endif %}"
    "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CONTROL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
UNKNOWN, START, END = range(3)
NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


def llama(vocabulary: int, seed: int = 0) -> LlamaForCausalLM:
    """Tied embeddings; weights large enough to have opinions."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = LlamaForCausalLM(
            LlamaConfig(
                vocab_size=vocabulary,
                hidden_size=HIDDEN,
                num_hidden_layers=LAYERS,
                num_attention_heads=HEADS,
                num_key_value_heads=KV_HEADS,
                intermediate_size=64,
                max_position_embeddings=2048,
                tie_word_embeddings=True,
                rope_parameters={"rope_type": "default", "rope_theta": 5e4},
            )
        ).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(3 if parameter.ndim > 1 else 1)
    return model


def tokens() -> list[str]:
    """The control tokens, the byte alphabet, two words."""
    from tokenizers import pre_tokenizers

    return [*CONTROL, *sorted(pre_tokenizers.ByteLevel.alphabet()), "he", "in"]


def write_gguf(
    path: Path,
    model: LlamaForCausalLM | None = None,
    *,
    architecture: str = "llama",
    quantise: bool = False,
    more: dict[str, Any] | None = None,
    tensors: dict[str, torch.Tensor] | None = None,
) -> Path:
    """Write a model (default: one of `llama`) as a GGUF file.

    Args:
        architecture: what the file says it is.
        quantise: matrices in Q8_0, else fp32.
        more: further fields of the header, or other values of the usual ones.
        tensors: further ones.
    """
    words = tokens()
    model = model or llama(len(words))
    config, end = model.config, architecture
    writer = gguf.GGUFWriter(path, architecture)
    fields = {
        f"{end}.context_length": config.max_position_embeddings,
        f"{end}.embedding_length": HIDDEN,
        f"{end}.block_count": LAYERS,
        f"{end}.feed_forward_length": config.intermediate_size,
        f"{end}.attention.head_count": HEADS,
        f"{end}.attention.head_count_kv": KV_HEADS,
        f"{end}.attention.layer_norm_rms_epsilon": config.rms_norm_eps,
        f"{end}.rope.freq_base": 5e4,
        f"{end}.rope.dimension_count": HIDDEN // HEADS,
        f"{end}.vocab_size": len(words),
        "tokenizer.ggml.bos_token_id": START,
        "tokenizer.ggml.eos_token_id": END,
        "tokenizer.ggml.unknown_token_id": UNKNOWN,
        "tokenizer.ggml.padding_token_id": END,
        "tokenizer.ggml.model": "gpt2",
        "tokenizer.ggml.pre": "default",
        "tokenizer.chat_template": TEMPLATE,
        **(more or {}),
    }
    for key, value in fields.items():
        add = {str: writer.add_string, float: writer.add_float32, int: writer.add_uint32}
        add[type(value)](key, value)
    writer.add_token_list(words)
    writer.add_token_types([3 if word in CONTROL else 1 for word in words])
    writer.add_token_merges(["h e", "i n"])
    found = {"token_embd.weight": model.model.embed_tokens.weight}
    found["output_norm.weight"] = model.model.norm.weight
    for index, layer in enumerate(model.model.layers):
        for ours, theirs in NAMES.items():
            weight = layer.get_submodule(ours).weight
            if theirs in ("attn_q", "attn_k"):  # rotary halves become neighbours
                heads = HEADS if theirs == "attn_q" else KV_HEADS
                weight = weight.view(heads, 2, -1, HIDDEN).transpose(1, 2).reshape(weight.shape)
            found[f"blk.{index}.{theirs}.weight"] = weight
    for name, tensor in {**found, **(tensors or {})}.items():
        array = tensor.detach().float().numpy()
        if quantise and array.ndim == 2:
            kind = gguf.GGMLQuantizationType.Q8_0
            writer.add_tensor(name, gguf.quantize(array, kind), raw_dtype=kind)
        else:
            writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path
