"""Seconds of an update with PaW on and off, on the same rollouts, in pairs.

    python benchmarks/paw_overhead.py [CONFIG.toml ...] [--updates 13] [--table.key=value ...]

Two sessions (PaW on, PaW off) from one policy learn from the same groups, in alternating order, on
one thread; seconds are the process's own processor time, which other work on the machine moves less
than the clock's. Three settings: `append` as the shipped policy plays; `window` with the paper's
prompts (instruction, last two turns, admissible commands, tags: the defaults of a policy without
settings of its own) on episodes of the environment's expert; `window` with the shipped policy's
short prompts. Where the policy plays, the ratio is (act + judge + serialise + learn) with PaW over
the same without, act being the round's own time for both; on the expert's episodes acting is left
out, so that the ratio is an upper bound. What PaW costs in `window` is its share of tokens: an
observation beside a prompt.
"""

import argparse
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace

from paw.rollout.collect import make_transition
from paw.train.checkpoint import read_card
from paw.train.loop import act, learn_from
from paw.train.settings import resolve
from paw.train.setup import Session, open_session
from paw.types import Group, SampledAction, Task, Trajectory

SETTINGS = {
    "append": ["--rollout.context", "append"],
    "window, the paper's prompts": [
        "--rollout.context", "window", "--rollout.response_format", "tags",
        "--rollout.max_prompt_tokens", "2000", "--rollout.groups", "2",
        "--algorithm.old_logprobs", "score",
    ],
    "window, short prompts": ["--rollout.context", "window"],
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("configs", nargs="*")
    parser.add_argument("--updates", type=int, default=13)
    options, flags = parser.parse_known_args()
    for name, keys in SETTINGS.items():
        measure(name, options.configs, [*keys, *flags], options.updates)


def measure(name: str, files: list[str], flags: list[str], updates: int) -> None:
    """Print the ratio for one setting."""
    sessions = {side: session(files, flags, side) for side in ("on", "off")}
    play: Callable[[Session, int], list[Group]] = expert_groups if "paper" in name else act
    ratios, learns, tokens = [], {"on": [], "off": []}, {}
    acts = []
    for update in range(1, updates + 1):
        started = time.process_time()
        groups = play(sessions["off"], update)
        acted = time.process_time() - started if play is act else 0.0
        acts.append(acted)
        seconds = {}
        for side in ("on", "off") if update % 2 else ("off", "on"):
            started = time.process_time()
            metrics = learn_from(sessions[side], update, groups)
            seconds[side] = time.process_time() - started
            learns[side].append(seconds[side])
            tokens[side] = metrics["tokens/trained"]
        if update > 1:  # the first round warms up
            ratios.append((acted + seconds["on"]) / (acted + seconds["off"]))
    for each in sessions.values():
        each.close()
    low, high = interval(ratios)
    print(
        f"{name}: with PaW / without {statistics.median(ratios):.3f} "
        f"[{low:.3f}, {high:.3f}] (median of {len(ratios)} pairs, 95 % interval)   "
        f"act {statistics.median(acts):.2f} s, learn on {statistics.median(learns['on']):.2f} s, "
        f"off {statistics.median(learns['off']):.2f} s   tokens "
        f"{tokens['on']:.0f} / {tokens['off']:.0f} = {tokens['on'] / tokens['off']:.3f}"
    )


def interval(ratios: list[float]) -> tuple[float, float]:
    """95 % bootstrap interval of the median."""
    draws = random.Random(0)
    medians = [statistics.median(draws.choices(ratios, k=len(ratios))) for _ in range(2000)]
    return statistics.quantiles(medians, n=40)[0], statistics.quantiles(medians, n=40)[-1]


def session(files: list[str], flags: list[str], side: str) -> Session:
    """A session of its own directory with PaW on or off."""
    own = [
        "--run.directory", tempfile.mkdtemp(prefix="paw-bench-"), "--run.threads", "1",
        "--paw.enabled", "true" if side == "on" else "false", "--run.save_trajectories_every", "0",
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
        ids = (*serializer.encode(response), serializer.format.end_of_turn)
        action = SampledAction(ids, (0.0,) * len(ids), None, finished=True)
        result = environment.step(command)
        transitions.append(
            make_transition(
                serializer, prompt, action, response, command, observation.text, result, True, 0.0
            )
        )
        dialogue.act(action, command)
        observation = result.observation
        if result.terminated:
            break
    if index % 2:
        transitions = [replace(t, reward=0.0) for t in transitions]
    return Trajectory(task, group, index, tuple(transitions), not index % 2, True)


if __name__ == "__main__":
    main()
