"""Defaults by what is trained. The tree's own are those of a pretrained model, all weights trained:
1e-6 for RL (the paper's), 1e-5 for imitation."""

from collections.abc import Mapping
from typing import Any

LORA = "LoRA adapters"
NEW_MODEL = "a new small model"

PRESETS: dict[str, dict[str, dict[str, Any]]] = {
    LORA: {"optimizer": {"learning_rate": 1e-5}, "imitate": {"learning_rate": 1e-4}},
    NEW_MODEL: {
        # It knows no chat: one growing conversation, and the response is the command.
        "rollout": {"context": "append", "response_format": "command"},
        "optimizer": {"learning_rate": 1e-4},  # of RL after the imitation: its card keeps it
        "imitate": {"learning_rate": 2e-3},
    },
}
"""What is trained -> the keys whose defaults differ from the tree's."""


def trained(tables: Mapping[str, Mapping[str, Any]]) -> str | None:
    """What `tables` train, where there is a preset for it."""
    if tables.get("imitate", {}).get("from_scratch") is True:
        return NEW_MODEL
    return LORA if tables.get("model", {}).get("lora_rank") else None
