"""Search that leaves postings out against the same search that adds every one: equal to the bit."""

import gzip
import json
from contextlib import contextmanager

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from paw.envs.webshop import WebShop, bm25
from paw.envs.webshop.analysis import analyze
from paw.envs.webshop.bm25 import Builder, Index

WORDS = [f"w{i}" for i in range(12)]


@contextmanager
def few(postings):
    """FEW at 0 prunes as early as it can; at a billion every posting is added."""
    before, bm25.FEW = bm25.FEW, postings
    try:
        yield
    finally:
        bm25.FEW = before


def same(index, terms, k):
    """Search both ways, assert equality and give the documents."""
    with few(0):
        found, scores = index.search(terms, k)
    with few(10**9):
        every, every_score = index.search(terms, k)
    assert found.dtype == every.dtype == np.int64
    assert scores.dtype == every_score.dtype == np.float32
    assert found.tolist() == every.tolist()
    assert scores.tobytes() == every_score.tobytes()
    return found.tolist()


def index(documents):
    """Documents named in falling order, so that ties come out with the later one first."""
    builder, columns = Builder(), {}
    for text in documents:
        builder.add(text)
    blocks = [builder.block()]

    def allocate(name, dtype, size):
        return columns.setdefault(name, np.zeros(size, dtype))

    builder.finish(lambda: iter(blocks), allocate, lambda count: None)
    names = np.array([f"d{len(documents) - i:05d}".encode() for i in range(len(documents))])
    return Index(columns, names, int(np.count_nonzero(builder.lengths)))


def draw_documents(seed, num_documents, skew):
    """Texts of one to eight words with falling frequencies: few distinct texts, so many ties."""
    draw = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(WORDS) + 1) ** skew
    lengths = draw.integers(1, 9, num_documents)
    return [" ".join(draw.choice(WORDS, n, p=weights / weights.sum())) for n in lengths]


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 150),
    st.sampled_from([0.0, 1.0, 3.0]),
    st.lists(st.sampled_from([*WORDS, "unknown"]), max_size=10),
    st.integers(1, 60),
)
def test_pruning_changes_nothing(seed, num_documents, skew, terms, k):
    same(index(draw_documents(seed, num_documents, skew)), terms, k)


def test_ties_at_the_last_place_are_ordered_by_name():
    # 30 equal texts hold both words, 70 one of them; of the equal ones the later come first.
    documents = ["lamp red"] * 30 + ["red red"] * 70
    assert same(index(documents), ["red", "lamp"], 10) == list(range(29, 19, -1))


def test_a_frequent_term_orders_the_documents_of_a_rare_one():
    # Equal lengths. `rare` (10 documents) weighs more than `common` (60), so its ten are the ten
    # best: first the one that has both, then the others with the later one first.
    documents = ["rare x y z"] * 9 + ["rare common y z"] + ["common x y z"] * 59 + ["x y z q"] * 31
    assert same(index(documents), ["common", "rare"], 10) == [9, 8, 7, 6, 5, 4, 3, 2, 1, 0]


def test_postings_are_left_out():
    # Two documents hold `rare`, all 200 `common`. A posting of `common` that points nowhere stops
    # the search that adds it, not the one that looks up the two candidates alone.
    shop = index(["common rare"] * 2 + ["common"] * 198)
    start = int(shop.columns["starts"][shop._row("common")])
    shop.columns["codes"][start + 2 : start + 200] = 9
    with few(0):
        assert shop.search(["rare", "common"], 2)[0].tolist() == [1, 0]
    with few(10**9), pytest.raises(IndexError):
        shop.search(["rare", "common"], 2)


@pytest.mark.data
def test_pruning_changes_no_official_search(shared_data):
    catalog = WebShop("all", shared_data / "webshop")._shop.catalog
    with gzip.open(shared_data / "webshop/reference/searches.jsonl.gz", "rt") as lines:
        queries = [json.loads(line)["query"] for line in lines]
    queries += [catalog.product(number).title for number in range(0, len(catalog), 10)]
    for query in queries:
        same(catalog.index, analyze(query), 50)
