"""Where runs, checkpoints and policies lie. No torch, so that a wrong path shows at once."""

import json
import re
from dataclasses import dataclass
from pathlib import Path

from paw.config.parse import Table, read_toml
from paw.config.read import CHANGEABLE
from paw.config.tree import Config
from paw.errors import UserError, nearest

SHIPPED = Path(__file__).parents[1] / "policies"
"""Policies in the package, by name."""

CARD = "paw.toml"

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
"""Files of which a tokenizer has at least one."""

_HUB_NAME = re.compile(r"[\w-][\w.-]*/[\w.-]+")


@dataclass(frozen=True)
class Place:
    """A run directory, and what a user has to do with it."""

    directory: Path
    key: str
    """Which key of the configuration names it"""
    where: str
    """What stands before a message about it"""
    settings: str
    """Name of the file in it that holds the resolved configuration"""
    changeable: frozenset[str]
    """Keys that a run which goes on there may change"""


def training_place(config: Config) -> Place:
    """Where `paw train` writes."""
    directory = run_directory(config)
    where = f"run.directory = {str(directory)!r}"
    return Place(directory, "run.directory", where, "config.toml", CHANGEABLE)


def name_of(update: int) -> str:
    """`update-000012`."""
    return f"update-{update:06d}"


def run_directory(config: Config) -> Path:
    """`run.directory`, or `runs/<env>-<algorithm>[-paw][-<what differs>]-seed<seed>`."""
    if config.run.directory:
        return Path(config.run.directory)
    env = config.env.name.replace(":", ".").replace("/", ".")
    parts = [env, config.algorithm.name, *_arm(config)]
    if config.rollout.context != _usual_context(config):
        parts.append(config.rollout.context)
    return Path("runs") / "-".join([*parts, f"seed{config.run.seed}"])


def _arm(config: Config) -> list[str]:
    """`paw`, and which of its choices are not the paper's: controls have names of their own."""
    paw, usual = config.paw, Config().paw
    if not paw.enabled or paw.coefficient == 0:
        return []
    names = ["paw"]
    for key in ("loss", "select", "entropy", "weight", "target", "condition", "schedule"):
        value = getattr(paw, key)
        if value != getattr(usual, key):
            # `random` alone would be a target as well as a selection.
            names.append(f"{key}_{value}" if key in ("select", "entropy") else value)
    return names


def _usual_context(config: Config) -> str:
    """What `rollout.context` is where nobody chooses: as the policy's card says, if it has one."""
    try:
        card = read_card(config.model.path)
    except UserError:  # no such model: that is said elsewhere
        card = {}
    return card.get("rollout", {}).get("context", Config().rollout.context)


def complete(folder: Path) -> list[Path]:
    """Complete checkpoints of a run's `checkpoints` folder, oldest first."""
    return sorted(p for p in folder.glob("update-??????") if (p / "trainer.pt").is_file())


def newest_checkpoint(folder: Path) -> Path | None:
    """The newest complete checkpoint, if any."""
    return (complete(folder) or [None])[-1]


def update_of(checkpoint: Path) -> int:
    """Updates made by the time of a checkpoint."""
    return int(checkpoint.name.rpartition("-")[2])


def checkpoint_of(run: str, update: int) -> Path:
    """The checkpoint that a run made after `update` updates.

    Raises:
        UserError: it has none, or is no run.
    """
    folder = Path(run).expanduser() / "checkpoints"
    if not folder.is_dir():
        raise UserError(f"{run}: no run directory (no checkpoints there)")
    there = {update_of(path): path for path in complete(folder)}
    if update not in there:
        known = ", ".join(map(str, there)) or "none"
        raise UserError(f"{run}: no checkpoint of update {update}; there: {known}")
    return there[update]


def shipped_policies() -> list[str]:
    """Names of the policies in the package."""
    return sorted(p.parent.name for p in SHIPPED.glob(f"*/{CARD}"))


def resolve_model(path: str) -> str:
    """A shipped policy's name, a run directory (its newest checkpoint), a model directory, or what
    may be a hub name, OWNER/NAME.

    Raises:
        UserError: no such directory, a directory without a model or tokenizer, a run without a
            checkpoint.
    """
    if path in shipped_policies():
        return str(SHIPPED / path)
    place = Path(path).expanduser()
    where = f"model.path = {path!r}"
    if (place / "checkpoints").is_dir():
        newest = newest_checkpoint(place / "checkpoints")
        if newest is None:
            raise UserError(f"{where}: the run has no complete checkpoint yet")
        return str(newest)
    if place.is_dir():
        if not (place / "config.json").is_file():
            raise UserError(f"{where}: a directory without a model (no config.json) or checkpoints")
        _check_tokenizer(place, where)
        return str(place)
    if place.exists():
        raise UserError(f"{where}: a file; give the directory that holds config.json and weights")
    if not _HUB_NAME.fullmatch(path) or Path(path.partition("/")[0]).is_dir():
        hint = nearest(path, shipped_policies())
        if "did you mean" not in hint:
            hint = (
                "" if place.is_absolute() else f" in {Path.cwd()}; models of the hub are OWNER/NAME"
            )
        raise UserError(f"{where}: no such directory{hint}")
    return path


def _check_tokenizer(place: Path, where: str) -> None:
    if not any((place / name).is_file() for name in TOKENIZERS):
        raise UserError(f"{where}: no tokenizer there (no {TOKENIZERS[0]})")
    settings = place / "tokenizer_config.json"
    try:
        found = json.loads(settings.read_text(encoding="utf-8") if settings.is_file() else "{}")
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: cannot read tokenizer_config.json: {error}") from None


def read_card(path: str) -> Table:
    """The policy's own layer of the configuration; empty for a model that has none."""
    card = Path(resolve_model(path)) / CARD
    return read_toml(card) if card.is_file() else {}
