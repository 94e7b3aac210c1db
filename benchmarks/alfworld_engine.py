"""Speed and memory of the ALFWorld engine on one core, beside the official one where it is.

    python benchmarks/alfworld_engine.py --data-dir DIR [--games 12] [--official PYTHON]

PYTHON is the interpreter of an environment with alfworld 0.4.2. Both engines then play the same
random admissible commands on the same games; the answers are compared as well as the times.
"""

import argparse
import json
import random
import statistics
import subprocess
import sys
import time
import tracemalloc
from pathlib import Path
from typing import Any

# The file runs under the official engine's interpreter too, which need not have this project: so
# both engines are imported where they are used.

NUM_OPEN_GAMES = 128
REPETITIONS = 5


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


def time_native(data_dir: str, split: str, episodes: list[dict[str, Any]]) -> dict[str, float]:
    """Seconds for one start from the file, one start from the cache, and one step."""
    from paw.envs.alfworld import Alfworld

    source = Alfworld(split, data_dir=data_dir)
    tasks = [source.find(episode["id"]) for episode in episodes]
    began = time.perf_counter()
    for task in tasks:
        source.open(task).reset()
    loaded = time.perf_counter()
    environments = [source.open(task) for task in tasks]
    for env in environments:
        env.reset()
    started = time.perf_counter()
    for env, episode in zip(environments, episodes, strict=True):
        for command in episode["commands"]:
            env.step(command)
    ended = time.perf_counter()
    steps = sum(len(episode["commands"]) for episode in episodes)
    return {
        "start": (loaded - began) / len(tasks),
        "cached_start": (started - loaded) / len(tasks),
        "step": (ended - started) / steps,
    }


def measure_memory(source: Any) -> float:
    """Bytes of Python objects that one open game holds, different games."""
    tracemalloc.start()
    before = tracemalloc.get_traced_memory()[0]
    environments = []
    for i in range(NUM_OPEN_GAMES):
        env = source.open(source[i * len(source) // NUM_OPEN_GAMES])
        env.reset()
        environments.append(env)
    held = tracemalloc.get_traced_memory()[0] - before
    tracemalloc.stop()
    return held / len(environments)


def play_official(root: Path, episodes: list[dict[str, Any]]) -> dict[str, Any]:
    """The official engine on the same commands: seconds, and answers that differ."""
    import textworld
    from alfworld.agents.environment.alfred_tw_env import AlfredDemangler, AlfredInfos
    from textworld.envs.wrappers import GenericEnvironment

    infos = textworld.EnvInfos(won=True, admissible_commands=True)
    env = AlfredInfos(AlfredDemangler(GenericEnvironment(infos), shuffle=False))
    start = step = 0.0
    num_different = 0
    for episode in episodes:
        began = time.perf_counter()
        env.load(str(root / episode["id"] / "game.tw-pddl"))
        state = env.reset()
        start += time.perf_counter() - began
        answers = [[state["feedback"], state["admissible_commands"]]]
        began = time.perf_counter()
        for command in episode["commands"]:
            state, _, _ = env.step(command)
            answers.append([state["feedback"], state["admissible_commands"]])
        step += time.perf_counter() - began
        num_different += sum(a != b for a, b in zip(answers, episode["answers"], strict=True))
    steps = sum(len(episode["commands"]) for episode in episodes)
    return {"start": start / len(episodes), "step": step / steps, "num_different": num_different}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--data-dir", help="holds json_2.1.1; default $ALFWORLD_DATA")
    parser.add_argument("--split", default="valid_seen")
    parser.add_argument("--games", type=int, default=12)
    parser.add_argument("--turns", type=int, default=50)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--official", metavar="PYTHON", help="interpreter with alfworld 0.4.2")
    parser.add_argument("--worker", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        print(json.dumps(play_official(options.worker, json.load(sys.stdin))))
        return

    from paw.envs.alfworld import Alfworld
    from paw.envs.alfworld.files import games_root

    source = Alfworld(options.split, data_dir=options.data_dir)
    memory = measure_memory(source)
    episodes = record(source, options.games, options.turns, options.seed)
    runs = [time_native(options.data_dir, options.split, episodes) for _ in range(REPETITIONS)]
    native = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    steps = sum(len(episode["commands"]) for episode in episodes)
    print(f"{len(episodes)} games of {options.split}, {steps} steps, median of {REPETITIONS}")
    print(f"native    start {native['start'] * 1e3:8.2f} ms ({1 / native['start']:.0f}/s)")
    print(f"          start {native['cached_start'] * 1e3:8.2f} ms for a game parsed before")
    print(f"          step  {native['step'] * 1e3:8.4f} ms ({1 / native['step']:.0f}/s)")
    print(f"          {memory / 1e3:.0f} kB an open game ({NUM_OPEN_GAMES} open games)")
    if not options.official:
        return
    root = games_root(options.data_dir, options.split)
    worker = subprocess.run(
        [options.official, __file__, "--worker", str(root)],
        input=json.dumps(episodes),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    official = json.loads(worker.stdout.splitlines()[-1])
    print(f"official  start {official['start'] * 1e3:8.2f} ms")
    print(f"          step  {official['step'] * 1e3:8.4f} ms ({1 / official['step']:.0f}/s)")
    ratios = {key: official[key] / native[key] for key in ("start", "step")}
    print(f"ratio     start {ratios['start']:.0f}, step {ratios['step']:.0f}")
    print(f"answers   {official['num_different']} of {steps + len(episodes)} differ")


if __name__ == "__main__":
    main()
