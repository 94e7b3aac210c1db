"""`paw retriever index | evaluate | serve`."""

import json
import sys

from paw.envs.retrieval import RetrievalError, build_index, serve
from paw.envs.search_qa.evaluation import evaluate
from paw.errors import RunFailure


def index(corpus: str, output: str, encoder: str | None) -> None:
    """Build an index directory and say what is in it.

    Raises:
        UserError: see `paw.envs.retrieval.build_index`.
    """
    # In a log file a bar would be a line every tenth of a second.
    facts = build_index(corpus, output, progress=sys.stderr.isatty(), encoder=encoder)
    print(f"{output}: {facts['num_passages']:,} passages ({facts['kind']}) of {facts['corpus']}")


def evaluate_questions(directory: str, questions: str, top_k: int, as_json: bool) -> None:
    """Print how good a retriever is for a set of questions; see `evaluate` for the numbers.

    Raises:
        UserError: bad index or questions.
        RunFailure: a retrieval server that does not answer.
    """
    try:
        result = evaluate(directory, questions, top_k)
    except RetrievalError as error:
        raise RunFailure(f"retriever evaluate: {error}") from error
    if as_json:
        print(json.dumps(result))
        return

    def share(name: str, count: str) -> str:
        value = result[name]
        return f"{name:15}-" if value is None else f"{name:15}{value:.4f}  of {result[count]:,}"

    print(f"{'questions':15}{result['num_questions']:,}, top {top_k}")
    print(share("recall", "num_with_support"))
    print(share("answer_recall", "num_with_answer"))
    print(f"{'queries/s':15}{result['queries_per_second']:.1f}")


def serve_index(directory: str, host: str, port: int, top_k: int) -> None:
    """Serve an index until Ctrl-C or SIGTERM.

    Raises:
        UserError: bad index, or the address cannot be had.
    """
    serve(directory, host, port, top_k)
