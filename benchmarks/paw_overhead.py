"""Seconds of an update with PaW on and off, on the same rollouts, in pairs.

    python benchmarks/paw_overhead.py [CONFIG.toml] [--minutes 4] [--table.key=value ...]

Without CONFIG: the ALFWorld recipe (where ALFWORLD_DATA says where the games are), then the
household. Two sessions (PaW on, PaW off) from one policy learn from the same groups, in alternating
order, on one thread, for `--minutes` a setting; seconds are the process's own processor time, which
other work on the machine moves less than the clock's. Three settings each: `append` as the policy
plays; `window` with the paper's prompts (instruction, last two turns, admissible commands, tags:
the defaults of a policy without settings of its own) on episodes of the environment's expert;
`window` with the policy's own short prompts. Where the policy plays, the ratio is (act + judge +
serialise + learn) with PaW over the same without, act being the round's own time for both; on the
expert's episodes acting is left out, so that the ratio is an upper bound. What PaW costs in
`window` is its share of tokens: an observation beside a prompt.
"""

import argparse
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from paw.config.read import resolve
from paw.rollout.collect import Move, make_transition
from paw.runs.layout import read_card
from paw.train.loop import act, learn_from
from paw.train.session import Session, open_session
from paw.types import Group, SampledAction, Task, Trajectory

PAPER = "window, the paper's prompts"
SETTINGS = {
    "append": ["--rollout.context", "append"],
    PAPER: [
        "--rollout.context", "window", "--rollout.response_format", "tags",
        "--rollout.max_prompt_tokens", "2000", "--rollout.groups", "1",
        "--algorithm.old_logprobs", "score",
    ],
    "window, short prompts": ["--rollout.context", "window", "--rollout.groups", "2"],
}  # fmt: skip
ALFWORLD = str(Path(__file__).parents[1] / "recipes" / "alfworld_small.toml")
WARM_UP = 1
FEWEST = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=str(__doc__).splitlines()[0])
    parser.add_argument("config", nargs="?")
    parser.add_argument("--minutes", type=float, default=4.0, help="of each setting")
    options, flags = parser.parse_known_args()
    worlds = {"ALFWorld recipe": [ALFWORLD], "household": []}
    if options.config:
        worlds = {options.config: [options.config]}
    elif "ALFWORLD_DATA" not in os.environ:
        print("ALFWorld: not measured, ALFWORLD_DATA does not say where the games are")
        del worlds["ALFWorld recipe"]
    for world, files in worlds.items():
        for setting, keys in SETTINGS.items():
            found = measure(files, [*keys, *flags], options.minutes * 60, setting == PAPER)
            print(f"{world}, {setting}: {found}", flush=True)


def measure(files: list[str], flags: list[str], limit: float, expert: bool) -> str:
    """The ratio of one setting, from as many pairs as `limit` seconds allow."""
    with tempfile.TemporaryDirectory(prefix="paw-bench-") as directory:
        sessions = {
            name: session(files, flags, f"{directory}/{name}", enabled)
            for name, enabled in (("on", "true"), ("off", "false"))
        }
        rounds: list[dict[str, float]] = []
        end = time.monotonic() + limit
        while len(rounds) < WARM_UP + FEWEST or time.monotonic() < end:
            rounds.append(pair(sessions, len(rounds) + 1, expert))
        for each in sessions.values():
            each.close()

    def median(of: Callable[[dict[str, float]], float]) -> float:
        return statistics.median(of(r) for r in rounds)

    del rounds[:WARM_UP]
    ratios = [(r["act"] + r["on"]) / (r["act"] + r["off"]) for r in rounds]
    low, high = interval(ratios)
    return (
        f"with PaW / without {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}] "
        f"(median of {len(ratios)} pairs, 95 % interval)   act {median(lambda r: r['act']):.2f} s, "
        f"learn on {median(lambda r: r['on']):.2f} s, off {median(lambda r: r['off']):.2f} s   "
        f"tokens {median(lambda r: r['tokens on'] / r['tokens off']):.3f}"
    )


def pair(sessions: dict[str, Session], update: int, expert: bool) -> dict[str, float]:
    """Processor seconds and tokens of one round of episodes, learnt from with PaW and without."""
    started = time.process_time()
    groups = (expert_groups if expert else act)(sessions["off"], update)
    found = {"act": 0.0 if expert else time.process_time() - started}
    for name in ("on", "off") if update % 2 else ("off", "on"):
        started = time.process_time()
        metrics = learn_from(sessions[name], update, groups)
        found[name] = time.process_time() - started
        found[f"tokens {name}"] = metrics["tokens/trained"]
    return found


def interval(ratios: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    draws = random.Random(0)
    medians = [statistics.median(draws.choices(ratios, k=len(ratios))) for _ in range(2000)]
    return statistics.quantiles(medians, n=40)[0], statistics.quantiles(medians, n=40)[-1]


def session(files: list[str], flags: list[str], directory: str, enabled: str) -> Session:
    """A session of its own directory with PaW on or off."""
    own = [
        "--run.directory", directory, "--run.threads", "1", "--paw.enabled", enabled,
        "--run.save_trajectories_every", "0",
    ]  # fmt: skip
    card = read_card(resolve(files, flags).model.path)
    return open_session(resolve(files, [*flags, *own], card))


def expert_groups(session: Session, update: int) -> list[Group]:
    """Groups of expert episodes in the session's prompts; half of them get no reward, so that every
    group has advantages and a weight."""
    size = session.run.config.rollout.group_size
    return [
        Group(task, tuple(expert_episode(session, task, g, i) for i in range(size)))
        for g, task in enumerate(session.tasks(update))
    ]


def expert_episode(session: Session, task: Task, group: int, index: int) -> Trajectory:
    """One expert episode as a trajectory of the policy's."""
    serializer, limit = session.actor.serializer, session.run.config.rollout.max_turns
    environment = session.source.open(task)
    expert = session.source.expert(task, index, noise=0.7, junk=0.12)
    dialogue, observation = serializer.dialogue(task), environment.reset()
    transitions = []
    for _ in range(limit):
        dialogue.observe(observation.text, observation.commands)
        prompt, command = dialogue.prompt(), expert.act(observation)
        response = f"<think></think><action>{command}</action>"
        ids = serializer.format.response(response)
        action = SampledAction(ids, (0.0,) * len(ids), None, finished=True)
        result = environment.step(command)
        move = Move(action, response, command, result, valid=True, penalty=0.0)
        transitions.append(make_transition(serializer, prompt, observation, move))
        dialogue.act(action, command)
        observation = result.observation
        if result.terminated:
            break
    if index % 2:
        transitions = [replace(t, reward=0.0) for t in transitions]
    return Trajectory(task, group, index, tuple(transitions), not index % 2, True)


if __name__ == "__main__":
    main()
