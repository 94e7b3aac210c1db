"""The shop's goals, splits, seeds and options, on the hand-made catalogue."""

import pickle
import re

import pytest
from webshop_small import ANNOTATIONS, product, shop, write

import paw.envs
from paw.envs.webshop import WebShop
from paw.errors import UserError


def test_goals_are_every_combination_of_options(shop_dir):
    # Product 1: 2 sizes x 1 fit; product 2: no option; product 3: 1 size x 1 cut.
    source = shop(shop_dir)
    assert len(source) == 2 + 1 + 1
    texts = sorted(
        re.sub(r", and price lower than [\d.]+ dollars", "", t.instruction) for t in source
    )
    assert texts == [
        "Find me an energy saving lamp",
        "Find me boots with cut: small, and size: small",
        "Find me shoes with rubber sole with fit: no, and size: l | xl",
        "Find me shoes with rubber sole with fit: no, and size: small",
    ]
    assert {t.kind for t in source} == {"fashion", "garden"}
    assert [t.id for t in source] == [f"synthetic-233-{i}" for i in range(4)]


def test_price_limits(shop_dir):
    # $19.99: two of 20, 30, 40, 50, the larger; $1,000 and more: no multiple of ten below 1,000.
    source = shop(shop_dir)
    goals = {goal.asin: goal for goal in map(source._goal, source)}
    assert goals["B000000001"].price_upper in (30, 40, 50)
    assert goals["B000000002"].price_upper in (120, 130, 140)  # no price given: $100
    assert goals["B000000003"].price_upper == 1_000_000
    assert "price" not in goals["B000000003"].instruction
    prices = source._goals.prices
    assert list(prices[:2]) == [19.99, 100.0] and 1000 < prices[2] < 2000


def test_human_goals(shop_dir):
    source = shop(shop_dir, goals="human")
    assert len(source) == 1
    assert re.fullmatch(r"plain shoes, and price lower than [\d.]+ dollars", source[0].instruction)
    assert source[0].id == "human-233-0"


def test_splits_are_disjoint(tmp_path):
    # 2,000 goals of 40 products: the test split is official goals 0-499, dev the next 1,000.
    names = [f"B{i:09d}" for i in range(40)]
    options = {"size": [f"s{i}" for i in range(50)]}
    many = [product(asin, f"Thing {asin}", options=options) for asin in names]
    notes = {asin: {**ANNOTATIONS["B000000001"]} for asin in names}
    write(tmp_path, items_shuffle_1000=many, items_ins_v2_1000=notes)
    ids = {s: [t.id for t in shop(tmp_path, s)] for s in ("test", "dev", "train", "all")}
    assert [len(ids[s]) for s in ("test", "dev", "train")] == [500, 1000, 500]
    assert ids["test"] + ids["dev"] + ids["train"] == ids["all"]
    sources = [shop(tmp_path, s, product_split=True) for s in ("test", "dev", "train")]
    assert [len(s) for s in sources] == [200, 200, 1600]  # 4, 4 and 32 products of 50 goals
    owners = [{s._goal(t).asin for t in s} for s in sources]
    assert not owners[0] & owners[1] and not (owners[0] | owners[1]) & owners[2]


def test_seed_sets_prices_and_shuffle_seed_the_order(shop_dir):
    def goals(**seeds):
        return list(shop(shop_dir, **seeds)._goals)

    def order(goals):
        return [(goal.asin, *goal.options) for goal in goals]

    def limits(goals):
        return sorted(goal.price_upper for goal in goals)

    official = goals()
    of_seed = [goals(seed=seed) for seed in range(8)]
    of_shuffle = [goals(shuffle_seed=seed) for seed in range(8)]
    assert all(order(other) == order(official) for other in of_seed)
    assert all(limits(other) == limits(official) for other in of_shuffle)
    assert len({tuple(limits(other)) for other in of_seed}) > 1
    assert len({tuple(order(other)) for other in of_shuffle}) > 1
    assert of_seed[3] == goals(seed=3) and of_shuffle[3] == goals(shuffle_seed=3)


def test_product_split_hangs_on_the_order_alone(tmp_path):
    names = [f"B{i:09d}" for i in range(40)]
    notes = {asin: {**ANNOTATIONS["B000000001"]} for asin in names}
    write(tmp_path, items_shuffle_1000=[product(a, a) for a in names], items_ins_v2_1000=notes)

    def products(**seeds):
        source = shop(tmp_path, "test", product_split=True, **seeds)
        return {source._goal(task).asin for task in source}

    assert products(seed=5) == products()
    assert len({frozenset(products(shuffle_seed=seed)) for seed in range(4)}) > 1


def test_task_ids_name_both_seeds(shop_dir):
    sources = [
        shop(shop_dir, seed=seed, shuffle_seed=shuffle) for seed in (0, 233) for shuffle in (0, 233)
    ]
    assert [source[1].id for source in sources] == [
        "synthetic-0-shuffle0-1", "synthetic-0-1", "synthetic-233-shuffle0-1", "synthetic-233-1",
    ]  # fmt: skip
    for i, source in enumerate(sources):
        assert (source.facts()["seed"], source.facts()["shuffle_seed"]) == (
            (0, 0), (0, 233), (233, 0), (233, 233),
        )[i]  # fmt: skip
        for other in sources[:i] + sources[i + 1 :]:
            with pytest.raises(ValueError, match="is no task of"):
                source.open(other[1])
    with pytest.raises(UserError, match=r"env\.shuffle_seed must be an integer"):
        shop(shop_dir, shuffle_seed="233")


def test_one_catalogue_for_all(shop_dir):
    first, second = shop(shop_dir), shop(shop_dir, "all", observation="text_rich")
    assert first._shop.catalog is second._shop.catalog
    copy = pickle.loads(pickle.dumps(second))
    assert list(copy) == list(second) and len(pickle.dumps(second)) < 1000


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "tests"}, "did you mean 'test'"),
        ({"goals": "humans"}, "did you mean 'human'"),
        ({"observation": "html"}, "observation"),
        ({"matching": "offical"}, "did you mean 'official'"),
        ({"seed": "x"}, "env.seed"),
        ({"tagger": "spacy"}, "pip install spacy"),
        ({"split": "dev"}, "'dev' is empty"),
        ({"data_dir": "/nowhere/at/all"}, "no directory"),
        ({"products": "full"}, "holds no items_shuffle.json"),
    ],
)
def test_bad_options(shop_dir, options, message):
    with pytest.raises(UserError, match=re.escape(message)) as caught:
        WebShop(**{"split": "all", "data_dir": shop_dir, **options})
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("split", ["all", "test"])
@pytest.mark.parametrize("goals", ["synthetic", "human"])
def test_products_without_any_goal(tmp_path, split, goals):
    # Instructions of another product than the one there is.
    human = {"B000000009": [{"instruction": "x", "instruction_attributes": ["y"]}]}
    write(
        tmp_path,
        items_shuffle_1000=[product("B000000008", "Lamp")],
        items_ins_v2_1000={"B000000009": ANNOTATIONS["B000000001"]},
        items_human_ins=human,
    )
    with pytest.raises(UserError, match=f"no {goals} goal, in any split") as caught:
        shop(tmp_path, split, goals=goals)
    assert "choose 'all'" not in str(caught.value) and "\n" not in str(caught.value)


def test_no_data_dir(monkeypatch, shop_dir):
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)
    with pytest.raises(UserError, match="WEBSHOP_DATA"):
        paw.envs.make("webshop")
    monkeypatch.setenv("WEBSHOP_DATA", str(shop_dir))
    assert len(paw.envs.make("webshop", split="test")) == 4
