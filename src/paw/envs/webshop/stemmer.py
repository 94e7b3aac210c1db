"""Porter's stemmer (Program 14(3), 1980) as its author's later programs and Lucene have it.

Against the paper: words of one or two letters stay as they are, `bli -> ble` replaces
`abli -> able`, and `logi -> log` is added to step 2. Only a, e, i, o, u (and y after a consonant)
are vowels: every other character, letter or not, counts as a consonant.
"""

from collections.abc import Container

_STEP_2 = {
    "ational": "ate",
    "tional": "tion",
    "enci": "ence",
    "anci": "ance",
    "izer": "ize",
    "bli": "ble",
    "alli": "al",
    "entli": "ent",
    "eli": "e",
    "ousli": "ous",
    "ization": "ize",
    "ation": "ate",
    "ator": "ate",
    "alism": "al",
    "iveness": "ive",
    "fulness": "ful",
    "ousness": "ous",
    "aliti": "al",
    "iviti": "ive",
    "biliti": "ble",
    "logi": "log",
}
_STEP_3 = {
    "icate": "ic",
    "ative": "",
    "alize": "al",
    "iciti": "ic",
    "ical": "ic",
    "ful": "",
    "ness": "",
}
_SUFFIXES = "al ance ence er ic able ible ant ement ment ent ion ou ism ate iti ous ive ize"
_STEP_4 = frozenset(_SUFFIXES.split())


def _shape(stem: str) -> str:
    """The stem with v for every vowel and c for every consonant."""
    shape: list[str] = []
    for character in stem:
        is_vowel = character in "aeiou" or (character == "y" and shape[-1:] == ["c"])
        shape.append("v" if is_vowel else "c")
    return "".join(shape)


def _measure(stem: str) -> int:
    """m of the form [C](VC)^m[V]."""
    return _shape(stem).count("vc")


def _ends_in_double_consonant(word: str) -> bool:
    return len(word) > 1 and word[-1] == word[-2] and _shape(word)[-1] == "c"


def _ends_cvc(word: str) -> bool:
    """Consonant, vowel, consonant, the last not w, x or y."""
    return _shape(word)[-3:] == "cvc" and word[-1] not in "wxy"


def _suffix(word: str, known: Container[str]) -> str | None:
    """The longest known suffix of two to seven letters."""
    for length in range(min(7, len(word)), 1, -1):
        if word[-length:] in known:
            return word[-length:]
    return None


def _step_1(word: str) -> str:
    """Plurals, -ed and -ing; y to i."""
    if word.endswith("s"):
        if word.endswith(("sses", "ies")):
            word = word[:-2]
        elif not word.endswith("ss"):
            word = word[:-1]
    if word.endswith("eed"):
        if _measure(word[:-3]) > 0:
            word = word[:-1]
    else:
        for suffix in ("ed", "ing"):
            stem = word.removesuffix(suffix)
            if stem != word:
                if "v" in _shape(stem):
                    word = _mend(stem)
                break
    if word.endswith("y") and "v" in _shape(word[:-1]):
        word = word[:-1] + "i"
    return word


def _mend(stem: str) -> str:
    """What is left of -ed or -ing as a word: hop(p)ed -> hop, fil(e)d -> file."""
    if stem.endswith(("at", "bl", "iz")):
        return stem + "e"
    if _ends_in_double_consonant(stem):
        return stem if stem[-1] in "lsz" else stem[:-1]
    if _measure(stem) == 1 and _ends_cvc(stem):
        return stem + "e"
    return stem


def _replace(word: str, rules: dict[str, str]) -> str:
    suffix = _suffix(word, rules)
    if suffix is not None and _measure(word[: -len(suffix)]) > 0:
        return word[: -len(suffix)] + rules[suffix]
    return word


def _step_4(word: str) -> str:
    """Drop a suffix where more than one syllable is left."""
    suffix = _suffix(word, _STEP_4)
    if suffix is None:
        return word
    stem = word[: -len(suffix)]
    if _measure(stem) < 2 or (suffix == "ion" and not stem.endswith(("s", "t"))):
        return word
    return stem


def _step_5(word: str) -> str:
    """A final e, and one of two final l."""
    if word.endswith("e"):
        measure = _measure(word[:-1])
        if measure > 1 or (measure == 1 and not _ends_cvc(word[:-1])):
            word = word[:-1]
    if word.endswith("ll") and _measure(word[:-1]) > 1:
        word = word[:-1]
    return word


def stem(word: str) -> str:
    """The stem of a lower-case word."""
    if len(word) <= 2:
        return word
    word = _step_1(word)
    word = _replace(word, _STEP_2)
    word = _replace(word, _STEP_3)
    return _step_5(_step_4(word))
