"""Text to index terms: lower case, runs of letters and digits, stop words, Porter stems.

The stemmer is Snowball's `porter` (snowballstem.org/algorithms/porter/stemmer.html), the reading
of M. F. Porter, "An algorithm for suffix stripping", Program 14(3), 1980 that most search libraries
ship.
"""

import functools
import re

TOKEN = re.compile(r"[^\W_]+")

_LUCENE_ENGLISH = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then "
    "there these they this to was will with"
)
STOP_WORDS = frozenset(_LUCENE_ENGLISH.split())
"""Lucene's English stop words."""

MAX_TOKEN_CHARS = 255
"""Longer tokens are no words (Lucene's limit); they are cut, so that no text is slow to stem."""

VOWELS = frozenset("aeiouy")

STEP_2 = {
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "abli": "able",
    "entli": "ent",
    "eli": "e",
    "izer": "ize",
    "ization": "ize",
    "ational": "ate",
    "ation": "ate",
    "ator": "ate",
    "alli": "al",
    "alism": "al",
    "aliti": "al",
    "fulness": "ful",
    "ousli": "ous",
    "ousness": "ous",
    "iveness": "ive",
    "iviti": "ive",
    "biliti": "ble",
}
STEP_3 = {
    "alize": "al",
    "icate": "ic",
    "iciti": "ic",
    "ical": "ic",
    "ative": "",
    "ful": "",
    "ness": "",
}
_ENDINGS = "al ance ence er ic able ible ant ement ment ent ou ism ate iti ous ive ize ion"
STEP_4: dict[str, str] = dict.fromkeys(_ENDINGS.split(), "")
DOUBLES = ("bb", "dd", "ff", "gg", "mm", "nn", "pp", "rr", "tt")


def _regions(word: str) -> tuple[int, int]:
    """Where R1 and R2 begin: behind the first (second) vowel-consonant pair."""
    starts = [len(word), len(word)]
    position = 0
    for region in range(2):
        while position < len(word) and word[position] not in VOWELS:
            position += 1
        while position < len(word) and word[position] in VOWELS:
            position += 1
        if position >= len(word):
            break
        position += 1
        starts[region] = position
    return starts[0], starts[1]


def _ends_short(word: str) -> bool:
    """consonant, vowel, consonant other than w, x, y at the end (Porter's *o)."""
    return (
        len(word) >= 3
        and word[-1] not in VOWELS
        and word[-1] not in "wxY"
        and word[-2] in VOWELS
        and word[-3] not in VOWELS
    )


def _has_vowel(word: str) -> bool:
    return any(c in VOWELS for c in word)


def _longest_suffix(word: str, suffixes: dict[str, str]) -> str | None:
    for length in range(min(7, len(word)), 1, -1):
        if word[-length:] in suffixes:
            return word[-length:]
    return None


def _strip_plural_and_tense(word: str, r1: int) -> str:
    """Steps 1a to 1c."""
    if word.endswith("sses") or word.endswith("ies"):
        word = word[:-2]
    elif word.endswith("s") and not word.endswith("ss"):
        word = word[:-1]

    if word.endswith("eed"):
        if len(word) - 3 >= r1:
            word = word[:-1]
    elif word.endswith(("ed", "ing")):
        stem = word[:-2] if word.endswith("ed") else word[:-3]
        if _has_vowel(stem):
            word = stem
            if word.endswith(("at", "bl", "iz")):
                word += "e"
            elif word.endswith(DOUBLES):
                word = word[:-1]
            elif len(word) == r1 and _ends_short(word):
                word += "e"

    if word.endswith(("y", "Y")) and _has_vowel(word[:-1]):
        word = word[:-1] + "i"
    return word


def stem(word: str) -> str:
    """The Porter stem of a lower-case word: `stem("relational") == "relat"`."""
    if "y" in word:  # a y that starts the word or follows a vowel is a consonant: written Y
        letters = list(word)
        for i, letter in enumerate(letters):
            if letter == "y" and (i == 0 or letters[i - 1] in VOWELS):
                letters[i] = "Y"
        word = "".join(letters)
    r1, r2 = _regions(word)
    word = _strip_plural_and_tense(word, r1)

    for suffixes, region in ((STEP_2, r1), (STEP_3, r1), (STEP_4, r2)):
        suffix = _longest_suffix(word, suffixes)
        if suffix is None or len(word) - len(suffix) < region:
            continue
        if suffix == "ion" and not word[:-3].endswith(("s", "t")):
            continue
        word = word[: -len(suffix)] + suffixes[suffix]

    if word.endswith("e"):
        end = len(word) - 1
        if end >= r2 or (end >= r1 and not _ends_short(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and len(word) - 1 >= r2:
        word = word[:-1]
    return word.replace("Y", "y")


def tokens(text: str) -> list[str]:
    """Lower-case runs of letters and digits."""
    return TOKEN.findall(text.lower())


@functools.lru_cache(maxsize=65536)
def term(token: str) -> str | None:
    """The index term of a token; None for a stop word.

    The possessive "s" has the empty stem, a term like any other.
    """
    return None if token in STOP_WORDS else stem(token[:MAX_TOKEN_CHARS])


def terms(text: str) -> list[str]:
    """The index terms of `text`, in order, repeats included."""
    return [t for t in map(term, tokens(text)) if t is not None]
