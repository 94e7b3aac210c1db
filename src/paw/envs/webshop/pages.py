"""What a page shows, as pieces of text in order, and how pieces become an observation.

A piece is (kind, text). The original renders HTML and reads it back; the pieces are what is left.
"""

import json
from collections.abc import Iterable, Mapping, Sequence

from paw.envs.webshop.product import Product

PLAIN, BUTTON, OPTION, PRODUCT = range(4)
Piece = tuple[int, str]

BACK, NEXT, PREVIOUS, BUY = "Back to Search", "Next >", "< Prev", "Buy Now"
SUB_PAGES = ("Description", "Features", "Reviews", "Attributes")
PER_PAGE = 10
SEPARATOR = " [SEP] "

_HTML_SPACE = " \n\t\f\r"


def pieces(texts: Iterable[Piece]) -> list[Piece]:
    """What an HTML parser leaves: no empty text, blanks alone become one blank or vanish."""
    kept: list[Piece] = []
    for kind, text in texts:
        if not text.strip(_HTML_SPACE):
            if not text or "\n" in text:
                continue
            text = " "
        kept.append((kind, text))
    return kept


def plain_text(page: Iterable[Piece]) -> str:
    """The `text` observation."""
    return SEPARATOR.join(text.strip() for _, text in page)


def rich_text(page: Iterable[Piece], url: str, visited: set[str]) -> str:
    """The `text_rich` observation: buttons are marked, and so is what has been clicked.

    As in the original an option counts as chosen if it stands in double quotes in the URL.
    """
    lines: list[str] = []
    clicked: list[str] = []
    for kind, text in page:
        if kind == BUTTON:
            text = f"[button] {text} [button_]"
        elif kind == OPTION:
            if f'"{text}"' in url:
                clicked.append(f"You have clicked {text}.\n")
                text = f"  [clicked button] {text} [clicked button_]"
            else:
                text = f"  [button] {text} [button_]"
        elif kind == PRODUCT:
            mark = "clicked button" if text in visited else "button"
            text = f"\n[{mark}] {text} [{mark}_]"
        lines.append(text + "\n")
    return "".join(reversed(clicked)) + "".join(lines)


def index_page(instruction: str) -> list[Piece]:
    """The page with the search bar."""
    texts = [(PLAIN, "WebShop"), (PLAIN, "Instruction: "), (PLAIN, instruction)]
    return pieces([*texts, (BUTTON, "Search")])


def head(instruction: str) -> list[Piece]:
    """How every page but the first and the last begins."""
    return pieces([(PLAIN, "Instruction:"), (PLAIN, instruction), (BUTTON, BACK)])


def results_page(page: int, total: int, shown: Sequence[Product]) -> list[Piece]:
    """A page of search results, below the head."""
    texts = [(PLAIN, f"Page {page} (Total results: {total})")]
    if page > 1:
        texts.append((BUTTON, PREVIOUS))
    texts.append((BUTTON, NEXT))
    for product in shown:
        texts += [(PRODUCT, product.asin), (PLAIN, product.title), (PLAIN, product.price_tag)]
    return pieces(texts)


def item_page(product: Product, show_attributes: bool) -> list[Piece]:
    """The page of a product, below the head."""
    texts = [(BUTTON, PREVIOUS)]
    for name, values in product.options.items():
        texts.append((PLAIN, name))
        texts += [(OPTION, value) for value in values]
    texts += [(PLAIN, product.title), (PLAIN, f"Price: {product.price_tag}")]
    texts.append((PLAIN, "Rating: N.A."))
    texts += [(BUTTON, name) for name in SUB_PAGES[: 4 if show_attributes else 3]]
    return pieces([*texts, (BUTTON, BUY)])


def sub_page(product: Product, name: str) -> list[Piece]:
    """Description, features, reviews or attributes of a product, below the head."""
    texts: list[Piece] = [(BUTTON, PREVIOUS)]
    if name == "Description":
        texts.append((PLAIN, product.description))
    elif name == "Features":
        texts += [(PLAIN, f" {bullet}") for bullet in product.bullets]
    elif name == "Attributes":
        texts += [(PLAIN, f" {attribute}") for attribute in product.attributes]
        texts += [(PLAIN, product.category), (PLAIN, product.query)]
        texts.append((PLAIN, product.product_category))
    return pieces(texts)


def done_page(asin: str, options: Mapping[str, str], reward: float) -> list[Piece]:
    """What is shown after buying."""
    chosen = json.dumps(dict(options), sort_keys=True)
    for character in "<>&'":
        chosen = chosen.replace(character, f"\\u{ord(character):04x}")
    purchased = ["Purchased", "asin", asin, "options", chosen, "attrs", "None", "category", "None"]
    purchased += ["query", "None", "product category", "None"]
    target = ["Target", "asin", "options", "attrs", "price upper", "instuction text", "category"]
    target += ["product category", "query", "Goal ", "None"]
    texts = ["Thank you for shopping with us!", "Your code: ", "None"]
    texts += [" (Paste it in your MTurk interface.)", *purchased, *target, "Reward"]
    texts += ["Your score (min 0.0, max 1.0)", repr(reward), "Reward Details ", "None"]
    return pieces((PLAIN, text) for text in texts)
