"""Sinks of the metrics besides metrics.jsonl: TensorBoard, Weights & Biases, trackio.

A resumed run goes on in the same TensorBoard folder and the same W&B or trackio run; updates that
are made again after a kill are logged again under their old number.
"""

import dataclasses
import hashlib
import importlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from paw.config.tree import Config
from paw.errors import UserError

PROJECT = "paw"


class Sink(Protocol):
    """Gets the numbers of every update that were measured."""

    def log(self, update: int, metrics: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


def open_sinks(config: Config, directory: Path) -> list[Sink]:
    """The sinks that `run.track` names, in its order.

    Raises:
        UserError: the package of one of them is not installed.
    """
    return [SINKS[name](config, directory) for name in config.run.track]


class TensorBoard:
    """Scalars in `<run>/tensorboard`."""

    def __init__(self, config: Config, directory: Path) -> None:
        _package("tensorboard", "tensorboard")
        module = _package("torch.utils.tensorboard", "tensorboard")
        self.writer = module.SummaryWriter(str(directory / "tensorboard"))

    def log(self, update: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            if name != "update":
                self.writer.add_scalar(name, value, update)
        self.writer.flush()  # a killed run has shown all that it made

    def close(self) -> None:
        self.writer.close()


class WandB:
    """One W&B run per run directory, in the project `paw` unless WANDB_PROJECT says otherwise."""

    def __init__(self, config: Config, directory: Path) -> None:
        wandb = _package("wandb", "wandb")
        try:
            self.run = wandb.init(
                project=os.environ.get("WANDB_PROJECT", PROJECT),
                name=directory.name,
                id=_identity(directory),
                dir=str(directory),
                config=dataclasses.asdict(config),
                resume="allow",
            )
        except wandb.Error as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise UserError(
                f'run.track = "wandb": {reason}; or set WANDB_MODE=offline and `wandb sync` later'
            ) from error
        # Not W&B's own step, which never goes back: it would drop updates that are made again.
        self.run.define_metric("*", step_metric="update")

    def log(self, update: int, metrics: Mapping[str, float]) -> None:
        self.run.log({**metrics, "update": update})

    def close(self) -> None:
        self.run.finish()


class Trackio:
    """One trackio run per run directory, in the project `paw`."""

    def __init__(self, config: Config, directory: Path) -> None:
        self.trackio = _package("trackio", "trackio")
        self.trackio.init(
            project=PROJECT,
            name=f"{directory.name}-{_identity(directory)}",
            config=dataclasses.asdict(config),
            resume="allow",
        )

    def log(self, update: int, metrics: Mapping[str, float]) -> None:
        self.trackio.log(dict(metrics), step=update)

    def close(self) -> None:
        self.trackio.finish()


SINKS = {"tensorboard": TensorBoard, "wandb": WandB, "trackio": Trackio}


def _package(module: str, name: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise UserError(
            f"run.track = \"{name}\": the package is missing; pip install 'paw-rl[track]'"
        ) from error


def _identity(directory: Path) -> str:
    """The same for the same directory, so that a resumed run goes on in its old curve."""
    return hashlib.sha256(str(directory.resolve()).encode()).hexdigest()[:12]
