"""One shopping session: state, clicks and transitions of the original's text environment.

A session goes on after buying, as the original's does; `environment` ends the episode there. The
kind of a page is found by substring of its URL, which contains the query: a query that contains
`search_results` changes what `< Prev` does, so the URL is built and kept.
"""

import functools
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paw.envs.webshop import pages
from paw.envs.webshop.catalog import RESULTS, Catalog
from paw.envs.webshop.goals import Goal
from paw.envs.webshop.product import Product
from paw.envs.webshop.reward import Tagger, rule_nouns, score

BASE_URL = "http://127.0.0.1:3000"
_PAGES = ("search_results", "item_page", "item_sub_page", "done")
_SUB_PAGES = {name.lower(): name for name in pages.SUB_PAGES}

Clickable = tuple[str, str]
"""("button", ""), ("product", asin) or ("option", its name)."""


def parse(action: str) -> tuple[str, str] | None:
    """Name and lower-cased argument of an action; None if it has not the form name[argument].

    The original's `(.+)\\[(.+)\\]`, greedy and within one line, in linear time.
    """
    line = action.partition("\n")[0]
    close = line.rfind("]")
    bracket = line.rfind("[", 1, max(close - 1, 0))
    return (line[:bracket], line[bracket + 1 : close].lower()) if bracket > 0 else None


def _clickables(page: Sequence[pages.Piece]) -> dict[str, Clickable]:
    """Buttons, then product links, by lower-cased text."""
    found = {text.lower(): ("button", "") for kind, text in page if kind == pages.BUTTON}
    return found | {text.lower(): ("product", text) for kind, text in page if kind == pages.PRODUCT}


def commands(clickables: Iterable[str]) -> tuple[str, ...]:
    """A command per clickable that a command can name; the search button is none."""
    clicks = ((name, f"click[{name}]") for name in clickables)
    return tuple(c for name, c in clicks if name != "search" and parse(c) == ("click", name))


@dataclass(frozen=True)
class ItemPage:
    """What a product's page shows below its head, the same for every session."""

    page: list[pages.Piece]
    text: str
    clickables: Mapping[str, Clickable]
    commands: tuple[str, ...]


class Shop:
    """What the sessions of one task source share."""

    def __init__(
        self,
        catalog: Catalog,
        show_attributes: bool = False,
        matching: str = "official",
        nouns: Tagger = rule_nouns,
    ) -> None:
        self.catalog, self.show_attributes = catalog, show_attributes
        self.matching, self.nouns = matching, nouns
        self.item = functools.lru_cache(maxsize=500)(self._item)
        self._head = pages.head("")

    def _item(self, number: int) -> ItemPage:
        product = self.catalog.product(number)
        page = pages.item_page(product, self.show_attributes)
        clickables = _clickables(self._head + page)
        for name, values in product.options.items():
            # Where two options share a value, a click sets the later one.
            clickables |= dict.fromkeys(values, ("option", name))
        return ItemPage(page, pages.plain_text(page), clickables, commands(clickables))


class Session:
    """A session for one goal. `act` moves it; the attributes say where it stands."""

    def __init__(self, shop: Shop, goal: Goal, price_of: Any, seed: int | str = 0) -> None:
        """`price_of[number]` is the price of a product; `seed` drives `<r>` searches."""
        self.shop, self.goal, self.price_of = shop, goal, price_of
        self.id = str(goal.index)
        self.bought: tuple[float, dict[str, Any]] | None = None
        """Score and terms of the last purchase."""
        self._seed = seed
        self._head = pages.head(goal.instruction)
        self._head_text = pages.plain_text(self._head)
        self._to_index()

    # --- what the agent sees

    @property
    def text(self) -> str:
        """The `text` observation of the page."""
        return self._text

    @property
    def text_rich(self) -> str:
        """The `text_rich` observation of the page."""
        return pages.rich_text(self._page, self.url, self.visited)

    @property
    def clickables(self) -> tuple[str, ...]:
        """What can be clicked, in order."""
        return tuple(self._clickable)

    @property
    def commands(self) -> tuple[str, ...]:
        """What can be done here; a search is carried out everywhere, but offered by the bar."""
        if self.has_search_bar:
            return ("search[<query>]",)
        return self._commands or commands(self._clickable)

    @property
    def has_search_bar(self) -> bool:
        """Only the first page has one."""
        return self.page_name == "index"

    # --- what the agent does

    def act(self, action: str) -> tuple[float, bool, bool]:
        """Carry out an action: (score, bought, accepted). Anything malformed changes nothing."""
        parsed = parse(action)
        if parsed is None:
            return 0.0, False, False
        name, argument = parsed
        if name == "search":
            self._to_results(argument.split(" "), 1)
        elif name == "click" and argument in self._clickable and argument != "search":
            if argument == pages.BUY.lower():
                return self._buy(), True, True
            self._click(argument)
        else:
            return 0.0, False, False
        return 0.0, False, True

    def _click(self, name: str) -> None:
        kind = self.page_name
        if name == pages.BACK.lower():
            self._to_index()
        elif name == pages.NEXT.lower() and kind == "search_results":
            self._to_results(self.keywords, self.page + 1)
        elif name == pages.PREVIOUS.lower() and kind == "search_results":
            self._to_results(self.keywords, self.page - 1)
        elif name == pages.PREVIOUS.lower() and kind == "item_page":
            self._to_results(self.keywords, self.page)
        elif name in _SUB_PAGES:
            self._to_sub_page(_SUB_PAGES[name])
        else:
            what, key = self._clickable[name]
            if what == "product":
                self.number = self.shop.catalog.number(key)
                self.visited.add(key)
            elif what == "option":
                self.options[key] = name
            self._to_item()

    def _to_index(self) -> None:
        self.keywords: list[str] = []
        self.page = 1
        self.number: int | None = None
        self.options: dict[str, str] = {}
        self.visited: set[str] = set()
        self._show(f"{BASE_URL}/{self.id}", pages.index_page(self.goal.instruction))

    def _to_results(self, keywords: list[str], page: int) -> None:
        self.keywords, self.page = keywords, page
        self.number, self.options = None, {}
        found = self._find(keywords)
        start, end = (page - 1) * pages.PER_PAGE, page * pages.PER_PAGE
        shown = [self.shop.catalog.product(int(n)) for n in found[start:end]]
        url = f"{BASE_URL}/search_results/{self.id}/{'+'.join(keywords)}/{page}"
        self._show(url, self._head + pages.results_page(page, len(found), shown))

    def _find(self, keywords: list[str]) -> Sequence[int] | NDArray[np.int64]:
        """Products of a search; its first word may choose another way than by text."""
        catalog, rest = self.shop.catalog, keywords[1:]
        match keywords[0]:
            case "<r>":
                return self._random.sample(range(len(catalog)), min(RESULTS, len(catalog)))
            case "<c>":
                return catalog.labelled("categories", rest[0].strip()) if rest else ()
            case "<q>":
                return catalog.labelled("queries", " ".join(rest).strip())
            case "<a>":
                return ()  # crashes the original
        return catalog.search(" ".join(keywords))

    @functools.cached_property
    def _random(self) -> random.Random:
        return random.Random(self._seed)

    @property
    def _product(self) -> Product:
        assert self.number is not None
        return self.shop.catalog.product(self.number)

    def _to_item(self) -> None:
        assert self.number is not None
        where = f"{self._product.asin}/{'+'.join(self.keywords)}/{self.page}"
        self._at(f"{BASE_URL}/item_page/{self.id}/{where}/{json.dumps(self.options)}")
        item = self.shop.item(self.number)
        self._page = self._head + item.page
        self._text = self._head_text + pages.SEPARATOR + item.text
        self._clickable, self._commands = item.clickables, item.commands

    def _to_sub_page(self, name: str) -> None:
        where = f"{self._product.asin}/{'+'.join(self.keywords)}/{self.page}/{name}"
        url = f"{BASE_URL}/item_sub_page/{self.id}/{where}/{self.options}"
        self._show(url, self._head + pages.sub_page(self._product, name))

    def _buy(self) -> float:
        assert self.number is not None
        product, shop = self._product, self.shop
        price = float(self.price_of[self.number])
        self.bought = score(product, price, self.options, self.goal, shop.matching, shop.nouns)
        url = f"{BASE_URL}/done/{self.id}/{product.asin}/{self.options}"
        self._show(url, pages.done_page(product.asin, self.options, self.bought[0]))
        return self.bought[0]

    def _show(self, url: str, page: list[pages.Piece]) -> None:
        self._at(url)
        self._page = page
        self._text = pages.plain_text(page)
        self._clickable: Mapping[str, Clickable] = _clickables(page)
        self._commands: tuple[str, ...] = ()

    def _at(self, url: str) -> None:
        self.url = url
        self.page_name = next((name for name in _PAGES if name in url), "index")
