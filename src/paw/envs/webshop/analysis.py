"""From text to index terms, as Anserini's default English analyzer does it (Lucene 8).

Unicode word segmentation (UAX #29 as Lucene's StandardTokenizer reads it, plus emoji), English
possessive removed, lower case per code point, 33 stop words dropped, Porter's stemmer.
"""

import functools
import itertools
import re
from collections.abc import Iterator

import regex

from paw.envs.webshop.stemmer import stem

_STOP_WORDS = (
    "a an and are as at be but by for if in into is it no not of on or such that the their then"
    " there these they this to was will with"
)
STOP_WORDS = frozenset(_STOP_WORDS.split())

MAX_TOKEN_LENGTH = 255
"""Lucene cuts longer tokens, in UTF-16 units."""

# Extended_Pictographic of Unicode 12 to 15; later versions dropped symbols that Lucene still keeps.
_PICTOGRAPH = (
    "[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u2199\u21a9\u21aa\u231a\u231b\u2328\u2388\u23cf"
    "\u23e9-\u23f3\u23f8-\u23fa\u24c2\u25aa\u25ab\u25b6\u25c0\u25fb-\u25fe\u2600-\u2605"
    "\u2607-\u2612\u2614-\u2685\u2690-\u2705\u2708-\u2712\u2714\u2716\u271d\u2721\u2728\u2733"
    "\u2734\u2744\u2747\u274c\u274e\u2753-\u2755\u2757\u2763-\u2767\u2795-\u2797\u27a1\u27b0\u27bf"
    "\u2934\u2935\u2b05-\u2b07\u2b1b\u2b1c\u2b50\u2b55\u3030\u303d\u3297\u3299"
    "\U0001f000-\U0001f0ff\U0001f10d-\U0001f10f\U0001f12f\U0001f16c-\U0001f171"
    "\U0001f17e\U0001f17f\U0001f18e\U0001f191-\U0001f19a\U0001f1ad-\U0001f1e5"
    "\U0001f201-\U0001f20f\U0001f21a\U0001f22f\U0001f232-\U0001f23a\U0001f23c-\U0001f23f"
    "\U0001f249-\U0001f3fa\U0001f400-\U0001f53d\U0001f546-\U0001f64f\U0001f680-\U0001f6ff"
    "\U0001f774-\U0001f77f\U0001f7d5-\U0001f7ff\U0001f80c-\U0001f80f\U0001f848-\U0001f84f"
    "\U0001f85a-\U0001f85f\U0001f888-\U0001f88f\U0001f8ae-\U0001f8ff\U0001f90c-\U0001f93a"
    "\U0001f93c-\U0001f945\U0001f947-\U0001faff\U0001fc00-\U0001fffd]"
)

# Quantifiers are possessive: the longest match is wanted, and a text of any length takes linear
# time. Connectors alone are no token, but are eaten in one bite lest each be a new start.
_IGNORED = r"[\p{WB=Extend}\p{WB=Format}\p{WB=ZWJ}]*+"
_HEBREW = r"\p{WB=Hebrew_Letter}"
_LETTER = rf"""(?:\p{{WB=ALetter}}{_IGNORED}
    | {_HEBREW}{_IGNORED} (?: "{_IGNORED}(?={_HEBREW}) | '{_IGNORED} )?+ )"""
_IN_WORD = rf"[\p{{WB=MidLetter}}\p{{WB=MidNumLet}}']{_IGNORED}"
_DIGIT = rf"(?:[\p{{WB=Numeric}}\uFF10-\uFF19]{_IGNORED})"
_IN_NUMBER = rf"[\p{{WB=MidNum}}\p{{WB=MidNumLet}}']{_IGNORED}"
_CONNECTOR = rf"(?:\p{{WB=ExtendNumLet}}{_IGNORED})"
_UNIT = rf"""(?: (?:\p{{WB=Katakana}}{_IGNORED})++
    | (?: {_LETTER}++ (?: {_IN_WORD} {_LETTER}++ )*+
        | {_DIGIT}++ (?: {_IN_NUMBER} {_DIGIT}++ )*+ )++ )"""
_EMOJI = rf"{_PICTOGRAPH}\uFE0F?+[\U0001F3FB-\U0001F3FF]?+"
_TOKEN = regex.compile(
    rf"""
    (   {_CONNECTOR}*+ {_UNIT} (?: {_CONNECTOR}++ {_UNIT} )*+ {_CONNECTOR}*+
      | {_EMOJI} (?: \u200D {_EMOJI} )*+ {_IGNORED}
      | [\U0001F1E6-\U0001F1FF]{{2}} {_IGNORED}
      | [0-9\#*] \uFE0F?+ \u20E3 {_IGNORED}
      | (?: \p{{LB=SA}}{_IGNORED} )++
      | [\p{{Script=Han}}\p{{Script=Hiragana}}]{_IGNORED}
    ) | {_CONNECTOR}++
    """,
    regex.VERBOSE | regex.VERSION1,
)

# The same for ASCII, several times faster.
_ASCII_UNIT = r"(?:[A-Za-z]++(?:[.:'][A-Za-z]++)*+|[0-9]++(?:[.,;'][0-9]++)*+)++"
_ASCII_TOKEN = re.compile(rf"(_*+{_ASCII_UNIT}(?:_++{_ASCII_UNIT})*+_*+)|_++")


def words(text: str) -> list[str]:
    """The words of a text as they stand there, stop words included."""
    found: list[str] = []
    # No word reaches across a blank, so that the fast pattern serves most of any text.
    for is_ascii, pieces in itertools.groupby(text.split(" "), str.isascii):
        pattern = _ASCII_TOKEN if is_ascii else _TOKEN
        found += pattern.findall(" ".join(pieces))
    if "" in found or len(max(found, key=len, default="")) * 2 > MAX_TOKEN_LENGTH:
        return [piece for word in found for piece in _cut(word)]
    return found


def _cut(word: str) -> Iterator[str]:
    """Pieces of at most MAX_TOKEN_LENGTH UTF-16 units, each segmented as if it stood alone."""
    if len(word) * 2 <= MAX_TOKEN_LENGTH:
        if word:
            yield word
        return
    start = 0
    while start < len(word):
        end, units = start, 0
        while end < len(word):
            units += 2 if ord(word[end]) > 0xFFFF else 1
            if units > MAX_TOKEN_LENGTH:
                break
            end += 1
        piece = _TOKEN.match(word, start, end)
        if piece is None:
            start += 1
            continue
        if piece.group(1):
            yield piece.group(1)
        start = piece.end()


@functools.lru_cache(maxsize=100_000)
def term(word: str) -> str | None:
    """The index term of a word; None for a stop word."""
    if word[-1] in "sS" and word[-2:-1] in ("'", "\u2019", "\uff07"):
        word = word[:-2]
    lowered = word.lower() if word.isascii() else "".join(map(_lower, word))
    return None if lowered in STOP_WORDS else stem(lowered)


def _lower(character: str) -> str:
    lowered = character.lower()
    return lowered if len(lowered) == 1 else lowered[0]


def analyze(text: str) -> list[str]:
    """The index terms of a text, in order, repeats kept."""
    return [found for word in words(text) if (found := term(word)) is not None]
