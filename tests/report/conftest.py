"""A Chromium for the tests of a room: one process a file, pages from files, no network."""

import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from paw.report.data import Chunk, Page
from report.pages import html
from report.tabs import Show

CHROMIUM = (
    os.environ.get("PAW_CHROMIUM") or shutil.which("chromium") or shutil.which("google-chrome")
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    if not CHROMIUM:
        pytest.skip("no chromium or google-chrome on the PATH, and PAW_CHROMIUM is not set")
    sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with sync_api.sync_playwright() as playwright:
        # As root a sandbox is refused; the pages are ours.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Show]:
    """Opens a page from a file; complaints and requests of anything else fail the test."""
    contexts, complaints = [], []

    def open_page(made: tuple[Page, Sequence[Chunk]] | str, state: str = "", **options: Any) -> Any:
        file = tmp_path / "report.html"
        text = made if isinstance(made, str) else html(*made)
        file.write_text(text, encoding="utf-8")
        context = browser.new_context(offline=True, **options)
        contexts.append(context)
        tab = context.new_page()
        tab.set_default_timeout(10000)
        tab.on("console", lambda message: complaints.append(f"{message.type}: {message.text}"))
        tab.on("pageerror", lambda error: complaints.append(f"{error}"))
        tab.on("dialog", lambda dialog: complaints.append(f"dialog {dialog.message}"))
        local = ("file:", "data:", "blob:")
        tab.on("request", lambda r: r.url.startswith(local) or complaints.append(r.url))
        tab.goto(f"file://{file}#{state}")
        return tab

    yield open_page
    for context in contexts:
        context.close()
    assert not complaints
