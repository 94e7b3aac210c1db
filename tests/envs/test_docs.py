"""The first lines of the benchmarks' pages do what they say, on the real data."""

import io
import re
import shlex
from pathlib import Path

import pytest

from paw.cli import main

DOCS = Path(__file__).parents[2] / "docs"


@pytest.fixture(params=["alfworld", "webshop"])
def page(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> list[str]:
    """Lines of the page's first code, with the data where they say."""
    where = {"alfworld": "alfworld_dir", "webshop": "shared_data"}[request.param]
    folder = request.getfixturevalue(where)
    (tmp_path / "data").mkdir()
    place = folder / "webshop" if request.param == "webshop" else folder
    (tmp_path / "data" / request.param).symlink_to(place)
    monkeypatch.chdir(tmp_path)
    text = (DOCS / f"{request.param}.md").read_text(encoding="utf-8")
    return [line.strip() for line in re.findall(r"^    (.+)$", text.split("\n## ")[0], re.M)]


@pytest.mark.data
def test_the_first_code_of_a_page(page: list[str]):
    names: dict = {}
    for line in page[:-1]:
        exec(line, names)
        if "env.step" in line:
            assert names["result"].valid != ("valid = False" in line), line
        if "# terminated" in line:
            assert names["result"].terminated and "score" in names["result"].info


@pytest.mark.data
def test_playing_as_the_page_says(
    page: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr("sys.stdin", io.StringIO(":q\n"))
    paw, *words = shlex.split(page[-1])
    assert paw == "paw" and main(words) == 0
    assert "Left after 0 commands" in capsys.readouterr().out
