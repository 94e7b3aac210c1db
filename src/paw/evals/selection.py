"""Which tasks of a split are played when not all are."""

from collections import Counter

from paw.envs.base import TaskSource


def chosen(source: TaskSource, episodes: int) -> list[int]:
    """The numbers of the episodes to play, ascending: number n is task n % len(source) in lap
    n // len(source).

    Whole laps play every task; of the rest, the kinds of task get their shares, each kind in its
    order: task r of a kind of m stands at (r + 1/2) / m, and the first so many are played. Where a
    benchmark's result is the mean over kinds (`Style.average_over`), each kind in turn instead.
    Either way fewer episodes are some of those that more would be.
    """
    laps, rest = divmod(episodes, len(source))
    numbers = list(range(laps * len(source)))
    if rest:
        kinds = [task.kind for task in source]
        sizes, seen = Counter(kinds), Counter[str]()
        places: list[tuple[float, int]] = []
        for index, kind in enumerate(kinds):
            size = 2 if source.style.average_over else sizes[kind]
            places.append(((2 * seen[kind] + 1) / size, index))
            seen[kind] += 1
        numbers += sorted(len(numbers) + index for _, index in sorted(places)[:rest])
    return numbers


def described(source: TaskSource, numbers: list[int]) -> str:
    """What `chosen` came to: "all" tasks, the "first", or a "spread" over the kinds."""
    if len(numbers) >= len(source):
        return "all"
    return "first" if numbers == list(range(len(numbers))) else "spread"
