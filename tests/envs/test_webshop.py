"""The shop on a hand-made catalogue of five products: pages, grammar, splits, bad data, expert."""

import gzip
import json
import pickle
import re

import pytest
import zstandard
from hypothesis import example, given, settings
from hypothesis import strategies as st

import paw.envs
from paw.envs.check import check_environment, format_report
from paw.envs.webshop import WebShop, catalog
from paw.envs.webshop.session import commands, parse
from paw.errors import UserError


def product(asin, name, pricing="$10.00", options="", **fields):
    customization = options and {
        option: [{"value": value} for value in values] for option, values in options.items()
    }
    return {
        "asin": asin,
        "name": name,
        "full_description": f"About {name}",
        "small_description": ["First point ", "Second point"],
        "pricing": pricing,
        "images": ["x.jpg"],
        "category": "fashion",
        "query": " Red Shoes ",
        "product_category": "Clothing › Shoes › Red",
        "customization_options": customization,
        **fields,
    }


PRODUCTS = [
    product(
        "B000000001", "Red Running Shoes", "$19.99", {"Size": ["Small", "L/XL"], "Fit": ["No"]}
    ),
    product("B000000002", "Blue Lamp", "", category="garden", query="lamp"),
    product(
        "B000000003", "Red Boots", "$1,000.00 - $2,000.00", {"Size": ["Small"], "Cut": ["Small"]}
    ),
    product("B000000003", "The same asin again"),
    product("B00000000004", "An asin of twelve characters"),
    product("nan", "No asin"),
    product("B000000004", "Tea <b>&amp; Cake</b>", None, "", small_description="One"),
    product("B000000005", "Plain Shoes", "$5.00", small_description=["", " ", "a\n", "\n"]),
]
ANNOTATIONS = {
    "B000000001": {
        "attributes": ["rubber sole", "non slip"],
        "instruction": "Find me shoes with rubber sole",
        "instruction_attributes": ["rubber sole"],
    },
    "B000000002": {
        "attributes": ["energy saving"],
        "instruction": "Find me an energy saving lamp",
        "instruction_attributes": ["energy saving"],
    },
    "B000000003": {
        "attributes": ["long lasting"],
        "instruction": "Find me boots",
        "instruction_attributes": ["long lasting"],
    },
}
HUMAN = {
    "B000000005": [
        {
            "instruction": "plain shoes.",
            "instruction_attributes": ["plain"],
            "instruction_options": [],
        },
        {"instruction": "nothing asked", "instruction_attributes": [], "instruction_options": []},
    ],
    "B999999999": [
        {"instruction": "x", "instruction_attributes": ["x"], "instruction_options": []}
    ],
}


def write(directory, suffix="_1000", **files):
    contents = {
        f"items_shuffle{suffix}": PRODUCTS,
        f"items_ins_v2{suffix}": ANNOTATIONS,
        f"items_human_ins{suffix}": HUMAN,
    }
    for name, content in (contents | files).items():
        (directory / f"{name}.json").write_text(json.dumps(content))
    return directory


@pytest.fixture(scope="module")
def shop_dir(tmp_path_factory):
    return write(tmp_path_factory.mktemp("shop"))


def shop(directory, split="all", **options):
    return WebShop(split, data_dir=directory, **options)


def start(source, asin):
    """An environment for a goal of the product, already reset."""
    task = next(t for t in source if source._goal(t).asin == asin)
    env = source.open(task)
    env.reset()
    return env


def play(env, *commands):
    """The last result of commands that are all accepted."""
    result = None
    for command in commands:
        result = env.step(command)
        assert result.valid, command
    return result


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


def test_first_page(shop_dir):
    source = shop(shop_dir)
    env = source.open(source[0])
    observation = env.reset()
    goal = source[0].instruction
    assert observation.text == f"WebShop [SEP] Instruction: [SEP] {goal} [SEP] Search"
    assert observation.commands == ("search[<query>]",)
    assert env.max_return == 10


def test_search_page(shop_dir):
    env = start(shop(shop_dir), "B000000001")
    result = play(env, "search[RED boots]")
    # Both words: product 3. One word: 1 by `red`, also within the options of none.
    pieces = result.observation.text.split(" [SEP] ")
    assert pieces[0] == "Instruction:" and pieces[2] == "Back to Search"
    assert pieces[3:] == [
        "Page 1 (Total results: 2)",
        "Next >",
        "B000000003",
        "Red Boots",
        "$1000.0 to $2000.0",
        "B000000001",
        "Red Running Shoes",
        "$19.99",
    ]
    assert result.observation.commands == (
        "click[back to search]",
        "click[next >]",
        "click[b000000003]",
        "click[b000000001]",
    )
    result = play(env, "click[next >]")
    assert result.observation.text.endswith("Page 2 (Total results: 2) [SEP] < Prev [SEP] Next >")


def test_item_page(shop_dir):
    source = shop(shop_dir, show_attributes=True)
    env = start(source, "B000000001")
    result = play(env, "search[running]", "click[B000000001]")
    assert result.observation.text.endswith(
        " [SEP] < Prev [SEP] size [SEP] small [SEP] l | xl [SEP] fit [SEP] no"
        " [SEP] Red Running Shoes [SEP] Price: $19.99 [SEP] Rating: N.A."
        " [SEP] Description [SEP] Features [SEP] Reviews [SEP] Attributes [SEP] Buy Now"
    )
    assert result.observation.commands[-4:] == (
        "click[buy now]",
        "click[small]",
        "click[l | xl]",
        "click[no]",
    )
    ends = {
        "description": "< Prev [SEP] About Red Running Shoes",
        "features": "< Prev [SEP] First point [SEP] Second point",
        "reviews": "Back to Search [SEP] < Prev",
        "attributes": "non slip [SEP] fashion [SEP] red shoes [SEP] Clothing › Shoes › Red",
    }
    for name, end in ends.items():
        assert play(env, f"click[{name}]").observation.text.endswith(end)
        play(env, "click[< prev]")


def test_white_space_and_markup(shop_dir):
    env = start(shop(shop_dir), "B000000001")
    result = play(env, "search[plain]", "click[b000000005]", "click[features]")
    # Of the bullets "", " ", "a\n" and "\n", shown behind a blank each: "\n" alone vanishes.
    assert result.observation.text.endswith("< Prev [SEP]  [SEP]  [SEP] a")
    result = play(env, "click[back to search]", "search[tea]")
    assert "Tea <b>&amp; Cake</b> [SEP] $100.0" in result.observation.text


def test_rich_text(shop_dir):
    source = shop(shop_dir, observation="text_rich")
    env = start(source, "B000000001")
    text = play(
        env, "search[running]", "click[b000000001]", "click[no]", "click[small]"
    ).observation.text
    assert text.startswith("You have clicked no.\nYou have clicked small.\nInstruction:\n")
    assert "\n[button] < Prev [button_]\nsize\n  [clicked button] small [clicked button_]\n" in text
    assert "  [button] l | xl [button_]\n" in text
    text = play(env, "click[< prev]").observation.text
    assert "\n\n[clicked button] B000000001 [clicked button_]\nRed Running Shoes\n$19.99\n" in text
    text = play(env, "click[back to search]", "search[running]").observation.text
    assert "\n\n[button] B000000001 [button_]\n" in text


def test_shared_value_sets_the_later_option(shop_dir):
    env = start(shop(shop_dir), "B000000003")
    result = play(env, "search[boots]", "click[b000000003]", "click[small]", "click[buy now]")
    assert result.info["options"] == {"cut": "small"}


def test_page_name_in_the_query_changes_prev(shop_dir):
    env = start(shop(shop_dir), "B000000001")
    result = play(env, "search[search_results boots]", "click[b000000003]", "click[< prev]")
    assert "Page 0 (Total results: 1) [SEP] Next >" in result.observation.text
    result = play(env, "click[next >]")
    assert "Page 1 (Total results: 1)" in result.observation.text


def test_keyword_searches(shop_dir):
    env = start(shop(shop_dir), "B000000001")
    for query, count in {
        "<c> garden": 1,
        "<c> fashion more words": 4,
        "<c>": 0,
        "<q> red shoes": 4,
        "<a> rubber sole": 0,
        "<r>": 5,
        "the": 0,
    }.items():
        text = play(env, f"search[{query}]").observation.text
        assert f"Page 1 (Total results: {count})" in text, query


def test_purchase(shop_dir):
    source = shop(shop_dir)
    env = start(source, "B000000001")
    want = source._goal(next(t for t in source if source._goal(t).asin == "B000000001")).options
    result = play(
        env,
        "search[running]",
        "click[b000000001]",
        f"click[{want['size']}]",
        "click[no]",
        "click[buy now]",
    )
    assert (result.reward, result.terminated, result.success) == (10.0, True, True)
    assert result.info["score"] == 1.0 and result.info["asin"] == "B000000001"
    assert "Purchased [SEP] asin [SEP] B000000001" in result.observation.text
    assert "Your score (min 0.0, max 1.0) [SEP] 1.0 [SEP] Reward Details" in result.observation.text
    assert result.observation.commands == ()
    with pytest.raises(RuntimeError):
        env.step("search[again]")


def test_partial_score_is_no_success(shop_dir):
    # Two of four points (rubber sole, price; neither option): 2/4 x r_type 1.
    env = start(shop(shop_dir), "B000000001")
    result = play(env, "search[running]", "click[b000000001]", "click[buy now]")
    assert (result.reward, result.success, result.info["score"]) == (0.0, False, 0.5)


REFUSED = """
search; search[]; click[]; Search[x];  search[x]; click[search]; click[b1]; buy now;
click[buy now]; search[x; [x]; click[next >]; click[description]; think[x]; search[a\nb]
"""


def test_refused_commands_change_nothing(shop_dir):
    source = shop(shop_dir)
    env = source.open(source[0])
    before = env.reset()
    for command in ["", *(command[1:] for command in REFUSED.split(";"))]:
        result = env.step(command)
        assert result.observation == before, command
        assert (result.valid, result.reward, result.success) == (False, 0, None)
        assert not result.terminated


def test_commands_are_what_a_click_can_name():
    names = ["buy now", "search", "", "x]", "a\nb", "[y", "ß"]
    assert commands(names) == ("click[buy now]", "click[x]]", "click[ß]")


PIECES = st.sampled_from(["search", "click", "[", "]", "a", " ", "\n", "]]", "red", "İ"])


@settings(deadline=None)
@given(st.lists(PIECES).map("".join) | st.text())
@example("search[red [shoes]]")
@example("search[shoes]]")
@example("search[shoes] please")
def test_parse_is_the_greedy_regular_expression(action):
    match = re.match(r"(.+)\[(.+)\]", action)
    assert parse(action) == (match and (match[1], match[2].lower()))


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text() | st.sampled_from(["search[red]", "click[b000000003]", "click[small]"])))
def test_any_text_is_survived(shop_dir, texts):
    source = shop(shop_dir, observation="text_rich")
    env = source.open(source[0])
    env.reset()
    for text in texts:
        for command in (text, f"search[{text}]", f"click[{text}]"):
            observation = env.step(command).observation
            assert observation.text.isprintable() or observation.text


@pytest.mark.parametrize("unit", ["[", "]", "_", "'a", "a b ", "é", "\U0001f381\u200d"])
def test_a_megabyte_does_not_hang(shop_dir, unit):
    source = shop(shop_dir, observation="text_rich")
    env = source.open(source[0])
    env.reset()
    text = unit * (1_000_000 // len(unit))
    assert not env.step(text).valid
    # The last bracket opens the argument: of `search[[[` none is left.
    assert env.step(f"search[{text}]").valid == (unit != "[")


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


def test_seed_sets_order_and_prices(shop_dir):
    limits, orders = set(), set()
    for seed in range(8):
        goals = list(shop(shop_dir, seed=seed)._goals)
        limits.add(tuple(sorted(goal.price_upper for goal in goals)))
        orders.add(tuple((goal.asin, *goal.options) for goal in goals))
        assert goals == list(shop(shop_dir, seed=seed)._goals)
    assert len(limits) > 1 and len(orders) > 1


def test_one_catalogue_for_all(shop_dir):
    first, second = shop(shop_dir), shop(shop_dir, "all", observation="text_rich")
    assert first._shop.catalog is second._shop.catalog
    copy = pickle.loads(pickle.dumps(second))
    assert list(copy) == list(second) and len(pickle.dumps(second)) < 1000


def test_contract(shop_dir):
    report = check_environment(shop(shop_dir, observation="text_rich", show_attributes=True))
    assert report.passed, format_report(report)


@pytest.mark.parametrize("kind", ["oracle", "heuristic"])
@pytest.mark.parametrize("observation", ["text", "text_rich"])
def test_expert_succeeds(shop_dir, kind, observation):
    source = shop(shop_dir, observation=observation)
    for task in source:
        if source._goal(task).asin == "B000000003":
            continue  # both of its options have the value `small`: only one can be set
        env, expert = source.open(task), source.expert(task, kind=kind)
        seen = env.reset()
        for _ in range(15):
            result = env.step(expert.act(seen))
            seen = result.observation
            if result.terminated:
                break
        assert result.success, task


def test_expert_says_what_is_junk(shop_dir):
    source = shop(shop_dir)
    junk = valid = 0
    for seed in range(40):
        env, expert = source.open(source[0]), source.expert(source[0], seed, noise=0.3, junk=0.3)
        seen = env.reset()
        for _ in range(20):
            result = env.step(expert.act(seen))
            assert result.valid != expert.last_was_junk
            junk, valid = junk + (not result.valid), valid + result.valid
            seen = result.observation
            if result.terminated:
                break
    assert 0.2 < junk / (junk + valid) < 0.4


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


def test_no_data_dir(monkeypatch, shop_dir):
    monkeypatch.delenv("WEBSHOP_DATA", raising=False)
    with pytest.raises(UserError, match="WEBSHOP_DATA"):
        paw.envs.make("webshop")
    monkeypatch.setenv("WEBSHOP_DATA", str(shop_dir))
    assert len(paw.envs.make("webshop", split="test")) == 4


def damage(directory, name, content):
    (directory / f"{name}.json").unlink()
    path = directory / (f"{name}.json.gz" if content[:2] == b"\x1f\x8b" else f"{name}.json")
    path.write_bytes(content)


ITEMS = json.dumps(PRODUCTS).encode()
WITHOUT_NAME = json.dumps([{k: v for k, v in PRODUCTS[0].items() if k != "name"}]).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("items_shuffle_1000", gzip.compress(ITEMS)[:-30]),
        ("items_shuffle_1000", b"\x1f\x8bno gzip at all"),
        ("items_shuffle_1000", ITEMS[:-20]),
        ("items_shuffle_1000", ITEMS.replace(b'"asin":', b'"asin"', 1)),
        ("items_shuffle_1000", b"{}"),
        ("items_shuffle_1000", b""),
        ("items_shuffle_1000", b"[]"),
        ("items_shuffle_1000", b"[1]"),
        ("items_shuffle_1000", b"\xff\xfe\xfd"),
        ("items_shuffle_1000", WITHOUT_NAME),
        ("items_shuffle_1000", json.dumps([product(5, "x")]).encode()),
        ("items_shuffle_1000", json.dumps([product("B1", "x", options={"a": [1]}), 7]).encode()),
        ("items_shuffle_1000", json.dumps([PRODUCTS[0] | {"customization_options": "x"}]).encode()),
        ("items_ins_v2_1000", b"[]"),
        ("items_ins_v2_1000", b'{"B000000001": {"attributes": 3}}'),
        ("items_ins_v2_1000", b'{"B000000001": '),
        ("items_human_ins_1000", b"[]"),
        ("items_human_ins_1000", b'{"B000000001": [{"instruction": 3}]}'),
        ("items_human_ins_1000", gzip.compress(b"{}")[:-4]),
    ],
)
def test_bad_data(tmp_path, name, content):
    write(tmp_path)
    damage(tmp_path, name, content)
    with pytest.raises(UserError) as caught:
        shop(tmp_path, goals="human")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["items_shuffle_1000", "items_ins_v2_1000", "items_human_ins_1000"]
)
def test_missing_file(tmp_path, name):
    write(tmp_path)
    (tmp_path / f"{name}.json").unlink()
    stem = name.removesuffix("_1000")
    with pytest.raises(UserError, match=stem):
        shop(tmp_path, goals="human")


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_compressed_files(shop_dir, tmp_path, pack):
    suffix = ".gz" if pack is gzip.compress else ".zst"
    for path in shop_dir.glob("*.json"):
        (tmp_path / (path.name + suffix)).write_bytes(pack(path.read_bytes()))
    assert list(shop(tmp_path)) == list(shop(shop_dir))


def test_full_set_is_indexed_on_disk_once(shop_dir, tmp_path, monkeypatch):
    directory, cache = tmp_path / "data", tmp_path / "cache"
    directory.mkdir()
    odd = product("B000000006", "Lone \ud83d surrogate")
    write(directory, "", items_shuffle=[*PRODUCTS, odd])
    source = shop(directory, cache_dir=cache)
    assert list(source) == list(shop(shop_dir))
    env = start(source, "B000000001")
    assert "Page 1 (Total results: 2)" in play(env, "search[red boots]").observation.text
    assert "Lone ? surrogate" in play(env, "search[surrogate]").observation.text
    (built,) = cache.iterdir()
    assert not list(built.glob("block*"))
    inode = built.stat().st_ino
    catalog._open.cache_clear()  # as in another process
    assert list(shop(directory, cache_dir=cache)) == list(source)
    assert [path.stat().st_ino for path in cache.iterdir()] == [inode]
