"""`paw noise`: which tokens the gradient of each prediction loss goes to (A.4 of the paper)."""

import argparse
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from paw.commands import frozen
from paw.commands.arguments import Declare, warn_of_layers
from paw.errors import UserError
from paw.visible import visible

HELP = "share of the gradient of each prediction loss that classes of tokens get"
EXAMPLES = """\
examples:
  paw noise runs/x                                         newest checkpoint and trajectories
  paw noise recipes/policies/webshop_small frozen.jsonl.zst -o noise.json --plot noise.png

TRAJECTORIES is a trajectory file or a run. The size of a token's gradient is 1 - p under
cross-entropy, p (1 - p) under MAE, and the same where p <= rho under clipped MAE.
"""
LOSSES = {"tokens": "tokens", "ce": "CE", "mae": "MAE", "cmae": "clipped MAE"}
"""What has a share, as it is called in a table."""


def add(declare: Declare) -> None:
    """Declare the command."""
    parser = declare("noise", run, HELP, EXAMPLES, ("--",))
    parser.add_argument("model", metavar="RUN_OR_MODEL")
    parser.add_argument(
        "trajectories", metavar="TRAJECTORIES", nargs="?", help="default: the run's newest"
    )
    frozen.add_options(parser)
    parser.add_argument(
        "--plot", metavar="FILE.png", help="draw the shares (also .svg, .pdf); needs matplotlib"
    )


def run(known: argparse.Namespace, keys: list[str]) -> int:
    frozen.check_keys("noise", keys, frozen.KEYS)
    place = known.trajectories or known.model
    if not known.trajectories and not (Path(place) / "trajectories").is_dir():
        raise UserError(f"noise: {known.model} is no run with trajectories: name a file of some")
    if known.plot and not known.plot.endswith((".png", ".svg", ".pdf")):
        raise UserError("noise: --plot FILE: the name ends in .png, .svg or .pdf")
    if known.plot and find_spec("matplotlib") is None:
        raise UserError("noise: --plot needs matplotlib: pip install 'paw-rl[plot]'")
    records, file = frozen.read_records(place)
    env = frozen.choose_env(known.env, records, file, [known.model])
    (resolved,) = frozen.resolved([known.model], keys, env)

    from paw.evals.asking import answer, open_model, open_questions
    from paw.evals.evaluation import write_result
    from paw.evals.predictions import TRUE
    from paw.evals.world_model import gradient_shares
    from paw.runs.console import Bar, quiet
    from paw.runs.facts import environment_facts
    from paw.runs.files import check_writable

    quiet()
    for written in filter(None, (known.output, known.plot)):
        check_writable(Path(written))
    model = open_model(known.model, resolved.config)
    questions = open_questions([model], records, env, seed=0, conditions=(TRUE,))
    with Bar(len(questions.answers), "observation") as bar:
        found = answer(model, questions, lambda done: bar(done, {}))
    wording, cap = questions.style.wording, known.probability_cap
    result = frozen.facts([model], questions, env, file) | {
        "model": model.name,
        "path": model.path,
        "probability_cap": cap,
        "classes": gradient_shares(found, wording, cap),
    }
    warn_of_layers(resolved)
    frozen.print_facts(result)
    _print_shares(result)
    write_result(result | environment_facts(), known.output)
    if known.plot:
        from paw.commands.noise_plot import draw

        draw(result, LOSSES, known.plot)
    return 0


def _print_shares(result: dict[str, Any]) -> None:
    """A row for each class."""
    classes = result["classes"]
    print(f"{result['model']}: shares of the gradient, rho {result['probability_cap']:g}")
    heads = ("tokens", *LOSSES.values(), "mean p")
    print(f"  {'':24}" + "".join(f"{head:>12}" for head in (heads[0], "of all", *heads[2:])))
    for name, row in classes.items():
        cells = [f"{row['tokens']:,}"]
        cells += [frozen.percent(row[f"{loss}_fraction"]) for loss in LOSSES]
        cells.append(frozen.number(row["mean_probability"]))
        print(f"  {visible(name):24}" + "".join(f"{cell:>12}" for cell in cells))
    if not any(row["cmae_fraction"] for row in classes.values()):
        print("no token has p <= rho: clipped MAE has no gradient here")
