"""The tasks of an environment as verl's data set: no files are made.

`data.train_files` and `data.val_files` name splits; `data.paw` is the table `paw`.
"""

from typing import Any

import torch
from torch.utils.data import Dataset

from paw.envs.base import TaskSource
from paw.integrations.verl.settings import open_tasks, read_settings


class PawDataset(Dataset):
    """One row a task of a split.

    Args:
        data_files: the split.
        config: verl's `data`; its `paw` is the table `paw`, its `seed` also the environments'.
        max_samples: at most this many tasks, the first; -1: all.
        kwargs: verl's tokenizer and processor.

    Raises:
        UserError: unknown environment, split or option, or missing data.
    """

    def __init__(self, data_files: Any, config: Any, max_samples: int = -1, **kwargs: Any) -> None:
        self.split = str(data_files)
        self.source: TaskSource = open_tasks(read_settings(config.get("paw")), self.split)
        count = len(self.source)
        self._count = min(count, max_samples) if max_samples > 0 else count

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        task = self.source[int(index)]
        return {
            "raw_prompt": [{"role": "user", "content": task.instruction}],
            "index": int(index),
            "split": self.split,
            "agent_name": "paw",
            "data_source": f"{self.source.name}/{self.split}",
            "reward_model": {"style": "rule", "ground_truth": task.id},
            "dummy_tensor": torch.tensor([0], dtype=torch.uint8),
        }
