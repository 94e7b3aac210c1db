"""Shopping goals: what is asked, at which price, in the official order.

The original draws range prices and price limits from Python's global generator while it loads,
unseeded, and shuffles with seed 233. Here the draws have a seed too, so that the goals are the same
everywhere; the shuffle has its own, so that other prices leave the order and the splits alone.
"""

import random
from array import array
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paw.envs.webshop import files
from paw.envs.webshop.catalog import Catalog
from paw.envs.webshop.product import HumanInstruction
from paw.errors import UserError

NO_LIMIT = 1_000_000
SHUFFLE_SEED = 233
"""Of the official order."""
MOST_GOALS = 50_000_000
TEST, DEV = 500, 1_500
"""Goals 0 to 499 are the test split, 500 to 1499 the dev split, the rest is for training."""


@dataclass(frozen=True, slots=True)
class Goal:
    """One instruction and what satisfies it."""

    index: int
    """Official number: position in the shuffled list."""
    asin: str
    instruction: str
    attributes: Sequence[str]
    options: Mapping[str, str] | Sequence[str]
    """Values by name (synthetic), or values (human)."""
    price_upper: float
    """Dollars; NO_LIMIT where the instruction names no price."""
    category: str
    query: str
    product_category: str
    title: str


def _price_limit(price: float, sample: Any) -> float:
    """The larger of two of the next four multiples of ten dollars below 1,000."""
    candidates = [10.0 * i for i in range(1, 100) if 10.0 * i > price][:4]
    return max(sample(candidates, 2)) if len(candidates) > 1 else NO_LIMIT


def _price_text(limit: float) -> str:
    return f", and price lower than {limit:.2f} dollars" if limit != NO_LIMIT else ""


class Goals(Sequence[Goal]):
    """The goals of a catalogue in official order; each is made when it is asked for."""

    prices: NDArray[np.float64]
    """[products] price of every product, a sampled one for ranges."""

    def __init__(self, catalog: Catalog, seed: int, shuffle_seed: int = SHUFFLE_SEED) -> None:
        self.catalog = catalog
        draws = random.Random(seed)
        self.prices = catalog.draw_prices(draws.uniform)
        num_goals = self._collect(draws)
        self._order = array("I", range(num_goals))
        random.Random(shuffle_seed).shuffle(self._order)

    def _collect(self, draws: random.Random) -> int:
        raise NotImplementedError

    def product_numbers(self) -> NDArray[np.int64]:
        """[goals] catalogue position of every goal's product."""
        raise NotImplementedError

    def __len__(self) -> int:
        return len(self._order)

    def _goal(self, index: int, number: int, limit: float, text: str, **fields: Any) -> Goal:
        product = self.catalog.product(number)
        return Goal(
            index=index,
            asin=product.asin,
            instruction=text + _price_text(limit),
            price_upper=limit,
            category=product.category,
            query=product.query,
            product_category=product.product_category,
            title=product.title,
            **fields,
        )


class SyntheticGoals(Goals):
    """Every combination of options of every product that has an instruction."""

    def _collect(self, draws: random.Random) -> int:
        combinations = self.catalog.columns["combinations"]
        self._products = np.flatnonzero(combinations >= 0)
        limits = [_price_limit(float(self.prices[i]), draws.sample) for i in self._products]
        self._limits = np.array(limits, dtype=np.float64)
        self._ends = np.cumsum(combinations[self._products])
        total = int(self._ends[-1]) if len(self._ends) else 0
        if total > MOST_GOALS:
            raise UserError(
                f"env.goals: these products have {total} synthetic goals; choose goals = 'human'"
            )
        return total

    def product_numbers(self) -> NDArray[np.int64]:
        place = np.searchsorted(self._ends, np.asarray(self._order), side="right")
        return self._products[place]

    def __getitem__(self, index: int) -> Goal:  # pyright: ignore[reportIncompatibleMethodOverride]
        position = self._order[index]
        place = int(np.searchsorted(self._ends, position, side="right"))
        number = int(self._products[place])
        product = self.catalog.product(number)
        # The last option name in sorted order turns fastest.
        rest = position - (int(self._ends[place - 1]) if place else 0)
        chosen: dict[str, str] = {}
        for name in sorted(product.options, reverse=True):
            rest, i = divmod(rest, len(product.options[name]))
            chosen[name] = product.options[name][i]
        options = dict(sorted(chosen.items()))
        text = ", and ".join(f"{name}: {value}" for name, value in options.items())
        limit = float(self._limits[place])
        return self._goal(
            index,
            number,
            limit,
            (product.instruction or "") + (f" with {text}" if text else ""),
            attributes=product.instruction_attributes,
            options=options,
        )


class HumanGoals(Goals):
    """The instructions that people wrote, where they name an attribute."""

    def _collect(self, draws: random.Random) -> int:
        path = self.catalog.human
        if path is None:
            raise UserError(
                "env.goals = 'human' needs items_human_ins.json (or .gz, .zst) in env.data_dir"
            )
        written: list[tuple[int, HumanInstruction]] = []
        for asin, instructions in files.read_json(path, dict[str, list[HumanInstruction]]).items():
            number = self.catalog.number(asin)
            if number is not None:
                written += [(number, i) for i in instructions if i.instruction_attributes]
        written.sort(key=lambda goal: goal[0])
        self._found = [
            (number, item, _price_limit(float(self.prices[number]), draws.sample))
            for number, item in written
        ]
        return len(written)

    def product_numbers(self) -> NDArray[np.int64]:
        return np.array([self._found[i][0] for i in self._order], dtype=np.int64)

    def __getitem__(self, index: int) -> Goal:  # pyright: ignore[reportIncompatibleMethodOverride]
        number, item, limit = self._found[self._order[index]]
        return self._goal(
            index,
            number,
            limit,
            item.instruction.strip("."),
            attributes=item.instruction_attributes,
            options=item.instruction_options,
        )
