"""All environments under load: 256 sessions at once, 10,000 bad commands, 5,000 episodes."""

import pickle
import subprocess
import sys
import time
from itertools import product
from pathlib import Path
from random import Random

import pytest

from paw.envs import make
from paw.envs.base import TaskSource
from paw.envs.check import check_environment, format_report
from paw.envs.probe import Probe, RandomPlayer, Recording, bad_commands
from paw.envs.retrieval import build_index

ENVIRONMENTS = ["household"] + [
    pytest.param(name, marks=pytest.mark.data) for name in ("alfworld", "webshop", "search_qa")
]
NUM_SESSIONS = 256
MAX_TURNS = 20
NUM_COMMANDS = 10_000
SECONDS_PER_COMMAND = 2.0
"""Processor time; a megabyte of different words in a search takes the longest."""
NUM_EPISODES, NUM_WARM_UP = 5_000, 500
MAX_GROWTH_MIB = 8.0


@pytest.fixture(scope="module")
def options(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory):
    """name -> options of an environment over its real data."""

    def build(name: str) -> dict:
        if name == "household":
            return {"split": "train", "level": 2}
        data: Path = request.getfixturevalue("shared_data")
        if name == "alfworld":
            return {"split": "train", "data_dir": request.getfixturevalue("alfworld_dir")}
        if name == "webshop":
            return {"split": "all", "data_dir": data / "webshop"}
        index = tmp_path_factory.mktemp("search_qa") / "index"
        build_index(data / "search_qa" / "tiny_corpus.jsonl.gz", index, progress=False)
        questions = data / "search_qa" / "tiny_train.jsonl.gz"
        return {"questions": questions, "retriever": index}

    built: dict[str, dict] = {}
    return lambda name: built.get(name) or built.setdefault(name, build(name))


@pytest.fixture(scope="module", params=ENVIRONMENTS)
def source(request: pytest.FixtureRequest, options) -> TaskSource:
    return make(request.param, **options(request.param))


def record_sessions(probe: Probe) -> list[Recording]:
    """Tasks spread over the split, the even ones with the expert, each played alone."""
    source = probe.source
    episodes = []
    for i in range(NUM_SESSIONS):
        task = source[i * len(source) // NUM_SESSIONS]
        player = source.expert(task, seed=i) if i % 2 == 0 else RandomPlayer(f"stress/{i}")
        episodes.append(probe.record(task, player, MAX_TURNS))
    return episodes


def test_sessions_side_by_side_are_as_if_alone(source: TaskSource):
    probe = Probe(source, 1, seed=0)
    episodes = record_sessions(probe)
    envs = [probe.open(episode.task) for episode in episodes]
    turns = [i for i, episode in enumerate(episodes) for _ in episode.results]
    Random(0).shuffle(turns)
    done = [0] * len(envs)
    for i in turns:
        env, episode, turn = envs[i], episodes[i], done[i]
        result = probe.step(env, episode.commands[turn - 1]) if turn else probe.reset(env)
        probe.compare(episode, turn, result)
        done[i] += 1
    assert done == [len(episode.results) for episode in episodes]
    assert sum(episode.ended for episode in episodes) > NUM_SESSIONS // 4


MARKUP = (
    *("[", "]", "<", ">", "</", "<search>", "</search>", "<answer>", "</answer>", "<think>"),
    *("<information>", "search[", "click[", "]]>", "<!--", "<|im_end|>", "{", "}", "%s", "\\", "|"),
    *("go to ", "take ", " from ", "move ", " to ", " in/on ", "\n", "\r", "\t", " ", "\x00"),
)
BOMBS = ("(a+)+$", "a" * 200 + "!", "(" * 500, "[" * 500, "<" * 500, ".*" * 200, "\\1" * 50)
LONG_UNITS = ("a", " ", "[", "]", "<", "<search>", "click[", "a b ", "\x00", "é", "\ud800", "'s ")


def text(rng: Random, length: int) -> str:
    """Characters of all kinds: control, ASCII, the basic plane with lone surrogates, the rest."""
    ends = (0x20, 0x80, 0x10000, 0x110000)
    return "".join(chr(rng.randrange(rng.choice(ends))) for _ in range(length))


def mutated(rng: Random, command: str) -> str:
    """The command with one to three characters lost, added, doubled, swapped or recased."""
    for _ in range(rng.randint(1, 3)):
        i = rng.randint(0, len(command))
        before, character, after = command[:i], command[i : i + 1], command[i + 1 :]
        middle = ("", character * 2, text(rng, 1), character + rng.choice(MARKUP), after[:1])
        command = before + rng.choice((*middle, character.swapcase())) + after
    return command


def fuzzed(rng: Random, listed: tuple[str, ...]) -> str:
    """One command: any text, markup, a bomb, a damaged listed one, or a listed one (1 in 10)."""
    match rng.randrange(10):
        case 0:
            return rng.choice(listed) if listed else text(rng, 5)
        case 1 | 2:
            return text(rng, rng.randrange(60))
        case 3 | 4:
            return "".join(rng.choices(MARKUP, k=rng.randint(1, 20)))
        case 5:
            form = rng.choice(("{}", "search[{}]", "click[{}]", "<search>{}</search>"))
            return form.format(rng.choice(BOMBS) + text(rng, 3))
        case 6:
            form = rng.choice(("search[{}]", "click[{}]", "<search>{}</search>", "go to {}"))
            return form.format(text(rng, rng.randrange(40)))
        case _:
            return mutated(rng, rng.choice(listed or MARKUP))


def long_commands() -> list[str]:
    """A mebibyte each: one unit over and over, different words, in all forms of a command."""
    size = 1 << 20
    bodies = [unit * (size // len(unit)) for unit in LONG_UNITS]
    bodies += [" ".join(map(str, range(150_000))), text(Random(0), size)]
    forms = ("{}", "search[{}]", "click[{}]", "<search>{}</search>", "<answer>{}</answer>")
    return [form.format(body) for body, form in product(bodies, forms)]


def play_fuzzed(source: TaskSource) -> tuple[int, float, int]:
    """Play fuzzed commands and check every value: (accepted, slowest in s, its length)."""
    probe, rng = Probe(source, 1, seed=0), Random(0)
    task = source[0]
    env, extra = probe.open(task), bad_commands(()) + long_commands()
    observation = probe.reset(env)
    accepted, slowest = 0, (0.0, 0)
    for number in range(NUM_COMMANDS):
        command = extra.pop() if number % 10 == 9 and extra else fuzzed(rng, observation.commands)
        started = time.process_time()
        result = probe.step(env, command)
        slowest = max(slowest, (time.process_time() - started, len(command)))
        observation, accepted = result.observation, accepted + result.valid
        assert slowest[0] < SECONDS_PER_COMMAND, probe.doing
        if result.terminated or result.truncated:
            env.close()
            task = source[rng.randrange(len(source))]
            env = probe.open(task)
            observation = probe.reset(env)
    assert not extra
    result = probe.step(env, RandomPlayer("after").act(observation))
    assert result.valid, "a listed command is refused after the fuzzed ones"
    return accepted, *slowest


@pytest.mark.timeout(600)
def test_fuzzed_commands(source: TaskSource):
    accepted, seconds, length = play_fuzzed(source)
    print(f"{source.name}: {accepted} accepted; slowest {seconds:.3f} s, {length} characters")
    assert NUM_COMMANDS // 20 < accepted < NUM_COMMANDS // 2


MEMORY_SCRIPT = """
import gc, pickle, resource, sys
from random import Random
from paw.envs.probe import RandomPlayer

source, warm_up, count, turns = pickle.load(sys.stdin.buffer)

def play(number):
    task = source[number * 7919 % len(source)]
    env = source.open(task, seed=number)
    player = RandomPlayer(str(number)) if number % 2 else source.expert(task, seed=number)
    observation = env.reset()
    for _ in range(turns):
        result = env.step(player.act(observation))
        observation = result.observation
        if result.terminated:
            break
    env.close()

def resident():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * resource.getpagesize() / 2**20

for number in range(warm_up):
    play(number)
before = resident()
for number in range(warm_up, count):
    play(number)
print(before, resident())
"""


def resident_mib(source: TaskSource, num_episodes: int) -> tuple[float, float]:
    """Resident memory of a process of its own, after the warm-up and after `num_episodes`."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("no /proc/self/statm to read resident memory from")
    job = pickle.dumps((source, NUM_WARM_UP, num_episodes, MAX_TURNS))
    command = [sys.executable, "-c", MEMORY_SCRIPT]
    done = subprocess.run(command, input=job, capture_output=True, timeout=1500)
    assert done.returncode == 0, done.stderr.decode()
    before, after = map(float, done.stdout.split())
    return before, after


def test_memory_is_flat(source: TaskSource):
    before, after = resident_mib(source, 1_000)
    assert after - before < MAX_GROWTH_MIB, f"{before:.1f} -> {after:.1f} MiB"


@pytest.mark.slow
@pytest.mark.timeout(1800)
def test_memory_is_flat_over_5000_episodes(source: TaskSource):
    before, after = resident_mib(source, NUM_EPISODES)
    print(f"{source.name}: {before:.1f} -> {after:.1f} MiB")
    assert after - before < MAX_GROWTH_MIB, f"{before:.1f} -> {after:.1f} MiB"


VARIANTS = [
    *(("household", {"level": level}) for level in (1, 2, 3)),
    *(("alfworld", {"split": "valid_seen", "goals": goals}) for goals in ("template", "human")),
    *(
        ("webshop", {"goals": goals, "observation": observation})
        for goals, observation in product(("synthetic", "human"), ("text", "text_rich"))
    ),
    *(("search_qa", extra) for extra in ({}, {"top_k": 1, "max_document_words": 20})),
]


@pytest.mark.parametrize(
    ("name", "extra"),
    [
        pytest.param(
            *(name, extra),
            id=f"{name} {' '.join(map(str, extra.values()))}".strip(),
            marks=() if name == "household" else pytest.mark.data,
        )
        for name, extra in VARIANTS
    ],
)
def test_contract_of_every_variant(name: str, extra: dict, options):
    report = check_environment(make(name, **options(name) | extra), num_tasks=4)
    assert report.passed, format_report(report)
