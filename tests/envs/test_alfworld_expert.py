"""ALFWorld's experts on the small game; on the real ones: test_alfworld_data."""

from pathlib import Path

import pytest
from alfworld_small import HEAT, OBJECTS, TWO, game_text, write_game

from paw.envs.alfworld import Alfworld
from paw.envs.alfworld.expert import load_priors


@pytest.mark.parametrize("kind", ["explorer", "walkthrough"])
@pytest.mark.parametrize("junk", [0.0, 0.3])
def test_experts_win(small_alfworld: Alfworld, kind: str, junk: float):
    num_junk = 0
    for seed in range(10):
        env, expert = (
            small_alfworld.open(small_alfworld[0]),
            small_alfworld.expert(small_alfworld[0], seed, kind=kind, junk=junk),
        )
        observation = env.reset()
        for _ in range(100):
            before = observation.commands
            result = env.step(expert.act(observation))
            observation = result.observation
            num_junk += expert.last_was_junk
            assert not expert.last_was_junk or observation.commands == before
            if result.terminated:
                break
        assert result.success
    assert (num_junk > 0) == (junk > 0)


def num_turns(text: str, folder: Path, limit: int = 60) -> int:
    """Turns that the explorer without noise takes to win."""
    write_game(folder, f"{HEAT}/trial_T1", text)
    source = Alfworld("train", data_dir=folder)
    env, expert = source.open(source[0]), source.expert(source[0], noise=0.0)
    observation = env.reset()
    for turn in range(limit):
        result = env.step(expert.act(observation))
        observation = result.observation
        if result.terminated:
            return turn + 1
    return limit + 1


def test_explorer_goes_to_the_likeliest_place_first(small_alfworld: Alfworld):
    means = load_priors()["apple"]
    places = ("bathtubbasin", "countertop", "fridge", "microwave", "shelf", "sinkbasin")
    likeliest = max(places, key=lambda place: means.get(place, 0.0))
    observation = small_alfworld.open(small_alfworld[0]).reset()
    assert (
        small_alfworld.expert(small_alfworld[0], noise=0.0).act(observation)
        == f"go to {likeliest} 1"
    )


def test_explorer_turns_to_another_object_when_refused(tmp_path: Path):
    text = game_text()
    for object_id in OBJECTS[:2]:
        # One apple is fixed, whichever comes first: the other one has to do.
        fixed = text.replace(f"(pickupable {object_id})", "")
        assert num_turns(fixed, tmp_path / object_id) < 30


def test_explorer_sees_places_that_share_a_location(tmp_path: Path):
    """With every place in one location only the first `go to` is not refused."""
    text = game_text(TWO.format(o="Apple", r="SinkBasin"), "put two apple in sinkbasin.")
    for place in (2, 3, 4):
        text = text.replace(f"loc_{place})", "loc_1)")
    assert num_turns(text, tmp_path) < 25


def test_experts_are_seeded(small_alfworld: Alfworld):
    def walk(seed: int) -> list[str]:
        env, expert = (
            small_alfworld.open(small_alfworld[0]),
            small_alfworld.expert(small_alfworld[0], seed, noise=2.0, junk=0.2),
        )
        observation, commands = env.reset(), []
        for _ in range(5):
            commands.append(expert.act(observation))
            observation = env.step(commands[-1]).observation
        return commands

    assert walk(1) == walk(1)
    assert len({tuple(walk(seed)) for seed in range(8)}) > 1
