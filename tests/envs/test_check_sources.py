"""Faults of task sources and of pickled copies are found by the check."""

import itertools
import threading

import pytest
from corridor import Corridor, Corridors, Guided, failures

from paw.envs.check import check_environment, format_report
from paw.style import Block, Style
from paw.types import Task


class Locked(Corridor):
    def __init__(self, task):
        super().__init__(task)
        self.lock = threading.Lock()


class LockedCorridors(Guided):
    environment = Locked


def test_a_running_environment_need_not_pickle():
    report = check_environment(LockedCorridors())
    assert report.passed, format_report(report)
    details = {check.name: check.detail for check in report.checks}
    assert details["pickling"] == "source; a running environment does not"


class Forgetful(Corridor):
    """Pickles, but wakes up at the first door."""

    def __getstate__(self):
        return self.__dict__ | {"place": 0}


class ForgetfulCorridors(Guided):
    environment = Forgetful


def test_a_pickled_environment_goes_on_as_the_original():
    assert set(failures(ForgetfulCorridors())) == {"pickling"}


def _sources():
    numbers = itertools.count()

    def twice(self, index):
        return Task("same", "walk", "Walk.")

    def unstable(self, index):
        return Task(f"{index}/{next(numbers)}", "walk", "Walk.")

    def silent(self, index):
        return Task(f"{index}", "walk", "")

    def forgiving(self, index):
        return self.task(index if isinstance(index, int) else 0)

    return {
        "two tasks have the same id": {"task": twice},
        "differs the second time": {"task": unstable},
        ".instruction is ''": {"task": silent},
        "is not the last task": {
            "__getitem__": lambda self, i: [] if isinstance(i, slice) else self.task(max(i, 0))
        },
        "raises no IndexError": {
            "__getitem__": lambda self, i: (
                [self.task(0)] if isinstance(i, slice) else self.task(i % 5)
            )
        },
        "the source has no tasks": {"__len__": lambda self: 0},
        "source.name is not a str": {"name": None},
    }


@pytest.mark.parametrize("message", _sources())
def test_faults_of_sources(message):
    source = type("Source", (Corridors,), _sources()[message])()
    report = check_environment(source)
    assert [check.name for check in report.checks] == ["tasks"]  # nothing to go on with
    assert message in report.checks[0].detail and not report.passed


class Shrinking(Guided):
    """Pickled, it has other tasks; which fault is `fault`."""

    fault = ""
    copied = False

    def __getstate__(self):
        return {"fault": self.fault, "copied": True}

    def __len__(self):
        return 4 if self.copied and self.fault == "length" else 5

    def task(self, index):
        return super().task(index + (self.copied and self.fault == "task"))

    def open(self, task, seed=0):
        if self.copied and self.fault == "episode":
            task = Task(task.id, task.kind, "Walk elsewhere.")
        return super().open(task, seed)


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ("length", "the pickled source has another length"),
        ("task", "the pickled source has another first task"),
        ("episode", "task corridor-0: reset is answered 'Walk elsewhere. You are at door 0.'"),
    ],
)
def test_a_pickled_source_is_the_same_source(fault, message):
    source = Shrinking()
    source.fault = fault
    found = failures(source)
    assert set(found) == {"pickling"} and message in found["pickling"]


def test_unpicklable_source():
    source = Guided()
    source.lock = threading.Lock()
    assert set(failures(source)) == {"pickling"}


def doors(instruction, turns):
    for observation, _ in turns:
        yield [Block("facts", "Doors", (("Seen", observation),), ((0, 0, 4),))]


def always(blocks):
    return lambda instruction, turns: [blocks for _ in turns]


SCENES = {
    "returns a <class 'str'> among its Blocks": always("none"),
    "returns a <class 'NoneType'>, no sequence": always(None),
    "is of kind 'table'": always([Block("table", "Doors", ())]),  # pyright: ignore
    "is no (label, text)": always([Block("facts", "Doors", (("Seen", 3),))]),  # pyright: ignore
    "the mark (0, 0, 400) lies outside": always(
        [Block("facts", "Doors", (("Seen", "a door"),), ((0, 0, 400),))]
    ),
    "the mark (1, 0, 1) lies outside": always(
        [Block("facts", "Doors", (("Seen", "a door"),), ((1, 0, 1),))]
    ),
    "1 scenes of": lambda instruction, turns: [()],
    "IndexError": lambda instruction, turns: [turns[len(turns)]],
}


def test_a_scene_of_ones_own_is_drawn():
    source = type("Source", (Corridors,), {"style": Style(scenes=doors)})()
    report = check_environment(source)
    (detail,) = (check.detail for check in report.checks if check.name == "scene")
    assert detail.startswith("drawn at ") and "scene" not in failures(source)


@pytest.mark.parametrize("message", SCENES)
def test_faults_of_scenes(message):
    source = type("Source", (Corridors,), {"style": Style(scenes=SCENES[message])})()
    assert message in failures(source)["scene"]
