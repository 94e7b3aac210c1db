"""Speed and memory of the ALFWorld engine on one core, beside the official one.

    python benchmarks/alfworld_engine.py --data-dir DIR                        # this engine alone
    python benchmarks/alfworld_engine.py --data-dir DIR --install OFFICIAL     # and the official
    python benchmarks/alfworld_engine.py --data-dir DIR --official PYTHON      # ... already there

`--install` makes a virtual environment in OFFICIAL and installs alfworld 0.4.2 there: about three
minutes and 200 MB, with gcc, g++, make and cmake, for two of its packages are built from source. A
second call finds it installed. PYTHON is the interpreter of such an environment.

Both engines play the same random admissible commands on the same games, each in its own process
and by turns, game by game; the answers are compared as well as the times. Times are CPU seconds
of the process that plays, for other work on the machine stretches wall time; wall ratios stand
beside. `start` is from the game file to the first observation.
"""

import argparse
import copy
import json
import os
import random
import resource
import statistics
import subprocess
import sys
import time
import tracemalloc
import venv
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

# The file runs under the official engine's interpreter too, which need not have this project: so
# both engines are imported where they are used.

NUM_OPEN_GAMES = 128
REPETITIONS = 9
TARGETS = {"start": 300, "step": 200}

# All that playing needs, without spaCy, which jericho names as a dependency and imports for other
# games only.
OFFICIAL_PACKAGES = (
    "alfworld==0.4.2",
    "textworld==1.7.0",
    "fast-downward-textworld==20.6.4",
    "jericho==3.3.1",
    "tatsu==5.8.3",
    "mementos==1.3.1",
    "networkx==3.6.1",
    "numpy==2.4.6",
    "prompt_toolkit==3.0.53",
    "PyYAML==6.0.3",
    "termcolor==3.3.0",
    "tqdm==4.70.1",
    "wcwidth==0.9.4",
)
OFFICIAL_IMPORT = "import alfworld.agents.environment.alfred_tw_env"


def install(directory: Path) -> str:
    """The interpreter of a virtual environment with the official engine; made if need be."""
    python = str(directory / "bin" / "python")
    if not Path(python).exists():
        if sys.version_info >= (3, 13):
            sys.exit("--install: textworld 1.7.0 needs Python 3.12 or older; run this under 3.11")
        venv.create(directory, with_pip=True)
    check = [python, "-c", OFFICIAL_IMPORT]
    if subprocess.run(check, capture_output=True).returncode == 0:
        return python
    print(f"installing the official engine in {directory} (minutes: two source builds)", flush=True)
    log = directory / "install.log"
    began = time.perf_counter()
    with log.open("w") as file:
        command = [python, "-m", "pip", "install", "--no-deps", *OFFICIAL_PACKAGES]
        done = subprocess.run(command, stdout=file, stderr=subprocess.STDOUT)
        done = done if done.returncode else subprocess.run(check, stdout=file, stderr=file)
    if done.returncode:
        errors = [line for line in log.read_text().splitlines() if "error" in line.lower()]
        cause = errors[-1].strip() if errors else "pip failed"
        sys.exit(
            f"--install: no official engine ({cause}); it needs a package index, "
            f"gcc, g++, make and cmake; the whole story is in {log}"
        )
    print(f"installed in {time.perf_counter() - began:.0f} s")
    return python


def cpu() -> float:
    """CPU seconds of this process and of the children that it has waited for."""
    children = resource.getrusage(resource.RUSAGE_CHILDREN)
    return time.process_time() + children.ru_utime + children.ru_stime


@contextmanager
def timed(into: dict[str, float], name: str) -> Iterator[None]:
    """Adds CPU and wall seconds to `name` and `name_wall`."""
    seconds, clock = cpu(), time.perf_counter()
    yield
    into[name] = into.get(name, 0.0) + cpu() - seconds
    into[f"{name}_wall"] = into.get(f"{name}_wall", 0.0) + time.perf_counter() - clock


def resident_memory() -> float:
    """MB resident in this process."""
    status = Path("/proc/self/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) / 1024


def record(source: Any, num_games: int, turns: int, seed: int) -> list[dict[str, Any]]:
    """Random walks over games spread evenly over the split, with every answer."""
    rng = random.Random(seed)
    episodes = []
    for i in range(num_games):
        task = source[i * len(source) // num_games]
        env = source.open(task)
        observation = env.reset()
        answers, commands = [[observation.text, list(observation.commands)]], []
        for _ in range(turns):
            # A verb first, so that the many `go to` do not crowd out the rest.
            verb = rng.choice(sorted({c.split()[0] for c in observation.commands}))
            commands.append(rng.choice([c for c in observation.commands if c.split()[0] == verb]))
            result = env.step(commands[-1])
            observation = result.observation
            answers.append([observation.text, list(observation.commands)])
            if result.terminated:
                break
        episodes.append({"id": task.id, "commands": commands, "answers": answers})
    return episodes


def play_native(source: Any, episode: dict[str, Any]) -> dict[str, float]:
    """Median seconds of a start from the file, of one from the cache and of all steps."""
    task = source.find(episode["id"])
    runs = []
    for _ in range(REPETITIONS):
        seconds: dict[str, float] = {}
        fresh = copy.copy(source)  # with an empty cache of games
        with timed(seconds, "start"):
            env = fresh.open(task)
            env.reset()
        with timed(seconds, "cached_start"):
            fresh.open(task).reset()
        with timed(seconds, "step"):
            for command in episode["commands"]:
                env.step(command)
        runs.append(seconds)
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def play_official(root: Path) -> None:
    """Play the episodes that come in, one JSON object a line; answer with the seconds of each and
    with how many of its answers differ."""
    # What the planner's library prints must not get between the answers.
    answer = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
    from textworld.envs.wrappers import GenericEnvironment

    infos = textworld.EnvInfos(won=True, admissible_commands=True)
    env = AlfredInfos(AlfredDemangler(GenericEnvironment(infos), shuffle=False))
    for line in sys.stdin:
        episode = json.loads(line)
        seconds: dict[str, float] = {}
        with timed(seconds, "start"):
            env.load(str(root / episode["id"] / "game.tw-pddl"))
            state = env.reset()
        answers = [[state["feedback"], state["admissible_commands"]]]
        with timed(seconds, "step"):
            for command in episode["commands"]:
                state, _, _ = env.step(command)
                answers.append([state["feedback"], state["admissible_commands"]])
        seconds["different"] = sum(a != b for a, b in zip(answers, episode["answers"], strict=True))
        seconds["memory"] = resident_memory()
        print(json.dumps(seconds), file=answer, flush=True)


def open_games(source: Any) -> list[Any]:
    """Different games, open at once."""
    games = [source.open(source[i * len(source) // NUM_OPEN_GAMES]) for i in range(NUM_OPEN_GAMES)]
    for game in games:
        game.reset()
    return games


def count_objects(source: Any) -> float:
    """Bytes of Python objects that one open game holds."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    games = open_games(source)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return held / len(games)


def compare(python: str, root: Path, source: Any, episodes: list[dict[str, Any]]) -> None:
    """Play every episode here and there by turns, and print the ratios."""
    worker = subprocess.Popen(
        [python, __file__, "--worker", str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdin and worker.stdout
    native, official = [], []
    for episode in episodes:
        native.append(play_native(source, episode))
        print(json.dumps(episode), file=worker.stdin, flush=True)
        line = worker.stdout.readline()
        if not line:
            sys.exit("the official engine ended early; its message stands above")
        official.append(json.loads(line))
    worker.stdin.close()
    worker.wait()
    steps = [len(episode["commands"]) for episode in episodes]
    for key in ("start", "step"):
        number = len(episodes) if key == "start" else sum(steps)
        ratios = [there[key] / here[key] for here, there in zip(native, official, strict=True)]
        wall = statistics.median(
            there[f"{key}_wall"] / here[f"{key}_wall"]
            for here, there in zip(native, official, strict=True)
        )
        print(
            f"{key:9} official {sum(run[key] for run in official) / number * 1e3:.4g} ms of CPU, "
            f"native {sum(run[key] for run in native) / number * 1e3:.4g} ms; ratio "
            f"{statistics.median(ratios):.0f} (target {TARGETS[key]}; games {min(ratios):.0f} to "
            f"{max(ratios):.0f}; wall {wall:.0f})"
        )
    different = sum(int(run["different"]) for run in official)
    print(f"answers   {different} of {sum(steps) + len(steps)} differ")
    print(f"official  {official[-1]['memory']:.0f} MB resident with one open game")


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("--data-dir", help="holds json_2.1.1; default $ALFWORLD_DATA")
    parser.add_argument("--split", default="valid_seen")
    parser.add_argument("--games", type=int, default=12)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    official = parser.add_mutually_exclusive_group()
    official.add_argument("--install", type=Path, metavar="DIR", help="official engine: install it")
    official.add_argument("--official", metavar="PYTHON", help="interpreter with alfworld 0.4.2")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--memory", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        play_official(options.worker)
        return

    from paw.envs.alfworld import Alfworld
    from paw.envs.alfworld.files import games_root
    from paw.errors import UserError

    try:
        root = games_root(options.data_dir, options.split)
        source = Alfworld(options.split, data_dir=options.data_dir)
    except UserError as error:
        sys.exit(str(error))
    if options.memory:
        games = open_games(source)
        print(
            f"memory    {resident_memory():.0f} MB resident in a process with {len(games)} open "
            f"games (target < 100)"
        )
        return
    python = install(options.install) if options.install else options.official
    objects = count_objects(copy.copy(source))
    episodes = record(source, options.games, options.turns, options.seed)
    num_steps = sum(len(episode["commands"]) for episode in episodes)
    print(f"{len(episodes)} games of {options.split}, {num_steps} steps; times are CPU time")
    runs = [play_native(source, episode) for episode in episodes]
    start = statistics.mean(run["start"] for run in runs)
    cached = statistics.mean(run["cached_start"] for run in runs)
    step = sum(run["step"] for run in runs) / num_steps
    print(f"native    start {start * 1e3:.2f} ms; {cached * 1e3:.3f} ms for a game parsed before")
    print(f"          step  {step * 1e3:.4f} ms ({1 / step:.0f}/s)")
    print(f"          {objects / 1e3:.0f} kB of objects an open game", flush=True)
    memory = [sys.executable, __file__, "--memory", "--split", options.split]
    memory += ["--data-dir", options.data_dir] if options.data_dir else []
    subprocess.run(memory, check=True)
    if python:
        compare(python, root, source, episodes)


if __name__ == "__main__":
    main()
