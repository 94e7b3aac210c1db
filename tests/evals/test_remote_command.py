"""`paw eval --api-base` from the command line."""

import json

import pytest
from fake_endpoint import FakeEndpoint, react_expert

from paw.cli import main
from paw.evals.journal import journal_path


def test_command_line(tmp_path, monkeypatch, capsys):
    """The whole way, twice: the second time nothing is asked; then another temperature."""
    output = tmp_path / "result.json"
    monkeypatch.setenv("MY_KEY", "sk-secret")
    with FakeEndpoint(react_expert) as fake:
        command = [
            "eval", "--env", "household", "--api-base", fake.base, "--api-model", "small",
            "--agent", "react", "--shots", "1", "--episodes", "3", "--api-key-env", "MY_KEY",
            "-o", str(output), "--price-in", "1", "--price-out", "2", "--rollout.workers", "0",
        ]  # fmt: skip
        assert main(command) == 0
        served = len(fake.bodies)
        first = json.loads(output.read_text())
        assert main(command) == 0
        assert len(fake.bodies) == served
        assert main([*command, "--temperature", "0.9"]) == 2
    shown = capsys.readouterr()
    assert "begun with temperature = 0.4, now it is 0.9" in shown.err
    assert "100.0%" in shown.out and f"{served} requests" in shown.out
    assert (first["success_rate"], first["split"], first["max_turns"]) == (1.0, "valid", 20)
    assert (first["agent"], first["model"], first["api_host"]) == ("react", "small", "127.0.0.1")
    assert fake.headers[0]["Authorization"] == "Bearer sk-secret"
    written = output.read_text() + journal_path(output).read_text() + shown.out + shown.err
    assert "sk-secret" not in written


def test_a_result_that_cannot_be_written_is_printed(tmp_path, capsys):
    """A directory takes the result's name while it is played."""
    output = tmp_path / "result.json"

    def in_the_way(body):
        output.mkdir(exist_ok=True)
        return react_expert(body)

    with FakeEndpoint(in_the_way) as fake:
        command = ["eval", "--env", "household", "--api-base", fake.base, "--api-model", "small"]
        options = ["--agent", "react", "--episodes", "1", "--rollout.workers", "0"]
        assert main([*command, *options, "-o", str(output)]) == 2
    shown = capsys.readouterr()
    assert "100.0%" in shown.out and " requests, " in shown.out
    assert shown.err.splitlines()[-1] == f"paw: cannot write {output}: Is a directory"


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "give RUN_OR_MODEL, or --api-base"),
        (["m", "--agent", "react"], "--agent needs --api-base"),
        (["m", "--api-base", "http://h/v1"], "not both"),
        (["--api-base", "http://h/v1", "--api-model", "m"], "needs --env"),
        (["API", "--shots", "1"], "--shots goes with"),
        (["API", "--trials", "2"], "--trials goes with"),
        (["API", "--price-in", "1"], "go together"),
        (["API", "--concurrency", "0"], "whole number from 1"),
        (["API", "--api-key-env", "NO_SUCH_KEY"], "NO_SUCH_KEY"),
        (["API", "--temperature", "nan"], "eval.temperature"),
        (["API", "--rollout.context", "append"], "changes nothing"),
        (["API", "--env.level", "x"], "env.level"),
    ],
)
def test_mistakes_on_the_command_line(arguments, said, capsys):
    api = ["--api-base", "http://h/v1", "--api-model", "m", "--env", "household"]
    words = [w for a in arguments for w in (api if a == "API" else [a])]
    assert main(["eval", *words]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1
