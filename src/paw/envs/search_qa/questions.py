"""Question files: JSON lines of FlashRAG and Search-R1, Parquet of Search-R1 and verl-agent."""

import itertools
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paw.envs.retrieval.files import clean, read_rows
from paw.envs.search_qa.exported import looks_like_a_list, unpacked
from paw.envs.search_qa.scoring import normalize_answer
from paw.errors import UserError

logger = logging.getLogger(__name__)

DATA_SETS = (
    "nq",
    "triviaqa",
    "popqa",
    "hotpotqa",
    "2wikimultihopqa",
    "musique",
    "bamboogle",
)
"""The seven evaluation sets of the protocol."""

ALIASES = {
    "naturalquestions": "nq",
    "nqopen": "nq",
    "2wiki": "2wikimultihopqa",
    "2wikiqa": "2wikimultihopqa",
    "2wikimqa": "2wikimultihopqa",
    "2wikimultihop": "2wikimultihopqa",
}
"""Other names of these sets, as one word."""

NUMBERS = re.compile(r"\[\s*\d+(?:\s+\d+)*\s*\]")
"""A list of whole numbers as NumPy prints it."""
EMPTY = ("", "nan", "None", "null")
"""What an export writes where there is nothing."""

SUFFIXES = tuple(
    f".{kind}{packed}" for kind in ("jsonl", "parquet", "json") for packed in ("", ".gz", ".zst")
)


@dataclass(frozen=True, slots=True)
class Question:
    """One question and what counts as its answer."""

    id: str
    """As in the file; unique only within its data set and split."""
    data_set: str
    text: str
    """Ends in a question mark."""
    golden_answers: tuple[str, ...]
    supporting_ids: tuple[str, ...]
    """Ids of the paragraphs that hold the evidence; empty where nobody marked them."""


def data_set_name(source: str) -> str:
    """The protocol's name for a `data_source`: "hotpot_qa" and "searchR1_hotpotqa" give "hotpotqa",
    "natural_questions" gives "nq"; a name that is none of the seven stays as it is."""
    words = re.findall(r"[^\W_]+", source.lower())
    names = {name: name for name in DATA_SETS} | ALIASES
    # two words may be one name: "hotpot_qa"
    for part in (*words, *map("".join, itertools.pairwise(words))):
        if part in names:
            return names[part]
    return source.strip()


def read_questions(path: str | Path, data_set: str | None = None) -> Iterator[Question]:
    """The questions of a file; `data_set` names the set of rows that name none themselves.

    A question whose gold answers are all empty once normalised ("*", "A") cannot be answered by
    exact match: it is left out, and the log says how many were.

    Raises:
        UserError: unreadable file, or a row without question or gold answers.
    """
    first: dict[tuple[str, str], int] = {}
    num_left_out = num_unread = 0
    for number, row in read_rows(path):
        where = f"{path}, line {number}"
        source = row.get("data_source")
        name = data_set_name(source) if isinstance(source, str) and source.strip() else data_set
        name = name or Path(path).name.partition(".")[0]
        row_id = row.get("id")
        row_id = _extra(row, "index", number - 1) if row_id is None else row_id
        question = Question(
            str(row_id), name, _question(row, where), _golds(row, where), _supporting(row, where)
        )
        earlier = first.setdefault((name, question.id), number)
        if earlier != number:
            raise UserError(
                f"{where}: id {question.id!r} of {name} stands in line {earlier} already; "
                "ids must be unique within a data set"
            )
        num_unread += any(map(looks_like_a_list, question.golden_answers))
        if question.golden_answers:
            yield question
        else:
            num_left_out += 1
    if num_left_out:
        logger.warning(
            "%s: %d question(s) left out: no gold answer is left after normalisation",
            path,
            num_left_out,
        )
    if num_unread:
        logger.warning(
            "%s: %d question(s) with a gold answer that looks like a list in a string, but cannot "
            "be read as one: it counts as one answer",
            path,
            num_unread,
        )


def _extra(row: Mapping[str, Any], key: str, default: Any) -> Any:
    extra = unpacked(row.get("extra_info"))
    value = extra.get(key) if isinstance(extra, Mapping) else None
    return default if value is None else value


def _question(row: Mapping[str, Any], where: str) -> str:
    text = row.get("question") or _extra(row, "question", None)
    if text is None and isinstance(prompt := unpacked(row.get("prompt")), list | str):
        parts = (
            [prompt]
            if isinstance(prompt, str)
            else [part.get("content") for part in prompt if isinstance(part, Mapping)]
        )
        marked = [part for part in parts if isinstance(part, str) and "Question:" in part]
        text = marked[-1].rpartition("Question:")[2].strip().partition("\n")[0] if marked else None
    if not isinstance(text, str) or not text.strip():
        raise UserError(
            f'{where}: no question ("question", or "prompt" with "Question: …", is wanted)'
        )
    text = " ".join(clean(text).split())
    return text if text.endswith("?") else text + "?"


def _golds(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    """The gold answers that are not empty after normalisation: "*" would equal no answer at all."""
    found: Any = row.get("golden_answers")
    for field in ("reward_model", "env_kwargs"):
        holder = unpacked(row.get(field))
        if found is None and isinstance(holder, Mapping):
            found = holder.get("ground_truth")
    found = row.get("ground_truth") if found is None else found
    found = row.get("answer") if found is None else found
    whole = unpacked(found)
    if isinstance(whole, Mapping) and "target" in whole:
        found = whole["target"]
        whole = unpacked(found)
    answers = whole if isinstance(whole, list) else [found]
    if not answers or not all(isinstance(a, str) for a in answers):
        raise UserError(
            f'{where}: no gold answers (a list of strings as "golden_answers", or '
            '"reward_model.ground_truth.target", is wanted)'
        )
    answers = [one for answer in answers for one in _strings(answer)]
    return tuple(dict.fromkeys(clean(a).strip() for a in answers if normalize_answer(a)))


def _strings(answer: str) -> list[str]:
    """The answers in one of a list, mostly itself."""
    inner = unpacked(answer)
    inside = isinstance(inner, list) and all(isinstance(a, str) for a in inner)
    return inner if inside else [answer]


def _supporting(row: Mapping[str, Any], where: str) -> tuple[str, ...]:
    ids = unpacked(row.get("supporting_ids"))
    if isinstance(ids, str) and NUMBERS.fullmatch(ids.strip()):
        ids = ids.strip()[1:-1].split()
    if ids is None or ids in EMPTY:
        return ()
    if not isinstance(ids, list) or not all(isinstance(i, str | int) for i in ids):
        raise UserError(f'{where}: "supporting_ids" must be a list of passage ids')
    return tuple(dict.fromkeys(map(str, ids)))


def first_file(directory: Path, stems: Iterable[str]) -> Path | None:
    """The first of these files that exists, in any format."""
    candidates = (directory / (stem + suffix) for stem in stems for suffix in SUFFIXES)
    return next((path for path in candidates if path.is_file()), None)


def read_data_sets(directory: Path) -> dict[str, list[Question]]:
    """The questions of every evaluation set that has some in a data folder, as `read_split`.

    Only the seven count; the log names the other sets that are there.

    Raises:
        UserError: bad files, or no question of any of the seven sets.
    """
    found: dict[str, list[Question]] = {}
    common = first_file(directory, ["test"])
    for question in [] if common is None else read_questions(common):
        found.setdefault(question.data_set, []).append(question)
    for name in DATA_SETS:
        path = first_file(directory, _stems(name))
        if path is not None:
            found[name] = list(read_questions(path, name))
    others = {path.name.partition(".")[0][5:] for path in directory.glob("eval_*.*")}
    if others := sorted((others | found.keys()) - set(DATA_SETS)):
        logger.warning(
            "%s: left out of the evaluation sets: %s; known are %s",
            directory,
            ", ".join(others),
            ", ".join(DATA_SETS),
        )
    found = {name: found[name] for name in DATA_SETS if found.get(name)}
    if not found:
        raise UserError(
            f"search_qa: no questions of any evaluation set in {directory}: wanted eval_X.jsonl "
            f"(or .parquet, .gz, .zst) with X one of {', '.join(DATA_SETS)}"
        )
    return found


def _stems(split: str) -> list[str]:
    """Where the questions of a split may lie, without suffixes."""
    if split == "train":
        return ["train"]
    return [f"eval_{split}", split, f"{split}/test", f"{split}/dev"]


def read_split(directory: Path, split: str) -> list[Question]:
    """The questions of one split of a data folder.

    `train` is the file `train.*`; a data set X is `eval_X.*`, `X.*`, or FlashRAG's `X/test.*` or
    `X/dev.*`, else the rows of that set in Search-R1's common file `test.*`.

    Raises:
        UserError: no such file or rows, or bad ones.
    """
    stems = _stems(split)
    path = first_file(directory, stems)
    if path is not None:
        return list(read_questions(path, None if split == "train" else split))
    common = None if split == "train" else first_file(directory, ["test"])
    questions = (
        [q for q in read_questions(common) if q.data_set == data_set_name(split)]
        if common is not None
        else []
    )
    if not questions:
        wanted = " or ".join(f"{stem}.jsonl" for stem in stems)
        beside = f"; {common} has no row of it" if common else ""
        raise UserError(
            f"search_qa: no questions of split {split!r} in {directory}: wanted {wanted} "
            f"(or .parquet, .gz, .zst){beside}"
        )
    return questions
