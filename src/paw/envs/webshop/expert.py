"""A rule-based shopper for demonstrations and warm starts."""

import random
import re
from collections.abc import Sequence

from paw.envs.base import Observation
from paw.envs.webshop import pages
from paw.envs.webshop.analysis import analyze
from paw.envs.webshop.goals import Goal
from paw.envs.webshop.reward import matched_options
from paw.envs.webshop.session import Shop
from paw.errors import UserError, nearest

KINDS = ("heuristic", "oracle")
JUNK = (
    "",
    "buy now",
    "search[]",
    "click[]",
    "click[add to cart]",
    "click[checkout]",
    "open the first result",
    "select[large]",
)
"""Commands that no page accepts."""

_LIMIT = re.compile(r", and price lower than ([\d.]+) dollars$")
_PRICE = re.compile(r"\$([\d.]+)")
_FILLER = frozenset(analyze("find me i am looking for need want would like buy get please can you"))
_ROUTINE = {
    f"click[{name.lower()}]" for name in (pages.BACK, pages.NEXT, pages.PREVIOUS, pages.BUY)
}
_ROUTINE |= {f"click[{name.lower()}]" for name in pages.SUB_PAGES}
_BUY = f"click[{pages.BUY.lower()}]"
_BACK, _NEXT = f"click[{pages.BACK.lower()}]", f"click[{pages.NEXT.lower()}]"
_PREVIOUS = f"click[{pages.PREVIOUS.lower()}]"


def _pieces(text: str) -> list[str]:
    """The pieces of an observation of either mode, markup removed."""
    if pages.SEPARATOR in text:
        return text.split(pages.SEPARATOR)
    lines = (re.sub(r"\[/?(?:clicked )?button_?\]", "", line).strip() for line in text.split("\n"))
    return [line for line in lines if line]


def _as_shown(command: str, observation: Observation) -> str:
    """A click in the letters of the page."""
    shown = {f"click[{piece.lower()}]": f"click[{piece}]" for piece in _pieces(observation.text)}
    return shown.get(command, command)


def _query(text: str) -> str:
    """Words that `search[...]` takes as they are."""
    return " ".join(re.sub(r"[\[\]\n]", " ", text).split()) or "gift"


class WebShopExpert:
    """Plays one episode from its observations.

    `kind="heuristic"` knows the instruction alone: it searches its words, opens the results that
    share most of them within the price, takes the option values that the instruction names, and
    buys. `kind="oracle"` also knows the goal's product and which values the score accepts.
    """

    def __init__(
        self,
        instruction: str,
        goal: Goal,
        shop: Shop,
        seed: int = 0,
        kind: str = "heuristic",
        noise: float = 0.0,
        junk: float = 0.0,
        tries: int = 3,
        as_shown: bool = False,
    ) -> None:
        """
        Args:
            noise: share of turns with a random admissible command (never the purchase).
            junk: share of turns with a command that no page accepts.
            tries: products that the heuristic looks at before it buys the best.
            as_shown: clicks spell what they name as the page does (`click[Buy Now]`), so that a
                small policy copies instead of learning to lower letters; the shop takes both.
        """
        if kind not in KINDS:
            raise UserError(f"expert kind: there is no {kind!r}{nearest(kind, KINDS)}")
        self.last_was_junk = False
        """The last command was junk: no demonstration."""
        self._random = random.Random(f"expert {seed} {instruction}")
        self._noise, self._junk, self._tries = noise, junk, tries
        self._as_shown = as_shown
        self._oracle = kind == "oracle"
        limit = _LIMIT.search(instruction)
        self._limit = float(limit[1]) if limit else float("inf")
        self._text = _LIMIT.sub("", instruction).lower()
        self._words = set(analyze(self._text)) - _FILLER
        self._queries = [_query(self._text.replace(":", " "))]
        self._target: str | None = None
        self._wishes: list[str] = []
        if self._oracle:
            number = shop.catalog.number(goal.asin)
            assert number is not None
            product = shop.catalog.product(number)
            self._target = goal.asin.lower()
            self._wishes = _accepted_values(product.options, goal, shop.matching)
            self._queries = [_query(product.title), self._queries[0], _query(f"<q> {goal.query}")]
        self._searches = 0
        self._current: str | None = None
        self._chosen: dict[str, str] = {}
        self._seen: dict[str, float] = {}

    def act(self, observation: Observation) -> str:
        """The next command."""
        self.last_was_junk = self._random.random() < self._junk
        if self.last_was_junk:
            return self._random.choice(JUNK)
        if self._random.random() < self._noise:
            command = self._wander(observation)
        else:
            command = self._plan(observation)
        self._note(command, observation)
        return _as_shown(command, observation) if self._as_shown else command

    def _wander(self, observation: Observation) -> str:
        choices = [c for c in observation.commands if c not in (_BUY, "search[<query>]")]
        if choices:
            return self._random.choice(choices)
        words = self._text.split()
        return f"search[{_query(' '.join(self._random.sample(words, min(3, len(words)))))}]"

    def _note(self, command: str, observation: Observation) -> None:
        """Remember what the observations do not show: product opened, values chosen."""
        if _NEXT in observation.commands and command not in _ROUTINE:
            self._current, self._chosen = command[6:-1], {}
        elif _BUY in observation.commands and command not in _ROUTINE:
            for name, values in self._options(observation).items():
                if command[6:-1] in values:
                    self._chosen[name] = command[6:-1]

    def _plan(self, observation: Observation) -> str:
        commands = observation.commands
        if "search[<query>]" in commands:
            query = self._queries[min(self._searches, len(self._queries) - 1)]
            self._searches += 1
            return f"search[{query}]"
        if _BUY in commands:
            return self._shop(observation)
        if _NEXT in commands:
            return self._browse(observation)
        return _PREVIOUS

    def _browse(self, observation: Observation) -> str:
        """On a page of results."""
        links = [c for c in observation.commands if c not in _ROUTINE]
        if self._target is not None:
            wanted = f"click[{self._target}]"
            if wanted in links:
                return wanted
            return _NEXT if links else _BACK
        if not links:
            return _BACK
        texts = _pieces(observation.text)
        fresh = [c for c in links if c[6:-1] not in self._seen]
        if self._seen and (len(self._seen) >= self._tries or not fresh):
            known = [c for c in links if c[6:-1] in self._seen] or links
            return max(known, key=lambda c: self._seen.get(c[6:-1], 0.0))
        return max(fresh, key=lambda c: self._likeness(c[6:-1], texts))

    def _likeness(self, asin: str, texts: Sequence[str]) -> float:
        """How well a result's title and price fit the instruction."""
        place = next((i for i, text in enumerate(texts) if text.lower() == asin), None)
        if place is None or place + 2 >= len(texts):
            return 0.0
        shared = len(self._words & set(analyze(texts[place + 1].lower())))
        price = _PRICE.search(texts[place + 2])
        fits = price is None or float(price[1]) <= self._limit
        return shared / (1 + len(self._words)) + fits

    def _options(self, observation: Observation) -> dict[str, list[str]]:
        """Option values by name, as a product's page shows them."""
        values = {c[6:-1] for c in observation.commands if c not in _ROUTINE}
        options: dict[str, list[str]] = {}
        texts = _pieces(observation.text)
        start = texts.index(pages.PREVIOUS) + 1 if pages.PREVIOUS in texts else 0
        name = ""
        for text in texts[start:]:
            if text.startswith("Price: "):
                break
            if text in values:
                options.setdefault(name, []).append(text)
            else:
                name = text
        return options

    def _shop(self, observation: Observation) -> str:
        """On a product's page: choose, buy or go back."""
        if self._target is not None:
            if self._current != self._target:
                return _PREVIOUS
            wishes = {
                name: value
                for name, values in self._options(observation).items()
                for value in values
                if value in self._wishes
            }
        else:
            options = self._options(observation)
            wishes = {n: v for n, values in options.items() if (v := self._named(values))}
            asin = self._current or ""
            if asin not in self._seen:
                self._seen[asin] = 1 + len(wishes) - len(options)
                missing = len(wishes) < min(len(options), self._text.count(":"))
                if missing and len(self._seen) < self._tries:
                    return _PREVIOUS
                if self._seen[asin] < max(self._seen.values()):
                    return _PREVIOUS
        for name, value in wishes.items():
            if self._chosen.get(name) != value:
                return f"click[{value}]"
        return _BUY

    def _named(self, values: Sequence[str]) -> str | None:
        """The value that the instruction names: literally, else by all of its words."""
        literal = [v for v in values if f": {v}" in self._text or f" {v} " in f" {self._text} "]
        if literal:
            return max(literal, key=len)
        worded = [v for v in values if (words := set(analyze(v))) and words <= self._words]
        return max(worded, key=len, default=None)


def _accepted_values(options: dict[str, list[str]], goal: Goal, matching: str) -> list[str]:
    """A value per option, so that as many of the goal's options as possible count as matched."""
    own = goal.options if isinstance(goal.options, dict) else {}
    chosen = {name: own[name] for name in options if name in own}
    for name, values in options.items():

        def gain(value: str, name: str = name) -> int:
            return sum(matched_options(list({**chosen, name: value}.values()), goal, matching))

        best = max(values, key=gain, default=None)
        current = sum(matched_options(list(chosen.values()), goal, matching))
        if best is not None and gain(best) > current:
            chosen[name] = best
    return list(chosen.values())
