"""One tiny policy for the tests of whole runs."""

from pathlib import Path

import pytest

from .tiny_runs import make_policy


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("tiny") / "policy")
