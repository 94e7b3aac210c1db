"""Commands around training: `paw retriever`, `paw doctor`, `paw data`, `--dry-run`.

Nothing heavy is imported before a command runs, so that `paw --help` answers at once.
"""

import argparse
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from paw.errors import UserError
from paw.train.ranges import whole

if TYPE_CHECKING:
    from paw.train.config import Config

Command = Callable[..., argparse.ArgumentParser]
"""(name, handler, help) -> the parser of that command."""

RETRIEVER = "retrieval for search_qa: index a corpus, evaluate and serve an index"
DATA = "where a benchmark's data come from; --check: are they whole?"
TOP_K = whole(1, 1_000_000)
DOCTOR = "what is installed, what is missing, and how to mend it"


def add_commands(command: Command) -> None:
    """Declare the commands of this file."""
    retriever = command("retriever", _retriever, RETRIEVER)
    parts = retriever.add_subparsers(metavar="COMMAND", required=True, dest="part")

    def part(name: str, text: str) -> argparse.ArgumentParser:
        sub = parts.add_parser(name, help=text, description=text, allow_abbrev=False)
        sub.set_defaults(parser=sub, command=f"retriever {name}")
        return sub

    index = part("index", "build the index of a corpus (JSON lines; plain, .gz or .zst)")
    index.add_argument("corpus", metavar="CORPUS")
    index.add_argument("-o", "--output", metavar="DIR", required=True)
    index.add_argument("--encoder", metavar="MODEL_DIR", help="a dense index; default: BM25")
    evaluate = part("evaluate", "recall of a retriever per data set: search every question")
    evaluate.add_argument("index", metavar="DIR_OR_URL")
    evaluate.add_argument(
        "questions", metavar="QUESTIONS", nargs="+",
        help="question files, or a folder with eval_<data set>.jsonl",
    )  # fmt: skip
    evaluate.add_argument("--top-k", type=TOP_K, default=3, metavar="K")
    evaluate.add_argument("--json", action="store_true", help="one JSON object")
    serve = part("serve", "serve an index over HTTP (Search-R1's protocol, no authentication)")
    serve.add_argument("index", metavar="DIR")
    serve.add_argument("--port", type=whole(0, 65_535), default=8000, help="0: any free one")
    serve.add_argument("--host", default="127.0.0.1", help="default: this machine alone")
    serve.add_argument("--top-k", type=TOP_K, default=3, metavar="K")
    command("doctor", _doctor, DOCTOR)
    data = command("data", _data, DATA)
    data.add_argument("env", metavar="ENV", help="alfworld, webshop or search_qa")
    data.add_argument(
        "--check", nargs="?", const="", metavar="DIR",
        help="read all of DIR (default: the environment's own variable)",
    )  # fmt: skip
    data.add_argument("--split", action="append", default=[], help="only this one; may be repeated")


def show_dry_run(config: "Config") -> int:
    """Print what a training run would be; nothing is begun."""
    from paw.train.console import quiet
    from paw.train.dry_run import dry_run, format_dry_run

    quiet()
    print(format_dry_run(dry_run(config)))
    return 0


def show_imitate_dry_run(config: "Config") -> int:
    """Print what imitation would be; nothing is begun."""
    from paw.train.console import quiet
    from paw.train.imitate_dry_run import dry_imitate

    quiet()
    print(dry_imitate(config))
    return 0


def _retriever(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.search_qa import commands

    if known.part == "index":
        commands.index(known.corpus, known.output, known.encoder)
    elif known.part == "evaluate":
        commands.evaluate_questions(known.index, known.questions, known.top_k, known.json)
    else:
        commands.serve_index(known.index, known.host, known.port, known.top_k)
    return 0


def _doctor(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.verify import format_lines, passed
    from paw.train.doctor import doctor

    lines = doctor()
    print(format_lines(lines))
    return 0 if passed(lines) else 1


def _data(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.verify import format_lines, passed, verifier

    own = verifier(known.env)
    if known.check is None:
        print(own.SOURCES)
        return 0
    folder = own.folder_of(known.check or None)
    if folder is None:
        raise UserError(f"data: name the folder: paw data {known.env} --check DIR")
    if not folder.is_dir():
        raise UserError(f"data: {folder} is no folder; paw data {known.env} says how to fill one")
    lines = own.verify(folder, known.split, _bar)
    print(format_lines(lines))
    return 0 if passed(lines) else 1


def _bar(things: Iterable[Any], count: int, what: str) -> Iterable[Any]:
    """A progress bar on a terminal; gone when it is done."""
    from tqdm import tqdm

    return tqdm(things, what, count or None, leave=False, mininterval=1.0, disable=None)
