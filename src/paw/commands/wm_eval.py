"""`paw wm-eval`: how well models predict what an environment says next, on frozen trajectories."""

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paw.commands import frozen
from paw.commands.arguments import EPISODES, SEED, Declare, take_split, warn_of_layers
from paw.commands.wm_shown import print_models
from paw.errors import UserError

if TYPE_CHECKING:
    from paw.config.tree import Config
    from paw.evals.asking import Model
    from paw.runs.format import TrajectoryRecord

EXPERT_KEYS = ("imitate.noise", "imitate.junk", "imitate.expert")
HELP = "how well models predict the next observations of frozen trajectories"
EXAMPLES = """\
examples:
  paw wm-eval runs/x household runs/x/trajectories/update-000080.jsonl.zst
  paw wm-eval household runs/x                             the newest trajectories of a run
  paw wm-eval MODEL --env alfworld --split valid_seen --episodes 48 \\
              --save-trajectories frozen.jsonl.zst         of the environment's expert, kept
  paw wm-eval MODEL OTHER frozen.jsonl.zst -o result.json

A model is asked as its card says; without a card in `append` with plain commands. Any --table.key
value of [env], [model] and [rollout] may follow; with --episodes those of [imitate] for the expert.
"""


def add(declare: Declare) -> None:
    """Declare the command."""
    parser = declare("wm-eval", run, HELP, EXAMPLES, ("--",))
    parser.add_argument("models", metavar="RUN_OR_MODEL", nargs="+")
    parser.add_argument(
        "trajectories", metavar="TRAJECTORIES", nargs="?",
        help="a trajectory file, or a run (its newest); left out with --episodes",
    )  # fmt: skip
    frozen.add_options(parser)
    parser.add_argument(
        "--episodes", type=EPISODES, metavar="N",
        help="play N episodes of the environment's expert instead of reading TRAJECTORIES",
    )  # fmt: skip
    parser.add_argument("--split", help="of these; default: the validation split")
    parser.add_argument("--data-dir", help="of these")
    parser.add_argument(
        "--save-trajectories", metavar="FILE.jsonl.zst",
        help="write these, as a run's trajectory files are",
    )  # fmt: skip
    parser.add_argument(
        "--seed", type=SEED, default=0, help="of the expert, other actions and the bootstrap"
    )


def run(known: argparse.Namespace, keys: list[str]) -> int:
    take_split(known, keys)
    names, place = _arguments(known)
    frozen.check_keys("wm-eval", keys, frozen.KEYS + (EXPERT_KEYS if known.episodes else ()))
    records, file = frozen.read_records(place) if place else ([], None)
    env = frozen.choose_env(known.env, records, file, names)
    keys = [*keys, "--env.data_dir", known.data_dir] if known.data_dir else keys
    resolved = frozen.resolved(names, keys, env)

    from paw.evals.asking import answer, open_model, open_questions
    from paw.evals.evaluation import write_result
    from paw.evals.world_model import against, world_model
    from paw.runs.console import Bar, quiet
    from paw.runs.facts import environment_facts
    from paw.runs.files import check_writable

    quiet()
    for written in filter(None, (known.output, known.save_trajectories)):
        check_writable(Path(written))
    if known.episodes:
        records = _expert_records(known, resolved[0].config)
    models = [open_model(name, found.config) for name, found in zip(names, resolved, strict=True)]
    questions = open_questions(models, records, env, seed=known.seed)
    result = frozen.facts(models, questions, env, file)
    result |= {"probability_cap": known.probability_cap, "seed": known.seed, "models": {}}
    first = None
    for model in models:
        with Bar(len(questions.answers), "observation", model.name) as bar:
            found = answer(model, questions, lambda done, bar=bar: bar(done, {}))
        said = _asked(model) | world_model(
            found, questions.style.wording, known.probability_cap, known.seed
        )
        if first is not None:
            said["against_first"] = against(found, first, known.seed)
        first = first or found
        result["models"][model.name] = said
    for found in resolved:
        warn_of_layers(found)
    frozen.print_facts(result)
    print_models(result)
    write_result(result | environment_facts(), known.output)
    return 0


def _arguments(known: argparse.Namespace) -> tuple[list[str], str | None]:
    """Names of the models, and the place of the trajectories, if they are not the expert's."""
    names = [*known.models, *([known.trajectories] if known.trajectories else [])]
    place = None
    if not known.episodes:
        for option, value in (
            ("--split", known.split),
            ("--data-dir", known.data_dir),
            ("--save-trajectories", known.save_trajectories),
        ):
            if value:
                raise UserError(f"wm-eval: {option} goes with --episodes N")
        if len(names) < 2:
            raise UserError(
                "wm-eval: RUN_OR_MODEL... TRAJECTORIES: the last is a trajectory file or a run; or "
                "give --episodes N for episodes of the environment's expert"
            )
        place = names.pop()
    if known.save_trajectories and not known.save_trajectories.endswith(".jsonl.zst"):
        raise UserError("wm-eval: --save-trajectories FILE.jsonl.zst: the name must end so")
    if len(set(names)) < len(names):
        raise UserError("wm-eval: the same model twice")
    return names, place


def _expert_records(known: argparse.Namespace, config: "Config") -> list["TrajectoryRecord"]:
    """Episodes of the expert; written, if that is asked for."""
    from dataclasses import replace

    from paw.imitate.demonstrations import expert_episodes, record_of_episode
    from paw.rollout.actor import on_split, open_source
    from paw.runs.records import write_trajectories

    config = replace(
        on_split(config, known.split),
        imitate=replace(config.imitate, demonstrations=known.episodes),
        run=replace(config.run, seed=known.seed),
    )
    source = open_source(config)
    records = [
        record_of_episode(task, episode, config.rollout.response_format, source.style)
        for task, episode in expert_episodes(source, config, "name a file of trajectories")
    ]
    if known.save_trajectories:
        write_trajectories(Path(known.save_trajectories), records, config.env.name)
    return records


def _asked(model: "Model") -> dict[str, Any]:
    """How a model was asked."""
    rollout = model.config.rollout
    return {
        "path": model.path,
        "context": rollout.context,
        "response_format": rollout.response_format,
        "history_turns": rollout.history_turns,
        "max_prompt_tokens": rollout.max_prompt_tokens,
    }
