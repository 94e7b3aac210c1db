"""Which tasks are played when not all are."""

from collections import Counter

import pytest

from paw.envs.base import TaskSource
from paw.envs.household import Household
from paw.evals.selection import chosen, described
from paw.style import Style
from paw.types import Task


class Listed(TaskSource):
    """Tasks of the kinds that a text spells, a letter each."""

    name, split, max_return = "listed", "test", 1.0

    def __init__(self, kinds: str, style: Style = TaskSource.style) -> None:
        self.kinds, self.style = kinds, style

    def __len__(self) -> int:
        return len(self.kinds)

    def task(self, index: int) -> Task:
        return Task(str(index), self.kinds[index], "do it")


def kinds(source: Listed, episodes: int) -> dict[str, int]:
    return dict(Counter(source.kinds[n % len(source)] for n in chosen(source, episodes)))


def test_kinds_get_their_shares():
    """ALFWorld's valid_seen: 13 to 35 games of six kinds, kind by kind. Places of the first 12:
    b .5/35 1.5/35 2.5/35 = .0143 .0429 .0714, c .0185 .0556 .0926, d .02 .06, f .0208 .0625,
    e .0313, a .0385; the next is e's, .0938."""
    sizes = dict(zip("abcdef", (13, 35, 27, 25, 16, 24), strict=True))
    source = Listed("".join(kind * size for kind, size in sizes.items()))
    assert kinds(source, 6) == dict.fromkeys("abcdef", 1)
    assert kinds(source, 12) == {"a": 1, "b": 3, "c": 3, "d": 2, "e": 1, "f": 2}
    for n in range(1, 140):
        for kind, count in kinds(source, n).items():
            assert abs(count - n * sizes[kind] / 140) <= 1.5
    assert chosen(source, 12)[:2] == [0, 13]  # a kind's own order


def test_fewer_are_some_of_more_and_all_are_all():
    source = Listed("aaaabbbbbbbbc" * 3)
    for n in range(1, 2 * len(source)):
        fewer, more = chosen(source, n), chosen(source, n + 1)
        assert len(fewer) == n and set(fewer) < set(more) and fewer == sorted(fewer)
    for laps in (1, 2, 3):
        assert chosen(source, laps * 39) == list(range(laps * 39))
    assert set(chosen(source, 39 + 5)) == set(range(39)) | {39 + n for n in chosen(source, 5)}


def test_each_kind_in_turn_where_the_result_is_their_mean():
    style = Style(average_over="sets")
    source = Listed("aaaaaaaabbbcc", style)
    assert kinds(source, 6) == {"a": 2, "b": 2, "c": 2}
    assert kinds(source, 8) == {"a": 3, "b": 3, "c": 2}
    in_turn = Listed("abcabcaba", style)  # search_qa's split `all`
    assert all(chosen(in_turn, n) == list(range(n)) for n in range(1, 10))


@pytest.mark.parametrize("split", ["valid", "test"])
def test_the_household_is_spread_by_its_own_order(split: str):
    source = Household(split)
    for n in range(1, 201):
        assert chosen(source, n) == list(range(n))


def test_what_was_chosen_has_a_name():
    source = Listed("aaabbb")
    assert described(source, chosen(source, 1)) == "first"
    assert described(source, chosen(source, 2)) == "spread"
    assert described(source, chosen(source, 6)) == described(source, chosen(source, 8)) == "all"
    assert described(Listed("aaa"), [0, 1]) == "first"
