"""A policy's card, `paw.toml` beside its weights: how it is prompted, evaluated and trained.

It is a layer of the configuration below files and flags, so that `paw eval` and `paw train` on a
policy go on with its own settings. A card may hold any key. What a checkpoint's card holds:

    [env]        name, and the environment's options that are no place on one machine
    [model]      lora_rank, share_prefixes
    [rollout]    everything but who samples, how many side by side, and how many workers
    [algorithm]  everything
    [paw]        everything; the coefficient where it is not the loss's own
    [optimizer]  everything but the memory that one pass may take
    [eval]       split, episodes, max_turns, temperature: the whole protocol of evaluation
    [imitate]    learning_rate

Not the directory, seed, updates and intervals of one run, nor its device, precision and places: its
second line says in words which command, tasks, seed, update and commit the policy came from.
"""

from typing import Any

from paw import __version__
from paw.config.read import toml_line
from paw.config.tree import COEFFICIENTS, Config
from paw.config.words import keys_of
from paw.runs.facts import commit

ALONE: dict[str, tuple[str, ...]] = {
    "env": ("name",),
    "model": ("lora_rank", "share_prefixes"),
    "eval": ("split", "episodes", "max_turns", "temperature"),
    "imitate": ("learning_rate",),
}
"""Tables of which a card keeps these keys alone."""

ALL_BUT: dict[str, tuple[str, ...]] = {
    "rollout": (
        "conversations",
        "sampler",
        "vllm_memory",
        "vllm_server",
        "workers",
        "step_seconds",
    ),
    "algorithm": (),
    "paw": (),
    "optimizer": ("tokens_per_micro_batch",),
}
"""Tables of which a card keeps all but these keys."""


def card_text(config: Config, made_by: str) -> str:
    """The card of a policy trained under `config`.

    Args:
        made_by: the command and how far it came, such as "paw train, update 50".
    """
    lines = [
        "# How this policy is prompted, evaluated and trained: a layer below your files and flags.",
        f"# {_origin(config, made_by)}",
    ]
    rest = {t: tuple(k for k in keys_of(t) if k not in left) for t, left in ALL_BUT.items()}
    for table, keys in (ALONE | rest).items():
        values = {key: getattr(getattr(config, table), key) for key in keys}
        if table == "env":
            values |= {k: v for k, v in config.env.options.items() if not _is_place(v)}
        if table == "paw" and values["coefficient"] == COEFFICIENTS[config.paw.loss]:
            del values["coefficient"]  # another loss shall have its own
        lines.append(f"[{table}]")
        lines += [toml_line(key, value) for key, value in values.items() if value is not None]
    return "\n".join(lines) + "\n"


def _origin(config: Config, made_by: str) -> str:
    """Where the policy and these settings come from; no directory, so that equal runs have equal
    checkpoints."""
    found = commit()
    build = f"paw-rl {__version__}" + (f", commit {found}" if found else "")
    tasks = f"{config.env.name} {config.env.split}"
    return f"From {made_by}, on {tasks}, seed {config.run.seed} ({build})"


def _is_place(value: Any) -> bool:
    """A path or an address: true of one machine only."""
    return isinstance(value, str) and ("/" in value or "\\" in value)
