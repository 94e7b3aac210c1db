"""Which groups of episodes are kept whole where there is no room for all. Pure."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

MOST_FAILED = 10
"""Of trajectories whose environment failed, kept before anything but the first and the last."""
ROOM, BESIDE = "room", "beside"


@dataclass(frozen=True, slots=True)
class Row:
    """What is known of an episode before it is unpacked; in the order of the run's files."""

    update: int | None
    group: int
    success: bool
    return_: float
    nll: float | None
    failed: bool
    num_bytes: int
    """That it will take"""


def choose(rows: Sequence[Row], room: int) -> list[str]:
    """[n] why each episode is kept, "" where it is left out.

    Groups are kept whole, so that attempts at a task can be compared: the first and the last, those
    with a failed trajectory, then by update (the first, the last, and between them ever finer) the
    groups of its best, its worst and its most surprising episode, then what there is room for. A
    group that does not fit is passed over.

    Args:
        rows: [n] all episodes.
        room: bytes.
    """
    members: dict[tuple[int | None, int], list[int]] = {}
    for i, row in enumerate(rows):
        members.setdefault((row.update, row.group), []).append(i)
    kept = [""] * len(rows)
    for i, why in _wishes(rows):
        group = members[rows[i].update, rows[i].group]
        if not kept[i]:
            size = sum(rows[j].num_bytes for j in group)
            if size > room:
                continue
            room -= size
            for j in group:
                kept[j] = ROOM if why == ROOM else BESIDE
        if kept[i] == BESIDE and why != ROOM:
            kept[i] = why
    return kept


def _wishes(rows: Sequence[Row]) -> Iterator[tuple[int, str]]:
    """(episode, why) in the order of their importance."""
    if not rows:
        return
    yield 0, "first"
    yield len(rows) - 1, "last"
    failed = [i for i, row in enumerate(rows) if row.failed]
    yield from ((i, "failed") for i in failed[:MOST_FAILED])
    by_update: dict[int | None, list[int]] = {}
    for i, row in enumerate(rows):
        by_update.setdefault(row.update, []).append(i)
    updates = list(by_update)
    for at in spread(len(updates)):
        played = [i for i in by_update[updates[at]] if not rows[i].failed]
        if not played:
            continue
        yield max(played, key=lambda i: (rows[i].return_, rows[i].success)), "best"
        yield min(played, key=lambda i: (rows[i].return_, rows[i].success)), "worst"
        surprising = [i for i in played if rows[i].nll is not None]
        if surprising:
            yield max(surprising, key=lambda i: rows[i].nll or 0.0), "most surprising"
    for at in spread(len(updates)):
        yield from ((i, ROOM) for i in by_update[updates[at]])


def spread(count: int) -> Iterator[int]:
    """0 to count - 1: the first, the last, then the middles of what is between, ever finer."""
    if count:
        yield 0
    if count > 1:
        yield count - 1
    gaps = [(0, count - 1)]
    while gaps:
        wider = []
        for low, high in gaps:
            middle = (low + high) // 2
            if low < middle < high:
                yield middle
                wider += [(low, middle), (middle, high)]
        gaps = wider
