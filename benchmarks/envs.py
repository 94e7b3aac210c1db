"""Speed of an environment on one core: `python benchmarks/envs.py [--env NAME] [--data-dir DIR]`.

Commands are recorded first, at random among the admissible ones and by the expert where there is
one; then the same episodes are played again, which times the environment alone, its construction
of `commands` and the starts of the episodes included. Figures are medians over repetitions.
"""

import argparse
import statistics
import time
from collections.abc import Callable

import paw.envs
from paw.envs.base import TaskSource
from paw.envs.probe import Probe, RandomPlayer, Recording
from paw.types import Task

RANDOM_TURNS = 50
EXPERT_TURNS = 200


def replay(source: TaskSource, episodes: list[Recording]) -> int:
    """Play recorded episodes; the number of steps."""
    for episode in episodes:
        env = source.open(episode.task)
        env.reset()
        for command in episode.commands:
            env.step(command)
        env.close()
    return sum(len(episode.commands) for episode in episodes)


def demonstrate(source: TaskSource, tasks: list[Task]) -> int:
    """Play by the expert, its own time included; the number of steps."""
    turns = 0
    for task in tasks:
        env, expert = source.open(task), source.expert(task)
        observation = env.reset()
        for _ in range(EXPERT_TURNS):
            result = env.step(expert.act(observation))
            observation = result.observation
            turns += 1
            if result.terminated:
                break
        env.close()
    return turns


def start(source: TaskSource, tasks: list[Task]) -> int:
    """Open and reset every task; the number of tasks."""
    for task in tasks:
        env = source.open(task)
        env.reset()
        env.close()
    return len(tasks)


def show(name: str, work: Callable[[], int], repetitions: int) -> None:
    rates = []
    for _ in range(repetitions):
        started = time.perf_counter()
        count = work()
        rates.append(count / (time.perf_counter() - started))
    low, high = min(rates), max(rates)
    print(f"{name:42} {statistics.median(rates):12,.0f} /s   ({low:,.0f} to {high:,.0f})")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", default="household", help="a name, or module:factory")
    parser.add_argument("--split", help="default: the environment's first")
    parser.add_argument("--data-dir", help="where the environment's data lie")
    parser.add_argument("--level", type=int, help="of the household")
    parser.add_argument("--tasks", type=int, default=200)
    parser.add_argument("--repetitions", type=int, default=5)
    args = parser.parse_args()
    options = {"data_dir": args.data_dir, "level": args.level}
    options = {name: value for name, value in options.items() if value is not None}

    started = time.perf_counter()
    source = paw.envs.make(args.env, split=args.split, **options)
    tasks = source[: args.tasks]
    seconds = time.perf_counter() - started
    print(f"{source.name} {source.split}: {len(tasks)} of {len(source)} tasks {options or ''}")
    print(f"{'open the source and list the tasks':42} {seconds:12,.2f} s")

    first = (tasks[i : i + 1] for i in range(len(tasks)))
    show("episode starts, each task once", lambda: start(source, next(first)), len(tasks))
    show("episode starts", lambda: start(source, tasks), args.repetitions)
    probe = Probe(source, len(tasks), seed=0)
    random = [probe.record(t, RandomPlayer(t.id), RANDOM_TURNS) for t in tasks]
    show("steps, random commands", lambda: replay(source, random), args.repetitions)
    if probe.expert(tasks[0]):
        by_expert = [probe.record(t, source.expert(t), EXPERT_TURNS) for t in tasks]
        show("steps, the expert's commands", lambda: replay(source, by_expert), args.repetitions)
        show(
            "steps, time of the expert included",
            lambda: demonstrate(source, tasks),
            args.repetitions,
        )


if __name__ == "__main__":
    main()
