"""What every part of the GPU benchmark measures with: a budget of seconds, clocks, peak memory."""

import gc
import platform
import resource
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
import transformers

PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12}
"""Dense bf16 FLOP/s of the SXM cards, by a part of their names; from their data sheets."""

Numbers = dict[str, float | int | str | None]
Cell = tuple[str, float, Callable[[], Numbers]]
"""Name, seconds that it may take on a GPU, and what measures it."""


@dataclass
class Bench:
    """The device, the budget, and what was found so far."""

    device: torch.device
    toy: bool
    """Everything at a size for a CPU: what is measured means nothing, that it runs does."""
    budget: float
    """Seconds from the start of the command"""
    started: float = field(default_factory=time.monotonic)
    rows: list[dict[str, Any]] = field(default_factory=list)

    @property
    def seconds_left(self) -> float:
        """Of the budget."""
        return self.budget - (time.monotonic() - self.started)

    @property
    def peak_flops(self) -> float | None:
        """Of the card in bf16, where its name is known."""
        if self.device.type != "cuda":
            return None
        name = torch.cuda.get_device_name(self.device)
        return next((flops for part, flops in PEAKS.items() if part in name), None)

    def run(self, part: str, cells: Iterator[Cell], until: float) -> Iterator[Numbers]:
        """Measure the cells of a part, up to a share `until` of the budget, and give each row once
        it is there. A failure is a row like any other, and stops nothing."""
        while True:
            try:
                name, seconds, measure = next(cells)
            except StopIteration:
                return
            except Exception as error:  # what the cells of a part share could not be made
                yield self._add(part, "", failure(error))
                return
            left = self.seconds_left - (1 - until) * self.budget
            if not self.toy and seconds > left:
                note = f"left out: takes about {seconds:.0f} s, {left:.0f} s are left to this part"
                yield self._add(part, name, {"note": note})
                continue
            try:
                found = measure()
            except Exception as error:
                found = failure(error)
            self.release()
            yield self._add(part, name, found)

    def _add(self, part: str, name: str, found: Numbers) -> Numbers:
        row: Numbers = {"part": part, "what": name, **found}
        self.rows.append(row)
        print(line(row), flush=True)
        return row

    def release(self) -> None:
        """Give back the device's memory that nothing names any more."""
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def synchronize(self) -> None:
        """Wait for the device."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)

    def seconds(self, work: Callable[[], Any]) -> float:
        """Of `work`, the device's included."""
        self.synchronize()
        start = time.perf_counter()
        work()
        self.synchronize()
        return time.perf_counter() - start

    @contextmanager
    def peak(self, found: Numbers, key: str = "peak_gib") -> Iterator[None]:
        """Write the peak of memory within into `found`: of the device, or of the process."""
        cuda = self.device.type == "cuda"
        if cuda:
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)
        yield
        used = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        if cuda:
            used = torch.cuda.max_memory_allocated(self.device)
        found[key] = round(used / 2**30, 2)


def failure(error: Exception) -> Numbers:
    """An error as a row."""
    if isinstance(error, torch.OutOfMemoryError):
        return {"error": "out of memory"}
    text = " ".join(str(error).split())[:300]
    return {"error": f"{type(error).__name__}: {text}"}


def line(row: dict[str, Any]) -> str:
    """A row of the table."""
    rest = {k: v for k, v in row.items() if k not in ("part", "what") and v is not None}
    said = "   ".join(f"{k} {_shown(v)}" for k, v in rest.items())
    return f"{row['part']:8} {row['what']:32} {said}"


def _shown(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.0f}" if value >= 1000 else f"{value:.3g}"
    return str(value)


def facts(bench: Bench) -> dict[str, Any]:
    """Where it ran."""
    cuda = bench.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(bench.device) if cuda else platform.processor(),
        "toy": bench.toy,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "transformers": transformers.__version__,
        "python": platform.python_version(),
    }
