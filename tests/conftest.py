"""Where the real benchmark data lies: PAW_SHARED_DATA, else ../shared/data beside the checkout."""

import os
import signal
from pathlib import Path

import pytest

# A shell's background jobs ignore Ctrl-C, and so would every command that a test starts.
signal.signal(signal.SIGINT, signal.default_int_handler)

SHARED_DATA = Path(
    os.environ.get("PAW_SHARED_DATA", Path(__file__).resolve().parents[2] / "shared" / "data")
)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    if not SHARED_DATA.is_dir():
        pytest.skip(f"no real data at {SHARED_DATA}; set PAW_SHARED_DATA")
    return SHARED_DATA
