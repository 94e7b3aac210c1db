"""`paw eval MODEL recipe.toml`: the recipe of a training lies between the card and the flags."""

import json
from argparse import Namespace
from pathlib import Path

import pytest

from evals.fake_endpoint import FakeEndpoint, react_expert
from paw.cli import main
from paw.commands.arguments import layers, take_protocol
from paw.commands.eval import _counts
from train.tiny_runs import ForkServer

pytestmark = pytest.mark.timeout(300)

RECIPE = """
[env]
name = "household"
level = 2
[rollout]
max_turns = 2
max_response_tokens = 4
max_prompt_tokens = 400
workers = 0
[algorithm]
name = "gigpo"
[paw]
weight = "matched_constant"
[optimizer]
learning_rate = 1e-2
mini_batches = 4000
[imitate]
from_scratch = true
[run]
updates = 7
seed = 9
[eval]
every = 20
split = "test"
episodes = 4
temperature = 0.5
"""
"""Its training could not begin: `matched_constant` needs a run. That is not eval's affair."""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    file = tmp_path / "recipe.toml"
    file.write_text(RECIPE, encoding="utf-8")
    return file


def evaluated(server: ForkServer, arguments: list[str], tmp_path: Path) -> tuple[dict, str]:
    output = tmp_path / "result.json"
    finished = server.run(["eval", *arguments, "-o", str(output)])
    assert finished.code == 0, finished.err
    return json.loads(output.read_text()), finished.err


def test_a_recipe_lies_between_card_and_flags(
    server: ForkServer, policy: Path, recipe: Path, tmp_path: Path
):
    second = tmp_path / "second.toml"
    second.write_text("[rollout]\nmax_turns = 1\n")
    command = [str(policy), str(recipe), "--rollout.response_format", "command", str(second)]
    result, err = evaluated(server, command, tmp_path)
    assert (result["env_options"], result["temperature"]) == ({"level": 2}, 0.5)
    assert (result["split"], result["num_episodes"], result["max_turns"]) == ("test", 4, 1)
    assert (result["response_format"], result["seed"]) == ("command", 0)
    assert f"{recipe}:" in err and "eval.episodes = 4" in err
    assert f"{second}:" in err and "rollout.max_turns = 1" in err
    assert "gigpo" not in err and "learning_rate" not in err and "updates" not in err
    result, _ = evaluated(
        server, [*command, "--episodes", "2", "--eval.temperature", "0"], tmp_path
    )
    assert (result["num_episodes"], result["temperature"]) == (2, 0.0)


@pytest.mark.parametrize(
    ("split", "episodes"), [(None, 4), ("test", 4), ("valid", None), ("train", None)]
)
def test_episodes_go_with_their_split(
    policy: Path, recipe: Path, split: str | None, episodes: int | None
):
    """The recipe's 4 are of `test`: another split is played whole."""
    known = Namespace(split=split, episodes=None)
    take_protocol(known, layers([str(recipe)], ["--model.path", str(policy)], _counts))
    assert (known.split, known.episodes) == (split or "test", episodes)


def test_progress_says_success_and_time_left(
    server: ForkServer, policy: Path, recipe: Path, tmp_path: Path
):
    _, err = evaluated(server, [str(policy), str(recipe)], tmp_path)
    assert "episode 4/4, " in err and " in all, won 0" in err


def test_an_endpoint_takes_recipes(recipe: Path, tmp_path: Path, capsys):
    output = tmp_path / "result.json"
    with FakeEndpoint(react_expert) as fake:
        command = ["eval", str(recipe), "--api-base", fake.base, "--api-model", "small"]
        assert main([*command, "--agent", "react", "-o", str(output)]) == 0
    result = json.loads(output.read_text())
    assert (result["env"], result["env_options"]) == ("household", {"level": 2})
    assert (result["split"], result["num_episodes"], result["max_turns"]) == ("test", 4, 2)
    assert {body["temperature"] for body in fake.bodies} == {0.5}
    assert {body["max_tokens"] for body in fake.bodies} == {4}
    assert f"settings   {recipe}:" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["recipe.toml"], "recipe.toml is a recipe; name the run or model before it"),
        (["household", "none.toml"], "none.toml: no such configuration file"),
        (["household", "--optimizer.learning_rate", "1"], "changes nothing here"),
        (["--api-base", "http://127.0.0.1:1/v1", "--api-model", "m"], "needs --env NAME"),
        (["household", "--episode", "3"], "unexpected argument '--episode'; did you mean"),
    ],
)
def test_mistakes(capsys, arguments: list[str], part: str):
    assert main(["eval", *arguments]) == 2
    err = capsys.readouterr().err
    assert part in err and err.count("\n") == 1


def test_unknown_keys_of_a_recipe_are_found(tmp_path: Path, capsys):
    file = tmp_path / "recipe.toml"
    file.write_text("[optimizer]\nlearningrate = 1\n")
    assert main(["eval", "household", str(file)]) == 2
    assert "optimizer.learningrate: no such key" in capsys.readouterr().err
