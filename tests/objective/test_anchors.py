import random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import paw.objective as P

from . import reference


def test_equal_texts_of_a_group_share_a_label():
    texts = ["kitchen", "fridge", "kitchen", "kitchen", "fridge"]
    # The fourth "kitchen" stands in another group.
    assert P.anchor_labels(texts, [0, 0, 0, 1, 0]) == [0, 1, 0, 2, 1]


def test_similar_texts():
    # ratio = 2 M / T: "abcde" and "abcdX" share 4 of 5 + 5 characters: 8 / 10.
    assert P.anchor_labels(["abcde", "abcdX"], [0, 0], similarity=0.8) == [0, 0]
    assert P.anchor_labels(["abcde", "abcdX"], [0, 0], similarity=0.81) == [0, 1]
    assert P.anchor_labels(["abcde", "abcdX"], [0, 1], similarity=0.8) == [0, 1]


def test_similar_texts_that_share_as_few_trigrams_as_can_be():
    # One letter put in: 2 * 10 / 21, and 6 of 8 trigrams are left, no more than the bound asks for.
    texts = ["abcdefghij", "abcdeXfghij"]
    assert P.anchor_labels(texts, [0, 0], similarity=20 / 21) == [0, 0]
    assert P.anchor_labels(texts, [0, 0], similarity=0.953) == [0, 1]


def test_greedy_first_match():
    # The third resembles only the second text (0.8), which resembles the first (0.8) and joined its
    # cluster: the first text alone represents the cluster (0.6 < 0.8), so a new one opens.
    assert P.anchor_labels(["abcde", "abcdX", "abcYX"], [0, 0, 0], similarity=0.8) == [0, 0, 1]
    # In another order both resemble the representative.
    assert P.anchor_labels(["abcdX", "abcde", "abcYX"], [0, 0, 0], similarity=0.8) == [0, 0, 0]


def test_similarity_one_is_equality_of_short_texts():
    assert P.anchor_labels(["a", "", "a", "", "b"], [0] * 5, similarity=1.0) == [0, 1, 0, 1, 2]


def test_group_as_tensor_or_array():
    # Iterating a tensor gives tensors, equal ones with different hashes.
    for group in (torch.tensor([0, 0, 1]), np.array([0, 0, 1])):
        assert P.anchor_labels(["a", "a", "a"], group) == [0, 0, 1]


def test_nothing():
    assert P.anchor_labels([], []) == []
    assert P.anchor_labels([], [], similarity=0.9) == []


def test_bad_input():
    with pytest.raises(ValueError, match="2 texts, 1 groups"):
        P.anchor_labels(["a", "b"], [0])
    for similarity in (0.0, -1.0, 1.1):
        with pytest.raises(ValueError, match="similarity must be in"):
            P.anchor_labels(["a"], [0], similarity)


@settings(deadline=None, max_examples=50)
@given(
    st.lists(st.tuples(st.text("abc", max_size=6), st.integers(0, 2)), max_size=15),
    st.sampled_from([None, 0.3, 0.6, 0.9, 1.0]),
)
def test_as_the_plain_clustering(rows, similarity):
    texts, group = [t for t, _ in rows], [g for _, g in rows]
    labels = P.anchor_labels(texts, group, similarity)
    assert labels == reference.anchors(texts, group, similarity)


@pytest.mark.parametrize("similarity", [0.7, 0.85, 0.9, 0.95])
def test_long_texts_as_the_plain_clustering(similarity):
    # Edits of one text, ratios on both sides of the threshold.
    rng = random.Random(0)
    text = "".join(rng.choices("etaoin shrdlu", k=150))
    texts = []
    for _ in range(30):
        edited = list(text)
        for _ in range(rng.randrange(30)):
            edited[rng.randrange(150)] = rng.choice("xyz")
        texts.append("".join(edited)[rng.randrange(20) :])
    labels = P.anchor_labels(texts, [0] * 30, similarity)
    assert labels == reference.anchors(texts, [0] * 30, similarity)
    assert 1 < len(set(labels)) < 30
