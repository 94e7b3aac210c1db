"""What stands above the bar and in every log: what runs, and the first prompt and response."""

import textwrap
from collections.abc import Sequence

import torch

from paw import __version__
from paw.config.tree import Config, ModelConfig, PawConfig
from paw.model.policy import Policy
from paw.runs.facts import commit
from paw.runs.layout import ARM_KEYS, adapter_base
from paw.visible import in_ascii

EXCHANGE_LINES = 20
"""Lines of the first prompt; of a longer one the middle is left out."""
WIDTH = 79


def training_header(
    config: Config, policy: Policy, directory: str, done: int, origins: Sequence[str] = ()
) -> str:
    """The header of `paw train`: machine, model, method, budget, directory.

    Args:
        done: updates already made.
        origins: what was taken from the card, the files and the flags; a line each.
    """
    rollout, run = config.rollout, config.run
    budget = (
        f"{run.updates:,} updates of {rollout.groups} groups x {rollout.group_size} episodes of at "
        f"most {rollout.max_turns} turns, {rollout.context}"
    )
    rows = [
        ("model", _model(model_name(config.model), policy)),
        ("tasks", f"{config.env.name} {config.env.split}, seed {run.seed}"),
        ("method", method(config)),
        ("budget", budget + (f"; {done:,} done" if done else "")),
        ("directory", directory),
    ]
    return _header(policy, rows, origins)


def imitation_header(
    config: Config,
    policy: Policy,
    num_demonstrations: int,
    done: int = 0,
    origins: Sequence[str] = (),
) -> str:
    """The header of `paw imitate`; `done`: steps already made."""
    settings = config.imitate
    source = f"of {settings.trajectories}" if settings.trajectories else "of the expert"
    path = "a new one" if settings.from_scratch else model_name(config.model)
    rows = [
        ("model", _model(path, policy)),
        ("tasks", f"{config.env.name} {config.env.split}, seed {config.run.seed}"),
        (
            "method",
            f"behaviour cloning, rate {settings.learning_rate:g}, observations x "
            f"{settings.observation_weight:g}",
        ),
        (
            "budget",
            f"{settings.steps:,} steps of {settings.batch_episodes} episodes; "
            f"{num_demonstrations:,} demonstrations {source}"
            + (f"; {done:,} done" if done else ""),
        ),
        ("directory", settings.output),
    ]
    return _header(policy, rows, origins)


def model_name(model: ModelConfig) -> str:
    """Where the weights come from, adapter included."""
    if not model.adapter:
        return model.path
    base = adapter_base(model.adapter)
    made_for = f" (made for {base})" if base else ""
    return f"{model.path} + adapter {model.adapter}{made_for}, merged"


def method(config: Config) -> str:
    """The algorithm and the numbers of PaW on it; controls and extensions by their keys."""
    paw, usual, epochs = config.paw, PawConfig(), config.optimizer.epochs
    name = config.algorithm.name + (f", {epochs} epochs" if epochs > 1 else "")
    if not paw.enabled or paw.coefficient == 0:
        return name
    shown = [
        f"{paw.loss}, rho {paw.probability_cap:g}, alpha {paw.selection_fraction:g}, "
        f"{paw.weight} lambda x {paw.coefficient:g}"
    ]
    for key in ARM_KEYS:
        value = getattr(paw, key)
        if key not in ("loss", "weight") and value != getattr(usual, key):
            shown.append(f"{key} {str(value).lower()}")
    return f"{name} + PaW ({', '.join(shown)})"


def first_exchange(prompt: str, response: str) -> str:
    """The first prompt as the policy reads it and its response, control tokens and all."""
    lines = ["first prompt:", *_shortened(prompt), "first response:", *_shortened(response)]
    return "\n".join(lines)


def _header(policy: Policy, rows: list[tuple[str, str]], origins: Sequence[str]) -> str:
    found = commit()
    build = f" (commit {found[:7]}{'+' if found.endswith('+') else ''})" if found else ""
    device = str(policy.device)
    if policy.device.type == "cuda":
        device += f" ({torch.cuda.get_device_name(policy.device)})"
    threads = f"threads: {torch.get_num_threads()}"
    first = ("paw", f"{__version__}{build}, torch {torch.__version__}, {device}, {threads}")
    rows = [first, *rows, *(("settings" if i == 0 else "", o) for i, o in enumerate(origins))]
    lines = [f"{name:11}{text}".replace("\n", "\n" + " " * 11) for name, text in rows]
    return "\n".join(line.rstrip() for line in lines)


def _model(path: str, policy: Policy) -> str:
    total = sum(p.numel() for p in policy.model.parameters())
    trained = sum(p.numel() for p in policy.parameters())
    part = "" if trained == total else f", {trained / 1e6:,.2f} M trained"
    return f"{path}, {total / 1e6:,.2f} M parameters{part}"


def _shortened(text: str) -> list[str]:
    """Lines of at most `WIDTH`, indented; the middle of many is left out."""
    shown = in_ascii(text).splitlines()
    lines = ["  " + part for line in shown for part in textwrap.wrap(line, WIDTH - 2) or [""]]
    if len(lines) > EXCHANGE_LINES:
        half = (EXCHANGE_LINES - 1) // 2
        left = len(lines) - 2 * half
        lines = [*lines[:half], f"  ... {left} lines left out ...", *lines[-half:]]
    return [line.rstrip() for line in lines]
