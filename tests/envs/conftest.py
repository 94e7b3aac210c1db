"""Small data of each environment."""

from pathlib import Path

import pytest
from alfworld_small import HEAT, write_game
from search_qa_small import CORPUS, QUESTIONS, write_rows
from webshop_small import write

from paw.envs.alfworld import Alfworld


@pytest.fixture
def small_alfworld(tmp_path: Path) -> Alfworld:
    """The one game of `alfworld_small`."""
    write_game(tmp_path, f"{HEAT}/trial_T1")
    return Alfworld("train", data_dir=tmp_path)


@pytest.fixture(scope="session")
def shop_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The catalogue of `webshop_small`."""
    return write(tmp_path_factory.mktemp("shop"))


@pytest.fixture
def qa_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Corpus and questions of `search_qa_small`, with a cache of their own."""
    monkeypatch.setenv("PAW_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("SEARCH_QA_DATA", raising=False)
    data = tmp_path / "data"
    data.mkdir()
    write_rows(data / "corpus.jsonl", CORPUS)
    write_rows(data / "train.jsonl", QUESTIONS)
    write_rows(data / "eval_nq.jsonl", QUESTIONS[1:])
    return data
