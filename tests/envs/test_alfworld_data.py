"""The official games against transcripts of the official engine, and with both experts.

The transcripts (alfworld 0.4.2, textworld 1.7.0) hold for every step the command, the observation,
the admissible commands, the score, and whether the game is won and over.
"""

import gzip
import json
from collections import Counter
from pathlib import Path

import pytest

from paw.envs.alfworld import Alfworld
from paw.envs.alfworld.engine import GameState
from paw.envs.alfworld.expert import load_priors
from paw.envs.alfworld.game import Game
from paw.envs.alfworld.priors import count_priors
from paw.envs.check import check_environment, format_report

pytestmark = pytest.mark.data

NUM_STEPS = {
    "expert.valid_seen": 1099,
    "malformed.valid_seen": 744,
    "random.valid_seen": 1980,
    "stress.train": 2160,
    "stress.valid_seen": 2363,
}
KINDS = {
    "train": {
        "pick_and_place_simple": 790,
        "look_at_obj_in_light": 308,
        "pick_clean_then_place_in_recep": 650,
        "pick_heat_then_place_in_recep": 459,
        "pick_cool_then_place_in_recep": 533,
        "pick_two_obj_and_place": 813,
    },
    "valid_seen": {
        "pick_and_place_simple": 35,
        "look_at_obj_in_light": 13,
        "pick_clean_then_place_in_recep": 27,
        "pick_heat_then_place_in_recep": 16,
        "pick_cool_then_place_in_recep": 25,
        "pick_two_obj_and_place": 24,
    },
}


@pytest.mark.parametrize("name", NUM_STEPS)
def test_official_transcripts(name: str, shared_data: Path, alfworld_dir: Path):
    source = Alfworld(name.partition(".")[2], data_dir=alfworld_dir)
    num_steps = 0
    with gzip.open(shared_data / "alfworld" / "reference" / f"{name}.jsonl.gz", "rt") as lines:
        for episode in map(json.loads, lines):
            env = source.open(source.find(episode["game"].removesuffix("/game.tw-pddl")))
            observation = env.reset()
            initial = episode["initial"]
            assert observation.text == initial["observation"]
            assert list(observation.commands) == initial["admissible_commands"]
            for number, step in enumerate(episode["steps"]):
                result = env.step(step["command"])
                where = f"{episode['game']}, step {number}, {step['command']!r}"
                assert result.observation.text == step["observation"], where
                assert list(result.observation.commands) == step["admissible_commands"], where
                assert result.terminated == step["won"] == step["done"], where
                assert result.info["score"] == step["score"], where
                assert result.reward == 10 * step["score"], where
                assert result.valid == (step["observation"] != "Nothing happens."), where
                num_steps += 1
    assert num_steps == NUM_STEPS[name]


@pytest.fixture(scope="module")
def games(alfworld_dir: Path) -> dict[str, list[Game]]:
    """All games by split; parsed once, for it is most of the time."""
    sources = (Alfworld(split, data_dir=alfworld_dir) for split in KINDS)
    return {s.split: [s.game(task.id) for task in s] for s in sources}


def test_every_walkthrough_wins(games: dict[str, list[Game]]):
    for game in (*games["train"], *games["valid_seen"]):
        state = GameState(game)
        for command in game.walkthrough:
            assert not state.won
            assert command in state.commands
            assert state.step(command) is not None
        assert state.won
    assert {split: len(split_games) for split, split_games in games.items()} == {
        "train": 3553,
        "valid_seen": 140,
    }


def test_shipped_priors_are_those_of_train(games: dict[str, list[Game]]):
    assert count_priors(games["train"]) == load_priors()


@pytest.mark.parametrize("split", KINDS)
def test_tasks(split: str, alfworld_dir: Path):
    source = Alfworld(split, data_dir=alfworld_dir)
    tasks = list(source)
    assert Counter(task.kind for task in tasks) == KINDS[split]
    assert [task.id for task in tasks] == sorted({task.id for task in tasks})
    sample = tasks[:: len(tasks) // 40]
    assert all(source.game(task.id).task == task.instruction for task in sample)


def test_human_goals(alfworld_dir: Path):
    source = Alfworld("valid_seen", data_dir=alfworld_dir, goals="human")
    # The first annotation of look_at_obj_in_light-AlarmClock-None-DeskLamp-323.
    assert source[0].instruction == "look at the clock under the lamp"
    assert all(task.instruction for task in source)


def test_explorer_nearly_always_wins(alfworld_dir: Path):
    """Measured: 140 of 140 games within 50 turns, 8.4 turns on average (official expert: 24)."""
    source = Alfworld("valid_seen", data_dir=alfworld_dir)
    turns = []
    for task in source:
        env, expert = source.open(task), source.expert(task)
        observation = env.reset()
        for turn in range(50):
            result = env.step(expert.act(observation))
            observation = result.observation
            if result.terminated:
                turns.append(turn + 1)
                break
    assert len(turns) >= 138
    assert 7 < sum(turns) / len(turns) < 10


@pytest.mark.parametrize("split", KINDS)
def test_contract(split: str, alfworld_dir: Path):
    report = check_environment(Alfworld(split, data_dir=alfworld_dir), num_tasks=6)
    assert report.passed, format_report(report)
