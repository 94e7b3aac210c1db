"""How good a retriever is for sets of questions."""

import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paw.envs.retrieval import Passage, Retriever, RetrieverClient, open_retriever
from paw.envs.search_qa.expert import YES_NO
from paw.envs.search_qa.questions import (
    DATA_SETS,
    Question,
    first_file,
    read_data_sets,
    read_questions,
)
from paw.envs.search_qa.scoring import contains_answer, normalize_answer
from paw.errors import UserError

BATCH = 64
RECALLS = ("recall", "any_recall", "answer_recall")


@dataclass(frozen=True, slots=True)
class _Found:
    """What the passages of one question hold; None where the question does not count."""

    recall: float | None
    answer: bool | None


def evaluate(
    index_directory: str | Path,
    questions: str | Path | Sequence[str | Path],
    top_k: int = 3,
) -> dict[str, Any]:
    """Search every question as it stands and look at its `top_k` passages.

    Args:
        index_directory: an index directory, or the URL of a retrieval server.
        questions: question files, or folders with `eval_<data set>.jsonl` (else whatever
            `read_data_sets` finds there).
        top_k: passages per question.

    Returns:
        `recall`: mean share of `supporting_ids` among the passages, over the questions that have
        some; `any_recall`: share of those questions with at least one of them; `answer_recall`:
        share of questions with a gold answer (normalised, whole words) in a passage, yes-no
        questions left out; all None without such questions; `num_questions`, `num_with_support`,
        `num_with_answer`. These for all questions together, and again in `data_sets` for those of
        each data set; `mean` has the three means over the data sets. `queries_per_second`, `top_k`.

    Raises:
        UserError: bad index or questions, or none of the supporting ids of a data set is in the
            index.
    """
    if top_k < 1:
        raise UserError(f"top-k: a whole number from 1 is wanted, not {top_k}")
    retriever = open_retriever(index_directory)
    sets = _read_sets([questions] if isinstance(questions, str | Path) else questions)
    found: dict[str, list[_Found]] = {}
    seconds = 0.0
    for name, rows in sets.items():
        _check_corpus(retriever, name, rows, index_directory)
        found[name] = []
        for start in range(0, len(rows), BATCH):
            batch = rows[start : start + BATCH]
            begin = time.perf_counter()
            hits = retriever.search([row.text for row in batch], top_k)
            seconds += time.perf_counter() - begin
            found[name] += [_look(row, hit) for row, hit in zip(batch, hits, strict=True)]
    everything = [one for ones in found.values() for one in ones]
    data_sets = {name: _summary(ones) for name, ones in found.items()}
    return {
        **_summary(everything),
        "queries_per_second": len(everything) / seconds if seconds else 0.0,
        "top_k": top_k,
        "data_sets": data_sets,
        "mean": {
            key: _mean([row[key] for row in data_sets.values() if row[key] is not None])
            for key in RECALLS
        },
    }


def _read_sets(sources: Sequence[str | Path]) -> dict[str, list[Question]]:
    """The questions by data set: the protocol's seven in its order, then others by name."""
    sets: dict[str, list[Question]] = {}
    for source in map(Path, sources):
        rows = _read_folder(source) if source.is_dir() else _read_file(source)
        for row in rows:
            sets.setdefault(row.data_set, []).append(row)
    if not sets:
        raise UserError(f"{', '.join(map(str, sources))} has no question")
    order = {name: i for i, name in enumerate(DATA_SETS)}
    return {name: sets[name] for name in sorted(sets, key=lambda n: (order.get(n, len(order)), n))}


def _read_file(path: Path) -> list[Question]:
    return list(read_questions(path, path.name.partition(".")[0].removeprefix("eval_")))


def _read_folder(folder: Path) -> Iterable[Question]:
    stems = sorted({path.name.partition(".")[0] for path in folder.glob("eval_*.*")})
    paths = [path for stem in stems if (path := first_file(folder, [stem])) is not None]
    if paths:
        return [row for path in paths for row in _read_file(path)]
    return [row for rows in read_data_sets(folder).values() for row in rows]


def _check_corpus(
    retriever: Retriever, name: str, rows: list[Question], index_directory: str | Path
) -> None:
    ids = [i for row in rows for i in row.supporting_ids]
    if isinstance(retriever, RetrieverClient) or not ids:
        return
    if not any(retriever.passage(i) for i in ids):
        raise UserError(
            f"none of the supporting_ids of data set {name} is in {index_directory}: "
            "the questions belong to another corpus"
        )


def _look(row: Question, passages: list[Passage]) -> _Found:
    recall = None
    if row.supporting_ids:
        hits = {passage.id for passage in passages}.intersection(row.supporting_ids)
        recall = len(hits) / len(row.supporting_ids)
    golds = {normalize_answer(gold) for gold in row.golden_answers}
    if golds <= YES_NO:
        return _Found(recall, None)
    return _Found(recall, any(contains_answer(p.contents, golds) for p in passages))


def _summary(found: list[_Found]) -> dict[str, Any]:
    recalls = [one.recall for one in found if one.recall is not None]
    answers = [one.answer for one in found if one.answer is not None]
    return {
        "recall": _mean(recalls),
        "any_recall": _mean([recall > 0 for recall in recalls]),
        "answer_recall": _mean(answers),
        "num_questions": len(found),
        "num_with_support": len(recalls),
        "num_with_answer": len(answers),
    }


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
