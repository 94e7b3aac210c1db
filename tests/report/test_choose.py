"""Which episodes a page keeps."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from paw.report.choose import Row, choose, spread


def row(update: int, group: int, **changed: object) -> Row:
    usual = Row(update, group, success=False, return_=0.0, nll=1.0, failed=False, num_bytes=10)
    return replace(usual, **changed)


def test_spread_halves_what_is_between() -> None:
    """0 and 8, then 4, then 2 and 6, then the odd ones."""
    assert list(spread(9)) == [0, 8, 4, 2, 6, 1, 3, 5, 7]
    assert list(spread(1)) == [0] and list(spread(0)) == []


@given(st.integers(0, 200))
def test_spread_has_each_once(count: int) -> None:
    assert sorted(spread(count)) == list(range(count))


def test_order_of_what_is_kept() -> None:
    """Three updates of two groups of two, ten bytes each: room for 5 groups of the 6.

    First (update 1, group 0), last (3, 1), the failed one (2, 1). Update 1: best is row 2, most
    surprising row 3 beside it. Update 3: best is row 9, the first that is better than row 8, the
    worst. No room is left for group 0 of update 2, where its best and its worst are.
    """
    rows = [row(u, g) for u in (1, 2, 3) for g in (0, 1) for _ in range(2)]
    rows[2] = replace(rows[2], return_=10.0, success=True)
    rows[3] = replace(rows[3], nll=7.0)
    rows[7] = replace(rows[7], failed=True, nll=None)
    rows[8] = replace(rows[8], return_=-1.0)
    assert choose(rows, 105) == [
        "first", "beside", "best", "most surprising",
        "", "", "beside", "failed",
        "worst", "best", "beside", "last",
    ]  # fmt: skip


def test_everything_is_kept_where_there_is_room() -> None:
    rows = [row(u, g) for u in range(1, 4) for g in range(5)]
    assert all(choose(rows, 150))
    assert choose(rows, 9) == [""] * 15
    assert choose([], 100) == []


@given(
    st.lists(
        st.builds(
            Row, st.integers(0, 5), st.integers(0, 2), st.booleans(), st.floats(-1, 1),
            st.none() | st.floats(0, 9), st.booleans(), st.integers(0, 50),
        ),
        max_size=40,
    ),
    st.integers(0, 800),
)  # fmt: skip
def test_groups_are_whole_and_fit(rows: list[Row], room: int) -> None:
    kept = choose(rows, room)
    assert sum(r.num_bytes for r, why in zip(rows, kept, strict=True) if why) <= room
    by_group: dict[tuple[int | None, int], set[bool]] = {}
    for r, why in zip(rows, kept, strict=True):
        by_group.setdefault((r.update, r.group), set()).add(bool(why))
    assert all(len(found) == 1 for found in by_group.values())
    if sum(r.num_bytes for r in rows) <= room:
        assert all(kept)


def test_failed_ones_do_not_take_everything() -> None:
    """Ten at most go before the best and the worst: the first, which is called so, and nine."""
    rows = [row(1, g, failed=True) for g in range(25)] + [row(2, 99, return_=10.0)]
    kept = choose(rows, 10 * 20)
    assert kept[0] == "first" and kept[25] == "last"
    assert kept.count("failed") == 9 and kept.count("room") == 20 - 2 - 9
