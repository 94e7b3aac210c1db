"""What the commands share: option types, layers of the configuration, how a command is declared."""

import argparse
import os
import re
import sys
import textwrap
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from paw.errors import UserError, warn
from paw.visible import visible

if TYPE_CHECKING:
    from paw.config.read import Layer, Resolved
    from paw.config.tree import Config
    from paw.runs.console import Say

Declare = Callable[..., argparse.ArgumentParser]
"""(name, run, help, epilog, keys) -> the parser of that command; `keys`: which `--table.key` flags
it takes."""


def whole(low: int, high: int) -> Callable[[str], int]:
    """The type of a command's option that is a whole number from `low` to `high`."""

    def convert(text: str) -> int:
        if not (text.isascii() and text.isdigit()) or not low <= int(text) <= high:
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a whole number from {low:,} to {high:,}"
            )
        return int(text)

    return convert


SEED = whole(0, 2**31 - 1)
EPISODES = whole(1, 10_000_000)


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of an epilog; too long a one is wrapped, but for commands to be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = []
        for line in text.splitlines():
            keep = len(line) <= width or line.startswith(("  paw ", "    "))
            deeper = "    " if line.startswith(" ") else ""
            lines += [line] if keep else textwrap.wrap(line, width, subsequent_indent=deeper)
        return "\n".join(lines)


class Parser(argparse.ArgumentParser):
    """One line for a mistake, without the usage text above it."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")


def split_keys(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """`--table.key value` and `--table.key=value` apart from everything else.

    argparse would take the value of an option that it does not know for a positional argument.
    """
    words, keys, queue = [], [], list(arguments)
    while queue:
        word = queue.pop(0)
        name, equals, _ = word.partition("=")
        if not name.startswith("--") or "." not in name:
            words.append(word)
            continue
        keys.append(word)
        if not equals and queue and not queue[0].startswith("--"):
            keys.append(queue.pop(0))
    return words, keys


FOLLOW_SECONDS = 5.0
"""In which torchrun notices that another process has failed."""


def num_processes() -> int:
    """Of this run, as torchrun says; 1 where this one was started alone."""
    started = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} <= os.environ.keys()
    return int(os.environ["WORLD_SIZE"]) if started else 1


def complain(what: object, status: int) -> int:
    """One line on stderr; returns the exit status. Of several processes rank 0 says it; another
    waits for torchrun to end it, as it does when one has failed, and speaks if it alone has."""
    words = ["paw:", visible(" ".join(str(what).split()))]
    if num_processes() > 1 and os.environ["RANK"] != "0":
        time.sleep(FOLLOW_SECONDS)
        words.insert(1, f"rank {os.environ['RANK']}:")
    print(*words, file=sys.stderr)
    return status


def layers(
    files: Sequence[str],
    flags: Sequence[str],
    counts: Callable[[str], bool] = lambda key: True,
    on_top: "Layer | None" = None,
) -> "Resolved":
    """The configuration and where each value came from: protocol of the environment, preset, card
    of the policy, files, flags. Mistakes show before torch loads.

    `counts`: which `table.key` of the files means something to the command; `on_top` wins over all.
    """
    from paw import envs
    from paw.config.read import check_options, overlay
    from paw.runs.layout import check_adapter, read_card

    model = overlay(files, flags, counts=counts, on_top=on_top).config.model
    card = read_card(model.path)
    check_adapter(model.adapter)
    resolved = overlay(files, flags, card, protocol_of, counts, on_top)
    check_options(envs.factory(resolved.config.env.name), resolved.config)
    return resolved


def configuration(files: Sequence[str], flags: Sequence[str]) -> "Config":
    """The configuration of `layers`."""
    return layers(files, flags).config


def warn_of_layers(resolved: "Resolved") -> None:
    """Say what was given and changes nothing, and what may be meant otherwise."""
    from paw.config.read import ignored

    for line in [*ignored(resolved), *_doubts(resolved)]:
        warn(line)


def telling(resolved: "Resolved", say: "Say") -> "Say":
    """`say`, and the warnings behind its first text, the header: bad input, which ends a command
    before that, stays one line."""
    told = False

    def call(text: str) -> None:
        nonlocal told
        say(text)
        if not told:
            told = True
            warn_of_layers(resolved)

    return call


def protocol_of(name: str) -> Mapping[str, Mapping[str, Any]]:
    """How the benchmark of an environment is played: turns, lengths, temperature of evaluation."""
    from paw import envs

    return envs.style(name).protocol


def _doubts(resolved: "Resolved") -> list[str]:
    """Is the policy one for this environment, and does anybody say how to prompt it?"""
    config, card = resolved.config, resolved.card
    if config.imitate.from_scratch:
        return []
    rollout, where = config.rollout, f"model.path = {config.model.path!r}"
    prompting = (
        f'rollout.context = "{rollout.context}", response_format = "{rollout.response_format}", '
        f"max_turns = {rollout.max_turns}"
    )
    made_for = card.get("env", {}).get("name")
    if made_for not in (None, config.env.name):
        return [
            f"{where}: by its card a policy for {made_for}, not for {config.env.name}; it is asked "
            f"with {prompting}"
        ]
    if not card and not resolved.given("rollout.context", "rollout.response_format"):
        return [
            f"{where} has no card (paw.toml) that says how to ask it; {config.env.name} is played "
            f"with {prompting}"
        ]
    return []


def task_source(known: argparse.Namespace, keys: list[str]) -> Any:
    """The tasks that training would open: the same options, the same call of the factory."""
    from paw import envs
    from paw.config.read import check_options, environment_options, resolve

    take_split(known, keys)
    flags = [*keys, "--env.name", known.env]
    for key, value in (("env.split", known.split), ("env.data_dir", known.data_dir)):
        flags += [] if value is None else [f"--{key}", value]
    config = resolve([], flags)
    check_options(envs.factory(config.env.name), config)
    return envs.make(config.env.name, config.env.split, **environment_options(config))


def take_split(known: argparse.Namespace, keys: list[str]) -> None:
    """`--env.split` means what `--split` does."""
    for at, word in enumerate(keys):
        name, equals, value = word.partition("=")
        if name == "--env.split" and (equals or keys[at + 1 :]):
            value = value if equals else keys[at + 1]
            if known.split not in (None, value):
                raise UserError(f"{known.command}: --split {known.split} or --env.split {value}?")
            known.split = value


def num_bytes(text: str) -> int:
    """The type of an option that is a size: `80GB`, `24GiB`, `1.5TB`."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([MGT])(i?)B?", text.strip(), re.IGNORECASE)
    if match is None:
        raise argparse.ArgumentTypeError(f"{text!r} is not a size such as 80GB or 24GiB")
    number, unit, binary = match.groups()
    return int(float(number) * (1024 if binary else 1000) ** (2 + "MGT".index(unit.upper())))


def add_dry_run(parser: argparse.ArgumentParser, text: str) -> None:
    """The options of a dry run."""
    parser.add_argument("--dry-run", action="store_true", help=text)
    parser.add_argument(
        "--device-memory", type=num_bytes, metavar="SIZE",
        help="with --dry-run: of a device that is not in this machine, such as 80GB",
    )  # fmt: skip


def needs_dry_run(known: argparse.Namespace) -> None:
    """Raises UserError for an option that means nothing without `--dry-run`."""
    if known.device_memory is not None:
        raise UserError(f"{known.command}: --device-memory goes with --dry-run")


def take_protocol(known: argparse.Namespace, resolved: "Resolved") -> None:
    """Split and episodes of the files or the card where no option says otherwise, so that the
    scores of a run before, during and after training may be compared. A number of episodes goes
    with its split: another one is played whole."""
    from paw import envs

    config, origin = resolved.config, resolved.origin.get("eval.episodes")
    usual = envs.style(config.env.name).validation_split or config.env.split
    split, known.split = config.eval.split, known.split or config.eval.split
    if origin is not None and not origin.by_hand:
        split = origin.table["eval"].get("split")
    if origin is not None and (known.split or usual) == (split or usual):
        known.episodes = known.episodes or config.eval.episodes


def say_settings(
    known: argparse.Namespace, resolved: "Resolved", counts: Callable[[str], bool]
) -> None:
    """What was taken from where, if files were given."""
    from dataclasses import replace

    from paw.config.describe import origins
    from paw.config.read import only

    if not known.configs:
        return
    layers = (replace(layer, table=only(counts, layer.table)) for layer in resolved.layers)
    for number, line in enumerate(origins(replace(resolved, layers=tuple(layers)))):
        shown = line.replace("\n", "\n" + " " * 11)
        print(f"{'' if number else 'settings':11}{shown}", file=sys.stderr)
