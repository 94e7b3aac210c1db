"""`paw data search_qa`: can the question files and the corpus be read, and do they fit together?"""

import logging
import os
from collections.abc import Sequence
from pathlib import Path

from paw.envs.download import Remote
from paw.envs.retrieval.store import read_corpus
from paw.envs.search_qa.questions import DATA_SETS, Question, first_file, read_split
from paw.envs.verify import Line, Progress
from paw.errors import UserError

OFFICIAL: dict[str, int] = dict(
    zip(
        ("train", *DATA_SETS),
        (169_615, 3_610, 11_313, 14_267, 7_405, 12_576, 2_417, 125),
        strict=True,
    )
)
"""Questions of each file of the protocol: train is NQ (79,168) and HotpotQA (90,447)."""

LICENCE = (
    "NQ and Wikipedia's text CC BY-SA 3.0, HotpotQA CC BY-SA 4.0, MuSiQue CC BY 4.0, "
    "2WikiMultiHopQA Apache-2.0, PopQA and Bamboogle MIT, TriviaQA Apache-2.0 (its questions "
    "belong to their sites)"
)
HUB = "https://huggingface.co/datasets/PeterJinGo"
FILES = (
    Remote("train.parquet", f"{HUB}/nq_hotpotqa_train/resolve/main/train.parquet"),
    Remote("test.parquet", f"{HUB}/nq_hotpotqa_train/resolve/main/test.parquet"),
    Remote("corpus.jsonl.gz", f"{HUB}/wiki-18-corpus/resolve/main/wiki-18.jsonl.gz"),
)
"""Search-R1's files; neither sizes nor hashes are on record."""

SOURCES = """\
Search-R1's data (arXiv 2503.09516), on the Hugging Face hub; all of it with
    paw data search_qa --download DIR
or
    questions   hf download PeterJinGo/nq_hotpotqa_train --repo-type dataset --local-dir DIR
                (train.parquet and test.parquet with all seven sets; needs paw-rl[search])
    corpus      hf download PeterJinGo/wiki-18-corpus --repo-type dataset --local-dir DIR
                (wiki-18.jsonl.gz, 21,015,324 passages: rename it corpus.jsonl.gz, or give it to
                a retrieval server and set env.retriever = "http://HOST:PORT")
Any corpus and questions of your own do as well: docs/search_qa.md has the formats.
Layout: DIR/train.jsonl, DIR/eval_<data set>.jsonl, DIR/corpus.jsonl (or .parquet, .gz, .zst).
Then: export SEARCH_QA_DATA=DIR, or env.data_dir = "DIR"."""

_MEND = "`paw data search_qa` says where the files come from"


def folder_of(named: str | None) -> Path | None:
    """The folder `named`, else $SEARCH_QA_DATA."""
    chosen = named or os.environ.get("SEARCH_QA_DATA")
    return Path(chosen).expanduser() if chosen else None


def inventory(folder: Path) -> list[Line]:
    """Which question files and whether a corpus are there, by name."""
    there = [s for s in OFFICIAL if _file(folder, s) is not None]
    corpus = first_file(folder, ["corpus"])
    if not there:
        return [Line("--", "search_qa", f"no question file in {folder}", _MEND)]
    found = f"{folder}: {', '.join(there)}"
    if corpus is None:
        mend = 'name a server with env.retriever = "http://HOST:PORT", or add corpus.jsonl'
        return [Line("warn", "search_qa", f"{found}; no corpus", mend)]
    return [Line("ok", "search_qa", f"{found}; {corpus.name}")]


def verify(folder: Path, splits: Sequence[str], progress: Progress) -> list[Line]:
    """Read the questions of `splits` (default: every official one that is there) and the corpus.

    A split may have any name for which the folder has a file.
    """
    lines: list[Line] = []
    wanted: set[str] = set()
    for split in splits or OFFICIAL:
        line, questions = _split(folder, split, asked=bool(splits))
        lines.append(line)
        wanted.update(i for q in questions for i in q.supporting_ids)
    if not splits and all(line.status == "--" for line in lines):
        lines = [Line("FAIL", "questions", f"no question file in {folder}", _MEND)]
    return [*lines, _corpus(folder, wanted, progress)]


def _split(folder: Path, split: str, *, asked: bool) -> tuple[Line, list[Question]]:
    if not asked and _file(folder, split) is None:
        return Line("--", split, "not there"), []
    logger = logging.getLogger("paw.envs.search_qa.questions")
    before = logger.level
    logger.setLevel(logging.ERROR)  # the number of questions left out shows in the count
    try:
        questions = read_split(folder, split)
    except UserError as error:
        if asked or "no questions of split" not in str(error):
            return Line("FAIL", split, str(error).removeprefix("search_qa: "), _MEND), []
        return Line("--", split, "not there"), []
    finally:
        logger.setLevel(before)
    official = OFFICIAL.get(split)
    if official is None or len(questions) == official:
        return Line("ok", split, f"{len(questions):,} questions"), questions
    mend = "not the official set: its results are not comparable with published ones"
    return Line("warn", split, f"{len(questions):,} of {official:,} questions", mend), questions


def _corpus(folder: Path, wanted: set[str], progress: Progress) -> Line:
    path = first_file(folder, ["corpus"])
    if path is None:
        mend = 'add corpus.jsonl, or name a server with env.retriever = "http://HOST:PORT"'
        return Line("warn", "corpus", f"no corpus.jsonl in {folder}", mend)
    missing = set(wanted)
    count = 0
    try:
        for _, passage in progress(read_corpus(path), 0, f"search_qa {path.name}"):
            count += 1
            missing.discard(passage.id)
    except UserError as error:
        return Line("FAIL", "corpus", str(error), _MEND)
    found = f"{count:,} passages ({path.name})"
    if missing:
        found += f"; {len(missing):,} of the {len(wanted):,} supporting_ids are not among them"
        return Line("warn", "corpus", found, "questions and corpus belong to different releases")
    return Line("ok" if count else "FAIL", "corpus", found, "" if count else _MEND)


def _file(folder: Path, split: str) -> Path | None:
    """The file in which `split` may stand."""
    if split == "train":
        return first_file(folder, ["train"])
    return first_file(folder, [f"eval_{split}", split, f"{split}/test", f"{split}/dev", "test"])
