"""Sinks besides metrics.jsonl, and what happens without their packages."""

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from paw.config.tree import Config
from paw.errors import UserError
from paw.runs.sinks import SINKS, open_sinks


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


# What W&B's own client does with steps: one below the last is dropped (its documentation of `log`).
FAKE_WANDB = """
import os

class Error(Exception):
    pass

class Run:
    step, rows, axes = -1, [], {}

    def define_metric(self, name, step_metric):
        self.axes[name] = step_metric

    def log(self, data, step=None):
        step = self.step + 1 if step is None else step
        if step > self.step:
            self.step = step
            self.rows.append(data)

    def finish(self):
        pass

def init(**settings):
    if "WANDB_API_KEY" not in os.environ:
        raise Error("No API key configured.\\nUse `wandb login` to log in.")
    return Run()
"""


@pytest.fixture
def fake_wandb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandb.py").write_text(FAKE_WANDB)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "wandb", raising=False)
    monkeypatch.delenv("WANDB_API_KEY", raising=False)


def test_wandb_keeps_updates_made_again(
    fake_wandb: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("WANDB_API_KEY", "key")
    (sink,) = open_sinks(config("wandb"), tmp_path)
    for update in (1, 2, 3, 2):  # killed after 3, the last checkpoint was of 1
        sink.log(update, {"wm/nll": float(update)})
    run = sink.run  # pyright: ignore[reportAttributeAccessIssue]
    assert [row["update"] for row in run.rows] == [1, 2, 3, 2]
    assert run.axes == {"*": "update"}


def test_wandb_without_a_key_is_one_line(fake_wandb: None, tmp_path: Path):
    with pytest.raises(UserError) as caught:
        open_sinks(config("wandb"), tmp_path)
    assert str(caught.value) == (
        'run.track = "wandb": No API key configured. Use `wandb login` to log in; '
        "or set WANDB_MODE=offline and `wandb sync` later"
    )
