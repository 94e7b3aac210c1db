import importlib
from pathlib import Path

import pytest

from paw.envs.check import check_environment, format_report

EXAMPLES = Path(__file__).parents[2] / "examples"


def test_the_example_keeps_the_contract(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(EXAMPLES)  # `pytest` alone does not look below the checkout
    example = importlib.import_module("own_environment")
    report = check_environment(example.Guess(), num_tasks=3)
    assert report.passed, format_report(report)
