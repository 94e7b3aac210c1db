"""One update of a scripted rollout, alone or as one of several processes (RANK of WORLD_SIZE); the
first keeps its gradient.

python trl_processes.py FILE
"""

import os
import sys
from pathlib import Path

import torch
from test_trl import Keep, make, scripted_rollout, vowels

from paw.integrations.trl import PawConfig

WORLD, RANK = (int(os.environ.get(name, "0")) for name in ("WORLD_SIZE", "RANK"))


def rollout(prompts, trainer):
    """Eight rows that differ, the same ones however many processes share them."""
    mine = range(RANK * len(prompts), (RANK + 1) * len(prompts))
    return {
        **scripted_rollout(prompts, trainer),
        "prompt_ids": [[5, 6, 7 + i] for i in mine],
        "completion_ids": [[20 + (i * 7 + j * (i + 1)) % 90 for j in range(10)] for i in mine],
        "entropies": [[float(i * 3 % 7)] * 10 for i in mine],
    }


def learn(directory):
    """(gradient, metrics) of the update."""
    keep = Keep()
    trainer = make(
        directory,
        rewards=[vowels],
        rollout_func=rollout,
        callbacks=[keep],
        max_steps=1,
        per_device_train_batch_size=4 // max(WORLD, 1),
        paw=PawConfig(max_return=1.0),
    )
    trainer.train()
    return torch.cat([g.flatten() for g in keep.gradients[0]]), trainer.paw_update.metrics


if __name__ == "__main__":
    file = Path(sys.argv[1])
    learned = learn(file.parent)
    if RANK == 0:
        torch.save(learned, file)
