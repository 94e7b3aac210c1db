"""What a result says of an endpoint that refuses parameters or whose answers are not whole."""

import json

import pytest
from fake_endpoint import FakeEndpoint, react_expert

from paw.cli import main
from paw.evals.journal import journal_path

REFUSED = json.dumps(
    {"error": {"message": "Unsupported parameter: 'temperature' is not supported with this model.",
               "param": "temperature", "code": "unsupported_parameter"}}
).encode()  # fmt: skip


def run(fake, output, *more):
    command = ["eval", "--env", "household", "--api-base", fake.base, "--api-model", "small"]
    command += ["--agent", "react", "--episodes", "2", "--rollout.workers", "0", *more]
    return main([*command, "-o", str(output)])


def test_a_refused_temperature_is_said_aloud(tmp_path, capsys):
    """In a warning, the table's first line, a line below it and the result; after a stop too."""
    output = tmp_path / "result.json"
    with FakeEndpoint(react_expert, faults=[(400, REFUSED)]) as fake:
        assert run(fake, output, "--temperature", "0.7", "--concurrency", "1") == 0
        assert run(fake, output, "--temperature", "0.7") == 0
    assert ["temperature" in body for body in fake.bodies].count(True) == 1
    shown = capsys.readouterr()
    assert shown.err.count("the endpoint refuses temperature and is asked without it") == 1
    assert shown.out.count("temperature default (0.7 was refused), seed 0") == 2
    assert (
        "temperature 0.7 was refused by the endpoint and left out in 2 of 2 episodes" in shown.out
    )
    result = json.loads(output.read_text())
    assert result["temperature"] is None
    assert result["left_out"] == {"temperature": {"asked": 0.7, "num_episodes": 2}}


def whole(message, reason):
    return json.dumps({"choices": [{"message": message, "finish_reason": reason}]}).encode()


def test_a_budget_spent_on_reasoning_is_no_silent_zero(tmp_path, capsys):
    output = tmp_path / "result.json"
    body = whole({"content": None, "reasoning_content": "so"}, "length")
    with FakeEndpoint(faults=[body] * 6) as fake:
        code = run(fake, output, "--eval.max_turns", "3", "--rollout.max_response_tokens", "64")
    shown = capsys.readouterr()
    assert code == 1 and "no answer had any text" in shown.err
    assert (
        "rollout.max_response_tokens = 64 cut 100.0% of the responses, reasoning counted: raise it"
        in shown.out
    )
    assert "6 of 6 answers had no text" in shown.out
    result = json.loads(output.read_text())
    assert result["response_cut_fraction"] == 1.0
    assert result["answers"] == {"num_cut": 6, "num_filtered": 0, "num_empty": 6}


def test_some_cut_and_some_filtered_answers_are_counted(tmp_path, capsys):
    """6 answers: 2 cut, one of them empty; 1 filtered and empty; 1 refused; 2 whole."""
    output = tmp_path / "result.json"
    faults = [
        whole({"content": None}, "length"), whole({"content": "Action: look"}, "length"),
        whole({"content": None}, "content_filter"),
        whole({"content": None, "refusal": "I cannot"}, "stop"), None, None,
    ]  # fmt: skip
    with FakeEndpoint(lambda body: "Action: look", faults=faults) as fake:
        assert run(fake, output, "--eval.max_turns", "3", "--concurrency", "1") == 0
    out = capsys.readouterr().out
    assert "cut 33.3% of the responses, reasoning counted: raise it" in out
    assert "2 of 6 answers were refused by the model or a filter" in out
    assert "2 of 6 answers had no text" in out
    result = json.loads(output.read_text())
    assert result["answers"] == {"num_cut": 2, "num_filtered": 2, "num_empty": 2}
    assert result["response_cut_fraction"] == pytest.approx(2 / 6)
    assert result["temperature"] == 0.4 and result["left_out"] == {}
    rows = [json.loads(line) for line in journal_path(output).read_text().splitlines()[1:]]
    assert [t["cut"] for t in rows[0]["trials"][0]["turns"]] == [True, True, False]
