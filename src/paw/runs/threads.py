"""How many CPU threads torch takes, and whether acting has become slow.

Threads of a small matrix product wait for each other longer than they compute, and they wait
spinning: on two cores under a load of 2 two threads sampled 3 to 4 times slower than one, and
learned 1.6 (30 M parameters) to 4 times slower (0.2 M): `benchmarks/threads.py`.
"""

import os
from collections.abc import Mapping, Sequence
from typing import Any

from paw.errors import warn

SMALL = 20_000_000
"""Parameters below which one thread is taken."""
FIRST_UPDATES = 3
"""Updates whose best rate of acting is the measure of the later ones."""
SLOW = 0.25
"""Share of that rate below which it is warned."""


def choose_threads(num_parameters: int, cores: int, load: float) -> int:
    """Threads for a model: 1 for a small one, else the cores that are free, at least 1.

    Args:
        num_parameters: of the model.
        cores: that this process may use.
        load: processes that ran or waited for a core in the last minute.
    """
    if num_parameters < SMALL:
        return 1
    return max(1, cores - round(load))


def set_threads(threads: int, num_parameters: int) -> int:
    """Give torch `run.threads` threads; 0 chooses. Returns how many it has now. Warns of more
    threads than cores are free."""
    import torch

    cores, load = usable_cores(), os.getloadavg()[0]
    if not threads:
        threads = choose_threads(num_parameters, cores, load)
    elif threads > max(1, cores - round(load)):
        warn(
            f"run.threads = {threads}: {cores} cores, a load of {load:.1f}; threads that wait "
            "for a core spin, and everything becomes many times slower: fewer are faster"
        )
    torch.set_num_threads(threads)
    return threads


def usable_cores() -> int:
    """Cores that this process may use: its affinity, and OMP_NUM_THREADS where it is set."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(cores, int(limit)) if limit.isdigit() and int(limit) else cores


class ActingRate:
    """Warns, once, when sampling has become much slower than in the first updates.

    Args:
        earlier: metrics of the updates already made, of a run that goes on.
    """

    def __init__(self, earlier: Sequence[Mapping[str, Any]] = ()) -> None:
        self._seen, self._best = 0, 0.0
        for row in earlier[:FIRST_UPDATES]:
            self.judge(row["tokens/sampled"], row["time/act"])

    def watch(self, row: Mapping[str, Any]) -> None:
        """Look at the metrics of one update."""
        message = self.judge(row["tokens/sampled"], row["time/act"])
        if message:
            warn(message)

    def judge(self, tokens: float, seconds: float) -> str | None:
        """What to say of an update that sampled `tokens` in `seconds`, if anything."""
        rate = tokens / max(seconds, 1e-9)
        self._seen += 1
        if self._seen <= FIRST_UPDATES:
            self._best = max(self._best, rate)
            return None
        if rate >= SLOW * self._best:
            return None
        best, self._best = self._best, 0.0  # said once
        return (
            f"acting fell to {rate:,.0f} sampled tokens/s from {best:,.0f} in the first updates: "
            "does another process take the cores? Stop it, or set run.threads = 1"
        )
