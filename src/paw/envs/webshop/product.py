"""One product of the official file, as the shop shows it."""

import re
from typing import Any

import msgspec

from paw.errors import UserError

_PRICE = re.compile(r"\d+(?:\.\d*)?|\.\d+")


class Annotation(msgspec.Struct):
    """What `items_ins_v2.json` says of a product."""

    attributes: list[str] | None = None
    instruction: str | None = None
    instruction_attributes: list[str] | None = None


class HumanInstruction(msgspec.Struct):
    """What `items_human_ins.json` says of a product, once per person who wrote."""

    instruction: str
    instruction_attributes: list[str]
    instruction_options: list[str]


class Product(msgspec.Struct, frozen=True, array_like=True):
    """The fields that pages, search and reward read."""

    asin: str
    title: str
    description: str
    bullets: list[str]
    category: str
    query: str
    product_category: str
    options: dict[str, list[str]]
    """Values by option name, both lower-cased, in the order of the file."""
    price_tag: str
    prices: list[float]
    """One price, or the two ends of a range."""
    attributes: list[str]
    instruction: str | None
    """The synthetic instruction without options and price, where there is one."""
    instruction_attributes: list[str]

    @property
    def index_text(self) -> str:
        """What the search engine reads."""
        options = ", and ".join(f"{name}: {', '.join(v)}" for name, v in self.options.items())
        bullet = self.bullets[0] if self.bullets else ""
        return " ".join([self.title, self.description, bullet, options]).lower()


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _prices(pricing: Any) -> tuple[list[float], str]:
    """Prices and tag; 100 dollars where none is given or none can be read."""
    values: list[float] = []
    for piece in _text(pricing).split("$")[1:]:
        digits = re.sub(r"[^\d.]", "", piece)
        if _PRICE.fullmatch(digits):
            values.append(float(digits))
    if not values:
        return [100.0], "$100.0"
    if len(values) == 1:
        return values, f"${values[0]}"
    return values[:2], f"${values[0]} to ${values[1]}"


def _options(customization: Any) -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for name, contents in (customization or {}).items():
        if contents is not None:
            values = (_text(content["value"]) for content in contents)
            options[name.lower()] = [v.strip().replace("/", " | ").lower() for v in values]
    return options


def parse_product(raw: dict[str, Any], annotation: Annotation) -> Product:
    """A product from its official record.

    Raises:
        KeyError, TypeError, AttributeError: the record lacks a key or has another shape.
    """
    prices, tag = _prices(raw.get("pricing"))
    bullets = raw["small_description"]
    return Product(
        asin=raw["asin"],
        title=_text(raw["name"]),
        description=_text(raw["full_description"]),
        bullets=[_text(b) for b in (bullets if isinstance(bullets, list) else [bullets])],
        category=_text(raw["category"]),
        query=_text(raw["query"]).lower().strip(),
        product_category=_text(raw["product_category"]),
        options=_options(raw["customization_options"]),
        price_tag=tag,
        prices=prices,
        attributes=["DUMMY_ATTR"] if annotation.attributes is None else annotation.attributes,
        instruction=annotation.instruction,
        instruction_attributes=annotation.instruction_attributes or [],
    )


def check(raw: Any, number: int, path: object) -> None:
    """A UserError if an element of the product file is no product at all."""
    if not isinstance(raw, dict) or not isinstance(raw.get("asin"), str):
        raise UserError(
            f"{path}: element number {number} is no product with an asin; fetch it again"
        )
