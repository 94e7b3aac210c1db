"""The meanings of metrics are those of docs/run-directory.md."""

import re
from pathlib import Path

from paw.runs.meanings import MEANINGS

PAGE = Path(__file__).parents[2] / "docs" / "run-directory.md"


def test_the_page_says_the_same() -> None:
    rows = re.findall(
        r"^\| `(\w+/\w+)` \| (.*) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE
    )
    assert len(rows) > 50
    assert dict(rows) == MEANINGS
