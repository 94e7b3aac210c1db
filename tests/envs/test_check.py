"""Each fault that the contract forbids is found, by the check that is named for it."""

import time
from typing import ClassVar

import pytest
from corridor import Corridor, Corridors, Guided, failures

from paw.envs.base import Observation, StepResult
from paw.envs.check import Check, CheckReport, check_environment, format_report


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
        time.sleep(60)
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
    "score is text": ("is '3/10', not a number", {"answer": returning(info={"score": "3/10"})}),
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
    assert time.perf_counter() - started < 30  # of 60
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


class Lazy(Guided):
    def expert(self, task, seed=0, **options):
        return type("Sleeper", (), {"act": lambda self, observation: "sleep"})()


def test_an_expert_that_never_reaches_max_return():
    assert failures(Lazy()) == {
        "max_return": "the expert never reached 1.75 in 3 episodes",
    }


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
