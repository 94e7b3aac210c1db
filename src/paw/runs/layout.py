"""Where runs, checkpoints and policies lie. No torch, so that a wrong path shows at once."""

import hashlib
import json
import os
import re
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from paw.config.parse import Table, read_toml
from paw.config.read import CHANGEABLE
from paw.config.tree import Config
from paw.errors import UserError, nearest

SHIPPED = Path(__file__).parents[1] / "policies"
"""Policies in the package, by name."""

CARD = "paw.toml"
HELD = "unreported.json"
"""Of a run: metrics of the update that is being evaluated"""

TOKENIZERS = ("tokenizer.json", "tokenizer.model", "spiece.model", "vocab.json", "vocab.txt")
"""Files of which a tokenizer has at least one."""

GGUF = ".gguf"
GGUF_PACKAGES = ("gguf", "accelerate")
"""What transformers needs to read such a file."""
UNPACKED_FROM = "gguf.json"
"""In a directory that was made of a GGUF file: which one."""
ADAPTER_CONFIG = "adapter_config.json"

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
    """Where `paw train` writes. More updates may follow where no weight hangs on their number."""
    directory = run_directory(config)
    where = f"run.directory = {str(directory)!r}"
    changeable = CHANGEABLE
    if config.paw.enabled and config.paw.weight == "decay":
        changeable -= {"run.updates"}
    return Place(directory, "run.directory", where, "config.toml", changeable)


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
    if config.optimizer.epochs > 1:
        parts.append(f"epochs_{config.optimizer.epochs}")
    return Path("runs") / "-".join([*parts, f"seed{config.run.seed}"])


ARM_KEYS = (
    "loss",
    "select",
    "entropy",
    "weight",
    "target",
    "random_sign",
    "normalise",
    "dedup",
    "horizon",
    "condition",
    "schedule",
)
"""Of `[paw]`: what a run's directory is named by."""


def _arm(config: Config) -> list[str]:
    """`paw`, and which of its choices are not the paper's: controls have names of their own."""
    paw, usual = config.paw, Config().paw
    if not paw.enabled or paw.coefficient == 0:
        return []
    names = ["paw"]
    for key in ARM_KEYS:
        value = getattr(paw, key)
        if value is True:
            names.append(key)
        elif value != getattr(usual, key):
            # `random` alone would be a target as well as a selection.
            alone = key not in ("select", "entropy", "normalise", "horizon")
            names.append(value if alone else f"{key}_{value}")
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
    """A shipped policy's name, a run directory (its newest checkpoint), a model directory, a GGUF
    file (the directory that was made of it, if it was), or what may be a hub name, OWNER/NAME.

    Raises:
        UserError: no such directory, a directory without a model or tokenizer or with an adapter, a
            run without a checkpoint, a file that is no GGUF file.
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
        _check_adapter_free(place, path)
        if not (place / "config.json").is_file():
            files = sorted(place.glob(f"*{GGUF}"))
            hint = f"; give its file {str(files[0])!r}" if files else ""
            raise UserError(
                f"{where}: a directory without a model (no config.json) or checkpoints{hint}"
            )
        _check_tokenizer(place, where)
        return str(place)
    if is_gguf(place) and (place.exists() or place.is_absolute() or place.parent.is_dir()):
        _check_gguf(place, where)
        return str(unpacked(place) or place)
    if place.exists():
        raise UserError(
            f"{where}: a file; give the directory that holds config.json and weights, or a "
            f"{GGUF} file"
        )
    if not _HUB_NAME.fullmatch(path) or Path(path.partition("/")[0]).is_dir():
        hint = nearest(path, shipped_policies())
        if "did you mean" not in hint:
            hint = (
                "" if place.is_absolute() else f" in {Path.cwd()}; models of the hub are OWNER/NAME"
            )
        raise UserError(f"{where}: no such directory{hint}")
    return path


def is_gguf(path: str | Path) -> bool:
    """Is this the name of a GGUF file?"""
    return Path(path).suffix.lower() == GGUF


def unpacked_places(file: Path) -> tuple[Path, Path]:
    """Where the directory made of a GGUF file may lie: beside it, or in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()
    digest = hashlib.sha256(os.fsencode(file.absolute())).hexdigest()[:12]
    return file.with_suffix(".hf"), cache / "paw" / f"{file.stem}-{digest}.hf"


def gguf_identity(file: Path) -> dict[str, Any]:
    """What tells a GGUF file from one that took its place."""
    found = file.stat()
    return {"file": file.name, "size": found.st_size, "mtime_ns": found.st_mtime_ns}


def unpacked(file: Path) -> Path | None:
    """The directory that was made of a GGUF file as it is now, if there is one."""
    wanted = gguf_identity(file)
    for place in unpacked_places(file):
        try:
            if json.loads((place / UNPACKED_FROM).read_text(encoding="utf-8")) == wanted:
                return place
        except (OSError, ValueError):
            continue
    return None


def _check_gguf(file: Path, where: str) -> None:
    """Is it one, and can it be read here?"""
    if not file.is_file():
        raise UserError(f"{where}: no such file")
    try:
        with open(file, "rb") as stream:
            magic = stream.read(4)
    except OSError as error:
        raise UserError(f"{where}: cannot read it: {error.strerror}") from None
    if magic != b"GGUF":
        raise UserError(f"{where}: not a GGUF file, whatever its name says")
    missing = [name for name in GGUF_PACKAGES if find_spec(name) is None]
    if missing and unpacked(file) is None:
        raise UserError(
            f"{where}: to read it, {' and '.join(missing)} must be installed: "
            "pip install 'paw-rl[gguf]'"
        )


def _check_adapter_free(place: Path, path: str) -> None:
    """transformers would load an adapter that lies beside weights, or the model that it names."""
    if not (place / ADAPTER_CONFIG).is_file():
        return
    base = _adapter_config(place, f"model.path = {path!r}").get("base_model_name_or_path")
    if _has_weights(place):
        raise UserError(
            f"model.path = {path!r}: weights and an adapter ({ADAPTER_CONFIG}) in one directory: "
            f"move {ADAPTER_CONFIG} and adapter_model.* into a directory of their own, and give it "
            f"as --model.adapter if the weights lack it"
        )
    base = base or "BASE"
    raise UserError(
        f"model.path = {path!r}: an adapter of {base!r} and no model: "
        f"--model.path {base} --model.adapter {path}"
    )


def _has_weights(place: Path) -> bool:
    """Of a model, beside those of an adapter."""
    files = (file for kind in ("*.safetensors", "*.bin") for file in place.glob(kind))
    others = ("adapter_model", "training_args", "optimizer", "scheduler")
    return any(not file.name.startswith(others) for file in files)


def check_adapter(path: str) -> None:
    """`model.adapter` is a directory with a peft adapter, or none is wanted.

    Raises:
        UserError: it is not.
    """
    if not path:
        return
    place, where = Path(path), f"model.adapter = {path!r}"
    if not place.is_dir():
        raise UserError(f"{where}: no such directory")
    if not (place / ADAPTER_CONFIG).is_file():
        hint = "; a model is model.path" if (place / "config.json").is_file() else ""
        raise UserError(f"{where}: no adapter there (no {ADAPTER_CONFIG}){hint}")
    _adapter_config(place, where)
    if not any((place / f"adapter_model.{kind}").is_file() for kind in ("safetensors", "bin")):
        raise UserError(f"{where}: no weights there (no adapter_model.safetensors)")
    if find_spec("peft") is None:
        raise UserError(f"{where} needs peft: pip install 'paw-rl[lora]'")


def adapter_base(path: str) -> str:
    """The model that an adapter was trained on, by its own word; "" where it has none."""
    return str(_adapter_config(Path(path), path).get("base_model_name_or_path") or "")


def _adapter_config(place: Path, where: str) -> dict[str, Any]:
    try:
        found = json.loads((place / ADAPTER_CONFIG).read_text(encoding="utf-8"))
        if not isinstance(found, dict):
            raise ValueError("not a JSON object")
    except (OSError, ValueError) as error:
        raise UserError(f"{where}: cannot read {ADAPTER_CONFIG}: {error}") from None
    return found


def tokenizer_place(adapter: str, path: str) -> str:
    """Where the tokenizer of the model at `path` lies: with its adapter, where that brings one."""
    return adapter if adapter and _has_tokenizer(Path(adapter)) else path


def _has_tokenizer(place: Path) -> bool:
    return any((place / name).is_file() for name in TOKENIZERS)


def _check_tokenizer(place: Path, where: str) -> None:
    if not _has_tokenizer(place):
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
