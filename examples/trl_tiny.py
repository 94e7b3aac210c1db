"""A tiny random policy for the `--smoke` of the TRL examples: 2 layers, bytes as tokens.

A random model writes no tool calls. Its tokenizer takes whatever it writes for one, so that real
games are played, badly.
"""

from collections.abc import Sequence
from typing import Any

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
TEMPLATE = (
    "{%- for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}"
    "{%- for c in m.tool_calls or [] %}{{ c.function | tojson }}{% endfor %}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


class CommandTokenizer(PreTrainedTokenizerFast):
    """Every response is a call of `act`: of one of its commands, by the first token."""

    commands: Sequence[str] = ()

    def parse_response(self, response: Any, *args: Any, **kwargs: Any) -> dict[str, Any]:
        command = self.commands[response[0] % len(self.commands)]
        call = {"name": "act", "arguments": {"command": command}}
        calls = [{"type": "function", "function": call}]
        return {"role": "assistant", "content": "", "tool_calls": calls}


def tiny_tokenizer(commands: Sequence[str]) -> CommandTokenizer:
    """A token a byte, and those of the template."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {token: i for i, token in enumerate([*SPECIAL, *alphabet])}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    made = CommandTokenizer(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    made.commands = tuple(commands)
    made.chat_template = TEMPLATE
    made.response_template = {}  # there is one: `parse_response`
    return made


def tiny_model(seed: int = 0, max_positions: int = 8192) -> Qwen2ForCausalLM:
    """Qwen2 of hidden size 32; equal seeds give equal weights."""
    config = Qwen2Config(
        vocab_size=len(SPECIAL) + 256,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        intermediate_size=48,
        max_position_embeddings=max_positions,
        bos_token_id=None,
        eos_token_id=2,
        pad_token_id=0,
    )
    torch.manual_seed(seed)
    return Qwen2ForCausalLM(config)
