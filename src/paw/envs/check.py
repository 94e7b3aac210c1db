"""The test that every environment must pass: `check_environment(source) -> CheckReport`.

Plays some tasks, at random and with the expert where there is one, and holds the episodes against
the contract of `paw.envs.base`. Every check runs under a time limit in a thread of its own, so
that a hanging environment is a finding and not a hanging test.
"""

import math
import pickle
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

from paw.envs.base import Environment, Observation, TaskSource
from paw.envs.expert import play_expert, takes
from paw.envs.probe import (
    Failure,
    Probe,
    RandomPlayer,
    Recording,
    bad_commands,
    check_scene,
    expect,
    shorten,
)
from paw.types import Task

RANDOM_TURNS = 30
EXPERT_TURNS = 200
NUM_COPIES = 64
MAX_TASKS_LISTED = 20_000
"""Tasks whose ids are compared for uniqueness."""

_UNPICKLABLE = (pickle.PicklingError, TypeError, AttributeError, NotImplementedError)


class Check(NamedTuple):
    """One finding."""

    name: str
    passed: bool
    detail: str
    """What was seen; for a failure, what is wrong and where."""


@dataclass(frozen=True, slots=True)
class CheckReport:
    """What `check_environment` found."""

    environment: str
    split: str
    num_tasks: int
    """Tasks played."""
    checks: list[Check]

    @property
    def passed(self) -> bool:
        """Whether every check passed."""
        return all(check.passed for check in self.checks)


def format_report(report: CheckReport) -> str:
    """One line a check, and a last line that sums up."""
    width = max((len(check.name) for check in report.checks), default=0)
    lines = [f"{report.environment}, split {report.split}: {report.num_tasks} tasks played"]
    for name, passed, detail in report.checks:
        lines.append(f"  {'ok  ' if passed else 'FAIL'}  {name:{width}}  {detail}")
    failed = sum(not check.passed for check in report.checks)
    verdict = f"{failed} of {len(report.checks)} checks failed" if failed else "all checks passed"
    return "\n".join([*lines, verdict])


def check_environment(
    source: TaskSource, num_tasks: int = 8, seed: int = 0, time_limit: float = 60.0
) -> CheckReport:
    """Hold `source` against the contract.

    Args:
        source: the tasks of one split.
        num_tasks: tasks to play, spread evenly over the split.
        seed: of the environments and of the random commands.
        time_limit: seconds for each check; one that takes longer has failed.
    """
    probe = Probe(source, num_tasks, seed)
    checks = []
    for name, check in _CHECKS.items():
        checks.append(Check(name, *_run(check, probe, time_limit)))
        if name == "tasks" and not checks[-1].passed:
            break
    return CheckReport(
        environment=str(getattr(source, "name", type(source).__name__)),
        split=str(getattr(source, "split", "?")),
        num_tasks=len(probe.tasks),
        checks=checks,
    )


def _run(check: Callable[[Probe], str], probe: Probe, seconds: float) -> tuple[bool, str]:
    outcome: list[tuple[bool, str]] = []

    def work() -> None:
        try:
            outcome.append((True, check(probe)))
        except Failure as failure:
            outcome.append((False, str(failure)))
        except Exception as error:  # whatever an environment raises is what the check looks for
            frame = traceback.extract_tb(error.__traceback__)[-1]
            where = f"{frame.filename}:{frame.lineno}, {probe.doing}"
            message = f"{type(error).__name__}: {shorten(str(error))} ({where})"
            outcome.append((False, message))

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    thread.join(seconds)
    return outcome[0] if outcome else (False, f"still busy after {seconds:g} s, {probe.doing}")


def _check_tasks(probe: Probe) -> str:
    source = probe.source
    size = len(source)
    expect(size > 0, "the source has no tasks")
    for name in ("name", "split"):
        expect(isinstance(getattr(source, name, None), str), f"source.{name} is not a str")
    wanted = max(1, min(probe.num_tasks, size))
    probe.tasks = [source[i * size // wanted] for i in range(wanted)]
    for i, task in enumerate(probe.tasks):
        index = i * size // wanted
        expect(isinstance(task, Task), f"source[{index}] is a {type(task)}, not a Task")
        for name in ("id", "kind", "instruction"):
            value = getattr(task, name)
            expect(isinstance(value, str) and value != "", f"source[{index}].{name} is {value!r}")
        expect(source[index] == task, f"source[{index}] differs the second time")
    expect(source[-1] == source[size - 1], "source[-1] is not the last task")
    for index in (size, -size - 1):
        try:
            source[index]
        except IndexError:
            continue
        raise Failure(f"source[{index}] raises no IndexError")
    listed = source[: min(size, MAX_TASKS_LISTED)]
    expect(len({task.id for task in listed}) == len(listed), "two tasks have the same id")
    kinds = len({task.kind for task in listed})
    return f"{size} tasks of {kinds} kinds; order and ids are stable"


def _check_values(probe: Probe) -> str:
    """Types of all fields, in every episode that the later checks replay."""
    for number, task in enumerate(probe.tasks):
        player = RandomPlayer(f"{probe.seed}/{number}")
        probe.episodes.append(probe.record(task, player, RANDOM_TURNS))
        if expert := probe.expert(task):
            probe.episodes.append(probe.record(task, expert, EXPERT_TURNS))
    turns = sum(len(episode.commands) for episode in probe.episodes)
    return f"{len(probe.episodes)} episodes, {turns} turns well-formed"


def _check_commands(probe: Probe) -> str:
    count = 0
    for episode in _recorded(probe):
        for i, command in enumerate(episode.commands):
            if episode.observations[i].commands and not episode.by_expert:
                count += 1
                expect(
                    episode.steps[i].valid,
                    f"task {episode.task.id}: {command!r} was listed and is refused",
                )
    return f"{count} listed commands accepted" if count else "the environment lists no commands"


def _check_same_text(probe: Probe) -> str:
    for episode in _recorded(probe):
        env = probe.open(episode.task)
        probe.replay(episode, env)
        env.close()
    return "the same commands give the same answers"


def _check_side_by_side(probe: Probe) -> str:
    episodes = _recorded(probe)
    copies = [episodes[i % len(episodes)] for i in range(NUM_COPIES)]
    envs = [probe.open(episode.task) for episode in copies]
    for i in range(max(len(episode.results) for episode in copies)):
        for env, episode in zip(envs, copies, strict=True):
            if i < len(episode.results):
                result = probe.step(env, episode.commands[i - 1]) if i else probe.reset(env)
                probe.compare(episode, i, result)
    for env in envs:
        env.close()
    return f"{NUM_COPIES} episodes in turn do not disturb each other"


def _check_pickling(probe: Probe) -> str:
    probe.doing = "pickling the source"
    copy = pickle.loads(pickle.dumps(probe.source))
    expect(len(copy) == len(probe.source), "the pickled source has another length")
    expect(copy[0] == probe.tasks[0], "the pickled source has another first task")
    kept = 0
    for episode in _recorded(probe):
        probe.replay(episode, probe.open(episode.task, copy))
        env = probe.open(episode.task)
        half = len(episode.commands) // 2
        probe.reset(env)
        for command in episode.commands[:half]:
            probe.step(env, command)
        try:
            other = pickle.loads(pickle.dumps(env))
        except _UNPICKLABLE:
            other = None
        env.close()
        if other is not None:
            kept += 1
            probe.replay(episode, other, first=half + 1)
    return "source" + (" and running environments" if kept else "; a running environment does not")


def _check_single_use(probe: Probe) -> str:
    task = probe.tasks[0]
    env = probe.open(task)
    _expect_refusal(lambda: env.step("look"), "step before reset")
    probe.reset(env)
    _expect_refusal(env.reset, "a second reset")
    env.close()
    env.close()
    probe.open(task).close()
    return "reset once, step in between, close twice"


def _check_end(probe: Probe) -> str:
    ended = [episode for episode in _recorded(probe) if episode.ended]
    for episode in ended:
        env = probe.open(episode.task)
        probe.replay(episode, env)
        _expect_refusal(lambda env=env: env.step("look"), "step after the end")
        _expect_refusal(env.reset, "reset after the end")
        env.close()
    if not ended:
        return f"not seen: no episode ended in {RANDOM_TURNS} random turns"
    won = sum(bool(episode.steps[-1].success) for episode in ended)
    return f"{len(ended)} episodes ended, {won} with success"


def _check_max_return(probe: Probe) -> str:
    limit = probe.source.max_return
    expect(
        isinstance(limit, float | int) and math.isfinite(limit) and limit > 0,
        f"max_return of the source is {limit!r}",
    )
    reached: list[bool] = []
    for episode in _recorded(probe):
        env = probe.open(episode.task)
        expect(
            env.max_return == limit, f"max_return is {env.max_return} here, {limit} in the source"
        )
        env.close()
        return_ = sum(result.reward for result in episode.steps)
        expect(
            return_ <= limit + 1e-6,
            f"task {episode.task.id} returned {return_}, more than max_return {limit}",
        )
        if episode.by_expert:
            reached.append(return_ >= limit - 1e-6)
    if not reached:
        return f"no return above {limit:g}; there is no expert to reach it"
    expect(any(reached), f"the expert never reached {limit:g} in {len(reached)} episodes")
    return f"{limit:g}, reached by the expert in {sum(reached)} of {len(reached)} episodes"


def _check_bad_commands(probe: Probe) -> str:
    slowest = (0.0, "")
    for number, task in enumerate(probe.tasks[:2]):
        player = RandomPlayer(f"bad/{probe.seed}/{number}")
        env, observation = _begin(probe, task)
        for command in bad_commands(observation.commands):
            started = time.perf_counter()
            result = probe.step(env, command)
            slowest = max(slowest, (time.perf_counter() - started, shorten(command)))
            observation = result.observation
            if result.terminated or result.truncated:
                env.close()
                env, observation = _begin(probe, task)
        result = probe.step(env, player.act(observation))
        expect(
            result.valid or not observation.commands,
            "after bad commands a listed command is refused",
        )
        env.close()
    seconds, command = slowest
    return f"{len(bad_commands(()))} kinds, none raises; {command} took longest, {seconds:.3f} s"


def _check_imitation(probe: Probe) -> str:
    """What `paw imitate` does: an expert that strays a little, twice the same, on every task."""
    source = probe.source
    options = {option: 0.1 for option in ("noise", "junk") if takes(source, option)}
    won = junk = turns = 0
    for seed, task in enumerate(probe.tasks, probe.seed):
        probe.doing = f"playing the expert of {task.id}"
        try:
            experts = [source.expert(task, seed, **options) for _ in range(2)]
        except NotImplementedError:
            return "there is no expert: `paw imitate` would need a trajectory file"
        first, second = (
            play_expert(source, task, seed, expert, EXPERT_TURNS) for expert in experts
        )
        expect(first == second, f"task {task.id}: the expert plays otherwise the second time")
        won, junk, turns = won + first.success, junk + sum(first.junk), turns + len(first.junk)
    return f"the expert wins {won} of {len(probe.tasks)} episodes; {junk} of {turns} commands junk"


def _check_scene(probe: Probe) -> str:
    """What `paw report` draws, at every turn of the episodes played."""
    scenes = probe.source.style.scenes
    if scenes is None:
        return "there is none: `paw report` shows the texts"
    drawn = turns = 0
    for episode in _recorded(probe):
        steps = [(o.text, c) for o, c in zip(episode.observations, episode.commands, strict=False)]
        probe.doing = f"drawing task {episode.task.id}"
        found = list(scenes(episode.task.instruction, steps))
        expect(
            len(found) == len(steps),
            f"task {episode.task.id}: {len(found)} scenes of {len(steps)} turns",
        )
        for i, blocks in enumerate(found, start=1):
            check_scene(blocks, f"the scene of turn {i} of task {episode.task.id}")
            turns, drawn = turns + 1, drawn + bool(blocks)
    return f"drawn at {drawn} of {turns} turns"


def _begin(probe: Probe, task: Task) -> tuple[Environment, Observation]:
    env = probe.open(task)
    return env, probe.reset(env)


def _recorded(probe: Probe) -> list[Recording]:
    expect(bool(probe.episodes), "no episode was recorded: see `values`")
    return probe.episodes


def _expect_refusal(call: Callable[[], object], what: str) -> None:
    try:
        call()
    except RuntimeError:
        return
    raise Failure(f"{what} raises no RuntimeError")


_CHECKS: dict[str, Callable[[Probe], str]] = {
    "tasks": _check_tasks,
    "values": _check_values,
    "commands": _check_commands,
    "same text": _check_same_text,
    "side by side": _check_side_by_side,
    "pickling": _check_pickling,
    "single use": _check_single_use,
    "end": _check_end,
    "max_return": _check_max_return,
    "bad commands": _check_bad_commands,
    "imitation": _check_imitation,
    "scene": _check_scene,
}
