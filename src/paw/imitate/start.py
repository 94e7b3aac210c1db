"""What imitation starts from: `model.path`, or a new small model with a tokenizer of its own."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from paw.config.tree import Config
from paw.imitate.demonstrations import Demonstration
from paw.model.load import DTYPES, device_of
from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.rollout.actor import check_vocabulary, load_checkpoint, load_policy, wrap_policy
from paw.runs.gguf import unpack
from paw.runs.layout import resolve_model, tokenizer_place
from paw.text.tokenizer import load_tokenizer, make_tokenizer
from paw.train.checkpoint import explain_broken


def start(
    config: Config, demonstrations: Sequence[Demonstration], checkpoint: Path | None = None
) -> tuple[Policy, PreTrainedTokenizerBase]:
    """The policy to train: `model.path`, or a new one whose tokenizer knows the demonstrations; or
    the same with the weights of `checkpoint`. An adapter goes on its first weights: its own are in
    the trainer's state."""
    path, place = None, ""
    if not config.imitate.from_scratch:
        path = unpack(resolve_model(config.model.path))
        place = tokenizer_place(config.model.adapter, path)
    tokenizer = load_tokenizer(place) if path else new_tokenizer(config, demonstrations)
    if checkpoint is not None and not config.model.lora_rank:
        with explain_broken(checkpoint):
            policy = load_checkpoint(config, checkpoint)
    else:
        policy = load_policy(config, path) if path else new_policy(config, len(tokenizer))
    if path:
        check_vocabulary(policy, tokenizer, config.model.path)
    return policy, tokenizer


def new_tokenizer(
    config: Config, demonstrations: Sequence[Demonstration]
) -> PreTrainedTokenizerBase:
    """A tokenizer that knows the words of the demonstrations."""
    texts = [o.text for d in demonstrations for o in d.observations]
    texts += [r for d in demonstrations for r in d.responses]
    return make_tokenizer(texts, config.imitate.phrases)


def new_policy(config: Config, vocab_size: int) -> Policy:
    """A policy with fresh weights, as [imitate] and [model] say."""
    model = new_model(config, vocab_size)
    torch.nn.Module.to(model, device_of(config.model.device), DTYPES[config.model.dtype])
    return wrap_policy(config, model)


def new_model(config: Config, vocab_size: int, device: str = "cpu") -> Any:
    """A small model as [imitate] says; on `meta` without weights."""
    settings = config.imitate
    with torch.device(device):
        return create_policy_model(
            vocab_size=vocab_size,
            hidden_size=settings.hidden_size,
            num_layers=settings.num_layers,
            num_heads=settings.num_heads,
            num_kv_heads=settings.num_kv_heads,
            intermediate_size=8 * settings.hidden_size // 3,
            max_positions=settings.max_positions,
            seed=config.run.seed,
        )
