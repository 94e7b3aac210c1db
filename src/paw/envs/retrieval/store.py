"""The passages of a corpus in one memory-mapped file, in the order of their ids.

Files in an index directory: `passages.bin`, records of id, title and text as UTF-8 behind one
another, and `spans.npy` [N, 4] int64, the four boundaries of each record. Nothing is decoded before
it is retrieved, so many processes share one copy and memory stays flat.
"""

import itertools
import mmap
from array import array
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from paw.envs.retrieval.base import Passage, RetrievalError, split_contents
from paw.envs.retrieval.files import clean, read_rows
from paw.errors import UserError

IdKey = tuple[int, int, str, str]


def id_key(passage_id: str) -> IdKey:
    """The order of ids, in which equal scores are ranked: numbers by value, then other strings."""
    if passage_id.isascii() and passage_id.isdigit():
        digits = passage_id.lstrip("0")
        return 0, len(digits), digits, passage_id
    return 1, 0, passage_id, passage_id


def read_corpus(path: str | Path) -> Iterator[tuple[int, Passage]]:
    """(line number, passage) of a corpus file: rows of `id` and `contents`, or `id, title, text`.

    Raises:
        UserError: unreadable file, or a row without these fields.
    """
    for number, row in read_rows(path):
        where = f"{path}, line {number}"
        passage_id, contents, text = row.get("id"), row.get("contents"), row.get("text")
        title = row.get("title")
        if isinstance(passage_id, bool) or not isinstance(passage_id, str | int):
            raise UserError(f'{where}: a passage needs an "id" (string or whole number)')
        if isinstance(text, str):
            title = title if isinstance(title, str) else ""
        elif isinstance(contents, str):
            title, text = split_contents(contents)
        else:
            found = ", ".join(map(str, row)) or "none"
            raise UserError(
                f'{where}: a passage needs "contents" or "title" and "text"; it has: {found}'
            )
        title = " ".join(clean(title).split())
        yield number, Passage(str(passage_id), title, clean(text).strip())


def map_array(path: Path) -> np.ndarray:
    """A memory-mapped array, as a plain ndarray: slices of `np.memmap` objects are slow."""
    return np.asarray(np.load(path, mmap_mode="r"))


class PassageWriter:
    """Writes the store while the corpus streams by."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._spans = array("q")
        self._lines = array("q")
        self._in_order = True

    def write(self, passages: Iterable[tuple[int, Passage]]) -> Iterator[Passage]:
        """Store each passage and hand it on; in the order of the file."""
        position = 0
        last: IdKey | None = None
        with (self.directory / "passages.bin").open("wb") as file:
            for line, passage in passages:
                self._spans.append(position)
                for text in (passage.id, passage.title, passage.text):
                    position += file.write(text.encode("utf-8", "replace"))
                    self._spans.append(position)
                self._lines.append(line)
                key = id_key(passage.id)
                self._in_order &= last is None or last < key
                last = key
                yield passage

    def finish(self, corpus: str | Path) -> np.ndarray:
        """Write `spans.npy` and return `rank` [N]: the place by id of each passage of the file.

        Raises:
            UserError: no passage at all, or an id that stands twice.
        """
        if not self._lines:
            raise UserError(f"{corpus} has no passage; one a line is wanted")
        spans = np.array(self._spans, dtype=np.int64).reshape(-1, 4)
        np.save(self.directory / "spans.npy", spans)
        rank = np.arange(len(spans))
        if self._in_order:
            return rank
        with PassageStore(self.directory) as store:
            keys = [id_key(store.id(i)) for i in range(len(store))]
        order = sorted(range(len(keys)), key=keys.__getitem__)
        for first, second in itertools.pairwise(order):
            if keys[first] == keys[second]:
                raise UserError(
                    f"{corpus}, line {self._lines[second]}: id {keys[first][3]!r} stands in line "
                    f"{self._lines[first]} already; ids must be unique"
                )
        rank[order] = np.arange(len(order))
        np.save(self.directory / "spans.npy", spans[order])
        return rank


class PassageStore:
    """Reads passages by place. Picklable: a copy maps the same file.

    Raises:
        OSError, ValueError, EOFError: a file is missing or damaged.
    """

    def __init__(self, directory: str | Path) -> None:
        self.directory = Path(directory)
        self._spans = map_array(self.directory / "spans.npy")
        with (self.directory / "passages.bin").open("rb") as file:
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        if self._spans.dtype != np.int64 or self._spans.shape[1:] != (4,) or not len(self._spans):
            raise ValueError("spans.npy is no table of four boundaries a passage")
        # The records stand in the order of the corpus: the last id need not be the last record.
        if self._spans[:, 3].max() != len(self._bytes):
            raise ValueError("passages.bin is not as long as spans.npy says")

    def __reduce__(self) -> tuple[type["PassageStore"], tuple[Path]]:
        return PassageStore, (self.directory,)

    def __len__(self) -> int:
        return len(self._spans)

    def __enter__(self) -> "PassageStore":
        return self

    def __exit__(self, *_: object) -> None:
        self._bytes.close()

    def id(self, place: int) -> str:
        """The id of passage number `place`."""
        start, end = self._spans[place, :2].tolist()
        return self._decode(self._bytes[start:end])

    def get(self, place: int, score: float = 0.0) -> Passage:
        """Passage number `place`, in the order of ids."""
        a, b, c, d = self._spans[place].tolist()
        record = self._bytes[a:d]
        return Passage(
            self._decode(record[: b - a]),
            self._decode(record[b - a : c - a]),
            self._decode(record[c - a :]),
            score,
        )

    def _decode(self, text: bytes) -> str:
        try:
            return text.decode()
        except UnicodeDecodeError as error:
            raise RetrievalError(
                f"{self.directory}: passages.bin is damaged ({error}); build the index again"
            ) from error

    def find(self, passage_id: str) -> Passage | None:
        """The passage of that id."""
        key = id_key(passage_id)
        low, high = 0, len(self)
        while low < high:
            middle = (low + high) // 2
            if id_key(self.id(middle)) < key:
                low = middle + 1
            else:
                high = middle
        return self.get(low) if low < len(self) and self.id(low) == passage_id else None
