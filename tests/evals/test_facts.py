"""What task sources say of themselves: equal for equal tasks, different where scores differ."""

import json
import pickle
from pathlib import Path

import pytest

from paw import envs
from paw.envs.base import TaskSource, digest


def test_a_source_of_ones_own_has_the_basic_facts():
    class Own(TaskSource):
        name, split = "own", "test"

        def __len__(self) -> int:
            return 3

    assert Own().facts() == {"name": "own", "split": "test", "num_tasks": 3}


def test_digest_tells_apart_where_texts_begin():
    assert digest(["ab", "c"]) != digest(["a", "bc"]) != digest(["abc"])
    assert digest(["\ud800"]) == digest(["\ud800"])


def test_household_levels_and_kinds_differ():
    facts = envs.make("household", "valid").facts()
    assert (facts["split"], facts["num_tasks"], facts["level"]) == ("valid", 200, 1)
    assert len(facts["kinds"]) == 6
    for options in ({"level": 2}, {"kinds": "pick_and_place_simple"}, {"num_tasks": 7}):
        assert envs.make("household", "valid", **options).facts() != facts


@pytest.mark.data
def test_webshop_catalogues_and_options_differ(shared_data: Path):
    def facts(split: str = "test", **options: object) -> dict:
        source = envs.make("webshop", split, data_dir=str(shared_data / "webshop"), **options)
        return source.facts()

    one = facts()
    assert (one["num_products"], one["num_goals"], one["num_tasks"]) == (1000, 6910, 500)
    assert (one["goals"], one["split_by"], one["seed"]) == ("synthetic", "goal", 233)
    assert json.loads(json.dumps(one)) == one == facts()

    def differing(**options: object) -> set[str]:
        other = facts(**options)
        return {key for key in one if one[key] != other[key]}

    assert differing(matching="repaired") == {"matching"}
    assert differing(seed=1) == {"seed", "tasks_sha256"}
    assert {"goals", "num_goals"} < differing(goals="human", split="all")
    assert "split_by" in differing(product_split=True)


def test_alfworld_games_and_goals_differ(tmp_path: Path):
    def play(*tasks: str) -> None:
        for task in tasks:
            trial = tmp_path / "json_2.1.1" / "valid_seen" / task / "trial_T1"
            trial.mkdir(parents=True)
            (trial / "game.tw-pddl").write_text('{"solvable": true}')

    play("pick_and_place_simple-Mug-None-Desk-1", "look_at_obj_in_light-Mug-None-Lamp-2")
    source = envs.make("alfworld", "valid_seen", data_dir=str(tmp_path))
    facts = source.facts()
    assert (facts["num_tasks"], facts["goals"], len(facts["kinds"])) == (2, "template", 6)
    assert pickle.loads(pickle.dumps(source)).facts() == facts
    options = {"data_dir": str(tmp_path), "kinds": "pick_and_place_simple"}
    fewer = envs.make("alfworld", "valid_seen", **options).facts()
    assert {k for k in facts if facts[k] != fewer[k]} == {"num_tasks", "kinds", "tasks_sha256"}
    play("pick_and_place_simple-Mug-None-Desk-3")
    more = envs.make("alfworld", "valid_seen", data_dir=str(tmp_path)).facts()
    assert {k for k in facts if facts[k] != more[k]} == {"num_tasks", "tasks_sha256"}
    human = envs.make("alfworld", "valid_seen", data_dir=str(tmp_path), goals="human").facts()
    assert human == more | {"goals": "human"}
