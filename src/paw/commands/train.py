"""`paw train`."""

import argparse
from typing import TYPE_CHECKING

from paw.commands.arguments import (
    Declare,
    add_dry_run,
    complain,
    layers,
    needs_dry_run,
    num_processes,
    telling,
    warn_of_layers,
)

if TYPE_CHECKING:
    from paw.config.read import Resolved
    from paw.config.tree import Config
    from paw.rollout.ranks import Ranks

HELP = "train a policy; without CONFIG the household"
EXAMPLES = """\
examples:
  paw train                                       the household, from the shipped policy
  paw train recipe.toml --run.seed 1              a recipe, one key changed
  paw train recipe.toml --run.directory runs/x    where to write; the same command again goes on

The keys that matter first (--table.key value; the environment's protocol, the card beside the
policy's weights, the files from left to right and the flags overlay each other, and what was taken
from where is told first; `paw keys` lists every key with its default and range):
  --env.name NAME  --env.data_dir DIR         what to train on
  --model.path DIR_OR_HUB_NAME                where to start from
  --run.directory DIR  --run.updates N  --run.seed N  --run.checkpoint_every N
  --rollout.groups N  --rollout.group_size N  --rollout.max_turns N  --rollout.context append
  --algorithm.name grpo|rloo|gigpo|ppo        the algorithm under PaW
  --paw.enabled false                         that algorithm alone
  --optimizer.learning_rate X  --eval.every N

Several GPUs: torchrun --nproc-per-node N -m paw train ... (docs/scaling.md).
Ctrl-C or SIGTERM finishes the update, saves and stops; the same command goes on from there.
"""

OUT_OF_MEMORY = (
    "out of memory on the device: lower rollout.conversations or optimizer.tokens_per_micro_batch, "
    'set model.gradient_checkpointing, or start more processes with parallel.mode = "shard"'
)


def add(declare: Declare) -> None:
    """Declare the command."""
    train = declare("train", run, HELP, EXAMPLES, ("--",))
    train.add_argument("configs", nargs="*", metavar="CONFIG.toml", help="overlaid left to right")
    add_dry_run(train, "say what the run would be and take, and stop")


def run(known: argparse.Namespace, keys: list[str]) -> int:
    resolved = layers(known.configs, keys)
    config = resolved.config
    if known.dry_run:
        return _show_dry_run(resolved, known.device_memory)
    needs_dry_run(known)
    from torch import OutOfMemoryError

    from paw.config.describe import origins
    from paw.runs.console import Bar, quiet
    from paw.runs.layout import newest_checkpoint, run_directory
    from paw.train.loop import train

    quiet()
    ranks = join_ranks(config)
    directory = run_directory(config)

    def stopped(why: str, status: int) -> int:
        newest = newest_checkpoint(directory / "checkpoints")
        where = "the start" if newest is None else newest.name
        return complain(f"{why}; the same command goes on from {where} in {directory}", status)

    with Bar(config.run.updates, "update") as bar:
        try:
            if not ranks.leads:
                train(config, ranks=ranks)
                ranks.close()
                return 0
            session = train(config, bar, telling(resolved, bar.say), origins(resolved), ranks)
            ranks.close()
        except KeyboardInterrupt:
            bar.close()
            return stopped("stopped", 130) if ranks.leads else 130
        except RuntimeError as error:
            bar.close()
            if isinstance(error, OutOfMemoryError):
                return stopped(OUT_OF_MEMORY, 1)
            if not ranks.is_lost(error):
                raise
            return stopped("another process of this run has gone", 1)
    run = session.run
    if session.first_update >= config.run.updates and session.held is None:
        print(
            f"already complete: {session.first_update} updates in {run.directory}; a larger "
            "run.updates goes on, another run.directory starts anew"
        )
    print(f"run         {run.directory}\nmetrics     {run.directory / 'metrics.jsonl'}")
    print(f"checkpoint  {newest_checkpoint(run.checkpoints)}  (an HF model directory)")
    return 0


def join_ranks(config: "Config") -> "Ranks":
    """The processes of this run: those that torchrun started, or this one."""
    if num_processes() > 1:
        from paw.train.parallel import join

        return join(config)
    from paw.rollout.ranks import ALONE

    return ALONE


def _show_dry_run(resolved: "Resolved", device_memory: int | None) -> int:
    """Print what a training run would be; nothing is begun."""
    from paw.commands.dry_run import dry_run, format_dry_run
    from paw.runs.console import quiet

    quiet()
    text = format_dry_run(dry_run(resolved.config, device_memory))
    warn_of_layers(resolved)
    print(text)
    return 0
