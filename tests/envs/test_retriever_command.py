"""`paw retriever index | evaluate | serve` from the command line."""

import gzip
import json
import re
import resource
import socket
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import zstandard

from paw.cli import main

CORPUS = [
    {"id": "0", "title": "Alpha", "text": "alpha beta"},
    {"id": "1", "title": "Gamma", "text": "gamma"},
    {"id": "2", "title": "Delta", "text": "delta"},
]
QUESTIONS = [
    {"id": "a", "question": "alpha?", "golden_answers": ["beta"], "supporting_ids": ["0", "1"]},
    {"id": "b", "question": "delta?", "golden_answers": ["omega"], "supporting_ids": ["2"]},
    {"id": "c", "question": "gamma?", "golden_answers": ["yes"]},
]


def lines(rows: list[dict]) -> bytes:
    return "".join(json.dumps(row) + "\n" for row in rows).encode()


@pytest.fixture
def index(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Path:
    corpus, output = tmp_path / "corpus.jsonl.gz", tmp_path / "index"
    corpus.write_bytes(gzip.compress(lines(CORPUS)))
    assert main(["retriever", "index", str(corpus), "-o", str(output)]) == 0
    assert capsys.readouterr().out == f"{output}: 3 passages (bm25) of corpus.jsonl.gz\n"
    return output


def test_a_full_disk_is_named(tmp_path: Path, capsys, monkeypatch):
    """No file may grow beyond 20 bytes: the passages take more."""
    monkeypatch.setattr(sys, "dont_write_bytecode", True)  # modules' would be cut, and stay
    corpus, output = tmp_path / "corpus.jsonl", tmp_path / "index"
    corpus.write_bytes(lines(CORPUS))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20, hard))
    try:
        assert main(["retriever", "index", str(corpus), "-o", str(output)]) == 2
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    said = capsys.readouterr().err
    assert said == (
        f"paw: cannot write {output}: File too large; make room or choose another folder\n"
    )
    assert [p.name for p in tmp_path.iterdir()] == ["corpus.jsonl"]


def test_evaluate_prints_one_object(index: Path, tmp_path: Path, capsys):
    """Top 1: question a finds one of its two passages, b its one: recall (1/2 + 1) / 2 = 0.75.
    "beta" stands in the passage of a, "omega" nowhere, c is a yes-no question: 1 of 2 answers."""
    questions = tmp_path / "questions.jsonl.zst"
    questions.write_bytes(zstandard.compress(lines(QUESTIONS)))
    arguments = ["retriever", "evaluate", str(index), str(questions), "--top-k", "1"]
    assert main([*arguments, "--json"]) == 0
    (line,) = capsys.readouterr().out.splitlines()
    result = json.loads(line)
    assert (result["recall"], result["answer_recall"]) == (0.75, 0.5)
    assert (result["num_questions"], result["top_k"]) == (3, 1)
    assert result["queries_per_second"] > 0


def rows_of(table: str) -> dict[str, list[str]]:
    """The cells of each row by its name, which ends at two spaces or more."""
    cells = [re.split(r"  +", line) for line in table.splitlines()]
    return {name: rest for name, *rest in cells}


def test_evaluate_prints_a_row_per_data_set(index: Path, tmp_path: Path, capsys):
    """Top 1. nq: question a finds one of its two passages, b its one: recall (1/2 + 1) / 2, any 1.
    mine: d looks for passage 1 and finds 0; its answer "beta" stands there. own has no evidence and
    no answer but yes: it counts in no mean. Means of the sets (0.75 + 0) / 2, (1 + 0) / 2,
    (0.5 + 1) / 2; of all three questions with evidence (1/2 + 1 + 0) / 3, 2/3, 2/3."""
    d = QUESTIONS[0] | {"id": "d", "data_source": "mine", "supporting_ids": ["1"]}
    folder = tmp_path / "questions"
    folder.mkdir()
    (folder / "eval_own.jsonl").write_bytes(lines([QUESTIONS[2]]))
    (folder / "eval_mixed.jsonl.gz").write_bytes(
        gzip.compress(lines([d, *(q | {"data_source": "nq"} for q in QUESTIONS[:2])]))
    )
    (folder / "train.jsonl").write_bytes(lines([d | {"data_source": "train"}]))
    expected = {
        "data set": ["questions", "with evidence", "recall@1", "any@1", "answer@1"],
        "nq": ["2", "2", "0.7500", "1.0000", "0.5000"],
        "mine": ["1", "1", "0.0000", "0.0000", "1.0000"],
        "own": ["1", "0", "-", "-", "-"],
        "mean of data sets": ["0.3750", "0.5000", "0.7500"],
        "all questions": ["4", "3", "0.5000", "0.6667", "0.6667"],
    }
    files = [str(path) for path in sorted(folder.glob("eval_*"))]
    for questions in ([str(folder)], files):
        assert main(["retriever", "evaluate", str(index), *questions, "--top-k", "1"]) == 0
        table, _, speed = capsys.readouterr().out.rstrip().rpartition("\n")
        assert rows_of(table) == expected
        assert list(rows_of(table)) == list(expected)
        assert speed.endswith(" queries/s")
    foreign = tmp_path / "foreign.jsonl"
    foreign.write_bytes(lines([d | {"data_source": "far", "supporting_ids": ["99"]}]))
    assert main(["retriever", "evaluate", str(index), *files, str(foreign)]) == 2
    assert "supporting_ids of data set far" in capsys.readouterr().err


def test_mistakes_are_one_line(index: Path, tmp_path: Path, capsys):
    taken = socket.socket()
    taken.bind(("127.0.0.1", 0))
    taken.listen()
    port = str(taken.getsockname()[1])
    corpus = tmp_path / "corpus.jsonl.gz"
    cases = {
        "cannot read": ["index", str(tmp_path / "none"), "-o", str(tmp_path / "x")],
        "holds other files": ["index", str(corpus), "-o", str(tmp_path)],
        "required: -o": ["index", str(corpus)],
        "build one: paw retriever index": ["evaluate", str(tmp_path), "q"],
        "cannot read q": ["evaluate", str(index), "q"],
        "'0' is not a whole number": ["evaluate", str(index), "q", "--top-k", "0"],
        f"cannot listen on 127.0.0.1:{port}": ["serve", str(index), "--port", port],
        "'x' is not a whole number": ["serve", str(index), "--port", "x"],
        "no command 'sreve'": ["sreve"],
    }
    with taken:
        for part, arguments in cases.items():
            assert main(["retriever", *arguments]) == 2
            (line,) = [x for x in capsys.readouterr().err.splitlines() if x.startswith("paw: ")]
            assert part in line


class OneAnswer(BaseHTTPRequestHandler):
    """Answers the first request and refuses all others."""

    num_requests = 0

    def do_POST(self) -> None:
        OneAnswer.num_requests += 1
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"result": [[]]}' if OneAnswer.num_requests == 1 else b"{}"
        self.send_response(200 if OneAnswer.num_requests == 1 else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def test_a_server_that_breaks_down_is_no_mistake_of_the_user(tmp_path: Path, capsys):
    questions = tmp_path / "questions.jsonl"
    questions.write_bytes(lines(QUESTIONS))
    with HTTPServer(("127.0.0.1", 0), OneAnswer) as server:
        threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True).start()
        url = f"http://127.0.0.1:{server.server_address[1]}"
        assert main(["retriever", "evaluate", url, str(questions)]) == 1
        server.shutdown()
    assert capsys.readouterr().err.startswith("paw: retriever evaluate: ")
    assert main(["retriever", "evaluate", url, str(questions)]) == 2
    assert "paw retriever serve DIR" in capsys.readouterr().err
