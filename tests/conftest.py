"""What holds for every test: markers by place, no deadline of hypothesis, where real data lies."""

import os
import signal
from pathlib import Path

import hypothesis
import pytest

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
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}; set PAW_SHARED_DATA")
    return SHARED_DATA
