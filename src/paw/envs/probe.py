"""Plays any environment for `paw.envs.check`: records, replays, looks at every value."""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from random import Random
from typing import get_args, get_type_hints

from paw.envs.base import Environment, Expert, Observation, StepResult, TaskSource
from paw.style import Block
from paw.types import Task

_SAMPLE_TEXTS = ("red shoes", "the capital of France", "1")
SLOT = re.compile(r"<(\w+)>")
KINDS = get_args(get_type_hints(Block)["kind"])


class Failure(Exception):
    """A broken rule of the contract."""


def expect(condition: bool, message: str) -> None:
    if not condition:
        raise Failure(message)


@dataclass
class Recording:
    """A recorded episode: results[0] answers `reset`, results[i + 1] answers commands[i]."""

    task: Task
    by_expert: bool
    commands: list[str] = field(default_factory=list)
    results: list[Observation | StepResult] = field(default_factory=list)

    @property
    def steps(self) -> list[StepResult]:
        return [result for result in self.results if isinstance(result, StepResult)]

    @property
    def observations(self) -> list[Observation]:
        return [r.observation if isinstance(r, StepResult) else r for r in self.results]

    @property
    def ended(self) -> bool:
        return any(result.terminated or result.truncated for result in self.steps[-1:])


class Probe:
    """The source under test and the episodes recorded so far."""

    def __init__(self, source: TaskSource, num_tasks: int, seed: int):
        self.source = source
        self.num_tasks = num_tasks
        self.seed = seed
        self.tasks: list[Task] = []
        self.episodes: list[Recording] = []
        self.doing = ""

    def open(self, task: Task, source: TaskSource | None = None) -> Environment:
        self.doing = f"opening task {task.id}"
        return (source or self.source).open(task, seed=self.seed)

    def reset(self, env: Environment) -> Observation:
        self.doing = "in reset"
        observation = env.reset()
        _check_observation(observation)
        expect(observation.text != "", "the first observation has no text")
        return observation

    def step(self, env: Environment, command: str) -> StepResult:
        self.doing = f"at the command {shorten(command)}"
        result = env.step(command)
        try:
            _check_result(result)
        except Failure as failure:
            raise Failure(f"{failure} ({self.doing})") from None
        return result

    def expert(self, task: Task) -> Expert | None:
        self.doing = f"opening the expert of {task.id}"
        try:
            return self.source.expert(task, seed=self.seed)
        except NotImplementedError:
            return None

    def record(self, task: Task, expert: Expert, turns: int) -> Recording:
        """Play with `expert` until the end, or for `turns` turns."""
        episode = Recording(task, by_expert=not isinstance(expert, RandomPlayer))
        env = self.open(task)
        observation = self.reset(env)
        episode.results.append(observation)
        while len(episode.commands) < turns and not episode.ended:
            episode.commands.append(expert.act(observation))
            result = self.step(env, episode.commands[-1])
            episode.results.append(result)
            observation = result.observation
        env.close()
        return episode

    def replay(self, episode: Recording, env: Environment, first: int = 0) -> None:
        """Play a recorded episode's commands from number `first` and compare every answer."""
        for i in range(first, len(episode.results)):
            result = self.reset(env) if i == 0 else self.step(env, episode.commands[i - 1])
            self.compare(episode, i, result)

    def compare(self, episode: Recording, i: int, result: Observation | StepResult) -> None:
        if result != episode.results[i]:
            what = f"command {i}, {shorten(episode.commands[i - 1])}," if i else "reset"
            raise Failure(
                f"task {episode.task.id}: {what} is answered {shorten(_text(result))}, "
                f"the first time {shorten(_text(episode.results[i]))}"
            )


def _text(result: Observation | StepResult) -> str:
    return result.text if isinstance(result, Observation) else repr(result)


def shorten(text: str) -> str:
    return repr(text) if len(text) <= 200 else f"{text[:60]!r}... ({len(text)} characters)"


def _check_observation(observation: Observation) -> None:
    expect(isinstance(observation, Observation), f"not an Observation: {type(observation)}")
    expect(isinstance(observation.text, str), f"text is a {type(observation.text)}, not a str")
    try:
        observation.text.encode()
    except UnicodeEncodeError as error:
        raise Failure(f"the text is not valid Unicode: {error.reason}") from None
    expect(isinstance(observation.commands, tuple), "commands is not a tuple")
    for command in observation.commands:
        expect(isinstance(command, str) and command != "", f"a listed command is {command!r}")
    expect(len(set(observation.commands)) == len(observation.commands), "a command listed twice")


def _check_result(result: StepResult) -> None:
    expect(isinstance(result, StepResult), f"step returned a {type(result)}, not a StepResult")
    _check_observation(result.observation)
    expect(
        isinstance(result.reward, float | int) and math.isfinite(result.reward),
        f"reward is {result.reward!r}",
    )
    for name in ("terminated", "truncated", "valid"):
        value = getattr(result, name)
        expect(isinstance(value, bool), f"{name} is {value!r}, not a bool")
    if result.terminated or result.truncated:
        expect(isinstance(result.success, bool), f"success is {result.success!r} at the end")
    else:
        expect(result.success is None, f"success is {result.success!r} before the end")
    expect(isinstance(result.info, Mapping), f"info is a {type(result.info)}, not a Mapping")
    try:
        _ = result.score
    except (TypeError, ValueError) as error:
        raise Failure(str(error)) from None


def check_scene(blocks: object, what: str) -> None:
    """Are these blocks that can be drawn? `what` made them."""
    expect(isinstance(blocks, Sequence), f"{what} returns a {type(blocks)}, no sequence of Blocks")
    for block in blocks if isinstance(blocks, Sequence) else ():
        expect(isinstance(block, Block), f"{what} returns a {type(block)} among its Blocks")
        expect(block.kind in KINDS, f"{what}: a Block is of kind {block.kind!r}, none of {KINDS}")
        expect(isinstance(block.title, str), f"{what}: the title {block.title!r} is not a str")
        for entry in block.entries:
            pair = isinstance(entry, tuple) and [type(text) for text in entry] == [str, str]
            expect(pair, f"{what}: the entry {shorten(str(entry))} is no (label, text)")
        for entry, start, end in block.marks:
            inside = 0 <= entry < len(block.entries) and (
                0 <= start <= end <= len(block.entries[entry][1])
            )
            expect(inside, f"{what}: the mark {(entry, start, end)} lies outside the texts")


def fill_slots(command: str, rng: Random) -> str:
    """`search[<query>]` -> `search[red shoes]`; `<a>text</a>` is markup and stays."""

    def text(slot: re.Match[str]) -> str:
        return slot[0] if f"</{slot[1]}>" in command else rng.choice(_SAMPLE_TEXTS)

    return SLOT.sub(text, command)


class RandomPlayer:
    """Plays listed commands, and any text where the environment lists none."""

    def __init__(self, seed: str):
        self._rng = Random(seed)

    def act(self, observation: Observation) -> str:
        return fill_slots(self._rng.choice(observation.commands or _SAMPLE_TEXTS), self._rng)


def bad_commands(listed: Sequence[str]) -> list[str]:
    """What no environment expects, and damaged forms of listed commands."""
    long = 2**20
    bad = ["", " ", "\n", "\t\r\n", " " * long, "x" * long, f"search[{'x ' * (long // 2)}]"]
    bad += ["\x00", "\x00look", "\x1b[31mred\x1b[0m", "\x07\x08\x7f\x85", "\u2028", "\ud800"]
    bad += ["<b>look</b>", "<script>alert(1)</script>", "<", "</", "&lt;", "<!--", "]]>"]
    bad += ["<search>", "</search>", "<search></search>", "<answer>", "</answer>", "<think>"]
    bad += ["search[", "search[]", "click[", "click[]", "]", "click[search[x]]", "[" * 10_000]
    bad += ["(" * 10_000, "\\", "(a+)+$", ".*", "<" * 100_000, "click[" * 10_000]
    bad += ["É̀", "İ", "ﬁ", "漢字", "🙂", "\u202elook", "\ufeff", "look\u200b", "ａｂｃ"]
    bad += ["<|im_end|>", "<|im_start|>system\n", "<|endoftext|>", "<s>", "[INST]", "<pad>"]
    bad += ["{}", "{0}", "{observation}", "%s%n", "${HOME}", "{{x}}", "`ls`", "../../x"]
    bad += ["'", '"', "'; drop table x; --", "0", "-1", "9" * 5_000, "nan", "None", "null", "[]"]
    bad += ["go to ", "take  from ", "put  in/on ", "look look", "NEAR(", "* OR *", "a" * 300]
    for command in listed[:3]:
        bad += [command.upper(), command[:-1], f"{command} {command}"]
        bad += [command + ending for ending in (".", "\x00", "\nlook")]
    return bad
