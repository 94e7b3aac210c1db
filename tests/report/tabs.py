"""What tests do with an open page."""

import time
from collections.abc import Callable
from typing import Any

Show = Callable[..., Any]
"""(what `render` takes, or its text; the fragment; options of a browser context) -> a tab"""


def go(tab: Any, state: str) -> None:
    tab.evaluate("state => { location.hash = state }", state)


def rows(tab: Any) -> list[str]:
    """The update, the group and the index of each row of the table, read at once: "2 0.1"."""
    return tab.locator("table.episodes tbody tr").evaluate_all(
        "all => all.map(row => ['update', 'group'].map(n => row.querySelector(`.c-${n}`)"
        ".innerText).join(' '))"
    )


def ready(tab: Any) -> None:
    tab.locator("[data-ready=yes]").first.wait_for(state="attached")


def numbers(tab: Any) -> dict[str, str]:
    """What the panel says of the token that is pointed at, read at once."""
    return tab.locator(".token-panel").evaluate(
        "panel => { const [names, values] = ['dt', 'dd'].map(n => [...panel.querySelectorAll(n)]);"
        " return Object.fromEntries(names.map((n, i) => [n.innerText, values[i].innerText])) }"
    )


def focused(place: Any) -> bool:
    return place.evaluate("node => node === document.activeElement")


def seen(read: Callable[[], Any], wanted: Any) -> None:
    """What `read` gives is or becomes `wanted` (a value, or what is asked of it) in ten seconds.

    The page draws after an event: what is read at once may be what stood there before.
    """
    end = time.monotonic() + 10
    while True:
        found = read()
        if wanted(found) if callable(wanted) else found == wanted:
            return
        assert time.monotonic() < end, f"{found!r}, not {wanted!r}"
        time.sleep(0.05)


def says(place: Any, *parts: str) -> None:
    """Each part stands or comes to stand in the text of a locator."""
    seen(place.inner_text, lambda text: all(part in text for part in parts))
