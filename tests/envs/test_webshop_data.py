"""The 1,000 official products against the original's own goals, searches, pages and scores.

The references (WebShop commit 64fa2a5, pyserini 0.17, thefuzz 0.19, the title noun rule in place
of the spaCy tagger) are compared without any tolerance but that of printed scores.
"""

import gzip
import hashlib
import json

import numpy as np
import pytest

from paw.envs.webshop import WebShop
from paw.envs.webshop.analysis import analyze
from paw.envs.webshop.reward import matched_options, score
from paw.envs.webshop.session import Session, Shop

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def data_dir(shared_data):
    return shared_data / "webshop"


@pytest.fixture(scope="module")
def sources(data_dir):
    return {kind: WebShop("all", data_dir, goals=kind) for kind in ("synthetic", "human")}


@pytest.fixture(scope="module")
def reference(data_dir):
    def read(name):
        with gzip.open(data_dir / "reference" / f"{name}.jsonl.gz", "rt") as lines:
            return [json.loads(line) for line in lines]

    return read


def test_analyzer(reference):
    for row in reference("analyzer"):
        assert analyze(row["text"]) == row["tokens"]


def test_searches(reference, sources):
    catalog = sources["synthetic"]._shop.catalog
    for row in reference("searches"):
        terms = analyze(row["query"])
        assert terms == row["tokens"]
        found, scores = catalog.index.search(terms, 50)
        assert [catalog.product(int(i)).asin for i in found] == [asin for asin, _ in row["hits"]]
        # Printed scores: four decimals, and equal neighbours 1e-6 apart.
        expected = np.array([value for _, value in row["hits"]])
        assert np.all(np.abs(scores - expected) < 1.1e-4)


@pytest.mark.parametrize(("kind", "count"), [("synthetic", 6910), ("human", 13)])
def test_goals(reference, sources, kind, count):
    source = sources[kind]
    assert len(source) == count
    for row in reference(f"goals_{kind}"):
        goal = source._goal(source[row["index"]])
        assert goal.instruction == row["instruction_text"] == source[row["index"]].instruction
        assert (goal.asin, goal.price_upper) == (row["asin"], row["price_upper"])
        assert (goal.attributes, goal.options) == (row["attributes"], row["goal_options"])


def test_goals_of_other_seeds(data_dir):
    with open(data_dir / "reference" / "goal_checksums.json") as file:
        rows = json.load(file)
    assert len(rows) == 10
    for row in rows:
        seeds = {"seed": row["load_seed"], "shuffle_seed": row["shuffle_seed"]}
        source = WebShop("all", data_dir, goals=row["goal_set"], **seeds)
        text = "\n".join(task.instruction for task in source)
        digest = hashlib.sha256(text.encode()).hexdigest()
        assert digest == row["sha256_of_instructions_joined_by_newline"]


def test_sampled_prices(data_dir, sources):
    with open(data_dir / "reference" / "sampled_prices_seed233.json") as file:
        prices = json.load(file)["range_prices"]
    source = sources["synthetic"]
    for asin, price in prices.items():
        assert source._goals.prices[source._shop.catalog.number(asin)] == price


def test_rewards(reference, sources):
    for row in reference("rewards"):
        source = sources[row["goal_set"]]
        catalog, goal = source._shop.catalog, source._goal(source[row["goal_index"]])
        product = catalog.product(catalog.number(row["asin"]))
        assert score(product, row["price"], row["options"], goal) == (row["reward"], row["info"])


def state(session):
    return {
        "text": session.text,
        "text_rich": session.text_rich,
        "url": session.url,
        "page": session.page_name,
        "has_search_bar": session.has_search_bar,
        "clickables": list(session.clickables),
    }


@pytest.mark.parametrize("policy", ["random", "heuristic", "oracle", "edge"])
def test_episodes(reference, sources, policy):
    for episode in reference(f"episodes_{policy}"):
        source = sources[episode["goal_set"]]
        shop = Shop(source._shop.catalog, episode["show_attrs"])
        goal = source._goal(source[episode["goal_index"]])
        session = Session(shop, goal, source._goals.prices)
        for step in episode["steps"]:
            assert state(session) == {key: step[key] for key in state(session)}, episode["id"]
            if episode.get("crashed") and step is episode["steps"][-1]:
                session.act(step["action"])  # the original did not survive it
                break
            value, bought, _ = session.act(step["action"])
            assert (value, bought) == (step["reward"], step["done"]), episode["id"]
        else:
            assert state(session) == episode["final"], episode["id"]
        if session.bought:
            assert session.bought == (episode["reward"], episode["reward_info"])


def test_environment_shows_the_same(reference, sources, data_dir):
    """The public interface on the same episodes, in both modes."""
    for episode in reference("episodes_oracle"):
        plain = sources[episode["goal_set"]]
        rich = WebShop("all", data_dir, goals=episode["goal_set"], observation="text_rich")
        for source, key in ((plain, "text"), (rich, "text_rich")):
            env = source.open(source[episode["goal_index"]])
            observation, result = env.reset(), None
            for step in episode["steps"]:
                assert observation.text == step[key]
                clicks = [f"click[{name}]" for name in step["clickables"] if name != "search"]
                bar = ["search[<query>]"] if step["has_search_bar"] else []
                assert list(observation.commands) == bar + clicks
                result = env.step(step["action"])
                observation = result.observation
            assert result.terminated and result.info["score"] == episode["reward"]
            assert result.reward == (10 if episode["reward"] == 1 else 0)


def test_official_splits(data_dir):
    sizes = {split: len(WebShop(split, data_dir)) for split in ("test", "dev", "train", "all")}
    assert sizes == {"test": 500, "dev": 1000, "train": 5410, "all": 6910}
    first = WebShop("dev", data_dir)[0]
    assert first == WebShop("all", data_dir)[500]


def test_oracle_reaches_the_ceiling(data_dir):
    # 20 of the 500 test goals cannot reach 1.0 with their product, whatever options are chosen;
    # with repaired matching all can.
    for matching, count in (("official", 480), ("repaired", 500)):
        source = WebShop("test", data_dir, matching=matching)
        wins = 0
        for task in source:
            env, expert = source.open(task), source.expert(task, kind="oracle")
            observation = env.reset()
            for _ in range(15):
                result = env.step(expert.act(observation))
                observation = result.observation
                if result.terminated:
                    break
            wins += result.success
        assert wins == count


def test_unreachable_goals(sources):
    """458 goals have an option that no value of their product satisfies; repaired: none."""
    source = sources["synthetic"]
    catalog, goals = source._shop.catalog, source._goals
    counts = {"official": 0, "repaired": 0}
    for goal in goals:
        values = catalog.product(catalog.number(goal.asin)).options.values()
        every = [value for group in values for value in group]
        for matching in counts:
            counts[matching] += not all(matched_options(every, goal, matching))
    assert counts == {"official": 458, "repaired": 0}
