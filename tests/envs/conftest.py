"""Small data of each environment, and the real ALFWorld games in a cache outside the repository."""

import hashlib
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
from alfworld_small import HEAT, write_game
from search_qa_small import CORPUS, QUESTIONS, write_rows
from webshop_small import write

from paw.envs.alfworld import Alfworld


@pytest.fixture(scope="session")
def alfworld_dir(shared_data: Path) -> Path:
    """A `data_dir` with the splits train and valid_seen.

    Cached in `$PAW_TEST_CACHE`, else ~/.cache/paw-tests, under the hash of the archives.
    """
    archives = sorted((shared_data / "alfworld").glob("*.tar.xz"))
    if not archives:
        pytest.skip(f"no ALFWorld archives in {shared_data / 'alfworld'}")
    digest = hashlib.sha256()
    for archive in archives:
        digest.update(archive.read_bytes())
    default = Path.home() / ".cache" / "paw-tests"
    cache = Path(os.environ.get("PAW_TEST_CACHE", default))
    folder = cache / f"alfworld-{digest.hexdigest()[:16]}"
    if folder.is_dir():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    # Several test processes may unpack at once: each into a folder of its own, the first wins.
    unpacked = Path(tempfile.mkdtemp(dir=cache))
    for archive in archives:
        with tarfile.open(archive) as members:
            members.extractall(unpacked, filter="data")
    try:
        unpacked.rename(folder)
    except OSError:
        shutil.rmtree(unpacked)
        if not folder.is_dir():
            raise
    return folder


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
