"""What `paw COMMAND --help` says below the options."""

import argparse
import textwrap

TRAIN_HELP = """\
examples:
  paw train                                       the household, from the shipped policy
  paw train recipe.toml --run.seed 1              a recipe, one key changed
  paw train recipe.toml --run.directory runs/x    where to write; the same command again goes on

The keys that matter first (--table.key value; a card beside the policy's weights, the files from
left to right and the flags overlay each other; `paw keys` lists every key with its default):
  --env.name NAME  --env.data_dir DIR         what to train on
  --model.path DIR_OR_HUB_NAME                where to start from
  --run.directory DIR  --run.updates N  --run.seed N  --run.checkpoint_every N
  --rollout.groups N  --rollout.group_size N  --rollout.max_turns N  --rollout.context append
  --algorithm.name grpo|rloo|gigpo|ppo        the algorithm under PaW
  --paw.enabled false                         that algorithm alone
  --optimizer.learning_rate X  --eval.every N

Ctrl-C or SIGTERM finishes the update, saves and stops; the same command goes on from there.
"""

IMITATE_HELP = """\
examples:
  paw imitate --imitate.from_scratch true --imitate.output my_policy
  paw imitate --imitate.trajectories runs/x/trajectories/update-000080.jsonl.zst --imitate.output p
  paw imitate recipe.toml --dry-run                        what it would be and take, from a sample

`paw keys imitate` lists the keys of [imitate]; [env], [model], [rollout] and [eval] hold as well.
"""

EVAL_HELP = """\
examples:
  paw eval runs/household-grpo-paw-seed0                   the newest checkpoint of a run
  paw eval my_policy --split test --episodes 200 -o result.json
  paw eval my_policy --env search_qa --split all           all evaluation sets in one
  paw eval --env alfworld --split valid_unseen --agent react -o result.json \\
           --api-base https://api.openai.com/v1 --api-model NAME    (key: $OPENAI_API_KEY)

Any --table.key value of [env], [model] and [rollout], --eval.max_turns and --eval.temperature may
follow; `paw keys` lists them.
"""

OWN_HELP = "Any --env.option value of the environment may follow."


class Formatter(argparse.RawDescriptionHelpFormatter):
    """Keeps the lines of an epilog; too long a one is wrapped, but for commands to be copied."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        lines = []
        for line in text.splitlines():
            keep = len(line) <= width or line.startswith(("  paw ", "    "))
            deeper = "    " if line.startswith(" ") else ""
            lines += [line] if keep else textwrap.wrap(line, width, subsequent_indent=deeper)
        return "\n".join(lines)
