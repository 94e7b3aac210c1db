"""ALFWorld games: a small one, and the real ones unpacked into a cache outside the repository."""

import hashlib
import os
import shutil
import tarfile
import tempfile
from pathlib import Path

import pytest
from alfworld_small import HEAT, write_game

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
