"""What `paw wm-eval` and `paw noise` share: models, and the trajectories that they are asked about.

No torch before mistakes on the command line are told.
"""

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paw.commands.arguments import layers
from paw.errors import UserError

if TYPE_CHECKING:
    from paw.config.read import Resolved
    from paw.evals.asking import Model, Questions
    from paw.runs.format import TrajectoryRecord

KEYS = ("env.", "model.", "rollout.", "optimizer.tokens_per_micro_batch", "run.threads")
"""Keys that count, beside those of an expert."""
PLAIN = {"rollout.context": "append", "rollout.response_format": "command"}
"""How a model without a card is asked where no flag says otherwise."""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Options that both commands have."""
    parser.add_argument(
        "--env", help="environment of the trajectories; default: as the file or its run says"
    )
    parser.add_argument(
        "--probability-cap", type=_share, default=0.2, metavar="RHO",
        help="rho of the clipped MAE (default 0.2)",
    )  # fmt: skip
    parser.add_argument("-o", "--output", help="write everything as JSON")


def check_keys(command: str, keys: Sequence[str], known: Sequence[str]) -> None:
    """Raises UserError for a `--table.key` that changes nothing."""
    for key in keys:
        if key.startswith("--") and not key[2:].startswith(tuple(known)):
            raise UserError(
                f"{command}: {key.partition('=')[0]} changes nothing here; what counts: "
                + ", ".join(f"{k}*" if k.endswith(".") else k for k in known)
            )
        if key.partition("=")[0] in ("--env.name", "--model.path"):
            raise UserError(f"{command}: {key.partition('=')[0]}: use --env and the arguments")


def read_records(place: str) -> tuple[list["TrajectoryRecord"], Path]:
    """Episodes of a trajectory file or of a run's newest update, and the file.

    Raises:
        UserError: no such file; no file of trajectories.
    """
    from paw.runs import read

    records, path = read.trajectories(place), Path(place)
    return records, read.trajectory_file(path)


def choose_env(
    asked: str | None,
    records: Sequence["TrajectoryRecord"],
    file: Path | None,
    models: Sequence[str],
) -> str:
    """The environment: as the trajectories say, `--env`, the configuration of the run that they
    lie in (files of earlier versions say nothing), or the models' cards.

    Raises:
        UserError: two that differ, or nobody says.
    """
    from paw.runs import read
    from paw.runs.layout import read_card

    recorded = {record.env for record in records if record.env} | ({asked} if asked else set())
    if len(recorded) > 1:
        what = f"--env {asked}: {file} is" if asked else f"{file}: trajectories"
        raise UserError(f"{what} of {', '.join(sorted(recorded - {asked}))}")
    if recorded:
        return recorded.pop()
    if file is not None and file.parent.name == "trajectories":
        run = file.absolute().parents[1]
        if (run / "config.toml").is_file():
            return read.config(run).env.name
    cards = {read_card(model).get("env", {}).get("name", "") for model in models}
    if len(cards) > 1 or not (found := cards.pop()):
        raise UserError("of which environment are the trajectories? Give --env NAME")
    return found


def resolved(models: Sequence[str], keys: Sequence[str], env: str) -> list["Resolved"]:
    """The configuration of each model: its card, then the flags.

    Raises:
        UserError: no such model, or a mistake in a flag.
    """
    from paw.runs.layout import read_card

    found = []
    for model in models:
        plain = [] if read_card(model) else [x for k, v in PLAIN.items() for x in (f"--{k}", v)]
        flags = [*plain, *keys, "--model.path", model, "--env.name", env]
        found.append(layers([], flags))
    return found


def facts(
    models: Sequence["Model"], questions: "Questions", env: str, file: Path | None
) -> dict[str, Any]:
    """What both results say of the text that was predicted."""
    from paw.envs.base import digest

    answers = questions.answers
    return {
        "env": env,
        "trajectories": None if file is None else str(file),
        "episodes": len({answer.episode for answer in answers}),
        "observations": len(answers),
        "refused": sum(not answer.accepted for answer in answers),
        "characters": sum(len(answer.text) for answer in answers),
        "texts_sha256": digest(answer.text for answer in answers),
        "left_out": dict(questions.num_left_out),
        "prompts_cut": dict(questions.num_cut),
        "max_prompt_tokens": {m.name: m.config.rollout.max_prompt_tokens for m in models},
    }


def print_facts(found: dict[str, Any]) -> None:
    """The first lines of both tables."""
    where = found["trajectories"] or "the environment's expert"
    print(
        f"{found['env']}: {found['observations']:,} observations ({found['refused']:,} of refused "
        f"commands; {found['characters']:,} characters)\n"
        f"  in {found['episodes']:,} episodes of {where}"
    )
    for key, what in (("left_out", "left out"), ("prompts_cut", "prompts cut")):
        for model, count in found[key].items():
            if count:
                limit = found["max_prompt_tokens"][model]
                print(f"  {what}: {count:,}, by rollout.max_prompt_tokens = {limit} of {model}")


def number(value: float | None, digits: int = 3) -> str:
    """For a table; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.{digits}f}"


def percent(value: float | None) -> str:
    """For a table; a dash where there is none."""
    return "-" if value is None or math.isnan(value) else f"{value:.1%}"


def _share(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a share above 0 and at most 1")
    return value
