"""The command line. Exit 0 on success, 2 on bad input with one line, 1 where a run cannot go on."""

import argparse
import errno
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from paw import __version__
from paw.errors import RunFailure, UserError

if TYPE_CHECKING:
    from paw.train.config import Config


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns (and, as a console script, exits with) its status."""
    parser = _parser()
    words, keys = _split_keys(sys.argv[1:] if arguments is None else arguments)
    known, rest = parser.parse_known_args(words)
    rest += keys
    if known.command is None:
        parser.print_help()
        return 0
    if rest and not known.takes_keys:
        print(
            f"paw: unexpected argument {rest[0]!r}; see paw {known.command} --help", file=sys.stderr
        )
        return 2
    try:
        return known.run(known, rest) or 0
    except UserError as error:
        print(f"paw: {error}", file=sys.stderr)
        return 2
    except RunFailure as error:
        print(f"paw: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("paw: interrupted", file=sys.stderr)
        return 130
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.EDQUOT):
            raise
        where = f" {error.filename}" if error.filename else ""
        print(
            f"paw: cannot write{where}: {error.strerror}; nothing complete is lost", file=sys.stderr
        )
        return 2


def _split_keys(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
    """Take `--table.key value` pairs out, wherever they stand: argparse would read their values as
    positional arguments."""
    words: list[str] = []
    keys: list[str] = []
    queue = list(arguments)
    while queue:
        word = queue.pop(0)
        name, equals, _ = word.partition("=")
        if not (word.startswith("--") and "." in name):
            words.append(word)
            continue
        keys.append(word)
        if not equals and queue:
            keys.append(queue.pop(0))
    return words, keys


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="paw",
        description="RL training of language agents that also learn to predict what their actions "
        "do (PaW, arXiv 2606.02388).",
    )
    parser.add_argument("--version", action="version", version=f"paw {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(name: str, run: Any, text: str, *, keys: bool = False) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False,
            epilog="keys: paw keys lists every --table.key" if keys else None,
        )  # fmt: skip
        sub.set_defaults(command=name, run=run, takes_keys=keys)
        return sub

    train = command("train", _train, "train a policy; without CONFIG the household", keys=True)
    train.add_argument("configs", nargs="*", metavar="CONFIG.toml", help="overlaid left to right")
    imitate = command("imitate", _imitate, "warm-start a policy from an expert", keys=True)
    imitate.add_argument("configs", nargs="*", metavar="CONFIG.toml")
    evaluate = command("eval", _eval, "success of a run or model on a split", keys=True)
    evaluate.add_argument("model", metavar="RUN_OR_MODEL")
    evaluate.add_argument("--env", help="environment; default: the one of the policy's card")
    evaluate.add_argument("--split", help="default: the environment's validation split")
    evaluate.add_argument("--episodes", type=int, help="default: every task once")
    evaluate.add_argument("--seed", type=int, default=0)
    evaluate.add_argument("--temperature", type=float, help="default: eval.temperature")
    evaluate.add_argument("--data-dir")
    evaluate.add_argument("-o", "--output", help="write the whole result as JSON")
    play = command("play", _play, "play an environment in the terminal")
    play.add_argument("env", metavar="ENV")
    play.add_argument("--split")
    play.add_argument("--task", type=int, default=0, help="number of the task in its split")
    play.add_argument("--seed", type=int, default=0)
    play.add_argument("--data-dir")
    check = command("check-env", _check_env, "does an environment keep the contract?")
    check.add_argument("env", metavar="NAME|MODULE:FACTORY")
    check.add_argument("--split")
    check.add_argument("--tasks", type=int, default=8, help="how many tasks to try")
    check.add_argument("--data-dir")
    command("keys", _keys, "every configuration key, its default and its meaning")
    return parser


def _train(known: argparse.Namespace, rest: list[str]) -> int:
    config = _config(known.configs, rest)
    from paw.train.loop import train
    from paw.train.console import Bar

    with Bar(config.run.updates, "update") as bar:
        try:
            session = train(config, bar)
        except KeyboardInterrupt:
            bar.close()
            print(
                f"paw: stopped; the same command goes on from update {bar.reached}", file=sys.stderr
            )
            return 130
    run = session.run
    if session.first_update >= config.run.updates:
        print(f"already complete: {config.run.updates} updates in {run.directory}")
    print(f"run         {run.directory}\nmetrics     {run.directory / 'metrics.jsonl'}")
    print(f"checkpoint  {run.checkpoints}/update-{config.run.updates:06d}  (an HF model directory)")
    return 0


def _imitate(known: argparse.Namespace, rest: list[str]) -> int:
    config = _config(known.configs, rest)
    from paw.train.imitate import imitate
    from paw.train.console import Bar

    with Bar(config.imitate.steps, "step") as bar:
        report = imitate(config, bar)
    for row in report["evaluations"]:
        low, high = row["interval"]
        print(
            f"step {row['step']}: success {row['success_rate']:.1%} of {row['num_episodes']} "
            f"{row['split']} episodes [{low:.1%}, {high:.1%}]"
        )
    print(f"policy  {config.imitate.output}  ({report['parameters'] / 1e6:.2f} M parameters)")
    return 0


def _eval(known: argparse.Namespace, rest: list[str]) -> int:
    flags = [*rest, "--model.path", known.model]
    for key, value in (("env.name", known.env), ("env.data_dir", known.data_dir)):
        flags += [] if value is None else [f"--{key}", value]
    config = _config([], flags)
    from paw.train.evaluation import evaluate_model, print_evaluation

    result = evaluate_model(
        config, known.split, known.episodes, known.temperature, known.seed, known.output
    )
    print_evaluation(result)
    return 0


def _play(known: argparse.Namespace, rest: list[str]) -> int:
    from paw.envs.play import play

    play(_source(known), task_index=known.task, seed=known.seed)
    return 0


def _check_env(known: argparse.Namespace, rest: list[str]) -> int:
    from paw.envs.check import check_environment, format_report

    report = check_environment(_source(known), num_tasks=known.tasks)
    print(format_report(report))
    return 0 if report.passed else 1


def _keys(known: argparse.Namespace, rest: list[str]) -> int:
    from paw.train.settings import describe

    print(describe())
    return 0


def _source(known: argparse.Namespace) -> Any:
    from paw import envs

    options = {} if known.data_dir is None else {"data_dir": known.data_dir}
    return envs.make(known.env, known.split, **options)


def _config(files: Sequence[str], flags: Sequence[str]) -> "Config":
    """Layers of the configuration, the policy's card first."""
    from paw.train.settings import resolve

    path = resolve(files, flags).model.path  # a mistake shows before torch is imported
    from paw.train.checkpoint import read_card

    return resolve(files, flags, read_card(path))


if __name__ == "__main__":
    sys.exit(main())
