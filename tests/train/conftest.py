"""One tiny policy and one process that forks `paw` commands, for the tests of whole runs."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from .tiny_runs import ForkServer, fork_server, make_policy


@pytest.fixture(scope="session")
def policy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_policy(tmp_path_factory.mktemp("tiny") / "policy")


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    with fork_server(tmp_path_factory.mktemp("server")) as server:
        server.run(["--version"])  # its imports are done: what is timed later is a run alone
        yield server
