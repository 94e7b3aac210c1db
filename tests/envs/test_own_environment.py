"""The example environment, and factories that cannot be one."""

import json
import re
from pathlib import Path

import pytest

from paw.cli import main
from paw.envs import make
from paw.errors import UserError

EXAMPLE = Path(__file__).parents[2] / "examples" / "own_environment.py"
GUESS = "examples.own_environment:Guess"


@pytest.fixture
def checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(EXAMPLE.parents[1])  # `pytest` alone does not look there


@pytest.mark.usefixtures("checkout")
def test_the_example_keeps_the_contract(capsys: pytest.CaptureFixture[str]):
    for options in ([], ["--env.split", "valid"]):
        assert main(["check-env", GUESS, "--tasks", "3", *options]) == 0
    assert "guess, split valid: 3 tasks played" in capsys.readouterr().out
    lines = EXAMPLE.read_text(encoding="utf-8").splitlines()
    assert sum(bool(line.strip()) for line in lines) <= 40


@pytest.mark.usefixtures("checkout")
def test_the_example_is_trained_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """Two updates with the shipped policy, in a worker as usual, then an evaluation."""
    small = ["--rollout.max_turns", "3", "--rollout.max_response_tokens", "4"]
    run = tmp_path / "run"
    train = ["train", "--env.name", GUESS, "--run.updates", "2", "--run.directory", str(run)]
    groups = ["--rollout.groups", "2", "--rollout.group_size", "2"]
    assert main([*train, *groups, *small]) == 0
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["update"] for row in rows] == [1, 2]
    assert main(["eval", str(run), "--episodes", "2", *small]) == 0
    assert f"{GUESS} train: the first 2 of 1,000 tasks" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("os:getcwd", "unexpected keyword argument 'split'"),
        ("json:dumps", "missing a required argument: 'obj'"),
        ("os:sep", "is not a callable object"),
        ("argparse:Namespace", "made a Namespace"),
    ],
)
def test_what_is_no_factory(name: str, reason: str):
    rule = "a factory takes `split` and keyword options and returns a TaskSource"
    with pytest.raises(UserError, match=f"{re.escape(name)}.*{reason}; {rule}"):
        make(name, "train")
