"""`paw play`: an environment in the terminal, played by a person or watched."""

import argparse
import shutil
import sys
from typing import TYPE_CHECKING

from paw.commands.arguments import SEED, Declare, configuration, take_split, task_source
from paw.errors import UserError
from paw.visible import visible

if TYPE_CHECKING:
    from paw.types import Transition

HELP = "play an environment in the terminal, or watch a policy play it"
OPTIONS = "Any --env.option value of the environment may follow."
NEXT = "Enter: the next turn, q: stop "


def add(declare: Declare) -> None:
    """Declare the command."""
    play = declare("play", run, HELP, OPTIONS, ("--env.",))
    play.add_argument("env", metavar="ENV")
    play.add_argument("--split", help="default: the training split; of a policy, the evaluation's")
    play.add_argument("--task", type=SEED, default=0, help="number of the task in its split")
    play.add_argument("--seed", type=SEED, default=0, help="of the environment, or of the policy")
    play.add_argument("--data-dir")
    play.add_argument("--policy", metavar="RUN_OR_MODEL", help="watch it play, turn by turn")
    play.add_argument("--temperature", type=float, help="of the policy; default: eval.temperature")


def run(known: argparse.Namespace, keys: list[str]) -> int:
    from paw.envs.play import play

    if known.policy is not None:
        _watch(known, keys)
        return 0
    if known.temperature is not None:
        raise UserError("play: --temperature is that of a policy; it needs --policy RUN_OR_MODEL")
    if sys.stdin is None:
        raise UserError("play: the standard input is closed; run it in a terminal")
    play(task_source(known, keys), task_index=known.task, seed=known.seed, output=_show)
    return 0


def _watch(known: argparse.Namespace, keys: list[str]) -> None:
    """A policy plays; in a terminal each turn waits for Enter."""
    take_split(known, keys)
    flags = [*keys, "--model.path", known.policy, "--env.name", known.env]
    for key, value in (
        ("env.data_dir", known.data_dir),
        ("eval.temperature", known.temperature),
    ):
        flags += [] if value is None else [f"--{key}", str(value)]
    config = configuration([], flags)

    from paw.envs.play import heading, outcome
    from paw.evals.watch import watch
    from paw.rollout.actor import (
        Actor,
        check_lengths,
        check_vocabulary,
        load_policy,
        on_split,
        open_source,
    )
    from paw.runs.console import quiet
    from paw.runs.gguf import unpack
    from paw.runs.layout import resolve_model, tokenizer_place
    from paw.runs.threads import set_threads
    from paw.text.tokenizer import load_tokenizer

    quiet()
    source = open_source(on_split(config, known.split))
    for line in heading(source, known.task):
        _show(line)
    path = unpack(resolve_model(config.model.path))
    policy = load_policy(config, path)
    tokenizer = load_tokenizer(tokenizer_place(config.model.adapter, path))
    check_vocabulary(policy, tokenizer, known.policy)
    set_threads(config.run.threads, policy.num_parameters)
    actor = Actor(config, policy, tokenizer)
    check_lengths(config, policy.positions, actor.serializer, learns=False)
    limits = actor.limits(config.eval.temperature, config.eval.max_turns)
    _show(f"{known.policy} plays at temperature {limits.temperature:g}\n")
    return_, number = 0.0, 0
    for transition, result in watch(actor, source, known.task, known.seed, limits):
        if not number:
            _show(transition.observation)
        number, return_ = number + 1, return_ + transition.reward
        _show_turn(number, transition)
        if result.terminated or result.truncated:
            return _show(outcome(result, number, return_, source.max_return))
        if not _goes_on():
            return _show(f"Stopped after turn {number}; the return so far is {return_:g}.")
    _show(f"Cut after turn {number}: return {return_:g} of {source.max_return:g}.")


def _show_turn(number: int, transition: "Transition") -> None:
    """What the policy wrote, what was made of it, what came of it."""
    notes = [] if transition.command == transition.response else [f"command {transition.command!r}"]
    notes += [] if transition.valid else ["not valid"]
    notes += [f"reward {transition.reward:+g}"] if transition.reward else []
    notes += [] if transition.action.finished else ["cut at rollout.max_response_tokens"]
    _show(f"\n[turn {number}] {transition.response}")
    if notes:
        _show(f"({', '.join(notes)})")
    _show(f"\n{transition.next_observation or ''}".rstrip())


def _goes_on() -> bool:
    """Waits for Enter where somebody can press it."""
    if sys.stdin is None or not (sys.stdin.isatty() and sys.stdout.isatty()):
        return True
    try:
        return not input(NEXT).strip().lower().startswith("q")
    except (EOFError, KeyboardInterrupt):
        print()
        return False


def _show(text: str) -> None:
    """Print, with words whole at a terminal's margin."""
    from paw.envs.play import wrap

    text = visible(text)
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    print(wrap(text, width) if width else text, flush=True)
