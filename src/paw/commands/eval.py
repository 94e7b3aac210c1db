"""`paw eval`: of a run, a model directory, or a model behind an endpoint."""

import argparse

from paw.commands import eval_endpoint
from paw.commands.arguments import (
    EPISODES,
    SEED,
    Declare,
    complain,
    layers,
    say_settings,
    take_protocol,
    take_split,
    warn_of_layers,
)
from paw.commands.shown import print_evaluation
from paw.errors import UserError

KEYS = ("env.", "model.", "rollout.", "eval.max", "eval.temperature", "run.threads")
"""Keys that mean something to `paw eval` as flags; others are refused."""
FILE_KEYS = (*KEYS, "eval.split", "eval.episodes")
"""And in a file, which may be a recipe of training; others are left to training."""
HELP = "success of a run or model on a split"
EXAMPLES = """\
examples:
  paw eval runs/household-grpo-paw-seed0                   the newest checkpoint of a run
  paw eval runs/x --checkpoint 40 --save-trajectories episodes.jsonl.zst
  paw eval my_policy --split test --episodes 200 -o result.json
  paw eval my_policy --env search_qa --split all           all evaluation sets in one
  paw eval my_policy recipe.toml --episodes 12             as the recipe of a training evaluates
  paw eval --env alfworld --split valid_unseen --agent react -o result.json \\
           --api-base https://api.openai.com/v1 --api-model NAME    (key: $OPENAI_API_KEY)

Any --table.key value of [env], [model] and [rollout], --eval.max_turns and --eval.temperature may
follow; `paw keys` lists them. Of recipes the same tables count, with eval.split and eval.episodes;
what else stands in them is training's.
"""


def add(declare: Declare) -> None:
    """Declare the command."""
    evaluate = declare("eval", run, HELP, EXAMPLES, ("--",))
    evaluate.add_argument("model", metavar="RUN_OR_MODEL", nargs="?")
    evaluate.add_argument(
        "configs", metavar="RECIPE.toml", nargs="*",
        help="overlaid left to right on the policy's card",
    )  # fmt: skip
    evaluate.add_argument(
        "--checkpoint", type=EPISODES, metavar="N", help="of a run's update N; default: the newest"
    )
    evaluate.add_argument("--env", help="environment; default: the one of the policy's card")
    evaluate.add_argument("--split", help="default: as the card says, or the validation split")
    evaluate.add_argument(
        "--episodes",
        type=EPISODES,
        help="default: the card's or recipe's on its split, or every task once; fewer are spread "
        "over the kinds of task",
    )
    evaluate.add_argument("--seed", type=SEED, default=0)
    evaluate.add_argument("--temperature", type=float, help="default: eval.temperature")
    evaluate.add_argument("--data-dir")
    evaluate.add_argument("-o", "--output", help="write the whole result as JSON")
    evaluate.add_argument(
        "--save-trajectories", metavar="FILE.jsonl.zst",
        help="write every episode, as a run's trajectory files do",
    )  # fmt: skip
    eval_endpoint.add_options(evaluate)


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.runs.layout import checkpoint_of

    take_split(known, keys)
    if eval_endpoint.wanted(known):
        return _eval_endpoint(known, keys)
    model = known.model
    if known.checkpoint is not None:
        model = str(checkpoint_of(model, known.checkpoint))
    if known.save_trajectories and not known.save_trajectories.endswith(".jsonl.zst"):
        raise UserError("eval: --save-trajectories FILE.jsonl.zst: the name must end so")
    flags = [*keys, "--model.path", model]
    for key, value in (
        ("env.name", known.env),
        ("env.data_dir", known.data_dir),
        ("eval.temperature", known.temperature),
    ):
        flags += [] if value is None else [f"--{key}", str(value)]
    resolved = layers(known.configs, flags, _counts)
    take_protocol(known, resolved)
    for key in keys:
        if key.startswith("--") and not key[2:].startswith(KEYS):
            raise UserError(
                f"eval: {key.partition('=')[0]} changes nothing here; what counts: --episodes, "
                "--split, --seed, env.*, model.*, rollout.*, eval.max_turns, eval.temperature, "
                "run.threads"
            )
    from paw.evals.evaluation import evaluate_model, write_result
    from paw.evals.own import print_change
    from paw.runs.console import quiet

    quiet()
    say_settings(known, resolved, _counts)
    result = evaluate_model(
        resolved.config,
        known.split,
        known.episodes,
        known.seed,
        known.output,
        save_trajectories=known.save_trajectories,
    )
    warn_of_layers(resolved)
    print_evaluation(result)
    print_change(result)
    write_result(result, known.output)
    return 0 if result["num_episodes"] else 1


def _counts(key: str) -> bool:
    return key.startswith(FILE_KEYS)


def _eval_endpoint(known: argparse.Namespace, keys: list[str]) -> int:
    try:
        result = eval_endpoint.evaluate(known, keys)
    except KeyboardInterrupt:
        return complain(eval_endpoint.stopped(known), 130)
    from paw.evals.evaluation import write_result

    print_evaluation(result)
    eval_endpoint.print_costs(result)
    write_result(result, known.output)
    if result["answers"]["num_empty"] == result["tokens"]["num_requests"] > 0:
        return complain("no answer had any text: this is no score of the model", 1)
    return 0 if result["num_episodes"] else 1
