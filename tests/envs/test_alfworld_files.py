"""Which folders are ALFWorld games, and one clear line for each thing amiss."""

import json
from pathlib import Path

import pytest
from alfworld_small import HEAT, game_text, write_game

import paw.envs
from paw.envs.alfworld import Alfworld
from paw.envs.alfworld.game import GameFileError, parse_game
from paw.errors import UserError


def test_which_folders_are_games(tmp_path: Path):
    kept = [
        "look_at_obj_in_light-Mug-None-DeskLamp-301/trial_T2",
        "look_at_obj_in_light-Mug-None-DeskLamp-301/trial_T1",
        f"{HEAT}/trial_T1",
    ]
    for game in kept:
        write_game(tmp_path, game)
    write_game(tmp_path, "pick_and_place_simple-AppleSliced-None-Shelf-1/trial_T1")
    write_game(tmp_path, "pick_and_place_with_movable_recep-Mug-Pan-Shelf-1/trial_T1")
    write_game(tmp_path, f"{HEAT}/trial_movable")
    unsolvable = game_text().replace('"solvable": true', '"solvable": false')
    write_game(tmp_path, f"{HEAT}/trial_T2", unsolvable)
    (tmp_path / "json_2.1.1" / "train" / HEAT / "trial_T3").mkdir()  # no game file
    source = Alfworld("train", data_dir=tmp_path)
    assert [task.id for task in source] == sorted(f"train/{game}" for game in kept)
    heat = Alfworld("train", data_dir=tmp_path, kinds="pick_heat_then_place_in_recep")
    assert [task.id for task in heat] == [f"train/{HEAT}/trial_T1"]
    assert heat.find(heat[0].id) == heat[0]


def test_data_dir_from_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    write_game(tmp_path, f"{HEAT}/trial_T1", split="valid_seen")
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    assert len(paw.envs.make("alfworld", split="valid_seen")) == 1


def test_human_goals(tmp_path: Path):
    path = write_game(tmp_path, f"{HEAT}/trial_T1")
    with pytest.raises(UserError, match=r"traj_data\.json"):
        Alfworld("train", data_dir=tmp_path, goals="human")[0]
    annotations = {"turk_annotations": {"anns": [{"task_desc": "Warm an apple. "}]}}
    path.with_name("traj_data.json").write_text(json.dumps(annotations))
    source = Alfworld("train", data_dir=tmp_path, goals="human")
    assert source[0].instruction == "Warm an apple."
    assert source.open(source[0]).reset().text.endswith("\n\nYour task is to: Warm an apple.")
    assert source.expert(source[0]).act(source.open(source[0]).reset())


def test_missing_data(tmp_path: Path):
    with pytest.raises(UserError, match=r"no folder json_2\.1\.1 in .*nowhere.*alfworld-download"):
        Alfworld("train", data_dir=tmp_path / "nowhere")
    write_game(tmp_path, f"{HEAT}/trial_T1")
    with pytest.raises(UserError, match="give its parent"):
        Alfworld("train", data_dir=tmp_path / "json_2.1.1")
    with pytest.raises(UserError, match=r"no split valid_unseen .*there: train.*alfworld-download"):
        Alfworld("valid_unseen", data_dir=tmp_path)
    with pytest.raises(UserError, match="no game of pick_two_obj_and_place"):
        Alfworld("train", data_dir=tmp_path, kinds=["pick_two_obj_and_place"])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "valid_sen"}, "did you mean 'valid_seen'"),
        ({"kinds": "pick_two"}, "did you mean 'pick_two_obj_and_place'"),
        ({"goals": "poetic"}, "template, human"),
        ({"engine": "textworld"}, "native"),
        ({"kind": "pick_two_obj_and_place"}, "did you mean 'kinds'"),
    ],
)
def test_bad_options(options: dict, message: str, tmp_path: Path):
    with pytest.raises(UserError, match=message):
        paw.envs.make("alfworld", data_dir=tmp_path, **options)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "not valid JSON"),
        (game_text()[:500], "not valid JSON"),
        ("[]", "not a JSON object"),
        ('{"pddl_problem": "", "grammar": "Your task is to: x"}', "walkthrough"),
        (game_text(goal="(:goal (and (isSliced Apple)))"), "goal of unknown form"),
        (game_text().replace("(atLocation agent1", "(near agent1"), "where the agent starts"),
        (game_text().replace("Mug_bar_01 - object", ""), "without declaring"),
        (game_text().replace("Your task is to", "You shall"), "Your task is to"),
        (game_text().replace("(:init", "(:begin"), "lacks"),
        (game_text().replace("(receptacleAtLocation Shelf", "(at Shelf"), "without location"),
    ],
)
def test_bad_game_files(text: str, message: str, tmp_path: Path):
    with pytest.raises(GameFileError, match=message):
        parse_game(text)
    path = write_game(tmp_path, f"{HEAT}/trial_T1", text)
    source = Alfworld("train", data_dir=tmp_path)
    with pytest.raises(UserError) as caught:
        source.open(source[0])
    line = str(caught.value)
    assert str(path) in line and "alfworld-download" in line and "\n" not in line


def test_binary_game_file(tmp_path: Path):
    write_game(tmp_path, f"{HEAT}/trial_T1").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match="not UTF-8"):
        Alfworld("train", data_dir=tmp_path)[0]
