"""For the tests of the server: a small environment, which misbehaves when it is told to, and a
client that knows nothing but the protocol."""

import json
import threading
import time

from paw.envs.base import Episode, Observation, StepResult, TaskSource
from paw.types import Task

RELEASE = threading.Event()
"""Set: calls that hang return."""
OPEN: set[object] = set()
"""Episodes that were opened and not closed."""


class Room(Episode):
    """`knock` thrice and the door opens, for a reward of 1; `wait` takes a fifth of a second."""

    max_return = 1.0

    def __init__(self, task: Task, seed: int) -> None:
        super().__init__(task, seed)
        self._knocks = 0
        OPEN.add(self)

    def start(self) -> Observation:
        return Observation(f"{self.task.instruction} Seed {self.rng.random():.6f}.", ("knock",))

    def play(self, command: str) -> StepResult:
        match command:
            case "hang":
                RELEASE.wait(60)
            case "wait":
                threading.Event().wait(0.2)
            case "boom":
                raise ValueError("the ceiling\ncomes down")
            case "leave":
                raise SystemExit(3)
            case "garble":
                return StepResult(Observation("\ud800"))
            case "infinite":
                return StepResult(Observation("much"), reward=float("inf"))
            case "give up":
                return StepResult(Observation("enough"), truncated=True, success=False)
            case "extras":
                extras = {"score": 0.5, "object": object(), "list": [1], "lone": "\ud800"}
                return StepResult(Observation("see"), info=extras)
        known = command == "knock"
        self._knocks += known
        done = self._knocks == 3
        return StepResult(
            Observation("" if done else f"Knocked {self._knocks}.", () if done else ("knock",)),
            reward=float(done),
            terminated=done,
            valid=known,
            success=True if done else None,
        )

    def close(self) -> None:
        super().close()
        OPEN.discard(self)


class Rooms(TaskSource):
    """Ten rooms a split."""

    name = "rooms"
    max_return = 1.0

    def __init__(self, split: str = "train") -> None:
        self.split = split

    def __len__(self) -> int:
        return 10

    def task(self, index: int) -> Task:
        return Task(f"{self.split}-room-{index}", "room", f"Open door {index}.")

    def open(self, task: Task, seed: int = 0) -> Room:
        return Room(task, seed)


class Raw:
    """A client that knows nothing but the protocol."""

    def __init__(self, url: str) -> None:
        from websockets.sync.client import connect

        self._socket = connect("ws" + url.removeprefix("http") + "/ws", proxy=None).__enter__()

    def send(self, kind: str, **data) -> None:
        self._socket.send(json.dumps({"type": kind, "data": data}))

    def receive(self) -> dict:
        return json.loads(self._socket.recv(30))["data"]

    def ask(self, kind: str, **data) -> dict:
        self.send(kind, **data)
        return self.receive()

    def close(self) -> None:
        self._socket.close()


def wait_for(condition, seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it does not come to pass"
        time.sleep(0.01)
