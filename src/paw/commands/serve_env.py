"""`paw serve-env`."""

import argparse
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from paw.commands.arguments import Declare, Parser, split_keys, take_split, task_source, whole
from paw.errors import UserError

if TYPE_CHECKING:
    from paw.envs import TaskSource
    from paw.integrations.openenv.guard import Guard

HELP = "serve an environment to OpenEnv's clients"
EPILOG = """Any --env.option value of the environment may follow.
  paw serve-env household
  paw serve-env alfworld --split train,valid_seen --data-dir DIR --port 8001
Other addresses than this machine's own need a token, in PAW_ENV_TOKEN or --token-file; clients send it as Authorization: Bearer TOKEN."""  # noqa: E501
SECONDS = whole(1, 10_000_000)


def add(declare: Declare) -> None:
    """Declare the command."""
    serve = declare("serve-env", run, HELP, EPILOG, ("--env.",))
    serve.add_argument("env", metavar="NAME|MODULE:FACTORY")
    serve.add_argument("--split", help="one, or several with commas; the first is the default")
    serve.add_argument("--data-dir")
    serve.add_argument("--port", type=whole(0, 65_535), default=8000, help="8000; 0: any free one")
    serve.add_argument("--host", default="127.0.0.1", help="127.0.0.1, this machine alone")
    serve.add_argument("--token-file", metavar="FILE", help="default: $PAW_ENV_TOKEN, if set")
    serve.add_argument(
        "--max-sessions", type=whole(1, 100_000), default=256, metavar="N", help="at once (256)"
    )
    serve.add_argument(
        "--idle-seconds", type=SECONDS, default=3600, metavar="S",
        help="a session that sends nothing for so long is closed (3600)",
    )  # fmt: skip
    serve.add_argument(
        "--step-seconds", type=SECONDS, default=60, metavar="S",
        help="a session whose environment takes longer is ended (60)",
    )  # fmt: skip


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.openenv.access import TOKEN_VARIABLE, is_loopback, read_token

    token = read_token(known.token_file)
    if token is None and not is_loopback(known.host):
        raise UserError(
            f"--host {known.host}: other machines can reach it; give a token that clients have to "
            f"show, in {TOKEN_VARIABLE} or --token-file FILE"
        )
    sources = _sources(known, keys)

    from paw.integrations.openenv.server import serve

    told = ", ".join(f"{split} ({len(source):,} tasks)" for split, source in sources.items())
    what = f"{next(iter(sources.values())).name} {told}"
    serve(_application(known, sources, token), what, known.host, known.port)
    return 0


def application_of(words: Sequence[str]) -> "Guard":
    """The ASGI application of what stands behind `paw serve-env`, for a server of one's own.

    Raises:
        UserError: as the command, and of an address: who can reach it is up to that server.
    """
    parser = Parser("paw serve-env", allow_abbrev=False)
    add(lambda *args, **kwargs: parser)
    words, keys = split_keys(words)
    words += [k for k in keys if k[:2] == "--" and not k.startswith("--env.")]
    nowhere = argparse.Namespace(command="serve-env", host=None, port=None)
    known = parser.parse_args(words, nowhere)
    for name in ("host", "port"):
        if getattr(known, name) is not None:
            raise UserError(f"--{name} means nothing here: it is up to the server, not to this")

    from paw.envs.openenv.access import read_token

    return _application(known, _sources(known, keys), read_token(known.token_file))


def _application(
    known: argparse.Namespace, sources: "Mapping[str, TaskSource]", token: str | None
) -> "Guard":
    from paw.integrations.openenv.guard import Limits
    from paw.integrations.openenv.server import application

    limits = Limits(known.max_sessions, known.idle_seconds, known.step_seconds)
    return application(sources, limits, token)


def _sources(known: argparse.Namespace, keys: list[str]) -> "dict[str, TaskSource]":
    """The tasks of each split."""
    take_split(known, keys)
    words = iter(keys)
    rest = []
    for word in words:
        if word == "--env.split":
            next(words, None)
        elif not word.startswith("--env.split="):
            rest.append(word)
    found = {}
    for split in known.split.split(",") if known.split else [None]:
        one = argparse.Namespace(**{**vars(known), "split": split})
        source = task_source(one, rest)
        if not len(source):
            raise UserError(f"--split {source.split}: {source.name} has no tasks there")
        found[source.split] = source
    return found
