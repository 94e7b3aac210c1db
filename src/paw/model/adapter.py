"""An adapter of the user's own (peft), merged into the weights that training begins with."""

import warnings
from typing import Any

import torch

from paw.errors import UserError
from paw.model.load import BROKEN, fresh_model, read_config
from paw.model.probe import own_logprobs, probe_rows

FP32_TOLERANCE, BF16_TOLERANCE = 1e-3, 0.3
"""Nats between the log-probabilities of a model with its adapter and of the merged one."""


def merge_adapter(model: Any, directory: str) -> Any:
    """The model with the adapter of `directory` merged into its weights by peft.

    Whether the merged model, as it would be saved, says what the adapted one says is measured.

    Raises:
        UserError: an adapter of another model, of a kind that cannot be merged, or one that changes
            what cannot be merged exactly (tied embeddings).
    """
    rows = probe_rows(model.config)
    adapted = _attach(model.eval(), directory)
    wanted = own_logprobs(model, rows)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what they fear is measured
            merged = adapted.merge_and_unload(safe_merge=True)
    except (ValueError, RuntimeError, AttributeError) as error:
        raise UserError(
            f"model.adapter = {directory!r}: peft cannot merge it: {_reason(error)}"
        ) from error
    for parameter in merged.parameters():
        parameter.requires_grad_(True)  # peft has frozen them
    merged.tie_weights()  # as a saved one is when it is loaded
    worst = (own_logprobs(merged, rows) - wanted).abs().max().item()
    if not worst < (BF16_TOLERANCE if merged.dtype == torch.bfloat16 else FP32_TOLERANCE):
        raise UserError(
            f"model.adapter = {directory!r}: merged, the model differs from the adapted one by "
            f"{worst:.2g} nats: it changes embeddings that the model shares with its head, which "
            "cannot be merged"
        )
    return merged


def check_adapter_fits(path: str, directory: str) -> None:
    """Is the adapter of `directory` one of the model at `path`? No weight of the model is read.

    Raises:
        UserError: it is not.
    """
    with torch.device("meta"):
        model = fresh_model(read_config(path))
    _attach(model, directory)


def _attach(model: Any, directory: str) -> Any:
    """A peft model around the model, with every weight of the adapter in its place."""
    import peft

    where = f"model.adapter = {directory!r}"
    try:
        config: Any = peft.PeftConfig.from_pretrained(directory)
    except (KeyError, ValueError, TypeError) as error:
        raise UserError(
            f"{where}: peft {peft.__version__} knows no such adapter: {_reason(error)}"
        ) from error
    if config.is_prompt_learning or config.is_adaption_prompt:
        raise UserError(f"{where}: {config.peft_type} changes no weights, so it cannot be merged")
    if getattr(config, "layer_replication", None):
        raise UserError(f"{where}: it repeats layers, so it cannot be merged")
    config.inference_mode = True
    if model.device.type == "meta" and hasattr(config, "init_lora_weights"):
        config.init_lora_weights = True  # others begin with a decomposition of the model's weights
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of weights on `meta`, of the base's name
            weights = peft.load_peft_weights(directory, device="cpu")
            adapted = peft.get_peft_model(model, config)
            result = peft.set_peft_model_state_dict(adapted, weights)
    except BROKEN as error:
        raise UserError(f"{where}: it does not fit the model: {_reason(error)}") from error
    own = {name for name, _ in adapted.named_parameters() if ".default" in name}
    if odd := sorted([*result.unexpected_keys, *own.intersection(result.missing_keys)]):
        raise UserError(
            f"{where}: it is of another model: {len(odd)} weights have no place there or are "
            f"missing ({odd[0]}, ...)"
        )
    return adapted


def _reason(error: Exception) -> str:
    """What an error of several lines says first of a weight."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    if len(lines) > 1 and lines[0].startswith("Error(s) in loading"):
        del lines[0]
    return lines[0] if lines else type(error).__name__
