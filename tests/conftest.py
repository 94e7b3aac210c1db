"""What holds for every test: markers by place, no deadline of hypothesis, where real data lies."""

import hashlib
import os
import shutil
import signal
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import hypothesis
import pytest

if TYPE_CHECKING:
    from train.tiny_runs import ForkServer

# A shell's background jobs ignore Ctrl-C, and so would every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

# How long an example takes depends on the machine and on what else runs there.
hypothesis.settings.register_profile("any-machine", deadline=None)
hypothesis.settings.load_profile("any-machine")

TESTS = Path(__file__).resolve().parent
SHARED_DATA = Path(os.environ.get("PAW_SHARED_DATA", TESTS.parents[1] / "shared" / "data"))

NUMERICS = (
    "objective/",
    "model/",
    "train/test_baseline.py",
    "train/test_extensions.py",
    "train/test_gradient.py",
    "train/test_judge.py",
    "train/test_learner.py",
)
"""What `-m numerics` runs: tests whose sums an instruction set may round otherwise."""


@pytest.hookimpl(tryfirst=True)  # before -m is applied
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.relative_to(TESTS).as_posix().startswith(NUMERICS):
            item.add_marker("numerics")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator["ForkServer"]:
    """One process that forks `paw` commands: its start takes ten seconds."""
    from train.tiny_runs import fork_server

    with fork_server(tmp_path_factory.mktemp("server")) as server:
        server.run(["--version"])  # its imports are done: what is timed later is a run alone
        yield server


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}; set PAW_SHARED_DATA")
    return SHARED_DATA


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
