"""Each fault beside healthy neighbours, whose results must be those of a run without faults."""

import os
import signal
import subprocess
import sys
import time

import pytest
from fake_envs import LAST_TURN, Counting

from paw.envs import make
from paw.errors import UserError
from paw.rollout.pool import EnvironmentPool, Failure
from paw.rollout.worker import describe

NAME = "fake_envs:Counting"
NUM_SLOTS = 5


def play(pool, tasks=None, num_slots=NUM_SLOTS):
    """Everything each slot showed: observations and results (without process ids), in order."""
    tasks = tasks or Counting()
    shown = {slot: [answer] for slot, answer in open_all(pool, tasks, num_slots).items()}
    for turn in range(LAST_TURN):
        live = [slot for slot, seen in shown.items() if not isinstance(seen[-1], Failure)]
        for slot, answer in pool.step({slot: f"count {turn} {slot}" for slot in live}).items():
            shown[slot].append(answer)
    return {slot: [comparable(answer) for answer in seen] for slot, seen in shown.items()}


def open_all(pool, tasks, num_slots=NUM_SLOTS):
    return pool.open([(slot, tasks[slot], 100 + slot) for slot in range(num_slots)])


def comparable(answer):
    if not hasattr(answer, "reward"):
        return answer
    return answer.observation, answer.reward, answer.terminated, answer.valid, answer.success


@pytest.fixture(scope="module")
def healthy():
    with EnvironmentPool(NAME, "train", {}, workers=0) as pool:
        return play(pool)


def pool_with(faults, workers=1, step_seconds=0.5):
    return EnvironmentPool(
        NAME, "train", {"faults": faults}, workers=workers, step_seconds=step_seconds
    )


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_results_are_those_of_one_process(healthy, workers):
    with EnvironmentPool(NAME, "train", {}, workers=workers) as pool:
        assert play(pool) == healthy
        assert pool.max_return == 10.0
        assert pool.num_restarts == 0
    last = healthy[NUM_SLOTS - 1][-1]
    assert last[0].text == "task-4 seed 104 turn 6: " + " ".join(f"count {t} 4" for t in range(6))
    assert last[1:] == (10.0, True, True, True)


def test_the_household_is_the_same_in_every_number_of_workers():
    tasks = make("household", split="valid")
    shown = []
    for workers in (0, 1, 3):
        with EnvironmentPool("household", "valid", {}, workers=workers) as pool:
            seen = [open_all(pool, tasks)]
            for turn in range(8):
                commands = {
                    slot: (o.commands or ("look",))[turn % max(1, len(o.commands))]
                    for slot, answer in seen[-1].items()
                    if not getattr(answer, "terminated", False)
                    for o in [getattr(answer, "observation", answer)]
                }
                seen.append(pool.step(commands))
            shown.append(seen)
    assert shown[0] == shown[1] == shown[2]
    assert not any(isinstance(a, Failure) for seen in shown[0] for a in seen.values())


# fault -> (reason, does it cost the process?)
FAULTS = {
    "hang": ("no answer within 0.5 s", True),
    "exit": ("the environment's process exited with code 7", True),
    "segfault": ("the environment's process was killed by SIGSEGV", True),
    "raise": ("ValueError: the world is broken", False),
    "leave": ("SystemExit: 3", False),
}


@pytest.mark.parametrize("turn", [0, 3])
@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_costs_one_environment(healthy, fault, turn):
    reason, costs_process = FAULTS[fault]
    start = time.monotonic()
    with pool_with({"task-1": (fault, turn)}, workers=2) as pool:
        shown = play(pool)
        assert shown.pop(1) == [*healthy[1][:turn], Failure(reason)]
        assert shown == {slot: seen for slot, seen in healthy.items() if slot != 1}
        assert pool.num_restarts == int(costs_process)
    assert time.monotonic() - start < 5


def test_faults_of_every_environment_are_bounded(healthy):
    """Slots 0 to 3 of one worker take it down one after the other within one turn."""
    faults = {f"task-{i}": (fault, 2) for i, fault in enumerate(["exit", "hang", "exit", "hang"])}
    with pool_with(faults) as pool:
        shown = play(pool)
        assert [len(shown[slot]) for slot in range(4)] == [3, 3, 3, 3]
        assert shown[4] == healthy[4]
        assert pool.num_restarts == 4


def test_a_slot_that_failed_can_be_opened_again():
    with pool_with({"task-1": ("exit", 1)}) as pool:
        for repeat in range(1, 3):
            assert pool.open([(0, Counting()[1], 0)])[0].text == "task-1 seed 0 turn 0: "
            assert isinstance(pool.step({0: "count"})[0], Failure)
            assert pool.num_restarts == repeat
            with pytest.raises(RuntimeError, match="slot 0 is not open"):
                pool.step({0: "count"})


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("raise", "ValueError: the world is broken"),
        ("leave", "SystemExit: 3"),
        ("type", "TypeError: the environment returned Observation, not StepResult"),
        ("nan", "ValueError: the reward is nan"),
        ("-inf", "ValueError: the reward is -inf"),
        ("no text", "TypeError: sequence item 0: expected str instance, NoneType found"),
        (
            "surrogate",
            "UnicodeEncodeError: 'utf-8' codec can't encode character '\\ud800' in position 2: "
            "surrogates not allowed",
        ),
    ],
)
def test_exceptions_are_failures_in_this_process_too(healthy, fault, reason, workers):
    with pool_with({"task-1": (fault, 3)}, workers) as pool:
        shown = play(pool)
        assert shown.pop(1) == [*healthy[1][:3], Failure(reason)]
        assert shown == {slot: seen for slot, seen in healthy.items() if slot != 1}
        assert pool.num_restarts == 0


def test_a_reason_can_be_written_down():
    """In one line that UTF-8 holds: trajectory files and messages of the pool are UTF-8."""
    assert describe(ValueError("half \ud83d\n a pair")) == r"ValueError: half \ud83d a pair"


def test_an_answer_that_cannot_travel_is_a_failure(healthy):
    with pool_with({"task-1": ("unpicklable", 3)}) as pool:
        shown = play(pool)
        assert "pickle" in shown[1][-1].reason
        assert shown[2] == healthy[2]
        assert pool.num_restarts == 0


def test_printing_and_reading_do_not_touch_the_protocol(healthy, capfd):
    with pool_with({"task-1": ("print", 3)}) as pool:
        assert play(pool) == healthy
    captured = capfd.readouterr()
    assert "more garbage" in captured.err
    assert captured.out == ""


def test_slow_environments_are_not_late(healthy):
    """A turn and a replay of several slow steps last longer than one step may."""
    faults = {f"task-{i}": ("slow", 2) for i in range(4)} | {"task-4": ("exit", 4)}
    with pool_with(faults, step_seconds=0.35) as pool:
        shown = play(pool)
        assert all(shown[slot] == healthy[slot] for slot in range(4))
        assert pool.num_restarts == 1


def test_workers_step_at_the_same_time():
    faults = {f"task-{i}": ("slow", 1) for i in range(4)}  # 0.1 s each
    with pool_with(faults, workers=4) as pool:
        open_all(pool, Counting(), 4)
        start = time.monotonic()
        pool.step(dict.fromkeys(range(4), "count"))
        assert time.monotonic() - start < 0.38  # one after the other: 0.4


def test_a_long_replay_of_slow_steps_is_not_late():
    """Reset and four commands at 0.1 s: the replay lasts longer than one of them may.

    Once rebuilt, an environment is not rebuilt again: the step after costs 0.1 s.
    """
    with pool_with({"task-0": ("slow", "every"), "task-1": ("exit", 4)}, step_seconds=0.4) as pool:
        open_all(pool, Counting(), 2)
        for _ in range(4):
            answers = pool.step({0: "count", 1: "count"})
        assert isinstance(answers[1], Failure)
        start = time.monotonic()
        assert pool.step({0: "count"})[0].observation.text.endswith("turn 5:" + 5 * " count")
        rebuilt = time.monotonic()
        assert pool.step({0: "count"})[0].terminated
        assert rebuilt - start > 0.6 and time.monotonic() - rebuilt < 0.4


def test_messages_larger_than_a_pipe(healthy):
    """1 MB to and from each environment in one turn; a pipe holds 64 kB."""
    with pool_with({"task-1": ("exit", 2)}, step_seconds=5) as pool:
        open_all(pool, Counting())
        for turn in range(1, 4):
            commands = {slot: f"{slot}" * 1_000_000 for slot in (0, 2, 3, 4)}
            answers = pool.step(commands | ({1: "count"} if turn < 3 else {}))
            for slot, command in commands.items():
                assert answers[slot].observation.text.count(command) == turn
        assert pool.num_restarts == 1


def test_an_environment_that_drifts_is_not_replayed_as_another():
    with pool_with({"task-0": ("drift", 9), "task-1": ("exit", 1)}) as pool:
        open_all(pool, Counting(), 2)
        assert isinstance(pool.step({0: "count", 1: "count"})[1], Failure)
        assert "not deterministic" in pool.step({0: "count"})[0].reason


def test_a_worker_killed_between_turns_is_nobodys_fault():
    with pool_with({}) as pool:
        open_all(pool, Counting())
        pid = pool.step(dict.fromkeys(range(5), "count"))[0].info["pid"]
        os.kill(pid, signal.SIGKILL)
        time.sleep(0.1)
        answers = pool.step(dict.fromkeys(range(5), "count"))
        assert [a.observation.text[-7:] for a in answers.values()] == ["t count"] * 5
        assert answers[0].info["pid"] != pid
        assert pool.num_restarts == 1


def test_a_worker_ignores_ctrl_c():
    with pool_with({}) as pool:
        open_all(pool, Counting())
        pid = pool.step({0: "count"})[0].info["pid"]
        os.kill(pid, signal.SIGINT)
        time.sleep(0.1)
        assert pool.step({0: "count"})[0].info["pid"] == pid
        assert pool.num_restarts == 0


@pytest.mark.parametrize("workers", [0, 2])
def test_slots_close_and_open_again(workers):
    with EnvironmentPool(NAME, None, {}, workers=workers) as pool:
        open_all(pool, Counting())
        pool.close_slots([1, 3, 99])
        with pytest.raises(RuntimeError, match="slot 3 is not open"):
            pool.step({2: "count", 3: "count"})
        assert pool.open([(3, Counting()[7], 1)])[3].text == "task-7 seed 1 turn 0: "
        for _ in range(LAST_TURN):
            answer = pool.step({2: "count"})[2]
        assert answer.terminated
        with pytest.raises(RuntimeError, match="slot 2: its episode has ended"):
            pool.step({2: "count"})


@pytest.mark.parametrize("fault", ["raise in close", "hang in close"])
def test_a_fault_in_close_is_no_failure(healthy, fault):
    with pool_with({"task-1": (fault, 0)}) as pool:
        open_all(pool, Counting())
        pool.step(dict.fromkeys(range(5), "count 0 0"))
        pool.close_slots([0, 1, 2])
        text = pool.step({3: "count"})[3].observation.text
        assert text == "task-3 seed 103 turn 2: count 0 0 count"


def test_an_environment_that_raises_in_close_makes_way_for_the_next():
    with pool_with({"task-1": ("raise in close", 0)}, workers=0) as pool:
        for seed in (5, 6):
            observation = pool.open([(0, Counting()[1], seed)])[0]
            assert observation.text == f"task-1 seed {seed} turn 0: "


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"broken": "data"}, UserError, r"^env.data_dir: there is no data here; make some$"),
        ({"fault": 1}, UserError, "env.fault: .* did you mean 'faults'"),
        ({"broken": "import"}, ImportError, "^needs gymnasium: pip install gymnasium$"),
    ],
)
def test_a_source_that_does_not_open_says_why(options, error, message, workers):
    with pytest.raises(error, match=message):
        EnvironmentPool(NAME, None, options, workers=workers)


def test_a_worker_that_dies_as_it_starts_says_so():
    with pytest.raises(UserError, match=r"fake_envs:Counting' does not start: .* code 9"):
        EnvironmentPool(NAME, None, {"broken": "exit"})
    with pytest.raises(RuntimeError, match="ZeroDivisionError: division by zero") as caught:
        EnvironmentPool(NAME, None, {"broken": "code"})
    assert "fake_envs.py" in caught.value.__notes__[0]


def test_no_process_is_left_after_close():
    with pool_with({"task-3": ("hang", 1)}, workers=2) as pool:
        open_all(pool, Counting())
        first = pool.step({0: "count", 1: "count"})
        second = pool.step({0: "count", 3: "count"})  # slot 3 costs the process of slot 1
        third = pool.step({1: "count"})
        pids = {first[0].info["pid"], first[1].info["pid"], third[1].info["pid"]}
        assert isinstance(second[3], Failure) and len(pids) == 3
    pool.close()
    for pid in pids:
        with pytest.raises(ChildProcessError):  # neither running nor a zombie
            os.waitpid(pid, os.WNOHANG)


def test_close_does_not_wait_for_a_hanging_environment():
    pool = pool_with({"task-1": ("hang in close", 0)})
    open_all(pool, Counting())
    start = time.monotonic()
    pool.close()
    assert time.monotonic() - start < 5


PARENT = """
import signal, sys, threading, time
from fake_envs import Counting
from paw.rollout.pool import EnvironmentPool
pool = EnvironmentPool("fake_envs:Counting", None, {"faults": {"task-1": ("hang", 1)}}, workers=2)
pool.open([(i, Counting()[i], 0) for i in range(2)])
print("stepping", flush=True)
try:
    pool.step({0: "count", 1: "count"})
except KeyboardInterrupt:
    pool.close()
    print("interrupted", flush=True)
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_parent_that_dies_leaves_no_orphan(how):
    """Workers inherit the parent's stderr: it ends when the last of them is gone."""
    path = os.pathsep.join(sys.path)
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": path},
    )
    assert parent.stdout and parent.stdout.readline() == "stepping\n"
    time.sleep(0.2)
    start = time.monotonic()
    parent.send_signal(how)
    output, errors = parent.communicate(timeout=10)
    assert errors == ""
    # Ctrl-C does not wait for the environment that hangs; orphans get GRACE_SECONDS.
    assert time.monotonic() - start < (1.5 if how == signal.SIGINT else 5)
    assert output == ("interrupted\n" if how == signal.SIGINT else "")


def test_the_worker_imports_no_torch():
    code = "import sys, paw.rollout.worker; print('torch' in sys.modules, 'numpy' in sys.modules)"
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout
    assert output == "False False\n"
