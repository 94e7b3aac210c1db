"""The layers of the command line: protocols of the real environments, cards, what is doubted."""

from pathlib import Path

import pytest

from paw.commands.arguments import layers, telling, warn_of_layers
from paw.config.describe import origins
from paw.config.tree import Config


def configured(*flags: str, files: tuple[str, ...] = ()) -> Config:
    resolved = layers(files, flags)
    warn_of_layers(resolved)
    return resolved.config


@pytest.fixture
def bare(tmp_path: Path) -> str:
    """A model without a card."""
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "tokenizer.json").write_text("{}")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("env", "turns", "prompt", "temperature"),
    [
        ("household", 20, 2048, 0.4),
        ("alfworld", 50, 2048, 0.4),
        ("webshop", 15, 4096, 0.4),
        ("search_qa", 4, 4096, 0.0),
    ],
)
def test_every_benchmark_is_played_as_it_says(
    bare: str, env: str, turns: int, prompt: int, temperature: float
):
    config = configured("--model.path", bare, "--env.name", env)
    assert (config.rollout.max_turns, config.rollout.max_prompt_tokens) == (turns, prompt)
    assert config.eval.temperature == temperature
    told = configured("--model.path", bare, "--env.name", env, "--rollout.max_turns=7")
    assert told.rollout.max_turns == 7


def test_a_policy_of_another_environment_is_said(capsys: pytest.CaptureFixture[str]):
    configured("--env.name", "webshop")
    (line,) = capsys.readouterr().err.splitlines()
    assert "model.path = 'household': by its card a policy for household, not for webshop" in line
    assert line.endswith("max_turns = 15")


def test_a_model_without_a_card_is_said(bare: str, capsys: pytest.CaptureFixture[str]):
    configured("--model.path", bare, "--env.name", "alfworld")
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no card (paw.toml) that says how to ask it; alfworld is played with" in line
    assert 'rollout.context = "window", response_format = "tags", max_turns = 50' in line


def test_who_says_how_to_ask_is_not_doubted(bare: str, capsys: pytest.CaptureFixture[str]):
    configured("--model.path", bare, "--rollout.context", "append")
    configured("--env.name", "webshop", "--imitate.from_scratch", "true")  # a policy of its own
    configured()
    assert capsys.readouterr().err == ""


def test_what_changes_nothing_is_said_once(capsys: pytest.CaptureFixture[str]):
    configured("--algorithm.gae_lambda", "0.9")
    assert capsys.readouterr().err == (
        "paw: warning: --algorithm.gae_lambda = 0.9 changes nothing that is learned: it counts "
        'only with algorithm.name = "ppo"\n'
    )


def test_warnings_stand_once_behind_the_header(capsys: pytest.CaptureFixture[str]):
    resolved = layers([], ["--rollout.groups", "4", "--paw.constant", "2"])
    card, flags = (line.replace("\n    ", " ") for line in origins(resolved))
    assert card.startswith("card: run.updates = 80, model.share_prefixes = false,")
    assert flags == "flags: rollout.groups = 4, paw.constant = 2"
    texts = []
    say = telling(resolved, texts.append)
    assert capsys.readouterr().err == ""
    say("header")
    assert "paw.constant = 2.0 changes nothing" in capsys.readouterr().err
    say("first exchange")
    assert (capsys.readouterr().err, texts) == ("", ["header", "first exchange"])
