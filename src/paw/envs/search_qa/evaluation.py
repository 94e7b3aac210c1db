"""How good a retriever is for a set of questions."""

import time
from pathlib import Path
from typing import Any

from paw.envs.retrieval import RetrieverClient, open_retriever
from paw.envs.search_qa.expert import YES_NO
from paw.envs.search_qa.questions import read_questions
from paw.envs.search_qa.scoring import contains_answer, normalize_answer
from paw.errors import UserError

BATCH = 64


def evaluate(index_directory: str | Path, questions: str | Path, top_k: int = 3) -> dict[str, Any]:
    """Search every question as it stands and look at its `top_k` passages.

    Args:
        index_directory: an index directory, or the URL of a retrieval server.
        questions: a question file.
        top_k: passages per question.

    Returns:
        `recall`: mean share of `supporting_ids` among the passages, over the questions that have
        some; `answer_recall`: share of questions with a gold answer (normalised, whole words) in a
        passage, yes-no questions left out; both None without such questions;
        `queries_per_second`, `num_questions`, `num_with_support`, `num_with_answer`, `top_k`.

    Raises:
        UserError: bad index or questions, or none of the supporting ids is in the index.
    """
    if top_k < 1:
        raise UserError(f"top-k: a whole number from 1 is wanted, not {top_k}")
    retriever = open_retriever(index_directory)
    rows = list(read_questions(questions))
    if not rows:
        raise UserError(f"{questions} has no question")
    if not isinstance(retriever, RetrieverClient):
        ids = [i for row in rows for i in row.supporting_ids]
        if ids and not any(retriever.passage(i) for i in ids):
            raise UserError(
                f"none of the supporting_ids of {questions} is in {index_directory}: "
                "the questions belong to another corpus"
            )
    supports: list[float] = []
    answers: list[bool] = []
    seconds = 0.0
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        begin = time.perf_counter()
        found = retriever.search([row.text for row in batch], top_k)
        seconds += time.perf_counter() - begin
        for row, passages in zip(batch, found, strict=True):
            if row.supporting_ids:
                hits = {passage.id for passage in passages}.intersection(row.supporting_ids)
                supports.append(len(hits) / len(row.supporting_ids))
            golds = {normalize_answer(gold) for gold in row.golden_answers}
            if not golds <= YES_NO:
                answers.append(any(contains_answer(p.contents, golds) for p in passages))
    return {
        "recall": sum(supports) / len(supports) if supports else None,
        "answer_recall": sum(answers) / len(answers) if answers else None,
        "queries_per_second": len(rows) / seconds if seconds else 0.0,
        "num_questions": len(rows),
        "num_with_support": len(supports),
        "num_with_answer": len(answers),
        "top_k": top_k,
    }
