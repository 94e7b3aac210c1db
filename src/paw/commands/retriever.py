"""`paw retriever index|evaluate|serve`."""

import argparse

from paw.commands.arguments import Declare, whole

HELP = "retrieval for search_qa: index a corpus, evaluate and serve an index"
TOP_K = whole(1, 1_000_000)


def add(declare: Declare) -> None:
    """Declare the command and its parts."""
    retriever = declare("retriever", run, HELP)
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


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.search_qa import commands

    if known.part == "index":
        commands.index(known.corpus, known.output, known.encoder)
    elif known.part == "evaluate":
        commands.evaluate_questions(known.index, known.questions, known.top_k, known.json)
    else:
        commands.serve_index(known.index, known.host, known.port, known.top_k)
    return 0
