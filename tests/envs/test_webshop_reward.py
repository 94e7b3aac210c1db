"""The score by worked examples, one per rule of the original."""

import pytest

from paw.envs.webshop.goals import NO_LIMIT, Goal
from paw.envs.webshop.product import Annotation, parse_product
from paw.envs.webshop.reward import alike, matched_options, rule_nouns, score, short_color


def goal(options=(), **fields):
    known = {
        "index": 0,
        "asin": "B1",
        "instruction": "",
        "attributes": ["machine wash"],
        "options": options,
        "price_upper": 20.0,
        "category": "fashion",
        "query": "shirts",
        "product_category": "Clothing › Men › Shirts",
        "title": "Cotton Shirt with Long Sleeve Collar Buttons",
    }
    return Goal(**(known | fields))


def product(**fields):
    raw = {
        "asin": "B1",
        "name": "Cotton Shirt with Long Sleeve Collar Buttons",
        "full_description": "Soft.",
        "small_description": ["Machine WASH only", "warm"],
        "category": "fashion",
        "query": "shirts",
        "product_category": "Clothing › Men › Shirts",
        "customization_options": "",
    }
    return parse_product(raw | fields, Annotation(attributes=["long sleeve"]))


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        ("long sleeve", "sleeve long", True),  # sets of words
        ("blue", "dark blue", True),  # one side is contained: 100
        ("Easy-Clean", "easy clean!", True),  # case and punctuation fall
        ("machine wash", "machine washable", True),  # 2 x 12 matched of 12 + 16: 86
        ("machine wash", "machine washables", False),  # 2 x 12 / 29: 83
        ("teal", "tail", False),
        ("é", "é", False),  # Latin-1 letters fall: nothing is left
        ("ж", "ж", True),  # other letters stay
        ("", "x", False),
    ],
)
def test_alike(a, b, expected):
    assert alike(a, b) == expected


def test_colors():
    assert short_color("dark blue") == "blue"  # the first of the list, not of the string
    assert short_color("rectangular") == "tan"
    assert short_color("size 7") == "size 7"


@pytest.mark.parametrize(
    ("chosen", "wanted", "official", "repaired"),
    [
        ("dark blue", "dark blue", True, True),
        ("light blue", "dark blue", True, True),  # `blue` is among color, dark, blue
        ("r.brown2070", "r.brown2070", False, True),  # `brown` is no word of it
        ("rectangular", "rectangular", False, True),
        ("blue", "blue", True, True),
        ("small", "small", True, True),
        ("small", "medium", False, False),
    ],
)
def test_synthetic_options(chosen, wanted, official, repaired):
    assert matched_options([chosen], goal({"color": wanted})) == [official]
    assert matched_options([chosen], goal({"color": wanted}), "repaired") == [repaired]


def test_pair_that_is_a_color():
    # A value that *is* a colour shortens the pair to it, and the name no longer counts.
    assert matched_options(["color"], goal({"color": "teal"})) == [False]
    assert matched_options(["color"], goal({"color": "dark teal"})) == [True]


def test_human_options():
    assert matched_options(["r.brown2070"], goal(["brown"])) == [True]
    assert matched_options(["small", "blue"], goal(["dark blue", "small", "x"])) == [
        True,
        True,
        False,
    ]


def test_score_of_the_right_thing():
    # Attribute by bullet text, one of two options, price: 3 of 4.
    wanted = goal({"size": "small", "color": "blue"})
    total, terms = score(product(), 19.99, {"size": "small"}, wanted)
    assert total == 3 / 4
    assert terms == {
        "r_type": 1.0,
        "r_att": 1.0,
        "w_att": 1 / 4,
        "query_match": True,
        "category_match": True,
        "title_score": 1.0,
        "r_option": 1 / 2,
        "w_option": 2 / 4,
        "r_price": True,
        "w_price": 1 / 4,
    }


def test_price_and_missing_options():
    # Attribute but not the price: 1 of 2; no options asked, so no terms of them.
    total, terms = score(product(), 20.01, {}, goal())
    assert total == 1 / 2 and terms["r_price"] is False
    assert "r_option" not in terms and "w_option" not in terms
    assert score(product(), 1e5, {}, goal(price_upper=NO_LIMIT))[0] == 1.0


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"query": "other"}, 1.0),  # categories and title still agree
        ({"query": "other", "product_category": "Clothing › Women"}, 1.0),  # the title does
        # One noun of five shared, 0.2, and one category: not enough by themselves ...
        ({"name": "Cotton rug", "query": "rugs", "product_category": "Clothing › Home"}, 0.5),
        # ... but with the query.
        ({"name": "Cotton rug", "product_category": "Home"}, 1.0),
        # No noun shared: nothing, even in the same category.
        ({"name": "Rug"}, 0.0),
    ],
)
def test_type_of_product(fields, expected):
    total, terms = score(product(**fields), 10, {}, goal())
    assert terms["r_type"] == expected and total == expected


def test_few_nouns_shared():
    # One of eleven nouns: 0.09.
    title = "cotton shirt sleeve collar button pocket cuff hem yoke placket seam"
    _, terms = score(product(name="Seam rug"), 10, {}, goal(title=title))
    assert (terms["title_score"], terms["r_type"]) == (1 / 11, 0.1)


def test_nouns_by_rule():
    # Repeats count in the number wanted: shared {cat} of cat, cat, food.
    assert rule_nouns("The 2 Best CAT cat-food B2B x") == ("cat", "cat", "food")
    _, terms = score(product(name="Cat"), 10, {}, goal(title="cat cat food"))
    assert terms["title_score"] == 1 / 3
    # No nouns wanted: 0.2.
    assert score(product(), 10, {}, goal(title="1 2 3"))[1]["title_score"] == 0.2
