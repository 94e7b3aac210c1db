"""`paw report`: one page that shows what the policy saw, did, expected and learned."""

import argparse
from pathlib import Path

from paw.commands.arguments import Declare
from paw.errors import UserError, warn
from paw.visible import visible

HELP = "runs, evaluations or a comparison as one page for the browser"


def add(declare: Declare) -> None:
    """Declare the command."""
    parser = declare("report", run, HELP)
    parser.add_argument(
        "paths", metavar="PATH", nargs="+", type=Path,
        help="run directory, result of `paw eval -o`, trajectory file, directory of `paw compare`",
    )  # fmt: skip
    parser.add_argument("-o", "--output", type=Path, metavar="FILE.html",
                        help="default: report.html in the first PATH")  # fmt: skip
    parser.add_argument("--live", action="store_true", help="serve it here while training goes on")
    parser.add_argument("--port", type=int, default=0, help="of --live; default: a free one")


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.report.gather import gather, material
    from paw.report.page import render
    from paw.runs.files import check_writable, write_atomically

    if known.live:
        return _live(known)
    found = material(known.paths)
    output = known.output or _default(known.paths[0])
    check_writable(output)
    page, packed = gather(found)
    text = render(page, packed).encode()
    write_atomically(output, text)
    kept = sum(1 for run in page.runs for chunk in run.episodes.chunk if chunk >= 0)
    every = sum(len(run.episodes.chunk) for run in page.runs)
    for source in found.sources:
        for problem in source.problems:
            warn(f"{source.name}: {problem}")
    print(f"runs       {len(page.runs)}, {every:,} episodes, {kept:,} of them whole")
    print(f"report     {visible(str(output))}  ({len(text) / 1e6:.1f} MB; open it in a browser)")
    return 0


def _default(first: Path) -> Path:
    """In the first directory, or beside the first file."""
    if first.is_dir():
        return first / "report.html"
    return first.with_name(f"{first.name.partition('.')[0]}.html")


def _live(known: argparse.Namespace) -> int:
    from paw.report.gather import material
    from paw.report.live import serve

    if known.output is not None:
        raise UserError("report: --live writes no file; leave out -o")
    if not 0 <= known.port < 65536:
        raise UserError(f"report: --port {known.port}: a port is 0 (a free one) to 65535")
    serve(material(known.paths), known.port, lambda address: print(
        f"report     {address}  (this machine alone; Ctrl-C ends it)", flush=True
    ))  # fmt: skip
    return 0
