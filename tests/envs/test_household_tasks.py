"""The household's tasks: layouts, splits, levels, options."""

import re
import zlib
from collections import Counter

import pytest

import paw.envs
from paw.envs.check import check_environment, format_report
from paw.envs.household import Household
from paw.envs.household.layouts import (
    APPLIANCES,
    CLOSABLE,
    GOALS,
    LAMPS,
    LEVELS,
    TREATABLE,
    USUAL_PLACES,
    generate,
    schedule,
    type_of,
    usual_share,
)
from paw.errors import UserError
from paw.types import Task


def test_splits_share_no_layout():
    """Among so many layouts equal ones hardly meet by chance: the checksum keeps splits apart."""
    for level in LEVELS:
        layouts = {
            split: {generate(split, level, i).layout for i in range(100)}
            for split in ("train", "valid", "test")
        }
        assert {
            split: {zlib.crc32(layout.encode()) % 4 for layout in found}
            for split, found in layouts.items()
        } == {"train": {2, 3}, "valid": {0}, "test": {1}}


def test_tasks_are_the_same_in_every_version():
    # written down once: ids, goals and rooms must never change, since results refer to them
    source = Household("test")
    assert source[0] == Task(
        "test/level1/00000", "pick_and_place_simple", "put a egg in countertop."
    )
    assert generate("test", 1, 0).layout == (
        "countertop 1: apple 2, mug 1; drawer 1: ; fridge 1: apple 1; garbagecan 1: watch 1; "
        "microwave 1: egg 1; sinkbasin 1: "
    )
    generate.cache_clear()
    assert source[0] == Household("test")[0]


@pytest.mark.parametrize("level", LEVELS)
def test_games_are_as_large_as_their_level_says(level):
    rules = LEVELS[level]
    for number in range(100):
        game = generate("train", level, number)
        receptacles = Counter(type_of(r) for r in game.contents)
        assert len(game.contents) == 3 + rules.num_receptacles
        assert all(receptacles[a] == 1 for a in APPLIANCES.values())
        assert max(receptacles.values()) <= rules.max_copies
        objects = Counter(type_of(o) for o in game.rank)
        assert objects.total() == rules.num_objects
        assert max(objects.values()) <= rules.max_same
        for place, found in game.contents.items():
            for name in found:
                assert not (type_of(name) in LAMPS and type_of(place) in CLOSABLE)
                assert not (type_of(name) == game.object_type and type_of(place) == game.place_type)
        assert objects[game.object_type] >= 1 + (game.kind == "pick_two_obj_and_place")


def test_level_1_shares_and_words():
    kinds = Counter(task.kind for task in Household("valid"))
    assert [kinds[kind] for kind in GOALS] == [60, 30, 40, 30, 30, 10]  # of 200: 10 rounds of 20
    usual = total = 0
    words: set[str] = set()
    for number in range(400):
        game = generate("train", 1, number)
        words.update(re.findall(r"\w+", game.instruction), re.findall(r"\w+", game.layout))
        for place, found in game.contents.items():
            for name in found:
                places = USUAL_PLACES[type_of(name)]
                ruled = type_of(name) in (game.object_type, "desklamp")
                if not ruled and any(type_of(r) in places for r in game.contents):
                    usual += type_of(place) in places
                    total += 1
    # 75 % and a share of the rest by chance: 1 or 2 usual places of 6, so 0.79 to 0.83
    assert 0.77 < usual / total < 0.85
    assert len(words) < 45


def test_usual_share_is_a_distribution():
    # one usual place of four: 0.75 + 0.25/4 there, 0.25/4 elsewhere
    places = ["fridge 1", "desk 1", "drawer 1", "bed 1"]
    assert usual_share("apple", places) == pytest.approx([0.8125, 0.0625, 0.0625, 0.0625])
    assert usual_share("pen", places) == pytest.approx([0.0625, 0.4375, 0.4375, 0.0625])
    assert usual_share("vase", places) == [0.25] * 4


def test_goals_can_be_treated():
    for kind, verb in (("clean", "clean"), ("heat", "heat"), ("cool", "cool")):
        for task in Household("train", 3, kinds=[f"pick_{kind}_then_place_in_recep"], num_tasks=50):
            game = generate("train", 3, int(task.id.rpartition("/")[2]))
            assert game.object_type in TREATABLE[verb]
            assert game.place_type != APPLIANCES[verb]


def test_kinds_and_num_tasks_keep_the_ids():
    every = {task.id: task for task in Household("train", num_tasks=200)}
    kinds = ["look_at_obj_in_light", "pick_two_obj_and_place"]
    some = Household("train", kinds=kinds, num_tasks=40)
    assert [task.id for task in some] == [t.id for t in every.values() if t.kind in kinds][:40]
    assert all(every[task.id] == task for task in some)
    assert len(Household("train")) == 4000 and len(Household("valid")) == 200
    assert len(schedule(1)) == 20


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"split": "vaild"}, "did you mean 'valid'"),
        ({"level": 4}, "no level 4; known: 1, 2, 3"),
        ({"kinds": ["pick_heat"]}, "no kind of task 'pick_heat'"),
        ({"kinds": []}, "kinds is empty"),
        ({"num_tasks": 0}, "num_tasks must be at least 1"),
    ],
)
def test_bad_options(options, message):
    with pytest.raises(UserError, match=re.escape(message)):
        paw.envs.make("household", **options)


@pytest.mark.parametrize(
    "task_id", ["valid/level1/00000", "train/level2/00000", "train/level1/0", ""]
)
def test_foreign_tasks_are_refused(task_id):
    with pytest.raises(UserError, match="has no task"):
        Household("train").open(Task(task_id, "pick_and_place_simple", "x"))


@pytest.mark.parametrize("level", LEVELS)
def test_conformance(level):
    report = check_environment(Household("valid", level))
    assert report.passed, format_report(report)
