"""The command line. Exit 0 on success, 2 on bad input with one line, 1 where a run cannot go on.

Each command is a file of `paw.commands`; nothing heavy is imported before one runs.
"""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from typing import Any

from paw import __version__
from paw.commands import (
    check_env,
    compare,
    data,
    doctor,
    episodes,
    eval,
    imitate,
    keys,
    noise,
    play,
    report,
    retriever,
    serve_env,
    train,
    wm_eval,
)
from paw.commands.arguments import Formatter, Parser, complain, num_processes, split_keys
from paw.errors import RunFailure, UserError, nearest

COMMANDS = (
    train, imitate, eval, compare, report, episodes, wm_eval, noise, play, check_env, serve_env,
    retriever, doctor, data, keys,
)  # fmt: skip
"""In the order of `paw --help`."""
ON_DISK = (
    errno.ENOSPC, errno.EACCES, errno.EROFS, errno.EPERM, errno.EDQUOT, errno.EFBIG,
    errno.ENOTDIR, errno.EISDIR, errno.ENOENT, errno.EEXIST, errno.ENAMETOOLONG,
)  # fmt: skip
"""What a disk or a path may refuse; anything else is a bug and keeps its traceback."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns (and, as a console script, exits with) its status."""
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())  # `module:factory` may lie here; installed modules win
    if isinstance(sys.stdout, io.TextIOWrapper):  # a terminal without our letters shows a "?"
        sys.stdout.reconfigure(errors="replace")
    words, keys = split_keys(sys.argv[1:] if arguments is None else arguments)
    parser = _parser()
    try:
        known, rest = parser.parse_known_args(words)
        if known.command is None:
            parser.print_help()
            return 0
        # argparse takes no files behind an option where some stood before
        for several in {"configs", "models"} & vars(known).keys():
            vars(known)[several] += [word for word in rest if not word.startswith("-")]
            rest = [word for word in rest if word.startswith("-")]
        unexpected = rest + [k for k in keys if k[:2] == "--" and not k.startswith(known.keys)]
        if unexpected:
            raise UserError(_unexpected(known, unexpected[0]))
        what = known.command + (" --dry-run" if getattr(known, "dry_run", False) else "")
        if what != "train" and num_processes() > 1:
            raise UserError(f"paw {what} is one process: start it without torchrun")
        status = known.run(known, keys) or 0
        print(end="", flush=True)  # a reader that has gone shows here, not at the interpreter's end
        return status
    except UserError as error:
        return complain(error, 2)
    except RunFailure as error:
        return complain(error, 1)
    except KeyboardInterrupt:
        return complain("interrupted", 130)
    except ImportError as error:
        return complain(error, 2)
    except BrokenPipeError:  # `paw keys | head`: the reader has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        if error.errno not in ON_DISK:
            raise
        where = f" {error.filename}" if error.filename else ""
        return complain(f"cannot write{where}: {error.strerror}", 2)


def _unexpected(known: argparse.Namespace, word: str) -> str:
    """What to say of an argument that the command does not take."""
    options = [o for action in known.parser._actions for o in action.option_strings]
    if known.keys and word.startswith("--"):
        from paw.config.parse import flag_names

        options += [name for name in flag_names() if name.startswith(known.keys)]
    hint = nearest(word.partition("=")[0], options) if word.startswith("-") else ""
    hint = hint if "did you mean" in hint else ""
    return f"{known.command}: unexpected argument {word!r}{hint}; see paw {known.command} --help"


class _Parser(Parser):
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

    def declare(
        name: str, run: Any, text: str, epilog: str = "", keys: tuple[str, ...] = ()
    ) -> argparse.ArgumentParser:
        sub = commands.add_parser(
            name, help=text, description=text, allow_abbrev=False, epilog=epilog or None,
            formatter_class=Formatter,
        )  # fmt: skip
        sub.set_defaults(command=name, run=run, parser=sub, keys=keys)
        return sub

    for command in COMMANDS:
        command.add(declare)
    return parser


if __name__ == "__main__":
    sys.exit(main())
