"""Which runs a comparison makes: every arm with every seed, alike in all that the arm does not say.

    OUTPUT/runs/ARM/seed-N/         a run directory of `paw train`
    OUTPUT/runs/ARM/seed-N.toml     what it is trained with
    OUTPUT/runs/ARM/seed-N.log      what it printed
    OUTPUT/runs/ARM/seed-N.failed   why it ended, where it cannot go on
    OUTPUT/runs/ARM/seed-N.json     what it showed, once it is finished

Of a finished run its two files seed-N.toml and seed-N.json are enough: its directory may be gone,
or on the machine that made it.

Runs of a seed are made together, so that pairs are complete early, and each arm is the first of
some seed, so that a machine which gets slower is no arm's alone (`in_turns`).
All share the start, the order of tasks, the seeds of environments and of sampling, the evaluated
episodes and the sizes of passes; what is left to the machine (`optimizer.tokens_per_micro_batch`)
is chosen once.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from paw.compare.arms import Arm
from paw.config.read import CHANGEABLE, Resolved, changes, resolve
from paw.config.tree import Config
from paw.errors import UserError
from paw.model.load import device_of, read_shape
from paw.rollout.actor import on_split, open_source
from paw.rollout.fit import settle, usable_bytes
from paw.runs.begun import CHOSEN_AT_THE_START, begun, with_choices
from paw.runs.gguf import unpack
from paw.runs.layout import HELD, newest_checkpoint, resolve_model, update_of

FIXED = frozenset({"run.updates", "eval.every", "eval.episodes"})
"""What a run that goes on may change, and a comparison not: pairs would be of different things."""
WHEREABOUTS = frozenset({"paw.match"})
"""Where a comparison lies, and so no difference"""
EVALUATIONS = 4
"""Where `eval.every` is not given: so many, and one before the first update."""
DIAGNOSES = 4


@dataclass(frozen=True, slots=True)
class Planned:
    """One run of a comparison."""

    arm: str
    seed: int
    directory: Path
    config: Config
    after: Path | None = None
    """A run that has to be finished before this one begins"""

    @property
    def settings(self) -> Path:
        """What it is trained with."""
        return self._beside("toml")

    @property
    def log(self) -> Path:
        """What it printed."""
        return self._beside("log")

    @property
    def failure(self) -> Path:
        """Why it ended before its last update; there is none while it may go on."""
        return self._beside("failed")

    @property
    def kept(self) -> Path:
        """What it showed, once it is finished."""
        return self._beside("json")

    def _beside(self, kind: str) -> Path:
        return _beside(self.directory, kind)

    @property
    def updates_made(self) -> int:
        """By its newest checkpoint, less one that has still to be evaluated; where its directory is
        gone, by what was kept of it."""
        newest = newest_checkpoint(self.directory / "checkpoints")
        if newest is not None:
            return update_of(newest) - (self.directory / HELD).is_file()
        if not self.kept.is_file():
            return 0
        updates = self.read_kept(["updates"])["updates"]
        if not isinstance(updates, int):
            raise self.damaged
        return updates

    def read_kept(self, names: Sequence[str]) -> dict[str, Any]:
        """The object that `kept` holds, which has these fields.

        Raises:
            UserError: it is damaged, or without the file of settings that belongs to it.
        """
        if not self.settings.is_file():
            raise UserError(f"{self.kept} needs {self.settings.name} beside it: copy both")
        try:
            found = json.loads(self.kept.read_bytes())
            if not found.keys() >= set(names):
                raise self.damaged
        except (ValueError, AttributeError):
            raise self.damaged from None
        return found

    @property
    def damaged(self) -> UserError:
        """`kept` cannot be read."""
        return UserError(
            f"{self.kept} is no result of a run; copy it again, or remove it to make the run"
        )

    @property
    def status(self) -> str:
        """finished | failed | missing"""
        if self.updates_made >= self.config.run.updates:
            return "finished"
        return "failed" if self.failure.is_file() else "missing"


def make_plan(
    arms: Sequence[Arm],
    resolved: Mapping[str, Resolved],
    seeds: Sequence[int],
    output: Path,
    jobs: int,
) -> list[Planned]:
    """The runs, seed by seed, in the order of the tables.

    Args:
        arms: of the comparison.
        resolved: the configuration of each arm, by its name.
        seeds: of each arm.
        output: where the comparison lies.
        jobs: runs at a time, which share the memory.

    Raises:
        UserError: no such model or tasks, or a run there that is of another configuration.
    """
    shared = _shared(resolved[arms[0].name], output, jobs)
    plan = []
    for seed in seeds:
        for arm in arms:
            directory = _directory(output, arm.name, seed)
            config = _same(resolved[arm.name].config, shared)
            config = replace(config, run=replace(config.run, seed=seed, directory=str(directory)))
            after = None
            if arm.match is not None:
                after = _directory(output, arm.match, seed)
                config = replace(config, paw=replace(config.paw, match=str(after)))
            plan.append(Planned(arm.name, seed, directory, config, after))
    for planned in plan:
        _check_unchanged(planned)
    return plan


def in_turns(plan: Sequence[Planned]) -> list[Planned]:
    """A plan in the order in which it is made: of each seed another arm first, those that wait for
    another run last."""
    seeds = list(dict.fromkeys(p.seed for p in plan))
    arms = list(dict.fromkeys(p.arm for p in plan))

    def turn(p: Planned) -> tuple[int, bool, int]:
        number = seeds.index(p.seed)
        return number, p.after is not None, (arms.index(p.arm) - number) % len(arms)

    return sorted(plan, key=turn)


def _beside(directory: Path, kind: str) -> Path:
    return directory.with_name(f"{directory.name}.{kind}")


def _directory(output: Path, arm: str, seed: int) -> Path:
    return output / "runs" / arm / f"seed-{seed}"


def _shared(first: Resolved, output: Path, jobs: int) -> Config:
    """What all runs have in common besides what is given: evaluations, diagnoses, sizes."""
    config = first.config
    run, evaluation = config.run, config.eval
    if not first.given("run.diagnostics_every"):
        run = replace(run, diagnostics_every=max(1, run.updates // DIAGNOSES))
    if not first.given("run.save_trajectories_every"):
        run = replace(run, save_trajectories_every=max(1, run.updates))
    if not evaluation.every:
        evaluation = replace(evaluation, every=max(1, run.updates // EVALUATIONS))
    if not first.given("eval.episodes"):
        num_tasks = len(open_source(on_split(config, evaluation.split)))
        evaluation = replace(evaluation, episodes=num_tasks)
    config = replace(config, run=run, eval=evaluation)
    for settings in sorted(output.glob("runs/*/seed-*.toml")):
        config = with_choices(config, _earlier_config(settings.with_suffix("")))
    shape = read_shape(unpack(resolve_model(config.model.path)))
    if shape is not None:
        room = usable_bytes(device_of(config.model.device)) // jobs
        predicting = replace(config, paw=replace(config.paw, enabled=True))
        settled = settle(predicting, shape, room)
        config = replace(settled, paw=config.paw)
    return config


def _same(config: Config, shared: Config) -> Config:
    """`config` with what is shared."""
    config = replace(config, eval=shared.eval, run=shared.run)
    for name in CHOSEN_AT_THE_START:
        table, key = name.split(".")
        value = getattr(getattr(shared, table), key)
        config = replace(config, **{table: replace(getattr(config, table), **{key: value})})
    return config


def _earlier_config(directory: Path) -> Config | None:
    """The configuration of the run in `directory`, if it was begun or its result was kept."""
    settings = _beside(directory, "toml")
    kept = _beside(directory, "json").is_file() and settings.is_file()
    return begun(directory) or (resolve([settings]) if kept else None)


def _check_unchanged(planned: Planned) -> None:
    before = _earlier_config(planned.directory)
    if before is None:
        return
    differing = changes(before, planned.config, CHANGEABLE - FIXED | WHEREABOUTS)
    if differing:
        raise UserError(
            f"{planned.directory} is of another configuration ({differing[0]}); compare with what "
            "it was made with, or choose another --output"
        )
