"""Scores of an answer: exact match and token F1 of SQuAD (Rajpurkar et al., 2016)."""

import re
import string
import unicodedata
from collections import Counter
from collections.abc import Iterable

PUNCTUATION = str.maketrans("", "", string.punctuation)
ARTICLES = re.compile(r"\b(a|an|the)\b")


def normalize_answer(text: str) -> str:
    """NFC, lower case, without ASCII punctuation and articles, white space collapsed.

    Punctuation goes before the articles, so "a-ha" gives "aha"; accents, curly quotes and dashes
    stay.
    """
    text = unicodedata.normalize("NFC", text).lower().translate(PUNCTUATION)
    return " ".join(ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, golds: Iterable[str]) -> bool:
    """The normalised prediction equals a normalised gold answer; an empty one never does."""
    wanted = normalize_answer(prediction)
    return bool(wanted) and any(wanted == normalize_answer(gold) for gold in golds)


def substring_match(prediction: str, golds: Iterable[str]) -> bool:
    """A gold answer stands inside the prediction as whole words, both normalised."""
    return contains_answer(prediction, [normalize_answer(gold) for gold in golds])


def contains_answer(text: str, normalized_golds: Iterable[str]) -> bool:
    """A normalised gold answer stands in `text` as whole words."""
    inside = f" {normalize_answer(text)} "
    return any(gold and f" {gold} " in inside for gold in normalized_golds)


def f1_score(prediction: str, golds: Iterable[str]) -> float:
    """Token F1 against the best gold answer, in [0, 1]."""
    predicted = Counter(normalize_answer(prediction).split())
    best = 0.0
    for gold in golds:
        wanted = Counter(normalize_answer(gold).split())
        shared = sum((predicted & wanted).values())
        if shared:
            best = max(best, 2 * shared / (predicted.total() + wanted.total()))
    return best
