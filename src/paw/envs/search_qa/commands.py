"""`paw retriever index | evaluate | serve`."""

import json
import sys
from typing import Any

from paw.envs.retrieval import RetrievalError, build_index, serve
from paw.envs.search_qa.evaluation import RECALLS, evaluate
from paw.errors import RunFailure, UserError

COUNTS = ("num_questions", "num_with_support")


def index(corpus: str, output: str, encoder: str | None) -> None:
    """Build an index directory and say what is in it.

    Raises:
        UserError: see `paw.envs.retrieval.build_index`; or a full disk.
    """
    try:
        # In a log file a bar would be a line every tenth of a second.
        facts = build_index(corpus, output, progress=sys.stderr.isatty(), encoder=encoder)
    except OSError as error:
        raise UserError(
            f"cannot write {output}: {error.strerror or error}; make room or choose another folder"
        ) from error
    print(f"{output}: {facts['num_passages']:,} passages ({facts['kind']}) of {facts['corpus']}")


def evaluate_questions(directory: str, questions: list[str], top_k: int, as_json: bool) -> None:
    """Print how good a retriever is for each data set; see `evaluate` for the numbers.

    Raises:
        UserError: bad index or questions.
        RunFailure: a retrieval server that does not answer.
    """
    try:
        result = evaluate(directory, questions, top_k)
    except RetrievalError as error:
        raise RunFailure(f"retriever evaluate: {error}") from error
    print(json.dumps(result) if as_json else _table(result))


def _table(result: dict[str, Any]) -> str:
    """One row per data set, their mean, and all questions together."""
    k = result["top_k"]

    def columns(name: str, *cells: str) -> str:
        return f"{name:20}" + "".join(f"{cell:>15}" for cell in cells)

    def line(name: str, row: dict[str, Any]) -> str:
        counts = [f"{row[key]:,}" if key in row else "" for key in COUNTS]
        shares = ["-" if row[key] is None else f"{row[key]:.4f}" for key in RECALLS]
        return columns(name, *counts, *shares)

    heads = columns(
        "data set", "questions", "with evidence", f"recall@{k}", f"any@{k}", f"answer@{k}"
    )
    return "\n".join(
        [
            heads,
            *(line(name, row) for name, row in result["data_sets"].items()),
            line("mean of data sets", result["mean"]),
            line("all questions", result),
            f"{result['queries_per_second']:.1f} queries/s",
        ]
    )


def serve_index(directory: str, host: str, port: int, top_k: int) -> None:
    """Serve an index until Ctrl-C or SIGTERM.

    Raises:
        UserError: bad index, or the address cannot be had.
    """
    serve(directory, host, port, top_k)
