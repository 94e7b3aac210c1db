"""Scripted environments: each counts its turns, and misbehaves on cue.

`faults` maps a task id to (fault, turn); turn 0 is `reset`, and "every" is each of them. All other
tasks are healthy.
"""

import os
import signal
import sys
import time

from paw.envs import Observation, StepResult, Task, TaskSource
from paw.errors import UserError

LAST_TURN = 6


def hang():
    time.sleep(3600)


def exit_process():
    os._exit(7)


def segfault():
    os.kill(os.getpid(), signal.SIGSEGV)


def raise_error():
    raise ValueError("the world\nis broken")


def leave():
    sys.exit(3)


def print_garbage():
    print("garbage " * 10_000, flush=True)
    os.write(1, b"\x00\x01 more garbage")
    sys.stdin.read()


def dawdle():
    time.sleep(0.1)


FAULTS = {
    "hang": hang,
    "exit": exit_process,
    "segfault": segfault,
    "raise": raise_error,
    "leave": leave,
    "print": print_garbage,
    "slow": dawdle,
}


TEXTS = {"surrogate": "a \ud800", "no text": None}


class Counter:
    max_return = 10.0

    def __init__(self, task, seed, fault, at):
        self.task, self.seed, self.fault, self.at = task, seed, fault, at
        self.heard = []

    def observe(self):
        turn = len(self.heard)
        if self.at in (turn, "every") and self.fault in FAULTS:
            FAULTS[self.fault]()
        text = f"{self.task.id} seed {self.seed} turn {turn}: {' '.join(self.heard)}"
        if self.fault == "drift":
            text += f" in process {os.getpid()}"
        if self.at == turn and self.fault in TEXTS:
            text = TEXTS[self.fault]
        return Observation(text, ("count", f"stop at {turn}"))

    def reset(self):
        return self.observe()

    def step(self, command):
        self.heard.append(command)
        observation = self.observe()
        turn = len(self.heard)
        if self.at == turn and self.fault == "type":
            return observation
        info = {"pid": os.getpid()}
        if self.at == turn and self.fault == "unpicklable":
            info["function"] = lambda: None
        ended = turn == LAST_TURN
        reward = 10.0 * ended
        if self.at == turn and self.fault in ("nan", "-inf"):
            reward = float(self.fault)
        return StepResult(
            observation,
            reward=reward,
            terminated=ended,
            valid=command.startswith("count"),
            success=True if ended else None,
            info=info,
        )

    def close(self):
        if self.fault == "hang in close":
            hang()
        if self.fault == "raise in close":
            raise_error()


class Counting(TaskSource):
    name = "counting"
    max_return = 10.0

    def __init__(self, split="train", faults=None, num_tasks=64, broken=None):
        if broken == "data":
            raise UserError("env.data_dir: there is no data here; make some")
        if broken == "code":
            raise ZeroDivisionError("division by zero")
        if broken == "import":
            raise ImportError("needs gymnasium: pip install gymnasium")
        if broken == "exit":
            os._exit(9)
        self.split, self.faults, self.num_tasks = split, faults or {}, num_tasks

    def __len__(self):
        return self.num_tasks

    def task(self, index):
        return Task(id=f"task-{index}", kind="count", instruction="Count.")

    def open(self, task, seed=0):
        return Counter(task, seed, *self.faults.get(task.id, (None, 0)))
