"""What every retriever is: queries in, ranked passages out."""

from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np


class RetrievalError(RuntimeError):
    """The retriever failed (server down, time-out, unreadable answer): the episode is lost, not won
    or lost. It must never become an observation, where it would be learnt as a target."""


FEW = 16


@dataclass(frozen=True, slots=True)
class Passage:
    """One retrieved paragraph."""

    id: str
    title: str
    text: str
    score: float = 0.0

    @property
    def contents(self) -> str:
        """The form of Search-R1's corpora: the quoted title on the first line, then the text."""
        return f'"{self.title}"\n{self.text}' if self.title else self.text


@runtime_checkable
class Retriever(Protocol):
    """Finds passages. Safe to call from several threads; picklable, for worker processes."""

    def search(self, queries: list[str], top_k: int) -> list[list[Passage]]:
        """At most `top_k` passages per query, best first; an empty list where nothing matches.

        Raises:
            RetrievalError: the retriever is out of order. No query text ever raises.
        """
        ...

    def passage(self, passage_id: str) -> Passage | None:
        """The passage of that id; None where it is unknown or the retriever cannot tell."""
        ...


def split_contents(contents: str) -> tuple[str, str]:
    """(title, text) of a Search-R1 document: the first line is the title, in quotes."""
    title, newline, text = contents.partition("\n")
    if not newline:
        return "", contents.strip()
    title = title.strip()
    if len(title) >= 2 and title[0] == title[-1] == '"':
        title = title[1:-1]
    return title, text.strip()


def largest(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the `k` largest of `scores` [N], best first, equal scores by position.

    Unlike `argpartition`, which keeps any of several equal scores at the boundary.
    """
    k = min(k, len(scores))
    if k <= FEW:  # argmax returns the first of equal scores and is far cheaper than a partition
        places = np.empty(max(k, 0), dtype=np.int64)
        rest = scores.copy()
        for i in range(len(places)):
            places[i] = rest.argmax()
            rest[places[i]] = -np.inf
        return places
    smallest_kept = np.partition(scores, len(scores) - k)[len(scores) - k]
    candidates = np.flatnonzero(scores >= smallest_kept)
    order = np.argsort(-scores[candidates], kind="stable")
    return candidates[order[:k]]
