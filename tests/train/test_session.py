"""What opening a run loads, and what a run that goes on takes from its beginning."""

import logging
from pathlib import Path

import pytest
import torch
from transformers.utils import logging as transformers_logging

from paw.cli import main
from paw.config.read import resolve
from paw.config.tree import Config
from paw.runs.begun import as_begun, begun
from paw.train.session import open_session

from .tiny_runs import flags


@pytest.fixture(autouse=True)
def threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class Loads(logging.Handler):
    """Files of weights that transformers reads while it is entered."""

    def __enter__(self) -> list[str]:
        self.files: list[str] = []
        self.logger = transformers_logging.get_logger("transformers.modeling_utils")
        self.level_before = self.logger.level
        self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self)
        return self.files

    def __exit__(self, *_: object) -> None:
        self.logger.removeHandler(self)
        self.logger.setLevel(self.level_before)

    def emit(self, record: logging.LogRecord) -> None:
        before, _, file = record.getMessage().partition("loading weights file ")
        if not before:
            self.files.append(Path(file).parent.name)


def loads_of(config: Config) -> tuple[list[str], int]:
    """Directories of the weights that opening the run reads, and the updates already made."""
    with Loads() as files:
        session = open_session(config)
    session.close()
    return files, session.first_update


@pytest.mark.parametrize(
    ("changed", "first", "resumed"),
    [
        ({}, ["policy"], ["update-000001"]),
        ({"algorithm__name": "ppo"}, ["policy"], ["update-000001"]),
        # The reference is the initial policy; an adapter goes on the weights it was made for.
        ({"algorithm__kl_coefficient": 0.1}, ["policy"] * 2, ["update-000001", "policy"]),
        ({"model__lora_rank": 2}, ["policy"], ["policy"]),
    ],
)
def test_one_model_is_loaded(policy: Path, tmp_path: Path, changed: dict, first, resumed):
    arguments = flags(policy, tmp_path / "run", run__updates=1, run__threads=1, **changed)
    assert loads_of(resolve([], arguments)) == (first, 0)
    assert main(["train", *arguments]) == 0
    assert loads_of(resolve([], arguments)) == (resumed, 1)


def test_sizes_left_open_are_chosen_once(policy: Path, tmp_path: Path):
    """0 is written as what fitted; a run that goes on keeps that, whatever would fit now."""
    run = tmp_path / "run"
    arguments = flags(policy, run, run__updates=1, run__threads=1)
    assert resolve([], arguments).optimizer.tokens_per_micro_batch == 0
    assert main(["train", *arguments]) == 0
    written = resolve([run / "config.toml"])
    assert written.optimizer.tokens_per_micro_batch == 16384
    assert written.rollout.conversations == 4  # 2 groups of 2, evaluations of 2
    text = (run / "config.toml").read_text()
    smaller = text.replace("tokens_per_micro_batch = 16384", "tokens_per_micro_batch = 512")
    (run / "config.toml").write_text(smaller.replace("conversations = 4", "conversations = 3"))
    more = [*arguments, "--run.updates", "2"]
    assert main(["train", *more]) == 0
    after = begun(run)
    assert after and after.optimizer.tokens_per_micro_batch == 512
    assert after.rollout.conversations == 3
    given = resolve([], [*more, "--optimizer.tokens_per_micro_batch", "16384"])
    assert as_begun(given).optimizer.tokens_per_micro_batch == 16384
    open_session(given).close()
    after = begun(run)
    assert after and after.optimizer.tokens_per_micro_batch == 16384


def test_a_run_that_ended_before_its_first_update_chooses_anew(policy: Path, tmp_path: Path):
    run = tmp_path / "run"
    arguments = flags(policy, run, run__threads=1)
    run.mkdir()
    given = ["--optimizer.tokens_per_micro_batch", "64"]
    open_session(resolve([], [*arguments, *given])).close()
    assert begun(run) is None
    config = resolve([], arguments)
    assert as_begun(config) == config
    open_session(config).close()
    assert resolve([run / "config.toml"]).optimizer.tokens_per_micro_batch == 16384
