"""Sinks besides metrics.jsonl, and what happens without their packages."""

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from paw.errors import UserError
from paw.train.config import Config
from paw.train.sinks import SINKS, open_sinks

from .tiny_runs import ForkServer, flags


def config(*names: str) -> Config:
    whole = Config()
    return replace(whole, run=replace(whole.run, track=names))  # pyright: ignore


def missing(name: str) -> bool:
    return importlib.util.find_spec(name) is None


def test_none_by_default(tmp_path: Path):
    assert open_sinks(Config(), tmp_path) == []


@pytest.mark.parametrize("name", SINKS)
def test_missing_package_names_the_extra(tmp_path: Path, name: str):
    if not missing(name):
        pytest.skip(f"{name} is installed")
    with pytest.raises(UserError, match=name) as caught:
        open_sinks(config(name), tmp_path)
    assert "pip install 'paw-rl[track]'" in str(caught.value)


def test_missing_package_is_one_line_of_the_command(
    server: ForkServer, policy: Path, tmp_path: Path
):
    if not missing("trackio"):
        pytest.skip("trackio is installed")
    finished = server.run(["train", *flags(policy, tmp_path / "run", run__track='["trackio"]')])
    assert (finished.code, finished.err.count("\n")) == (2, 1)
    assert "pip install 'paw-rl[track]'" in finished.err


def test_tensorboard_gets_every_metric(tmp_path: Path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (sink,) = open_sinks(config("tensorboard"), tmp_path)
    sink.log(1, {"update": 1, "wm/nll": 2.5})
    sink.log(2, {"update": 2, "wm/nll": 1.5})
    sink.close()
    events = EventAccumulator(str(tmp_path / "tensorboard"))
    events.Reload()
    assert events.Tags()["scalars"] == ["wm/nll"]
    assert [(e.step, e.value) for e in events.Scalars("wm/nll")] == [(1, 2.5), (2, 1.5)]
