"""Classes of tokens on a shop's pages: METHOD of the paper's A.4 (arXiv 2606.02388), and the rest.

Noise are product numbers and brand-like words in capitals: nothing before them tells which.
"""

import re
from collections.abc import Iterator

from paw.envs.webshop import pages
from paw.style import Found, Wording

ASIN = re.compile(r"\bB[0-9A-Z]{9}\b")
MARKS = r"\[SEP\]|\[(?:clicked )?button_?\]"
BUTTONS = (pages.BACK, pages.NEXT, pages.PREVIOUS, pages.BUY, "Search", *pages.SUB_PAGES)
_NAMES = "|".join(map(re.escape, BUTTONS))
PATTERNS = {
    "product numbers": ASIN,
    "prices": re.compile(r"\$\d[\d,]*(?:\.\d+)?(?: to \$\d[\d,]*(?:\.\d+)?)?"),
    "words in capitals": re.compile(r"\b[A-Z]{4,}\d*\b"),
    # A button's name is a whole piece of the page.
    "buttons and marks": re.compile(rf"{MARKS}|(?<=\] )(?:{_NAMES})(?= \[|$)"),
}
"""Class -> what is one."""


def _shop_words(text: str, command: str, instruction: str) -> Iterator[Found]:
    for name, pattern in PATTERNS.items():
        for match in pattern.finditer(text):
            yield name, *match.span()
    start = text.find(instruction) if instruction else -1
    if start >= 0:
        yield "the task", start, start + len(instruction)


def _kind(command: str) -> str:
    """`search`, a click on a product or an option, or on a button by its name."""
    name, _, rest = command.partition("[")
    clicked = rest.removesuffix("]")
    if name != "click":
        return name
    if ASIN.fullmatch(clicked.upper()):
        return "click a product"
    known = clicked.lower() in {button.lower() for button in BUTTONS}
    return f"click {clicked.lower()}" if known else "click an option"


WORDING = Wording((*PATTERNS, "the task", "other"), _shop_words, _kind)
