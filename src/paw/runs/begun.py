"""What a run that goes on takes from its beginning."""

from dataclasses import replace
from pathlib import Path

from paw.config.read import resolve
from paw.config.tree import Config
from paw.runs.layout import Place, complete, training_place

CHOSEN_AT_THE_START = ("optimizer.tokens_per_micro_batch", "rollout.conversations")
"""Keys of which 0 leaves the choice to the machine on which a run begins."""


def begun(directory: Path, settings: str = "config.toml") -> Config | None:
    """The configuration of the run in `directory`, if it has measured or saved anything."""
    written, metrics = directory / settings, directory / "metrics.jsonl"
    measured = metrics.is_file() and b"\n" in metrics.read_bytes()
    if not written.is_file() or not (measured or complete(directory / "checkpoints")):
        return None
    return resolve([written])


def as_begun(config: Config, place: Place | None = None) -> Config:
    """The same with what the run in its directory (None: of `paw train`) chose at its start, where
    `config` leaves it open: on a machine with less or more memory it goes on with the same
    arithmetic."""
    place = place or training_place(config)
    return with_choices(config, begun(place.directory, place.settings))


def with_choices(config: Config, before: Config | None) -> Config:
    """The same with what `before` chose at its start, where `config` leaves it open."""
    for name in CHOSEN_AT_THE_START if before else ():
        table, key = name.split(".")
        ours = getattr(config, table)
        if getattr(ours, key) == 0:
            value = getattr(getattr(before, table), key)
            config = replace(config, **{table: replace(ours, **{key: value})})
    return config
