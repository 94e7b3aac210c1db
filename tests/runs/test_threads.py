"""Threads by model size and load; acting that has become slow is said once."""

import os

import pytest
import torch

from paw.runs.threads import ActingRate, choose_threads, set_threads, usable_cores


@pytest.mark.parametrize(
    ("num_parameters", "cores", "load", "threads"),
    [
        (160_000, 64, 0.0, 1),  # small: one, whatever is free
        (19_999_999, 8, 0.0, 1),
        (20_000_000, 8, 0.0, 8),
        (135_000_000, 8, 0.4, 8),  # what starts a process is no load
        (135_000_000, 8, 3.2, 5),
        (135_000_000, 2, 1.0, 1),
        (135_000_000, 2, 40.0, 1),  # never none
    ],
)
def test_threads(num_parameters: int, cores: int, load: float, threads: int):
    assert choose_threads(num_parameters, cores, load) == threads


def test_openmp_limits_the_cores(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert usable_cores() == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "100000")
    cores = usable_cores()
    assert 1 <= cores <= (os.cpu_count() or 1)
    for unreadable in ("", "0", "4,2"):
        monkeypatch.setenv("OMP_NUM_THREADS", unreadable)
        assert usable_cores() == cores


def test_slow_acting_is_said_once():
    """100, 400 and 200 tokens/s in the first three updates: below 100 is a warning."""
    rate = ActingRate()
    assert [rate.judge(tokens, 1.0) for tokens in (100, 400, 200, 101, 100)] == [None] * 5
    message = rate.judge(198, 2.0)
    assert message is not None
    assert "99 sampled tokens/s from 400" in message and "run.threads = 1" in message
    assert rate.judge(1, 1.0) is None


def test_updates_that_sample_nothing_are_no_measure():
    rate = ActingRate()
    assert [rate.judge(tokens, 0.0) for tokens in (0, 0, 0, 0, 5)] == [None] * 5


def test_a_run_that_goes_on_is_measured_by_its_first_updates():
    """400 tokens/s in its second update, before it was stopped: 99 now is a warning at once."""
    earlier = [{"tokens/sampled": n, "time/act": 1.0} for n in (100, 400, 200, 390)]
    message = ActingRate(earlier).judge(99, 1.0)
    assert message is not None and "from 400" in message


def test_more_threads_than_free_cores_are_warned_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    before = torch.get_num_threads()
    try:
        assert set_threads(2, 100_000) == 2
        assert "run.threads = 2: 1 cores," in capsys.readouterr().err
        assert set_threads(1, 100_000) == 1
        assert capsys.readouterr().err == ""
    finally:
        torch.set_num_threads(before)
