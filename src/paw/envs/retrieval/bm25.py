"""BM25 (Robertson & Zaragoza, 2009) in Lucene's form over memory-mapped numpy postings.

    score(q, d) = sum over query terms t of idf(t) * tf / (tf + k1 * (1 - b + b * |d| / avg |d|))
    idf(t)      = ln(1 + (N - df + 0.5) / (df + 0.5))

A term that stands twice in the query counts twice. Scores are float64 and equal scores are ranked
by id, so results depend neither on threads nor on library versions. The formula's document side is
computed when the index is built; a search adds up the postings of its terms. Suited to corpora of
up to about a million passages; beyond that, point the environment at a retrieval server.
"""

import functools
from array import array
from bisect import bisect_left
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from paw.envs.retrieval import analysis
from paw.envs.retrieval.base import Passage, largest
from paw.envs.retrieval.files import clean
from paw.envs.retrieval.store import PassageStore, PassageWriter, map_array

K1 = 0.9
B = 0.4
"""Pyserini's constants for passages, those of the BM25 baseline of Search-R1."""

CHUNK_PASSAGES = 16384
MAX_QUERY_CHARS = 4096


class _TermNumbers(dict[str, int]):
    """token -> number of its term, numbered as they appear; -1 for a stop word."""

    def __init__(self) -> None:
        super().__init__()
        self.terms: dict[str, int] = {}

    def __missing__(self, token: str) -> int:
        term = analysis.term(token)
        number = -1 if term is None else self.terms.setdefault(term, len(self.terms))
        self[token] = number
        return number


class _Postings:
    """Counts (document, term) pairs chunk by chunk."""

    def __init__(self) -> None:
        self.numbers = _TermNumbers()
        self.chunks: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self.num_documents = 0
        self._terms = array("i")
        self._lengths = array("i")

    def add(self, text: str) -> None:
        before = len(self._terms)
        self._terms.extend(map(self.numbers.__getitem__, analysis.tokens(text)))
        self._lengths.append(len(self._terms) - before)
        if len(self._lengths) == CHUNK_PASSAGES:
            self.flush()

    def flush(self) -> None:
        terms = np.array(self._terms, dtype=np.int64)
        documents = np.repeat(np.arange(len(self._lengths)), np.array(self._lengths, dtype=int))
        documents, terms = documents[terms >= 0], terms[terms >= 0]
        width = len(self.numbers.terms) + 1
        keys, counts = np.unique(documents * width + terms, return_counts=True)
        self.chunks.append(
            (
                (keys // width + self.num_documents).astype(np.int32),
                (keys % width).astype(np.int32),
                counts.astype(np.int32),
            )
        )
        self.num_documents += len(self._lengths)
        self._terms, self._lengths = array("i"), array("i")


def build(passages: Iterable[tuple[int, Passage]], corpus: str | Path, directory: Path) -> dict:
    """Write the index of `passages` (line number, passage) into `directory`; returns its facts.

    Raises:
        UserError: no passage, or an id that stands twice.
    """
    writer = PassageWriter(directory)
    postings = _Postings()
    for passage in writer.write(passages):
        postings.add(f"{passage.title}\n{passage.text}")
    postings.flush()
    rank = writer.finish(corpus)

    vocabulary = sorted((term.encode(), number) for term, number in postings.numbers.terms.items())
    place = np.empty(len(vocabulary), dtype=np.int32)
    place[[number for _, number in vocabulary]] = np.arange(len(vocabulary), dtype=np.int32)
    documents, terms, counts = (
        np.concatenate(parts) for parts in zip(*postings.chunks, strict=True)
    )
    documents, terms = rank[documents].astype(np.int32), place[terms]
    order = np.lexsort((documents, terms))
    documents, terms, counts = documents[order], terms[order], counts[order]

    num_documents = len(rank)
    lengths = np.bincount(documents, weights=counts, minlength=num_documents)
    average = max(float(lengths.mean()), 1.0)
    frequency = np.bincount(terms, minlength=len(vocabulary))
    idf = np.log(1 + (num_documents - frequency + 0.5) / (frequency + 0.5))
    norm = K1 * (1 - B + B * lengths / average)
    impacts = idf[terms] * counts / (counts + norm[documents])

    np.save(directory / "documents.npy", documents)
    np.save(directory / "impacts.npy", impacts)
    np.save(directory / "postings.npy", np.concatenate([[0], np.cumsum(frequency)]))
    sizes = [len(term) for term, _ in vocabulary]
    np.save(directory / "term_ends.npy", np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64))
    letters = b"".join(term for term, _ in vocabulary)
    np.save(directory / "terms.npy", np.frombuffer(letters, dtype=np.uint8))
    return {
        "num_passages": num_documents,
        "num_terms": len(vocabulary),
        "num_postings": len(documents),
        "average_terms": average,
        "k1": K1,
        "b": B,
    }


class BM25:
    """Searches an index directory written by `build`."""

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._store = PassageStore(directory)
        self._documents = map_array(self.directory / "documents.npy")
        self._impacts = map_array(self.directory / "impacts.npy")
        self._starts = map_array(self.directory / "postings.npy")
        self._term_ends = map_array(self.directory / "term_ends.npy")
        self._term_bytes = map_array(self.directory / "terms.npy")
        last = self._starts[-1:].sum()
        if not len(self._documents) == len(self._impacts) == last:
            raise ValueError("documents.npy, impacts.npy and postings.npy do not fit together")
        if len(self._term_ends) != len(self._starts) or self._term_ends[-1:].sum() != len(
            self._term_bytes
        ):
            raise ValueError("terms.npy, term_ends.npy and postings.npy do not fit together")
        self._postings = functools.lru_cache(maxsize=65536)(self._find_postings)

    def __reduce__(self) -> tuple[type["BM25"], tuple[Path]]:
        return BM25, (self.directory,)

    def __len__(self) -> int:
        return len(self._store)

    def passage(self, passage_id: str) -> Passage | None:
        """The passage of that id."""
        return self._store.find(passage_id)

    def search(self, queries: list[str], top_k: int) -> list[list[Passage]]:
        """At most `top_k` passages a query that share a term with it, best first, ties by id."""
        return [
            [
                self._store.get(int(place), float(score))
                for place, score in zip(*ranked, strict=True)
            ]
            for ranked in (self.rank(query, top_k) for query in queries)
        ]

    def rank(self, query: str, top_k: int) -> tuple[np.ndarray, np.ndarray]:
        """(places [k], scores [k]) of the best passages of one query."""
        scores = np.zeros(len(self._store))
        for term in analysis.terms(clean(query[:MAX_QUERY_CHARS])):
            start, end = self._postings(term)
            # numpy indexes with its native integers three times as fast as with 32-bit ones
            scores[self._documents[start:end].astype(np.intp)] += self._impacts[start:end]
        places = largest(scores, top_k)
        best = scores[places]
        return places[best > 0], best[best > 0]

    def _find_postings(self, term: str) -> tuple[int, int]:
        """Where the postings of `term` lie; an empty range for an unknown term."""
        wanted = term.encode("utf-8", "replace")
        number = bisect_left(range(len(self._term_ends) - 1), wanted, key=self._term)
        if number == len(self._term_ends) - 1 or self._term(number) != wanted:
            return 0, 0
        return int(self._starts[number]), int(self._starts[number + 1])

    def _term(self, number: int) -> bytes:
        return self._term_bytes[self._term_ends[number] : self._term_ends[number + 1]].tobytes()
