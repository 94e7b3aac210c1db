"""What a run is measured by: versions, commit, hardware, data, memory."""

import contextlib
import functools
import os
import platform
import resource
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from paw.envs.base import listing_digest
from paw.runs.format import EnvironmentRecord

PACKAGES = ("paw-rl", "torch", "transformers", "tokenizers", "numpy", "msgspec", "peft", "vllm")


def environment_facts() -> dict[str, Any]:
    """Versions, commit and hardware: `EnvironmentRecord` without `data`."""
    return {
        "versions": {p: installed(p) for p in PACKAGES},
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpu": torch.cuda.get_device_name(0) if torch.cuda.is_available() else None,
        "commit": commit(),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
    }


def earlier_starts(last: EnvironmentRecord, now: EnvironmentRecord) -> list[dict[str, str | None]]:
    """What a run that goes on says of its earlier starts: those whose commit, hardware or torch
    were not today's, each once."""
    found = [*last.earlier, last.start]
    return [start for n, start in enumerate(found) if start not in (now.start, *found[:n])]


def data_facts(folder: str | None) -> dict[str, Any]:
    """What data a run trains on: a folder's file names and sizes as one hash."""
    if folder is None or not Path(folder).is_dir():
        return {"data_dir": folder}
    return {"data_dir": folder, "listing_sha256": listing_digest(Path(folder))}


def peak_memory() -> int:
    """Peak bytes: of the GPU where one is used, else of this process."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


@functools.cache
def installed(package: str) -> str | None:
    """The version of a package, if it is there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


@functools.cache
def commit() -> str | None:
    """Commit of the checkout that the package is run from, with `+` for uncommitted changes."""

    def git(*arguments: str) -> str:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
        return done.stdout.strip()

    try:
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "-uno") else "")
    except (OSError, subprocess.SubprocessError):
        return None


def _processor() -> str:
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor()
