"""Each fault that the contract forbids is found, by the check that is named for it."""

import threading
import time
from typing import ClassVar

import pytest

from paw.envs.base import Observation, StepResult, TaskSource
from paw.envs.check import Check, CheckReport, check_environment, format_report
from paw.types import Task


class Corridor:
    """Four doors: the fourth `forward` wins. The faults of the tests override it."""

    max_return = 2.0
    commands: tuple[str, ...] = ("forward", "wait", "say[<word>]")

    def __init__(self, task: Task):
        self.task = task
        self.place = 0
        self.stage = "new"

    def reset(self) -> Observation:
        if self.stage != "new":
            raise RuntimeError("used")
        self.stage = "running"
        return self.observe(f"{self.task.instruction} You are at door 0.")

    def observe(self, text: str) -> Observation:
        return Observation(text, self.commands)

    def step(self, command: str) -> StepResult:
        if self.stage != "running":
            raise RuntimeError("not running")
        return self.answer(command)

    def answer(self, command: str) -> StepResult:
        if command.startswith("say[") and command.endswith("]"):
            return StepResult(self.observe("An echo."))
        if command not in self.commands:
            return StepResult(self.observe("You cannot do that."), valid=False)
        self.place += command == "forward"
        if self.place < 4:
            return StepResult(self.observe(f"You are at door {self.place}."), reward=0.25)
        self.stage = "ended"
        return StepResult(Observation(""), reward=1.0, terminated=True, success=True)

    def close(self) -> None:
        pass


class Walker:
    def act(self, observation: Observation) -> str:
        return "forward"


class Corridors(TaskSource):
    name = "corridor"
    split = "train"
    max_return = 2.0
    environment: type = Corridor

    def __len__(self) -> int:
        return 5

    def task(self, index: int) -> Task:
        return Task(f"corridor-{index}", "walk", f"Walk through corridor {index}.")

    def open(self, task: Task, seed: int = 0) -> Corridor:
        return self.environment(task)


class Guided(Corridors):
    """With an expert; without waiting every `forward` pays: 3 x 0.25 + 1."""

    max_return = 1.75

    def open(self, task: Task, seed: int = 0) -> Corridor:
        env = super().open(task, seed)
        env.max_return = 1.75
        env.commands = ("forward",)
        return env

    def expert(self, task, seed=0, **options):
        return Walker()


def failures(source, **options):
    report = check_environment(source, num_tasks=3, **options)
    return {check.name: check.detail for check in report.checks if not check.passed}


def with_environment(**members):
    """A source whose environment has other members than Corridor."""
    faulty = type("Faulty", (Corridor,), members)
    return type("Source", (Corridors,), {"environment": faulty, "max_return": 20.0})()


def test_a_good_environment_passes():
    report = check_environment(Guided())
    assert report.passed, format_report(report)
    assert report.num_tasks == 5
    details = {check.name: check.detail for check in report.checks}
    assert details["max_return"] == "1.75, reached by the expert in 5 of 5 episodes"
    assert details["pickling"] == "source and running environments"
    assert details["end"] == "10 episodes ended, 10 with success"
    assert details["commands"] == "20 listed commands accepted"  # 4 in each random episode


def test_no_expert_and_no_end_are_no_failure():
    class Endless(Corridor):
        commands = ("wait", "say[<word>]")
        max_return = 20.0

    class Source(Corridors):
        environment = Endless
        max_return = 20.0

    # classes of a function do not pickle, and that is a failure of the source alone
    report = check_environment(Source())
    assert [check.name for check in report.checks if not check.passed] == ["pickling"]
    details = {check.name: check.detail for check in report.checks}
    assert details["max_return"] == "no return above 20; there is no expert to reach it"
    assert details["end"] == "not seen: no episode ended in 30 random turns"
    assert details["commands"] == "150 listed commands accepted"


def returning(**changes):
    """`answer` that changes fields of Corridor's result."""

    def answer(self, command):
        result = Corridor.answer(self, command)
        fields = {
            name: getattr(result, name)
            for name in ("observation", "reward", "terminated", "truncated", "valid", "success")
        }
        return StepResult(**(fields | changes))

    return answer


class _Counter:
    value = 0


def _counted_answer(self, command):
    _Counter.value += 1
    return StepResult(self.observe(f"Step {_Counter.value} since the beginning."))


def _raising(self, command):
    if "%" in command:
        return StepResult(self.observe("You say " + command % ()))
    return Corridor.answer(self, command)


def _echo(self, command):
    return StepResult(self.observe(f"You say {command}."))


def _hang(self, command):
    if len(command) > 2**19:
        time.sleep(3)
    return Corridor.answer(self, command)


def _jam(self, command):
    if not command.isprintable():
        self.commands, self.jammed = ("forward",), True
    if hasattr(self, "jammed"):
        return StepResult(self.observe("Jammed."), valid=False)
    return Corridor.answer(self, command)


def _step_for_ever(self, command):
    return StepResult(Observation("")) if self.stage == "ended" else Corridor.step(self, command)


FAULTS = {
    "text depends on a global": ("same text, side by side", {"answer": _counted_answer}),
    "success before the end": ("success is False before", {"answer": returning(success=False)}),
    "no success at the end": (
        "success is None at the end",
        {"answer": returning(terminated=True, success=None)},
    ),
    "reward is text": ("reward is '1'", {"answer": returning(reward="1")}),
    "reward is not a number": ("reward is nan", {"answer": returning(reward=float("nan"))}),
    "valid is 1": ("valid is 1, not a bool", {"answer": returning(valid=1)}),
    "info is a list": ("info is a <class 'list'>", {"answer": returning(info=[])}),
    "step returns text": ("step returned a <class 'str'>", {"answer": lambda self, command: "ok"}),
    "observation is text": ("not an Observation", {"answer": returning(observation="ok")}),
    "commands is a list": ("commands is not a tuple", {"commands": ["forward"]}),
    "an empty command": ("a listed command is ''", {"commands": ("forward", "")}),
    "a command twice": ("a command listed twice", {"commands": ("forward", "forward")}),
    "no first text": ("first observation has no text", {"reset": lambda self: Observation("")}),
    "a listed command is refused": (
        "commands, bad commands",
        {"observe": lambda self, text: Observation(text, ("fly",))},
    ),
    "second reset": (
        "single use, end",
        {"reset": lambda self: setattr(self, "stage", "running") or self.observe("Door 0.")},
    ),
    "step before reset": ("single use, end", {"step": Corridor.answer}),
    "step after the end": ("end", {"step": _step_for_ever}),
    "return above max_return": ("max_return", {"answer": returning(reward=7.0)}),
    "max_return of the episode differs": ("max_return", {"max_return": 3.0}),
    "raises on %": ("bad commands", {"answer": _raising}),
    "echoes what cannot be encoded": ("bad commands", {"answer": _echo}),
    "stays jammed": ("bad commands", {"answer": _jam}),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_of_environments(fault):
    checks, members = FAULTS[fault]
    found = failures(with_environment(**({"max_return": 20.0} | members)))
    del found["pickling"]  # a class made here cannot be pickled
    if "values" in found:  # then no episodes are recorded for the other checks
        assert checks in found["values"] and "no episode" in found["end"]
    else:
        assert ", ".join(found) == checks


def test_hanging_is_found_within_the_time_limit():
    started = time.perf_counter()
    found = failures(with_environment(answer=_hang, max_return=20.0), time_limit=0.5)
    assert time.perf_counter() - started < 2.5
    assert found["bad commands"].startswith("still busy after 0.5 s, at the command '    ")


def test_raising_is_reported_with_file_line_and_command():
    found = failures(with_environment(answer=_raising, max_return=20.0))["bad commands"]
    assert found.startswith("TypeError: 'not enough arguments for format string' (")
    assert "test_check.py:" in found and "'%s%n'" in found


class Shared(Corridor):
    """Every episode writes its place into one list."""

    places: ClassVar[list[int]] = [0]
    max_return = 20.0

    def reset(self):
        self.places[:] = [0]
        return super().reset()

    def answer(self, command):
        self.places[0] += command == "forward"
        return StepResult(self.observe(f"You are at door {self.places[0]}."))


class SharedCorridors(Corridors):
    environment = Shared
    max_return = 20.0


def test_episodes_that_disturb_each_other():
    found = failures(SharedCorridors())
    assert set(found) == {"side by side"}
    assert "is answered" in found["side by side"] and "the first time" in found["side by side"]


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


class Lazy(Guided):
    def expert(self, task, seed=0, **options):
        return type("Sleeper", (), {"act": lambda self, observation: "sleep"})()


def test_an_expert_that_never_reaches_max_return():
    assert failures(Lazy()) == {
        "max_return": "the expert never reached 1.75 in 3 episodes",
    }


def _sources():
    def twice(self, index):
        return Task("same", "walk", "Walk.")

    def unstable(self, index):
        _Counter.value += 1
        return Task(f"{index}/{_Counter.value}", "walk", "Walk.")

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


def test_report_text():
    report = CheckReport(
        "corridor", "train", 3, [Check("tasks", True, "5 tasks"), Check("end", False, "no end")]
    )
    assert not report.passed
    assert format_report(report) == (
        "corridor, split train: 3 tasks played\n"
        "  ok    tasks  5 tasks\n"
        "  FAIL  end    no end\n"
        "1 of 2 checks failed"
    )
    good = CheckReport("corridor", "train", 3, report.checks[:1])
    assert good.passed and format_report(good).endswith("all checks passed")
