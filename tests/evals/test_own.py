"""An evaluation beside those that the run made of itself: equal protocols compare, others warn."""

import json
from pathlib import Path

import pytest

from paw.evals.own import print_change


def evaluation(success_rate: float, **changed: object) -> dict:
    """What `paw.evals.play.evaluate` says, as far as it counts here."""
    return {
        "env": "household", "split": "valid", "num_episodes": 9, "num_failures": 1,
        "temperature": 1.0, "max_turns": 20, "context": "append", "history_turns": 2,
        "response_format": "command", "max_prompt_tokens": 1000, "max_response_tokens": 16,
        "validity": "accepted", "env_options": {}, "success_rate": success_rate,
        "interval": (0.0, 1.0),
        "source": {"name": "household", "split": "valid", "num_tasks": 200, "level": 1},
    } | changed  # fmt: skip


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Of a run that had 25 % before training and 50 % after update 8."""
    (tmp_path / "eval").mkdir()
    for update, rate in ((0, 0.25), (4, 0.75), (8, 0.5)):
        result = {"update": update, **evaluation(rate)}
        (tmp_path / "eval" / f"update-{update:06d}.json").write_text(json.dumps(result))
    return tmp_path / "checkpoints" / "update-000008"


def test_change_against_the_newest_and_the_first(checkpoint: Path, capsys):
    print_change(evaluation(0.625, model=str(checkpoint), history_turns=4))
    assert capsys.readouterr() == (
        "change  +12.5 points from update 8 (50.0%)\nchange  +37.5 points from update 0 (25.0%)\n",
        "",
    )


def test_another_protocol_is_said_and_not_compared(checkpoint: Path, capsys):
    print_change(evaluation(0.9, model=str(checkpoint), temperature=0.4, num_episodes=19))
    out, err = capsys.readouterr()
    assert out == ""
    assert "episodes 10 there, 20 here; temperature 1.0 there, 0.4 here" in err
    assert err.count("\n") == 1


def test_other_data_are_not_compared(checkpoint: Path, capsys):
    other = {"name": "household", "split": "valid", "num_tasks": 200, "level": 2}
    print_change(evaluation(0.9, model=str(checkpoint), source=other))
    out, err = capsys.readouterr()
    assert out == "" and err.endswith("not to be compared: source.level 1 there, 2 here\n")


def test_compares_with_an_older_evaluation_of_the_same_protocol(checkpoint: Path, capsys):
    newest = {"update": 12, **evaluation(0.5, temperature=0.0)}
    (checkpoint.parents[1] / "eval" / "update-000012.json").write_text(json.dumps(newest))
    print_change(evaluation(0.5, model=str(checkpoint)))
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "change  +0.0 points from update 8 (50.0%)"
    assert "temperature 0.0 there, 1.0 here" in err


def test_a_model_of_no_run_has_nothing_to_compare_with(tmp_path: Path, capsys):
    print_change(evaluation(0.5, model=str(tmp_path / "policy")))
    print_change(evaluation(0.5, model="owner/name"))
    assert capsys.readouterr() == ("", "")
