"""A shop's pages as a person would see them, read from either observation: `text` or `text_rich`.

`text` does not mark what is a button, an option's name or its value; what stands where on a page
says it, but for names and values of options, which are listed together there.
"""

import json
import re
from collections.abc import Iterator, Sequence

from paw.envs.webshop import pages
from paw.envs.webshop.session import parse
from paw.style import Block, Step

THANKS, SCORE = "Thank you for shopping with us!", "Your score (min 0.0, max 1.0)"
ASIN = re.compile(r"[0-9A-Z]{10}")
PAGE = re.compile(r"Page (-?\d+) \(Total results: (\d+)\)")

_MARKED = re.compile(r"(  )?\[(clicked )?button\] (.*) \[(?:clicked )?button_\]")
_CLICKED = re.compile(r"You have clicked .*\.")
_SUB_PAGES = {f"click[{name.lower()}]": name for name in pages.SUB_PAGES}

Piece = tuple[str, str]
"""("", "button", "option" or "clicked", text); in a `text` observation the kind is always ""."""


def scenes(instruction: str, turns: Sequence[Step]) -> Iterator[Sequence[Block]]:
    """The page of each turn."""
    for index, (observation, _) in enumerate(turns):
        yield _page(observation, turns[:index])


def _page(observation: str, before: Sequence[Step]) -> Sequence[Block]:
    """One page; what was searched, clicked and opened comes from the commands before it."""
    pieces = _pieces(observation)
    texts = [text for _, text in pieces]
    if texts[:1] == [THANKS]:
        return _end(texts)
    if texts[:1] == ["WebShop"] and texts[-1] == "Search":
        return [Block("buttons", "Search bar", (("", "Search"),))]
    # The instruction may be one piece or several.
    start = texts.index(pages.BACK) + 1 if pages.BACK in texts else 0
    body = pieces[start:]
    if texts[:1] != ["Instruction:"] or not body:
        return ()
    if number := PAGE.fullmatch(body[0][1]):
        return _results(body[1:], number, before)
    if body[0][1] != pages.PREVIOUS:
        return ()
    if _is_item(body):
        return _item(body[1:], before)
    return _sub_page(body[1:], before)


def _pieces(text: str) -> list[Piece]:
    """The pieces of a page, without what repeats the clicks above it."""
    if pages.SEPARATOR in text.partition("\n")[0]:
        return [("", piece) for piece in text.split(pages.SEPARATOR)]
    found: list[Piece] = []
    for line in text.split("\n"):
        if match := _MARKED.fullmatch(line):
            indented, clicked, name = match.groups()
            kind = "button" if not indented else "clicked" if clicked else "option"
            found.append((kind, name.strip()))
        elif line.strip() and (found or not _CLICKED.fullmatch(line)):
            found.append(("", line.strip()))
    return found


def _results(body: Sequence[Piece], page: re.Match[str], before: Sequence[Step]) -> list[Block]:
    """A page of search results."""
    buttons, products = [pages.BACK], []
    for kind, text in body:
        if not products and text in (pages.PREVIOUS, pages.NEXT):
            buttons.append(text)
        elif ASIN.fullmatch(text) and kind in ("", "button"):
            products.append([text])
        elif products:
            products[-1].append(text)
    entries = []
    for asin, *texts in products:
        price = texts.pop() if texts and texts[-1].startswith("$") else ""
        entries.append((f"{asin} {price}".strip(), " ".join(texts)))
    facts = [("Page", page[1]), ("Results", page[2])]
    searches = [
        found[1] for _, command in before if (found := parse(command)) if found[0] == "search"
    ]
    facts += [("Query", query) for query in searches[-1:]]
    found = [Block("facts", "Search results", tuple(facts))]
    found += [Block("items", "Products", tuple(entries))] if entries else []
    return [*found, _buttons(buttons)]


def _is_item(body: Sequence[Piece]) -> bool:
    texts = [text for _, text in body]
    return texts[-1] == pages.BUY and "Rating: N.A." in texts[2:]


def _item(body: Sequence[Piece], before: Sequence[Step]) -> Sequence[Block]:
    """The page of a product."""
    texts = [text for _, text in body]
    rating = len(texts) - 1 - texts[::-1].index("Rating: N.A.")
    if rating < 2 or not texts[rating - 1].startswith("Price: "):
        return ()
    above, buttons = body[: rating - 1], [pages.BACK, pages.PREVIOUS, *texts[rating + 1 :]]
    values = [i for i, (kind, _) in enumerate(above) if kind in ("option", "clicked")]
    end = values[-1] + 1 if values else 0 if any(kind for kind, _ in body) else len(above) - 1
    title = " ".join(text for _, text in above[end:])
    facts = [("Title", title), ("Price", texts[rating - 1].removeprefix("Price: "))]
    facts.append(("Rating", "N.A."))
    entries, chosen = _options(above[:end], before)
    marks = tuple((i, 0, len(entries[i][1])) for i in chosen)
    facts += [("Clicked", ", ".join(entries[i][1] for i in chosen))] if chosen else []
    found = [Block("facts", "Product", tuple(facts))]
    found += [Block("items", "Options", tuple(entries), marks)] if entries else []
    return [*found, _buttons(buttons)]


def _options(
    listed: Sequence[Piece], before: Sequence[Step]
) -> tuple[list[tuple[str, str]], list[int]]:
    """(option's name, value) and which of them were clicked. Where nothing is marked, every piece,
    without a name, and what clicks on this product's page say."""
    if not any(kind for kind, _ in listed):
        clicks = _clicks(before)
        return [("", text) for _, text in listed], [
            i for i, (_, text) in enumerate(listed) if text.lower() in clicks
        ]
    name, entries, chosen = "", [], []
    for kind, text in listed:
        if not kind:
            name = text
            continue
        chosen += [len(entries)] if kind == "clicked" else []
        entries.append((name, text))
    return entries, chosen


def _clicks(before: Sequence[Step]) -> set[str]:
    """What was clicked on the pages of this product since it was opened."""
    found: set[str] = set()
    for observation, command in reversed(before):
        body = _pieces(observation)
        texts = [text for _, text in body]
        start = texts.index(pages.BACK) + 1 if pages.BACK in texts else len(texts)
        if texts[start : start + 1] != [pages.PREVIOUS]:
            break  # results, or another page
        clicked = parse(command)
        if clicked and clicked[0] == "click" and _is_item(body[start:]):
            found.add(clicked[1])
    return found


def _sub_page(body: Sequence[Piece], before: Sequence[Step]) -> list[Block]:
    """Description, features, reviews or attributes of a product."""
    opened = [c for _, command in before if (c := command.strip().lower()) in _SUB_PAGES]
    title = _SUB_PAGES[opened[-1]] if opened else "Page of the product"
    texts = [("", text) for _, text in body if text] or [("", "nothing is written here")]
    return [Block("passage", title, tuple(texts)), _buttons([pages.BACK, pages.PREVIOUS])]


def _end(texts: Sequence[str]) -> Sequence[Block]:
    """What was bought, and the score."""
    facts = []
    for label, name in (("Bought", "asin"), ("Options", "options"), ("Score", SCORE)):
        at = texts.index(name) + 1 if name in texts else len(texts)
        if at < len(texts):
            facts.append((label, _plain(texts[at])))
    return [Block("facts", "Thank you for shopping with us!", tuple(facts))] if facts else ()


def _plain(text: str) -> str:
    """Chosen options as a person writes them; anything else as it is."""
    try:
        chosen = json.loads(text)
    except (ValueError, RecursionError):
        return text
    if not isinstance(chosen, dict):
        return text
    return ", ".join(f"{name}: {value}" for name, value in chosen.items()) or "none"


def _buttons(names: Sequence[str]) -> Block:
    return Block("buttons", "Buttons", tuple(("", name) for name in names))
