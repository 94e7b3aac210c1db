"""`paw imitate`."""

import argparse
from typing import TYPE_CHECKING

from paw.commands.arguments import (
    Declare,
    add_dry_run,
    complain,
    layers,
    needs_dry_run,
    telling,
    warn_of_layers,
)

if TYPE_CHECKING:
    from paw.config.read import Resolved

HELP = "warm-start a policy by imitating an expert"
EXAMPLES = """\
examples:
  paw imitate --imitate.from_scratch true --imitate.output my_policy
  paw imitate --imitate.trajectories runs/x/trajectories/update-000080.jsonl.zst --imitate.output p
  paw imitate recipe.toml --dry-run                        what it would be and take, from a sample

Ctrl-C or SIGTERM finishes the step, saves and stops; the same command goes on from there, and
after a crash from the newest checkpoint (imitate.checkpoint_every) in <imitate.output>.partial.
`paw keys imitate` lists the keys of [imitate]; [env], [model], [rollout] and [eval] hold as well.
"""


def add(declare: Declare) -> None:
    """Declare the command."""
    imitate = declare("imitate", run, HELP, EXAMPLES, ("--",))
    imitate.add_argument("configs", nargs="*", metavar="CONFIG.toml", help="overlaid left to right")
    add_dry_run(imitate, "try a few demonstrations, say what it takes, stop")


def run(known: argparse.Namespace, keys: list[str]) -> int:
    resolved = layers(known.configs, keys)
    config = resolved.config
    if known.dry_run:
        return _show_dry_run(resolved, known.device_memory)
    needs_dry_run(known)
    from paw.config.describe import origins
    from paw.imitate.loop import imitate
    from paw.imitate.output import finished, stopped
    from paw.runs.console import Bar, quiet

    quiet()
    complete = finished(config)
    with Bar(config.imitate.steps, "step") as bar:
        try:
            report = imitate(config, bar, telling(resolved, bar.say), origins(resolved))
        except KeyboardInterrupt:
            bar.close()
            return complain(stopped(config), 130)
    if complete:
        print(
            f"already complete: {report['steps']} steps in {config.imitate.output}; another "
            "imitate.output starts anew, model.path there goes on from its weights"
        )
    for row in report["evaluations"]:
        low, high = row["interval"]
        print(
            f"step {row['step']}: success {row['success_rate']:.1%} of {row['num_episodes']} "
            f"{row['split']} episodes [{low:.1%}, {high:.1%}]"
        )
    print(f"policy  {config.imitate.output}  ({report['parameters'] / 1e6:.2f} M parameters)")
    return 0


def _show_dry_run(resolved: "Resolved", device_memory: int | None) -> int:
    """Print what imitation would be; nothing is begun."""
    from paw.commands.imitate_dry_run import dry_imitate
    from paw.runs.console import quiet

    quiet()
    text = dry_imitate(resolved.config, device_memory)
    warn_of_layers(resolved)
    print(text)
    return 0
