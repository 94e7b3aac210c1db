"""What tests do with an open page."""

from collections.abc import Callable
from typing import Any

Show = Callable[..., Any]
"""(what `render` takes, or its text; the fragment; options of a browser context) -> a tab"""


def go(tab: Any, state: str) -> None:
    tab.evaluate("state => { location.hash = state }", state)


def rows(tab: Any) -> list[str]:
    """The task's text and the place of each row of the table: "0.1 put a cup away"."""
    return [
        " ".join(row.locator(f".c-{name}").inner_text() for name in ("update", "group"))
        for row in tab.locator("table.episodes tbody tr").all()
    ]


def ready(tab: Any) -> None:
    tab.locator("[data-ready=yes]").first.wait_for(state="attached")


def numbers(tab: Any) -> dict[str, str]:
    """What the panel says of the token that is pointed at."""
    names = tab.locator(".token-panel dt").all_inner_texts()
    return dict(zip(names, tab.locator(".token-panel dd").all_inner_texts(), strict=True))
