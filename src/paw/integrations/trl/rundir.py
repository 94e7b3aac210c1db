"""PaW's run directory of a TRL run, so that `paw report` and `paw episodes` show it."""

from contextlib import ExitStack
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import gather_object
from transformers import TrainerCallback

from paw import objective
from paw.config.read import CHANGEABLE
from paw.config.tree import (
    AlgorithmConfig,
    Config,
    EnvConfig,
    ModelConfig,
    OptimizerConfig,
    RolloutConfig,
    RunConfig,
)
from paw.errors import UserError
from paw.integrations.trl.environment import TextEnvironment
from paw.integrations.trl.records import decided, trajectory_of
from paw.runs.begun import begun
from paw.runs.layout import Place
from paw.runs.records import trajectory_record, turn_record
from paw.runs.write import Run
from paw.train.metrics import rollout_metrics
from paw.types import Group, Trajectory

FROM_LOG = {
    "kl": "policy/ref_kl",
    "entropy": "policy/entropy",
    "clip_ratio/region_mean": "policy/clipped_fraction",
    "grad_norm": "policy/gradient_norm",
    "wm/loss": "wm/loss",
}
"""TRL's metrics -> ours, the mean over what was logged since the update began."""
TOKENIZER = "tokenizer"
"""Folder of a run whose model has no name"""


class RunDirectory(TrainerCallback):
    """Writes PaW's run directory: `PawGRPOTrainer(…, callbacks=[RunDirectory("runs/trl")])`.

    config.toml holds what TRL's arguments say in our words, the rest is at its default; an update
    is a generation batch. No checkpoints: TRL writes its own.

    Args:
        directory: a new one, or that of the run which `resume_from_checkpoint` goes on with.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._trainer: Any = None
        self._run: Run | None = None
        self._stages = ExitStack()
        self._trajectories: list[Trajectory] = []
        self._logs: dict[str, list[float]] = {}
        self._written = 0

    def attach(self, trainer: Any) -> None:
        """The trainer whose updates these are."""
        self._trainer = trainer

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Open the directory."""
        if self._trainer is None:
            raise UserError("RunDirectory is a callback of PawGRPOTrainer: give it at construction")
        if not state.is_world_process_zero:
            return
        if state.global_step == 0 and begun(self.directory) is not None:
            raise UserError(f"{self.directory} holds a run already: choose another directory")
        where = f"RunDirectory({str(self.directory)!r})"
        place = Place(self.directory, "directory", where, "config.toml", CHANGEABLE)
        config = config_of(self._trainer, self.directory)
        self._run = Run(config, place)
        self._run.rewind(self._trainer.update_number() - 1)
        if config.model.path == str(self.directory / TOKENIZER):
            self._trainer.accelerator.unwrap_model(self._trainer.model).config.save_pretrained(
                config.model.path
            )
            self._trainer.processing_class.save_pretrained(config.model.path)

    def begin_update(self) -> None:
        """A generation batch is about to be made."""
        self.flush()
        self._stage("act")

    def begin_learning(self) -> None:
        """It was made; what its environments say of it is said now."""
        self._stage("learn")
        trainer = self._trainer
        update, size = trainer.paw_update, trainer.num_generations
        first = trainer.accelerator.process_index * len(update.rows)
        environments = trainer.environments or [None] * len(update.rows)
        self._trajectories = [
            trajectory_of(
                row,
                environment,
                trainer.processing_class,
                return_=update.returns[number],
                place=divmod(number, size),
                max_return=trainer.paw.max_return,
            )
            for number, (row, environment) in enumerate(
                zip(update.rows, environments, strict=True), start=first
            )
        ]

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Keep what TRL measured; write the update once it was learned from."""
        for key, value in (kwargs.get("logs") or {}).items():
            if key in FROM_LOG and isinstance(value, int | float):
                self._logs.setdefault(FROM_LOG[key], []).append(float(value))
        update = self._trainer.paw_update
        if update is None:
            return
        steps = args.steps_per_generation * args.num_iterations / args.gradient_accumulation_steps
        if state.global_step >= update.begun + max(steps, 1):
            self.flush()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Write the last update and let go of the directory."""
        self.flush()
        self._stages.close()
        if self._run is not None:
            self._run.close()
            self._run = None

    def flush(self) -> None:
        """Write the update that was learned from, if it is not written; all processes call it."""
        trainer = self._trainer
        update = trainer.paw_update
        if update is None or update.number == self._written:
            return
        self._stages.close()
        own = [(t, decided(row)) for t, row in zip(self._trajectories, update.rows, strict=True)]
        found = gather_object(own)
        self._written = update.number
        logged = {name: sum(x) / len(x) for name, x in self._logs.items()}
        self._logs = {}
        if self._run is None:
            return
        groups = [
            Group(t[0].task, tuple(t))
            for t in (list(g) for _, g in groupby((t for t, _ in found), key=lambda t: t.group))
        ]
        metrics = {**rollout_metrics(groups), **update.metrics, **logged}
        metrics |= _targets(found, trainer.paw.probability_cap)
        records = [
            trajectory_record(
                t,
                update.number,
                [turn_record(x, **d) for x, d in zip(t.transitions, fields, strict=True)],
            )
            for t, fields in found
        ]
        self._run.save_trajectories(update.number, records)
        self._run.log(update.number, metrics)

    def _stage(self, name: str) -> None:
        self._stages.close()
        if self._run is not None:
            self._stages.enter_context(self._run.stage(name))


def _targets(found: Any, probability_cap: float) -> dict[str, float | None]:
    """Of the tokens that were predicted, before they were learned from."""
    logprobs = torch.tensor(
        [x for _, fields in found for d in fields for x in d.get("target_logprobs") or ()]
    )
    if not len(logprobs):
        return {"wm/nll": None, "wm/clipped_token_fraction": None, "wm/target_tokens": 0}
    clipped = objective.clipped_tokens(logprobs, probability_cap)
    return {
        "wm/nll": -float(logprobs.mean()),
        "wm/clipped_token_fraction": float(clipped.float().mean()),
        "wm/target_tokens": len(logprobs),
    }


def config_of(trainer: Any, directory: Path) -> Config:
    """TRL's arguments in our words."""
    args, usual = trainer.args, Config()
    rows = args.per_device_train_batch_size * args.steps_per_generation
    rows *= trainer.accelerator.num_processes
    steps = args.steps_per_generation // args.gradient_accumulation_steps
    factory = (trainer.environment_factories or {}).get(None)
    env = EnvConfig(name="trl", split="train")
    if isinstance(factory, type) and issubclass(factory, TextEnvironment):
        env = EnvConfig(**factory.settings)
    return replace(
        usual,
        run=RunConfig(directory=str(directory), seed=args.seed),
        env=env,
        model=ModelConfig(path=_model_path(trainer, directory)),
        rollout=RolloutConfig(
            groups=max(rows // trainer.num_generations, 1),
            group_size=trainer.num_generations,
            context="append",
            temperature=args.temperature,
            max_response_tokens=args.max_completion_length,
            invalid_penalty=0.0,
        ),
        algorithm=AlgorithmConfig(
            clip_low=args.epsilon,
            clip_high=args.epsilon if args.epsilon_high is None else args.epsilon_high,
            scale_by_std=str(args.scale_rewards) != "none",
            kl_coefficient=args.beta,
        ),
        paw=trainer.paw.plain(),
        optimizer=OptimizerConfig(
            learning_rate=args.learning_rate,
            betas=(args.adam_beta1, args.adam_beta2),
            weight_decay=args.weight_decay,
            mini_batches=max(steps, 1),
            epochs=args.num_iterations,
            max_grad_norm=args.max_grad_norm or 1e30,
        ),
    )


def _model_path(trainer: Any, directory: Path) -> str:
    """Where the model came from; of one without a name the tokenizer is kept, for the report."""
    named = trainer.accelerator.unwrap_model(trainer.model).config._name_or_path
    if named:
        return str(named)
    return str(directory / TOKENIZER)
