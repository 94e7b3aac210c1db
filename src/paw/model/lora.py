"""LoRA: adapters on all linear layers, and the weights of the model that they make."""

from typing import Any

import torch
from torch import Tensor

from paw.errors import UserError

ADAPTER = "default"
"""peft's name of the one adapter."""


def add_lora(model: Any, rank: int, seed: int) -> None:
    """Put trainable adapters into the model's linear layers, the output embedding excepted, and
    freeze the rest.

    Raises:
        UserError: peft is missing.
    """
    try:
        from peft import LoraConfig, get_peft_model
    except ImportError as error:
        raise UserError(
            "model.lora_rank needs peft: pip install 'paw-rl[lora]', or set it to 0"
        ) from error
    config = LoraConfig(
        r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM"
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        get_peft_model(model, config)


@torch.no_grad()
def merged_state_dict(model: Any, in_place: bool = False) -> dict[str, Tensor]:
    """Weights under the names of the model without adapters, those merged.

    Args:
        in_place: on the model's device, into the weights themselves: for a model that is made anew
            afterwards. Else on the CPU, one layer at a time: beside the result no more than a
            layer's weights is made on the device, and the model stays as it was.

    Returns:
        The bits are those of peft's `merge_and_unload` there.
    """
    adapted = {
        f"{name}.base_layer.weight": module
        for name, module in model.named_modules()
        if hasattr(module, "get_delta_weight")
    }
    merged: dict[str, Tensor] = {}
    on_cpu: dict[int, Tensor] = {}
    for name, tensor in model.state_dict().items():
        if ".lora_" in name:
            continue
        own = tensor
        if name in adapted:
            own = (own if in_place else own.clone()).add_(adapted[name].get_delta_weight(ADAPTER))
        if not in_place:  # what is tied on the device stays tied
            own = own.cpu() if name in adapted else on_cpu.setdefault(own.data_ptr(), own.cpu())
        merged[name.replace(".base_layer.", ".")] = own
    return merged
