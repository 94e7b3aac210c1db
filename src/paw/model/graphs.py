"""A step that runs many times on the same tensors, recorded as a CUDA graph and replayed.

A decode step launches a thousand small kernels, and a GPU finishes them faster than Python can
launch them; a recorded step is launched at once.
"""

from collections.abc import Callable, Hashable
from typing import Any

import torch

from paw.errors import warn


class StepGraphs:
    """Recorded steps by key; where nothing can be recorded (a CPU, a model that reads back from the
    device), steps simply run.

    Args:
        device: where the steps compute.
    """

    def __init__(self, device: torch.device) -> None:
        self.records = device.type == "cuda"
        """Steps are recorded; False on a CPU and once recording has failed."""
        self._device = device
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._pool: Any = None

    def reset(self) -> None:
        """Forget what was recorded: tensors that it names are gone."""
        self._graphs = {}
        self._pool = None

    def run(self, key: Hashable, step: Callable[[], None]) -> None:
        """Make a step: what `step` does to its tensors, now.

        Args:
            key: steps of one key do the same to the same tensors.
            step: reads and writes tensors that stay where they are, allocates others as it likes,
                and reads nothing back.
        """
        if key in self._graphs:
            self._graphs[key].replay()
            return
        step()  # the first one runs, so that kernels and workspaces are chosen before recording
        if self.records:
            self._record(key, step)

    def _record(self, key: Hashable, step: Callable[[], None]) -> None:
        with torch.cuda.device(self._device):
            graph, stream = torch.cuda.CUDAGraph(), torch.cuda.current_stream()
            # One pool for all: only one runs at a time, and what outlasts a step lies outside.
            self._pool = self._pool or torch.cuda.graph_pool_handle()
            try:
                with torch.cuda.graph(graph, pool=self._pool):
                    step()
            except RuntimeError as error:
                torch.cuda.set_stream(stream)  # which a recording that failed does not give back
                self.records = False
                reason = " ".join(str(error).split())[:200]
                warn(f"sampling goes without CUDA graphs, and slower: {reason}")
                return
        self._graphs[key] = graph
