"""BM25 as Lucene 8 computes it (k1 0.9, b 0.4), over arrays that may lie in memory or on disk.

A document's length goes through Lucene's one-byte norm, every factor is a 32-bit float, and equal
scores are ordered by document name. Postings are columns: row r of the vocabulary owns
`docs[starts[r]:starts[r + 1]]`, ascending, and beside each the code of its (frequency, norm) pair.
"""

import math
from array import array
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from paw.envs.webshop.analysis import term, words

K1, B = np.float32(0.9), np.float32(0.4)
BLOCK = 20_000  # documents between two spills of the builder
FEW = 20_000  # postings that are cheaper to add than to reason about

Allocate = Callable[[str, DTypeLike, int], NDArray[Any]]


def norm_byte(length: int) -> int:
    """Lucene's SmallFloat.intToByte4: exact below 40, then three bits of mantissa."""
    if length < 24:
        return length
    rest = length - 24
    if rest < 8:
        return 24 + rest
    shift = rest.bit_length() - 4
    return 24 + ((shift + 1) << 3 | (rest >> shift) & 7)


def norm_length(byte: int) -> int:
    """The length that a norm byte stands for: the shortest one that gives it."""
    if byte < 24:
        return byte
    shift = ((byte - 24) >> 3) - 1
    mantissa = (byte - 24) & 7
    return 24 + (mantissa if shift < 0 else (mantissa | 8) << shift)


class Builder:
    """Collects documents; `finish` writes the columns.

    `spill(block)` keeps one block of postings for later, `blocks()` gives them back in order.
    """

    def __init__(self) -> None:
        self.vocabulary: dict[str, int] = {}
        self.lengths = array("I")
        self._ids: dict[str, int] = {}
        self._start()

    def _start(self) -> None:
        self._terms, self._frequencies, self._sizes = array("I"), array("I"), array("I")

    def add(self, text: str) -> None:
        """Index the next document."""
        counts: dict[int, int] = {}
        for word, count in Counter(words(text)).items():
            key = self._ids.get(word)
            if key is None:
                key = self._key(word)
            if key >= 0:
                counts[key] = counts.get(key, 0) + count
        self._terms.extend(counts.keys())
        self._frequencies.extend(counts.values())
        self._sizes.append(len(counts))
        self.lengths.append(sum(counts.values()))

    def _key(self, word: str) -> int:
        found = term(word)
        key = -1 if found is None else self.vocabulary.setdefault(found, len(self.vocabulary))
        if len(self._ids) >= 1_000_000:  # a catalogue has ever new words: keep memory bounded
            self._ids.clear()
        self._ids[word] = key
        return key

    @property
    def pending(self) -> int:
        """Documents since the last `block`."""
        return len(self._sizes)

    def block(self) -> dict[str, NDArray[np.uint32]]:
        """The postings since the last call, document by document."""
        names = {"terms": self._terms, "frequencies": self._frequencies, "sizes": self._sizes}
        block = {name: np.array(column, dtype=np.uint32) for name, column in names.items()}
        self._start()
        return block

    def finish(
        self, blocks: Callable[[], Any], allocate: Allocate, progress: Callable[[int], object]
    ) -> None:
        """Write the columns of `Index` from the blocks, in the order in which they came."""
        encoded = sorted(
            (word.encode("utf-8", "surrogatepass"), i) for word, i in self.vocabulary.items()
        )
        row_of = np.empty(len(encoded), dtype=np.uint32)
        row_of[[i for _, i in encoded]] = np.arange(len(encoded), dtype=np.uint32)
        blob = b"".join(word for word, _ in encoded)
        allocate("words", np.uint8, len(blob))[:] = np.frombuffer(blob, dtype=np.uint8)
        word_ends = allocate("word_starts", np.uint64, len(encoded) + 1)
        word_ends[0] = 0
        word_ends[1:] = np.cumsum([len(word) for word, _ in encoded])
        del encoded, blob

        lengths = np.array(self.lengths, dtype=np.int64)
        norms = np.array([norm_byte(n) for n in range(int(lengths.max(initial=0)) + 1)])[lengths]
        sizes = np.zeros(len(row_of), dtype=np.int64)
        pairs = np.zeros(0, dtype=np.uint32)
        first = 0
        for block in blocks():
            sizes += np.bincount(row_of[block["terms"]], minlength=len(sizes))
            pairs = np.union1d(pairs, _pairs(block, norms, first))
            first += len(block["sizes"])
        starts = allocate("starts", np.int64, len(sizes) + 1)
        starts[0] = 0
        starts[1:] = np.cumsum(sizes)
        average = lengths.sum() / max(1, np.count_nonzero(lengths))
        denominators = allocate("denominators", np.float32, len(pairs))
        denominators[:] = _denominators(pairs, average)

        docs = allocate("docs", np.uint32, int(starts[-1]))
        codes = allocate("codes", np.uint16 if len(pairs) < 1 << 16 else np.uint32, len(docs))
        best = allocate("best", np.float32, len(sizes))
        best[:] = 1
        fill = np.array(starts[:-1])
        first = 0
        for block in blocks():
            rows = row_of[block["terms"]]
            order = np.argsort(rows, kind="stable")
            rows = rows[order]
            heads = np.flatnonzero(np.r_[True, rows[1:] != rows[:-1]]) if len(rows) else rows
            runs = np.diff(np.r_[heads, len(rows)])
            place = np.arange(len(rows)) + np.repeat(fill[rows[heads]] - heads, runs)
            codes_here = np.searchsorted(pairs, _pairs(block, norms, first))[order]
            count = len(block["sizes"])
            docs[place] = np.repeat(np.arange(first, first + count), block["sizes"])[order]
            codes[place] = codes_here
            if len(rows):
                peak = np.maximum.reduceat(denominators[codes_here], heads)
                best[rows[heads]] = np.maximum(best[rows[heads]], peak)
            fill[rows[heads]] += runs
            first += count
            progress(count)


def _pairs(block: dict[str, Any], norms: NDArray[Any], first: int) -> NDArray[np.uint32]:
    """256 x frequency + norm byte of each posting of a block whose documents begin at `first`."""
    norm = np.repeat(norms[first : first + len(block["sizes"])], block["sizes"])
    return (block["frequencies"] * np.uint32(256) + norm).astype(np.uint32)


def _denominators(pairs: NDArray[np.uint32], average: float) -> NDArray[np.float32]:
    """1 + frequency / (k1 (1 - b + b length / average)), in Lucene's 32-bit steps."""
    one = np.float32(1)
    lengths = np.array([norm_length(byte) for byte in range(256)], dtype=np.float32)
    inverse = one / (K1 * ((one - B) + B * lengths / np.float32(average or 1)))
    return (one + (pairs >> 8).astype(np.float32) * inverse[pairs & 255]).astype(np.float32)


class Index:
    """Search over the columns that `Builder.finish` wrote."""

    def __init__(
        self, columns: dict[str, NDArray[Any]], names: NDArray[Any], num_docs: int
    ) -> None:
        """`names` [num_docs] orders equal scores; `num_docs` counts documents with any term."""
        self.columns, self.names, self.num_docs = columns, names, num_docs
        self._row = lru_cache(maxsize=50_000)(self._find)

    def _find(self, word: str) -> int:
        """The vocabulary's row of an index term, -1 if no document has it."""
        key = word.encode("utf-8", "surrogatepass")
        starts, letters = self.columns["word_starts"], self.columns["words"]

        def at(row: int) -> bytes:
            return letters[int(starts[row]) : int(starts[row + 1])].tobytes()

        row = bisect_left(range(len(starts) - 1), key, key=at)
        return row if row < len(starts) - 1 and at(row) == key else -1

    def search(self, terms: list[str], k: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """The documents with the k best scores, best first, and their scores.

        A repeated query term counts as often as it stands. Frequent terms come last, and once no
        other document can reach the k best, they are looked up only for those that can: the
        ranking is that of adding every posting (MaxScore; Turtle and Flood, 1995).
        """
        postings = [
            p for word, boost in Counter(terms).items() if (p := self._postings(word, boost))
        ]
        postings.sort(key=lambda p: len(p.docs))
        # rests[i]: what the terms from i on can add to a document at most.
        rests = list(accumulate((p.bound for p in reversed(postings)), initial=0.0))[::-1]
        remaining = sum(len(p.docs) for p in postings)
        totals = np.zeros(len(self.names))
        # `floor`: a score that k documents are known to reach. Finding it costs as much as adding a
        # few thousand postings, so it is looked for when the postings added have quadrupled.
        floor, added, look_at = 0.0, 0, FEW // 4
        found: NDArray[Any] | None = None  # set once all other documents are out of the race
        scores = totals
        for i, part in enumerate(postings):
            rest = rests[i + 1]
            remaining -= len(part.docs)
            if found is not None:
                scores += part.at(found)
                if len(found) > k:
                    floor = max(floor, _kth(scores, k))
                    kept = scores >= _needed(floor, rest)
                    found, scores = found[kept], scores[kept]
                continue
            part.add(totals)
            added += len(part.docs)
            if remaining > FEW and (added >= look_at or _needed(floor, rest) > 0):
                floor = max(floor, _reached(totals, postings[i + 1 :], k))
                look_at = 4 * added
                if _needed(floor, rest) > 0:
                    found = np.flatnonzero(totals >= _needed(floor, rest)).astype(np.uint32)
                    scores = totals[found]
        if found is None:
            found = np.flatnonzero(totals > 0)
            scores = totals[found]
        scores = scores.astype(np.float32)
        if len(found) > k:
            kept = scores >= _kth(scores, k)
            found, scores = found[kept], scores[kept]
        order = np.lexsort((self.names[found], -scores))[:k]
        return found[order].astype(np.int64), scores[order]

    def _postings(self, word: str, boost: int) -> "Postings | None":
        row = self._row(word)
        if row < 0:
            return None
        start, end = int(self.columns["starts"][row]), int(self.columns["starts"][row + 1])
        idf = math.log(1 + (self.num_docs - (end - start) + 0.5) / (end - start + 0.5))
        weight = np.float32(boost) * np.float32(idf)
        return Postings(
            self.columns["docs"][start:end],
            self.columns["codes"][start:end],
            self.columns["denominators"],
            weight,
            float(weight - weight / self.columns["best"][row]),
        )


@dataclass(frozen=True, slots=True)
class Postings:
    """The documents of a query term and what it adds to their scores."""

    docs: NDArray[np.uint32]
    """[df] ascending."""
    codes: NDArray[Any]
    """[df] places in `denominators`."""
    denominators: NDArray[np.float32]
    weight: np.float32
    bound: float
    """The most that it adds to any document."""

    def scores(self, codes: NDArray[Any]) -> NDArray[np.float32]:
        return self.weight - self.weight / self.denominators.take(codes)

    def add(self, totals: NDArray[np.float64]) -> None:
        """Add to the totals [num_docs] of all its documents."""
        docs = self.docs.astype(np.intp)  # numpy would convert twice
        totals[docs] += self.scores(self.codes)

    def at(self, docs: NDArray[np.uint32]) -> NDArray[np.float32]:
        """What it adds to each of `docs` [n], 0 where a document has it not."""
        place = np.searchsorted(self.docs, docs)
        place[place == len(self.docs)] = 0
        return np.where(self.docs[place] == docs, self.scores(self.codes[place]), np.float32(0))


def _kth(scores: NDArray[Any], k: int) -> float:
    """The k-th best of at least k scores."""
    return float(np.partition(scores, len(scores) - k)[len(scores) - k])


def _needed(floor: float, rest: float) -> float:
    """The total below which a document cannot score `floor` when no more than `rest` is added."""
    # Scores are compared as 32-bit floats in the end: leave room for their rounding.
    return floor - rest - 1e-5 * (floor + 1)


def _reached(totals: NDArray[np.float64], rest: list[Postings], k: int) -> float:
    """A score that k documents reach once the terms `rest` are added: some promising documents
    are completed, and the k-th best of them counts. 0 when fewer than k have any score yet."""
    found = np.flatnonzero(totals > 0).astype(np.uint32)
    if len(found) < k:
        return 0.0
    if len(found) > 4 * k:
        found = np.sort(found[np.argpartition(totals[found], len(found) - 4 * k)[-4 * k :]])
    scores = totals[found]
    for part in rest:
        scores += part.at(found)
    return _kth(scores, k)
