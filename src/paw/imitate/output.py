"""Where `paw imitate` writes.

    OUTPUT/          an ordinary model directory: the policy of the newest evaluation, of Ctrl-C, or
                     the finished one; with its card, imitate.json, imitate.toml, metrics.jsonl
    OUTPUT.partial/  the work in progress, a run directory in which an update is a step; gone when
                     OUTPUT is finished

OUTPUT is made of the files of a checkpoint, whose weights are not written a second time.
"""

import json
import os
import shutil
from pathlib import Path
from typing import Any

from paw.config.read import IMITATION_CHANGEABLE, resolve
from paw.config.tree import Config
from paw.errors import UserError
from paw.runs import read
from paw.runs.begun import begun
from paw.runs.files import discard, new_directory
from paw.runs.layout import Place, newest_checkpoint, update_of
from paw.runs.write import check_directory, check_unchanged

RECORD, SETTINGS, METRICS = "imitate.json", "imitate.toml", "metrics.jsonl"
STATE = "trainer.pt"
STEPS = frozenset({"imitate.steps"})


def place_of(config: Config) -> Place:
    """The run directory of the work in progress. More steps may be taken where the learning rate
    does not hang on their number."""
    settings = config.imitate
    output = Path(settings.output)
    directory = output.parent / f"{output.name}.partial"
    changeable = IMITATION_CHANGEABLE
    if settings.final_learning_rate is None:
        changeable |= STEPS
    where = f"imitate.output = {settings.output!r}: {directory}"
    return Place(directory, "imitate.output", where, SETTINGS, changeable)


def finished(config: Config) -> dict[str, Any] | None:
    """The report of the imitation that `imitate.output` holds, if it is done. Makes nothing.

    Raises:
        UserError: `config` may neither begin there nor go on.
    """
    output, place = Path(config.imitate.output), place_of(config)
    where = f"imitate.output = {config.imitate.output!r}"
    if not os.path.lexists(output):
        check_directory(config, place)
        return None
    if not all((output / name).is_file() for name in (RECORD, SETTINGS)):
        raise UserError(f"{where} exists already: choose another")
    if not config.run.resume:
        raise UserError(
            f"{where} holds an imitation already: choose another, or set run.resume = true to go "
            "on with it"
        )
    record = read.imitation(output)
    if not record.finished and begun(place.directory, SETTINGS) is None:
        raise UserError(
            f"{where} holds the policy of step {record.steps:,} of an imitation whose "
            f"{place.directory} is gone: choose another; model.path = {config.imitate.output!r} "
            "goes on from its weights"
        )
    if not record.finished:
        check_directory(config, place)
        return None
    held = Place(output, place.key, where, SETTINGS, place.changeable - STEPS)
    check_unchanged(resolve([output / SETTINGS]), config, held)
    return json.loads((output / RECORD).read_text(encoding="utf-8"))


def publish(checkpoint: Path, output: Path) -> None:
    """Make `output` the policy of a checkpoint, whole or not at all.

    Raises:
        UserError: the disk is full; what was there still is.
    """
    run = checkpoint.parents[1]
    try:
        with new_directory(output) as directory:
            for file in checkpoint.iterdir():
                if file.name != STATE:
                    _link(file, directory / file.name)
            for name in (SETTINGS, METRICS):
                shutil.copyfile(run / name, directory / name)
    except UserError as error:
        raise UserError(f"{error}; the same command then goes on from {checkpoint.name}") from error


def remove_work(config: Config) -> None:
    """Delete the work in progress of an imitation that is finished."""
    remove_remains(config)
    work = place_of(config).directory
    if (work / SETTINGS).is_file():
        discard(work)


def remove_remains(config: Config) -> None:
    """Delete what a kill has left of directories that were written or deleted."""
    for path in (Path(config.imitate.output), place_of(config).directory):
        for ending in (".tmp", ".old.tmp"):
            shutil.rmtree(path.with_name(path.name + ending), ignore_errors=True)


def stopped(config: Config) -> str:
    """What to say after Ctrl-C."""
    place, output = place_of(config), Path(config.imitate.output)
    if not (place.directory / SETTINGS).is_file():
        return "stopped; nothing was kept"
    newest = newest_checkpoint(place.directory / "checkpoints")
    done = 0 if newest is None else update_of(newest)
    where = f"step {done:,} of {config.imitate.steps:,}" if done else "the start"
    text = f"stopped; the same command goes on from {where}, in {place.directory}"
    if (output / RECORD).is_file():
        text += f"; {output} holds the policy of step {read.imitation(output).steps:,}"
    return text


def _link(file: Path, to: Path) -> None:
    """Weights as another name of the same file, which is never written again; others, and where the
    file system has no links, as a copy."""
    if file.suffix == ".safetensors":
        try:
            return os.link(file, to)
        except OSError:
            pass
    shutil.copyfile(file, to)
