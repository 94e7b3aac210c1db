"""The score of a purchase in [0, 1] (Yao et al., WebShop, NeurIPS 2022, section 3).

    score = r_type (attributes matched + options matched + price ok) / (attributes + options + 1)

The original's behaviour, oddities included: on synthetic goals it compares a chosen option with
the *pair* (name, value), so that a colour shortened on one side only may miss itself.
"""

import difflib
import functools
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from paw.envs.webshop.goals import Goal
from paw.envs.webshop.product import Product
from paw.envs.webshop.word_lists import COLORS, NOT_NOUNS
from paw.errors import UserError

Tagger = Callable[[str], Sequence[str]]

THRESHOLD = 85
_LATIN_1 = dict.fromkeys(range(128, 256))
_LETTERS = re.compile(r"[^\W\d_]{2,}")


def _tokens(text: str) -> frozenset[str]:
    """The words of a string as the fuzzy comparison sees it: no Latin-1 letters, no case."""
    return frozenset(re.sub(r"\W", " ", text.translate(_LATIN_1)).lower().split())


def _like(a: str, b: str) -> bool:
    """difflib's ratio in percent, rounded, is above the threshold; cheap upper bounds first."""
    if a == b:
        return True
    if not a or not b:
        return False
    length = len(a) + len(b)
    if round(100 * (2.0 * min(len(a), len(b)) / length)) <= THRESHOLD:
        return False
    if round(100 * (2.0 * (Counter(a) & Counter(b)).total() / length)) <= THRESHOLD:
        return False
    return round(100 * difflib.SequenceMatcher(None, a, b).ratio()) > THRESHOLD


@functools.lru_cache(maxsize=100_000)
def alike(a: str, b: str) -> bool:
    """Whether two strings are alike as sets of words: token_set_ratio of thefuzz 0.19 above 85.

    Any of three comparisons will do: common words with either side, and both sides, each written
    as its common words and then its own, sorted.
    """
    left, right = _tokens(a), _tokens(b)
    if not left or not right:
        return False
    common = " ".join(sorted(left & right))
    first = f"{common} {' '.join(sorted(left - right))}".strip()
    second = f"{common} {' '.join(sorted(right - left))}".strip()
    return _like(common, first) or _like(common, second) or _like(first, second)


def short_color(option: str) -> str:
    """The first colour of the list that the string contains, else the string."""
    return next((color for color in COLORS if color in option), option)


def _wanted_options(goal: Goal, matching: str) -> list[str]:
    """The goal's side of the option comparison, as strings."""
    if matching == "repaired" or not isinstance(goal.options, Mapping):
        options = goal.options
        values = options.values() if isinstance(options, Mapping) else options
        return [short_color(value) for value in values]
    # The original compares the pair: shortened only where name or value *is* a colour.
    pairs = goal.options.items()
    return [next((c for c in COLORS if c in pair), str(pair)) for pair in pairs]


def matched_options(chosen: Sequence[str], goal: Goal, matching: str = "official") -> list[bool]:
    """For each option of the goal whether some chosen value satisfies it."""
    shortened = [short_color(value) for value in chosen]
    wanted = _wanted_options(goal, matching)
    return [any(alike(value, want) for value in shortened) for want in wanted]


def matched_attributes(product: Product, goal: Goal) -> int:
    """How many of the goal's attributes the product has, by its attributes or by its texts."""
    texts = [product.title, " ".join(product.bullets), product.description]
    texts = [text.lower() for text in texts]
    return sum(
        any(alike(have, want) for have in product.attributes) or any(want in t for t in texts)
        for want in goal.attributes
    )


@functools.lru_cache(maxsize=20_000)
def rule_nouns(title: str) -> tuple[str, ...]:
    """Nouns of a title by rule: runs of two or more letters that are not in a list of others."""
    return tuple(word for word in _LETTERS.findall(title.lower()) if word not in NOT_NOUNS)


@functools.cache
def spacy_nouns() -> Tagger:
    """The original's tagger: what en_core_web_sm calls a noun or a proper noun.

    Raises:
        UserError: spaCy or its model is not installed.
    """
    try:
        import spacy  # pyright: ignore[reportMissingImports]

        model = spacy.load("en_core_web_sm")
    except (ImportError, OSError) as error:
        raise UserError(
            "env.tagger = 'spacy' needs spaCy and its model: pip install spacy, then"
            " python -m spacy download en_core_web_sm"
        ) from error

    @functools.lru_cache(maxsize=20_000)
    def nouns(title: str) -> tuple[str, ...]:
        return tuple(t.text.lower() for t in model(title) if t.pos_ in ("NOUN", "PROPN"))

    return nouns


def _type_reward(product: Product, goal: Goal, nouns: Tagger) -> dict[str, Any]:
    """Whether the right kind of thing was bought: by query, categories and title."""
    query_match = product.query == goal.query

    def categories(text: str) -> set[str]:
        return {part.strip() for part in text.split("›")}

    shared = categories(product.product_category) & categories(goal.product_category)
    wanted = nouns(goal.title)
    common = set(nouns(product.title)) & set(wanted)
    title_score = len(common) / len(wanted) if wanted else 0.2
    r_type = 1.0
    if not (query_match or len(shared) >= 2 or title_score > 0.2):
        r_type = 0.5
    if title_score < 0.1:
        r_type = 0.1
    if title_score == 0.0:
        r_type = 0.0
    return {
        "r_type": r_type,
        "query_match": query_match,
        "category_match": len(shared) >= 2,
        "title_score": title_score,
    }


def score(
    product: Product,
    price: float,
    chosen: Mapping[str, str],
    goal: Goal,
    matching: str = "official",
    nouns: Tagger = rule_nouns,
) -> tuple[float, dict[str, Any]]:
    """The official score of buying `product` with the `chosen` options, and its terms.

    Terms are named as in the original: r_type, r_att, r_option and r_price with their weights w_*,
    query_match, category_match, title_score; the option terms only where options are asked.
    """
    terms = _type_reward(product, goal, nouns)
    attributes = matched_attributes(product, goal)
    options = matched_options(list(chosen.values()), goal, matching)
    price_ok = price <= goal.price_upper
    total = len(goal.attributes) + len(options) + 1
    terms |= {"r_att": attributes / len(goal.attributes) if goal.attributes else 0.0}
    terms |= {"w_att": len(goal.attributes) / total, "r_price": price_ok, "w_price": 1 / total}
    if options:
        terms |= {"r_option": sum(options) / len(options), "w_option": len(options) / total}
    return (attributes + sum(options) + price_ok) / total * terms["r_type"], terms
