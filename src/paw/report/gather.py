"""Paths -> what stands in a page: runs, evaluations and comparisons with their episodes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paw import __version__
from paw.errors import UserError
from paw.report.choose import choose
from paw.report.data import Page, Run
from paw.report.page import packed_chunk
from paw.report.source import Group, Source
from paw.runs.meanings import MEANINGS

ROOM = 12_000_000
"""Bytes of the episodes of a page as they stand in it."""
PROBES = 5
"""Groups that are packed to see how large they get."""
MARGIN = 1.2
"""They may be smaller than others: what does not fit in the end is left out from the end."""


@dataclass(slots=True)
class Material:
    """What a page is made of."""

    title: str
    sources: list[Source] = field(default_factory=list)
    comparison: Path | None = None
    """Its compare.json"""


def material(paths: Sequence[Path]) -> Material:
    """What is at the paths.

    Raises:
        UserError: a path that is no run, evaluation, trajectory file or comparison.
    """
    names = _names(paths)
    found = Material(" / ".join(names.values()))
    for path in paths:
        runs = sorted(path.glob("runs/*/seed-*/")) if path.is_dir() else []
        if (path / "compare.json").is_file() or (runs and not _is_run(path)):
            if len(paths) > 1:
                raise UserError(f"{path}: a comparison has a page of its own; give it alone")
            found.comparison = path / "compare.json"
            found.sources += map(_compared, runs)
        elif _is_run(path) or path.suffix == ".json" or path.name.endswith(".jsonl.zst"):
            if not path.exists():
                raise UserError(f"{path}: no such file or directory")
            found.sources.append(Source(path, names[path]))
        else:
            what = "no such file or directory" if not path.exists() else (
                "no run directory, comparison, result of `paw eval -o` or trajectory file"
            )  # fmt: skip
            raise UserError(f"{path}: {what}")
    return found


def _names(paths: Sequence[Path]) -> dict[Path, str]:
    """A name for each: the last parts of its path, as many as tell them apart."""
    parts = {path: path.resolve().parts for path in paths}
    depth = 1
    while True:
        names = {path: "/".join(own[-depth:]) for path, own in parts.items()}
        if len(set(names.values())) == len(names) or depth >= max(map(len, parts.values())):
            return names
        depth += 1


def _is_run(path: Path) -> bool:
    names = ("metrics.jsonl", "config.toml", "trajectories", "environment.json")
    return path.is_dir() and any((path / name).exists() for name in names)


def _compared(directory: Path) -> Source:
    """A run of a comparison: ARM/seed-N."""
    arm, seed = directory.parent.name, directory.name.removeprefix("seed-")
    failure = directory.with_name(f"{directory.name}.failed")
    source = Source(directory, f"{arm}, seed {seed}", failure)
    source.arm, source.seed = arm, int(seed) if seed.isdigit() else None
    return source


def gather(found: Material, room: int = ROOM) -> tuple[Page, list[str]]:
    """The page of what is at some paths, and its chunks as they stand in it.

    Args:
        found: read as it is now.
        room: bytes for all chunks, shared by the runs alike.
    """
    for source in found.sources:
        source.refresh()
    runs: list[Run] = []
    packed: list[str] = []
    for index, source in enumerate(found.sources):
        own = room // max(len(found.sources), 1)
        kept = choose(source.rows, int(own / _packed_share(source, own)))
        numbers: dict[Group, int] = {}
        for group, chunk in source.chunks(source.groups(kept), index):
            text = packed_chunk(chunk)
            own -= len(text)
            if own >= 0:
                numbers[group] = len(packed)
                packed.append(text)
        runs.append(source.run(kept, numbers, _left_out(source, kept, numbers)))
    return page(found, runs), packed


def _packed_share(source: Source, room: int) -> float:
    """Bytes of groups as they stand in a page, by those that were guessed: of a few, and more."""
    kept = choose(source.rows, room)
    groups = source.groups(kept)
    few = list(dict.fromkeys(groups[:: max(1, len(groups) // (PROBES - 1))] + groups[-1:]))[:PROBES]
    guessed = sum(
        row.num_bytes
        for row, place in zip(source.rows, source.places, strict=True)
        if (place[0], row.group) in few
    )
    packed = sum(len(packed_chunk(chunk)) for _, chunk in source.chunks(few, 0))
    return MARGIN * packed / guessed if guessed and packed else 1.0


def page(found: Material, runs: Sequence[Run], live: bool = False) -> Page:
    """The page around its runs."""
    names = dict.fromkeys(name for run in runs for name in run.metrics)
    return Page(
        version=__version__,
        title=found.title,
        runs=tuple(runs),
        comparison=_comparison(found.comparison),
        metrics={name: MEANINGS[name] for name in names if name in MEANINGS},
        live=live,
    )


def _comparison(file: Path | None) -> dict[str, Any] | None:
    """compare.json; None where there is none yet."""
    if file is None or not file.is_file():
        return None
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"{file}: cannot read it: {error}") from None
    if not isinstance(found, dict):
        raise UserError(f"{file}: not what `paw compare` writes there")
    return found


def _left_out(source: Source, kept: Sequence[str], numbers: Mapping[Group, int]) -> str:
    there = _count(source, kept, numbers)
    if there == len(source.rows):
        return ""
    return (
        f"{there:,} of {len(source.rows):,} episodes are kept whole: the first and the last, "
        "failed ones, of each update the best, the worst and the most surprising, each with the "
        "others at its task, and what there is room for"
    )


def _count(source: Source, kept: Sequence[str], numbers: Mapping[Group, int]) -> int:
    return sum(
        1
        for row, why, place in zip(source.rows, kept, source.places, strict=True)
        if why and (place[0], row.group) in numbers
    )
