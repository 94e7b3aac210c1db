"""What an OpenEnv server costs: a command over the WebSocket beside the same one in process.

    python benchmarks/serve_env.py [ENV ...] [--data-dir DIR] [--episodes 20] [--pairs 5] [--sessions 16]

Starts `paw serve-env ENV` as a process of its own and plays the same episodes, commands drawn from
the admissible ones, in process, through the client that `openenv:URL` trains with, through
OpenEnv's GenericEnvClient, and through many connections at once; in pairs, in turn. Times are
microseconds a step, resets included: of the clock, and of processors (client and server together).
Needs `paw-rl[openenv]`.
"""  # noqa: E501

import argparse
import os
import random
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from paw import envs
from paw.envs.base import TaskSource

TURNS = 30


class Cost(NamedTuple):
    """Microseconds a step."""

    clock: float
    processor: float


@contextmanager
def serving(env: str, options: list[str]) -> Iterator[tuple[str, int]]:
    """(address, process id) of a server."""
    command = [sys.executable, "-m", "paw", "serve-env", env, "--port", "0", *options]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    try:
        line = process.stderr.readline()
        if " at http" not in line:
            raise SystemExit(line + process.stderr.read())
        yield line.partition(" at ")[2].partition(";")[0], process.pid
    finally:
        process.terminate()
        process.wait()


def commands_of(source: TaskSource, num_episodes: int) -> list[list[str]]:
    """What is played, by task."""
    script = []
    for index in range(num_episodes):
        rng, given = random.Random(index), []
        env = source.open(source[index])
        observation, ended = env.reset(), False
        while not ended and len(given) < TURNS:
            command = rng.choice(observation.commands or ("look",))
            given.append(command.replace("<query>", "red shoes").replace("<r>", "red"))
            result = env.step(given[-1])
            observation, ended = result.observation, result.terminated or result.truncated
        script.append(given)
    return script


def play(source: TaskSource, script: list[list[str]]) -> None:
    for index, given in enumerate(script):
        env = source.open(source[index])
        env.reset()
        for command in given:
            env.step(command)
        env.close()


def play_generic(url: str, script: list[list[str]]) -> None:
    from openenv.core import GenericEnvClient

    with GenericEnvClient(base_url=url).sync() as env:
        for index, given in enumerate(script):
            env.reset(index=index)
            for command in given:
                env.step({"command": command})


def play_at_once(source: TaskSource, script: list[list[str]], num_sessions: int) -> None:
    """All of them in each session."""
    threads = [threading.Thread(target=play, args=(source, script)) for _ in range(num_sessions)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def processor_seconds(process: int) -> float:
    fields = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def cost(call: Callable[[], None], num_steps: int, server: int) -> Cost:
    clock, own, its = time.perf_counter(), time.process_time(), processor_seconds(server)
    call()
    used = time.process_time() - own + processor_seconds(server) - its
    return Cost((time.perf_counter() - clock) / num_steps * 1e6, used / num_steps * 1e6)


def measure(env: str, arguments: argparse.Namespace) -> None:
    folder = [] if arguments.data_dir is None else ["--data-dir", arguments.data_dir]
    options = {} if arguments.data_dir is None else {"data_dir": arguments.data_dir}
    here = envs.make(env, **options)
    script = commands_of(here, arguments.episodes)
    steps = sum(map(len, script))
    many = arguments.sessions
    with serving(env, [*folder, "--split", here.split]) as (url, server):
        there = envs.make(f"openenv:{url}", here.split)
        ways: dict[str, tuple[int, Callable[[], None]]] = {
            "in process": (steps, lambda: play(here, script)),
            "openenv:URL": (steps, lambda: play(there, script)),
            "GenericEnvClient": (steps, lambda: play_generic(url, script)),
            f"{many} sessions": (steps * many, lambda: play_at_once(there, script, many)),
        }
        costs: dict[str, list[Cost]] = {way: [] for way in ways}
        for pair in range(arguments.pairs + 1):
            for way, (num_steps, call) in ways.items():
                found = cost(call, num_steps, server)
                if pair:  # the first warms up
                    costs[way].append(found)
    print(f"\n{env}: {steps} steps of {len(script)} episodes, medians of {arguments.pairs}")
    print("| | clock, us | processor, us | x in process, processor | steps/s of the clock |")
    print("|---|---|---|---|---|")
    for way, found in costs.items():
        clock, processor = (statistics.median(x) for x in zip(*found, strict=True))
        ratio = statistics.median(
            x.processor / y.processor for x, y in zip(found, costs["in process"], strict=True)
        )
        print(f"| {way} | {clock:,.0f} | {processor:,.0f} | {ratio:.1f} | {1e6 / clock:,.0f} |")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("envs", nargs="*", default=["household"], metavar="ENV")
    parser.add_argument("--data-dir")
    parser.add_argument("--episodes", type=int, default=20)
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--sessions", type=int, default=16)
    arguments = parser.parse_args()
    for env in arguments.envs:
        measure(env, arguments)


if __name__ == "__main__":
    main()
