"""Search-augmented question answering in the protocol of Search-R1 (arXiv 2503.09516).

    source = SearchQA("train", data_dir="data")        # questions and corpus of a folder
    source = SearchQA(questions="test.parquet", retriever="http://127.0.0.1:8000")

Commands are `<search>query</search>` and `<answer>text</answer>`; see docs/search_qa.md.
"""

import os
from itertools import zip_longest
from pathlib import Path
from typing import Any, Literal

from paw.envs.base import TaskSource, digest
from paw.envs.retrieval import Retriever, RetrieverClient, cached_index, index_facts, open_retriever
from paw.envs.retrieval.files import file_hash
from paw.envs.search_qa.environment import Limits, SearchQAEnvironment
from paw.envs.search_qa.evaluation import evaluate
from paw.envs.search_qa.expert import OracleExpert
from paw.envs.search_qa.questions import (
    DATA_SETS,
    Question,
    first_file,
    read_data_sets,
    read_questions,
    read_split,
)
from paw.envs.search_qa.style import STYLE
from paw.errors import UserError, nearest
from paw.types import Task

__all__ = ["DATA_SETS", "SearchQA", "evaluate"]


class SearchQA(TaskSource):
    """Questions of one split or file, answered with searches in a corpus.

    Args:
        split: `train`, or a data set: nq, triviaqa, popqa, hotpotqa, 2wikimultihopqa, musique,
            bamboogle or a name of one's own; `all` has every one of these seven that the folder
            holds, a question of each in turn, so that the first N are spread over them.
        data_dir: folder with `train.jsonl`, `eval_<data set>.jsonl`, `corpus.jsonl` (or .parquet,
            .gz, .zst); default `$SEARCH_QA_DATA`.
        questions: a question file instead of a split.
        corpus: a corpus file instead of the folder's; its BM25 index is built on first use and kept
            in the user's cache directory.
        retriever: an index directory, the URL of a retrieval server, or any `Retriever`.
        top_k: passages per search.
        max_query_chars: longer queries are cut.
        max_document_words: longer passages are cut in the observation; None shows them whole.

    Raises:
        UserError: missing or bad data, no retriever, or a corpus that is not the index's.
    """

    name = "search_qa"
    max_return = 1.0
    style = STYLE

    def __init__(
        self,
        split: str = "train",
        data_dir: str | Path | None = None,
        questions: str | Path | None = None,
        corpus: str | Path | None = None,
        retriever: str | Path | Retriever | None = None,
        top_k: int = 3,
        max_query_chars: int = 512,
        max_document_words: int | None = None,
    ) -> None:
        self._limits = Limits(
            _positive("top_k", top_k),
            _positive("max_query_chars", max_query_chars),
            None
            if max_document_words is None
            else _positive("max_document_words", max_document_words),
        )
        chosen = data_dir or os.environ.get("SEARCH_QA_DATA")
        folder = Path(chosen) if chosen else None
        self.split = split if questions is None else Path(questions).name.partition(".")[0]
        self._questions: list[tuple[Task, Question]] = []
        if questions is not None:
            self._add(self.split, list(read_questions(questions)))
        elif split == "all":
            sets = read_data_sets(_data_folder(folder, "the questions"))
            for row in zip_longest(*sets.values()):
                for name, question in zip(sets, row, strict=True):
                    self._add(name, [] if question is None else [question], kind=name)
        else:
            self._add(split, read_split(_data_folder(folder, "the questions"), split))
        if not self._questions:
            where = f"split {split!r} in {folder}" if questions is None else questions
            raise UserError(f"search_qa: {where} has no question; fetch the file again")
        self._numbers = {task.id: i for i, (task, _) in enumerate(self._questions)}
        self._facts: dict[str, Any] | None = None
        self._retriever = _find_retriever(retriever, corpus, folder)

    def __len__(self) -> int:
        return len(self._questions)

    def task(self, index: int) -> Task:
        """Question number `index`; `kind` is its data set. Same ids in `all` and in its own set."""
        return self._questions[index][0]

    def facts(self) -> dict[str, Any]:
        """Data sets and their sizes, retriever and corpus, limits of a search, reward."""
        if self._facts is None:
            counts: dict[str, int] = {}
            for task, _ in self._questions:
                counts[task.kind] = counts.get(task.kind, 0) + 1
            missing = [name for name in DATA_SETS if name not in counts]
            golds = ("\t".join((t.id, q.text, *q.golden_answers)) for t, q in self._questions)
            self._facts = super().facts() | {
                "data_sets": counts,
                **({"missing_data_sets": missing} if self.split == "all" else {}),
                "tasks_sha256": digest(golds),
                **_retriever_facts(self._retriever),
                "top_k": self._limits.top_k,
                "max_query_chars": self._limits.max_query_chars,
                "max_document_words": self._limits.max_document_words,
                "reward": "exact match",
            }
        return self._facts

    def question(self, task: Task) -> Question:
        """The question behind a task, gold answers included.

        Raises:
            UserError: no such task in this split.
        """
        number = self._numbers.get(task.id)
        if number is None:
            raise UserError(f"search_qa {self.split}: no task {task.id!r}")
        return self._questions[number][1]

    def open(self, task: Task, seed: int = 0) -> SearchQAEnvironment:
        """A fresh episode; nothing in it depends on `seed`."""
        return SearchQAEnvironment(task, self.question(task), self._retriever, self._limits)

    def expert(  # pyright: ignore[reportIncompatibleMethodOverride]  # options by name
        self,
        task: Task,
        seed: int = 0,
        *,
        kind: Literal["oracle"] = "oracle",
        noise: float = 0.0,
        junk: float = 0.0,
        max_turns: int = 4,
    ) -> OracleExpert:
        """An expert that searches for the evidence, then gives the gold answer.

        Raises:
            UserError: `kind` is not `oracle`, the only one.
        """
        if kind != "oracle":
            raise UserError(f"search_qa has no expert {kind!r}{nearest(kind, ['oracle'])}")
        question = self.question(task)
        found = (self._retriever.passage(passage_id) for passage_id in question.supporting_ids)
        titles = list(dict.fromkeys(passage.title for passage in found if passage))
        return OracleExpert(question, titles, seed, noise, junk, max_turns)

    def _add(self, split: str, questions: list[Question], kind: str | None = None) -> None:
        for q in questions:
            task = Task(f"{split}/{q.data_set}/{q.id}", kind or q.data_set, q.text)
            self._questions.append((task, q))


def _retriever_facts(retriever: Retriever) -> dict[str, Any]:
    """What found the passages; of a server only the address is known."""
    if isinstance(retriever, RetrieverClient):
        return {"retriever": "server", "retriever_url": retriever.url}
    directory = getattr(retriever, "directory", None)
    if directory is None:
        return {"retriever": type(retriever).__name__}
    facts = index_facts(directory)
    encoder = {"encoder": Path(facts["encoder"]).name} if "encoder" in facts else {}
    shown = {name: facts.get(name) for name in ("corpus", "num_passages", "corpus_sha256")}
    return {"retriever": facts.get("kind"), **encoder, **shown}


def _positive(option: str, value: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"env.{option}: a whole number from 1 is wanted, not {value!r}")
    return value


def _data_folder(folder: Path | None, what: str) -> Path:
    if folder is None:
        raise UserError(
            f"search_qa: no place to find {what}: set env.data_dir or SEARCH_QA_DATA to the folder "
            "with train.jsonl and corpus.jsonl, or name env.questions and env.retriever"
        )
    if not folder.is_dir():
        raise UserError(f"search_qa: {folder} is no folder; set env.data_dir or SEARCH_QA_DATA")
    return folder


def _find_retriever(
    retriever: str | Path | Retriever | None, corpus: str | Path | None, folder: Path | None
) -> Retriever:
    if isinstance(retriever, str | Path):
        is_index = Path(retriever).is_dir()
        if (
            is_index
            and corpus is not None
            and index_facts(retriever).get("corpus_sha256") != file_hash(corpus)
        ):
            raise UserError(
                f"search_qa: the index {retriever} was built from another corpus than {corpus}; "
                "build it again or drop env.corpus"
            )
        return open_retriever(retriever)
    if retriever is not None:
        return retriever
    if corpus is None:
        corpus = first_file(_data_folder(folder, "the corpus"), ["corpus"])
        if corpus is None:
            raise UserError(
                f"search_qa: no corpus.jsonl in {folder}; name env.corpus or env.retriever"
            )
    return cached_index(corpus)
