"""The command line. Exit 0 on success, 2 on bad input with one line, 1 where a run cannot go on."""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NoReturn

from paw import __version__
from paw.errors import RunFailure, UserError, nearest
from paw.train import endpoint
from paw.train.commands import add_commands, show_dry_run, show_imitate_dry_run
from paw.train.help import EVAL_HELP, IMITATE_HELP, OWN_HELP, TRAIN_HELP, Formatter
from paw.train.ranges import AT_MOST, whole

if TYPE_CHECKING:
    from paw.train.config import Config

ON_DISK = (
    errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.EDQUOT, errno.EFBIG,
    errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip
"""What a disk or a path may refuse; anything else is a bug and keeps its traceback."""

EVAL_KEYS = ("--env.", "--model.", "--rollout.", "--eval.max", "--eval.temperature")
"""Keys that mean something to `paw eval`; the others would be ignored."""

SEED = whole(0, 2**31 - 1)
EPISODES = whole(1, AT_MOST["eval.episodes"])


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns (and, as a console script, exits with) its status."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # `module:factory` may lie here; installed modules win
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without our letters shows a "?"
        sys.stdout.reconfigure(errors="replace")
    words, keys = _split_keys(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    try:
        known, rest = parser.parse_known_args(words)
        if known.command is None:
            parser.print_help()
            return 0
        unexpected = rest + [k for k in keys if k[:2] == "--" and not k.startswith(known.keys)]
        if unexpected:
            raise UserError(_unexpected(known, unexpected[0]))
        return known.run(known, keys) or 0
    except UserError as error:
        return _complain(error, 2)
    except RunFailure as error:
        return _complain(error, 1)
    except KeyboardInterrupt:
        return _complain("interrupted", 130)
    except ImportError as error:
        return _complain(error, 2)
    except BrokenPipeError:  # `paw keys | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in ON_DISK:
            raise
        where = f" {error.filename}" if error.filename else ""
        return _complain(f"cannot write{where}: {error.strerror}", 2)


def _complain(what: object, status: int) -> int:
    print("paw:", " ".join(str(what).split()), file=sys.stderr)
    return status


def _split_keys(arguments: Sequence[str]) -> tuple[list[str], list[str]]:
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


def _unexpected(known: argparse.Namespace, word: str) -> str:
    """What to say of an argument that the command does not take."""
    options = [o for action in known.parser._actions for o in action.option_strings]
    if known.keys and word.startswith("--"):
        from paw.train.settings import flag_names

        options += [name for name in flag_names() if name.startswith(known.keys)]
    hint = nearest(word.partition("=")[0], options) if word.startswith("-") else ""
    hint = hint if "did you mean" in hint else ""
    return f"{known.command}: unexpected argument {word!r}{hint}; see paw {known.command} --help"


class _Parser(argparse.ArgumentParser):
    """One line for a mistake, without the usage text above it."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}; see {self.prog} --help")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.metavar == "COMMAND" and value not in (action.choices or ()):
            hint = nearest(value, action.choices or ())
            raise UserError(f"no command {value!r}{hint}; see paw --help")
        super()._check_value(action, value)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="paw",
        description="RL training of language agents that also learn to predict what their actions "
        "do (PaW, arXiv 2606.02388).",
    )
    parser.add_argument("--version", action="version", version=f"paw {__version__}")
    parser.set_defaults(command=None)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    def command(
        name: str, run: Any, text: str, epilog: str = "", keys: tuple[str, ...] = ()
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False, epilog=epilog or None,
            formatter_class=Formatter,
        )  # fmt: skip
        sub.set_defaults(command=name, run=run, parser=sub, keys=keys)
        return sub

    train = command(
        "train", _train, "train a policy; without CONFIG the household", TRAIN_HELP, ("--",)
    )
    train.add_argument("configs", nargs="*", metavar="CONFIG.toml", help="overlaid left to right")
    train.add_argument(
        "--dry-run", action="store_true", help="say what the run would be and take, and stop"
    )
    imitate = command(
        "imitate", _imitate, "warm-start a policy by imitating an expert", IMITATE_HELP, ("--",)
    )
    imitate.add_argument("configs", nargs="*", metavar="CONFIG.toml", help="overlaid left to right")
    imitate.add_argument(
        "--dry-run", action="store_true", help="try a few demonstrations, say what it takes, stop"
    )
    evaluate = command("eval", _eval, "success of a run or model on a split", EVAL_HELP, ("--",))
    evaluate.add_argument("model", metavar="RUN_OR_MODEL", nargs="?")
    evaluate.add_argument("--env", help="environment; default: the one of the policy's card")
    evaluate.add_argument("--split", help="default: the environment's validation split")
    evaluate.add_argument("--episodes", type=EPISODES, help="default: every task once")
    evaluate.add_argument("--seed", type=SEED, default=0)
    evaluate.add_argument("--temperature", type=float, help="default: eval.temperature")
    evaluate.add_argument("--data-dir")
    evaluate.add_argument("-o", "--output", help="write the whole result as JSON")
    endpoint.add_options(evaluate)
    play = command("play", _play, "play an environment in the terminal", OWN_HELP, ("--env.",))
    play.add_argument("env", metavar="ENV")
    play.add_argument("--split")
    play.add_argument("--task", type=SEED, default=0, help="number of the task in its split")
    play.add_argument("--seed", type=SEED, default=0)
    play.add_argument("--data-dir")
    check = command(
        "check-env", _check_env, "does an environment keep the contract?", OWN_HELP, ("--env.",)
    )
    check.add_argument("env", metavar="NAME|MODULE:FACTORY")
    check.add_argument("--split")
    check.add_argument("--tasks", type=whole(1, 1000), default=8, help="how many tasks to try")
    check.add_argument("--data-dir")
    add_commands(command)
    keys = command("keys", _keys, "every configuration key, its default and its meaning")
    keys.add_argument("tables", nargs="*", metavar="TABLE", help="only these tables")
    return parser


def _train(known: argparse.Namespace, keys: list[str]) -> int:
    config = _config(known.configs, keys)
    if known.dry_run:
        return show_dry_run(config)
    from paw.train.console import Bar, quiet
    from paw.train.locate import newest_checkpoint, run_directory
    from paw.train.loop import train

    quiet()
    directory = run_directory(config)
    with Bar(config.run.updates, "update") as bar:
        try:
            session = train(config, bar)
        except KeyboardInterrupt:
            bar.close()
            newest = newest_checkpoint(directory / "checkpoints")
            where = "the start" if newest is None else newest.name
            return _complain(f"stopped; the same command goes on from {where} in {directory}", 130)
    run = session.run
    if session.first_update >= config.run.updates:
        print(
            f"already complete: {session.first_update} updates in {run.directory}; a larger "
            "run.updates goes on, another run.directory starts anew"
        )
    print(f"run         {run.directory}\nmetrics     {run.directory / 'metrics.jsonl'}")
    print(f"checkpoint  {newest_checkpoint(run.checkpoints)}  (an HF model directory)")
    return 0


def _imitate(known: argparse.Namespace, keys: list[str]) -> int:
    config = _config(known.configs, keys)
    if known.dry_run:
        return show_imitate_dry_run(config)
    from paw.train.console import Bar, quiet
    from paw.train.imitate import imitate, stopped

    quiet()
    with Bar(config.imitate.steps, "step") as bar:
        try:
            report = imitate(config, bar)
        except KeyboardInterrupt:
            bar.close()
            return _complain(stopped(config), 130)
    for row in report["evaluations"]:
        low, high = row["interval"]
        print(
            f"step {row['step']}: success {row['success_rate']:.1%} of {row['num_episodes']} "
            f"{row['split']} episodes [{low:.1%}, {high:.1%}]"
        )
    print(f"policy  {config.imitate.output}  ({report['parameters'] / 1e6:.2f} M parameters)")
    return 0


def _eval(known: argparse.Namespace, keys: list[str]) -> int:
    _take_split(known, keys)
    if endpoint.wanted(known):
        return _eval_endpoint(known, keys)
    flags = [*keys, "--model.path", known.model]
    for key, value in (
        ("env.name", known.env),
        ("env.data_dir", known.data_dir),
        ("eval.temperature", known.temperature),
    ):
        flags += [] if value is None else [f"--{key}", str(value)]
    config = _config([], flags)
    for key in keys:
        if key.startswith("--") and not key.startswith(EVAL_KEYS):
            raise UserError(
                f"eval: {key.partition('=')[0]} changes nothing here; what counts: --episodes, "
                "--split, --seed, env.*, model.*, rollout.*, eval.max_turns, eval.temperature"
            )
    from paw.train.console import quiet
    from paw.train.evaluation import evaluate_model, print_evaluation, write_result

    quiet()
    result = evaluate_model(config, known.split, known.episodes, known.seed, known.output)
    print_evaluation(result)
    write_result(result, known.output)
    return 0 if result["num_episodes"] else 1


def _take_split(known: argparse.Namespace, keys: list[str]) -> None:
    """`--env.split` means what `--split` does."""
    for at, word in enumerate(keys):
        name, equals, value = word.partition("=")
        if name == "--env.split" and (equals or keys[at + 1 :]):
            value = value if equals else keys[at + 1]
            if known.split not in (None, value):
                raise UserError(f"{known.command}: --split {known.split} or --env.split {value}?")
            known.split = value


def _eval_endpoint(known: argparse.Namespace, keys: list[str]) -> int:
    try:
        result = endpoint.evaluate(known, keys)
    except KeyboardInterrupt:
        return _complain(endpoint.stopped(known), 130)
    from paw.train.evaluation import print_evaluation, write_result

    print_evaluation(result)
    endpoint.print_costs(result)
    write_result(result, known.output)
    return 0 if result["num_episodes"] else 1


def _play(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.play import play

    if sys.stdin is None:
        raise UserError("play: the standard input is closed; run it in a terminal")
    play(_source(known, keys), task_index=known.task, seed=known.seed)
    return 0


def _check_env(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.check import check_environment, format_report

    report = check_environment(_source(known, keys), num_tasks=known.tasks)
    print(format_report(report))
    return 0 if report.passed else 1


def _keys(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.train.settings import describe

    print(describe(known.tables))
    return 0


def _source(known: argparse.Namespace, keys: list[str]) -> Any:
    """The tasks that training would open: the same options, the same call of the factory."""
    from paw import envs
    from paw.train.settings import check_options, environment_options, resolve

    _take_split(known, keys)
    flags = [*keys, "--env.name", known.env]
    for key, value in (("env.split", known.split), ("env.data_dir", known.data_dir)):
        flags += [] if value is None else [f"--{key}", value]
    config = resolve([], flags)
    check_options(envs.factory(config.env.name), config)
    return envs.make(config.env.name, config.env.split, **environment_options(config))


def _config(files: Sequence[str], flags: Sequence[str]) -> "Config":
    """Layers of the configuration, the policy's card first. Mistakes show before torch loads."""
    from paw import envs
    from paw.train.locate import read_card
    from paw.train.settings import check_options, resolve

    card = read_card(resolve(files, flags).model.path)
    config = resolve(files, flags, card)
    check_options(envs.factory(config.env.name), config)
    return config


if __name__ == "__main__":
    sys.exit(main())
