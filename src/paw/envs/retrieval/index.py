"""Index directories: build, open, and the cache for corpora named without an index."""

import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from tqdm import tqdm

from paw.envs.retrieval import bm25
from paw.envs.retrieval.base import Retriever
from paw.envs.retrieval.files import file_hash
from paw.envs.retrieval.store import read_corpus
from paw.errors import UserError

FORMAT = 1
FACTS = "index.json"
BUILD_AGAIN = "delete the directory and build the index again"


def build_index(
    corpus: str | Path,
    output: str | Path,
    progress: bool = True,
    encoder: str | Path | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Index a corpus file into the directory `output`; returns what `index.json` holds.

    BM25 by default; with `encoder` (a sentence-embedding model directory) a dense index, with the
    `options` of `paw.envs.retrieval.dense.build`. An index that is already there is replaced once
    the new one is complete; any other non-empty directory is refused.

    Raises:
        UserError: unreadable corpus, or `output` is not free.
    """
    corpus, output = Path(corpus), Path(output)
    if output.exists() and not output.is_dir():
        raise UserError(f"{output} is a file; name a directory for the index")
    if output.is_dir() and any(output.iterdir()) and not (output / FACTS).is_file():
        raise UserError(f"{output} holds other files; name an empty directory for the index")
    digest = file_hash(corpus)
    try:
        output.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{output.name}.", dir=output.parent))
    except OSError as error:
        raise UserError(f"cannot write beside {output}: {error.strerror or error}") from error
    try:
        passages = tqdm(
            read_corpus(corpus), desc=f"index {corpus.name}", unit=" passages", disable=not progress
        )
        if encoder is None:
            kind, facts = "bm25", bm25.build(passages, corpus, work)
        else:
            from paw.envs.retrieval import dense

            kind, facts = "dense", dense.build(passages, corpus, work, encoder, **options)
        facts = {
            "format": FORMAT,
            "kind": kind,
            "corpus": corpus.name,
            "corpus_sha256": digest,
        } | facts
        (work / FACTS).write_text(json.dumps(facts, indent=2) + "\n", encoding="utf-8")
        _put_in_place(work, output)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return facts


def _put_in_place(work: Path, output: Path) -> None:
    work.chmod(0o755)
    if output.exists():
        old = Path(tempfile.mkdtemp(prefix=f".{output.name}.old.", dir=output.parent))
        output.rename(old / "index")
        work.rename(output)
        shutil.rmtree(old)
    else:
        work.rename(output)


def index_facts(directory: str | Path) -> dict[str, Any]:
    """What `index.json` says.

    Raises:
        UserError: no index there, or of another format.
    """
    path = Path(directory) / FACTS
    try:
        facts = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError(
            f"{directory} is no index (no {FACTS}); build one: paw retriever index CORPUS -o DIR"
        ) from error
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise UserError(f"cannot read {path} ({reason}); {BUILD_AGAIN}") from error
    if not isinstance(facts, dict) or facts.get("format") != FORMAT:
        raise UserError(f"{path}: not of format {FORMAT}; {BUILD_AGAIN}")
    return facts


def open_index(directory: str | Path) -> Retriever:
    """The retriever of an index directory.

    Raises:
        UserError: no index there, or a damaged one.
    """
    facts = index_facts(directory)
    try:
        if facts.get("kind") == "dense":
            from paw.envs.retrieval import dense

            return dense.Dense(directory)
        return bm25.BM25(directory)
    except (OSError, ValueError, EOFError) as error:
        raise UserError(f"{directory}: the index is damaged ({error}); {BUILD_AGAIN}") from error


def cache_directory() -> Path:
    """`$PAW_CACHE`, else `paw` in the user's cache directory."""
    if chosen := os.environ.get("PAW_CACHE"):
        return Path(chosen)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "paw"


def cached_index(corpus: str | Path, progress: bool = False) -> Retriever:
    """A BM25 index of `corpus`, built on first use and kept under the hash of the file's bytes.

    Raises:
        UserError: unreadable corpus.
    """
    name = f"bm25-{FORMAT}-{file_hash(corpus)[:24]}"
    directory = cache_directory() / "retrieval" / name
    try:
        directory.parent.mkdir(parents=True, exist_ok=True)
        with (directory.parent / f"{name}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)  # of several workers, one builds and the others wait
            if not (directory / FACTS).is_file():
                build_index(corpus, directory, progress)
    except OSError as error:
        raise UserError(f"cannot write {directory.parent} ({error}); set PAW_CACHE") from error
    return open_index(directory)
