"""`paw eval --api-base URL`: evaluates a model behind an OpenAI-compatible endpoint."""

import argparse
import os
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from paw.commands.arguments import protocol_of, say_settings, take_protocol, whole
from paw.errors import UserError

if TYPE_CHECKING:
    from paw.config.read import Resolved
    from paw.config.tree import Config
    from paw.envs.base import TaskSource
    from paw.evals.agents import Agent
    from paw.evals.journal import Journal
    from paw.evals.remote import Record, Setup
    from paw.runs.console import Bar

KEYS = (
    "rollout.max_turns", "rollout.history_turns", "rollout.max_response_tokens",
    "rollout.validity", "rollout.workers", "rollout.step_seconds",
    "eval.max_turns", "eval.temperature",
)  # fmt: skip
"""Configuration keys that mean something here, besides `env.*`."""

AGENTS = ("plain", "react", "reflexion")
KEY_NAME = "OPENAI_API_KEY"
COUNT = whole(1, 1024)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options that go with `--api-base`; their defaults are in `evaluate`."""

    def price(text: str) -> float:
        try:
            number = float(text)
        except ValueError:
            number = -1.0
        if not 0 <= number < 1e9:
            raise argparse.ArgumentTypeError(f"{text!r} is not a number of at least 0")
        return number

    group = parser.add_argument_group("a model behind an OpenAI-compatible endpoint")
    group.add_argument("--api-base", metavar="URL", help="such as http://127.0.0.1:8000/v1")
    group.add_argument("--api-model", metavar="NAME", help="the model's name there")
    group.add_argument(
        "--api-key-env", metavar="NAME", help=f"variable that holds the key; default {KEY_NAME}"
    )
    group.add_argument("--api-timeout", type=COUNT, metavar="SECONDS", help="default 300")
    group.add_argument("--api-tries", type=COUNT, metavar="N", help="per response; default 6")
    group.add_argument("--agent", choices=AGENTS, help="default plain, the paper's prompt")
    group.add_argument("--shots", type=int, choices=(0, 1), help="1: an expert's episode is shown")
    group.add_argument("--trials", type=COUNT, metavar="K", help="of reflexion; default 3")
    group.add_argument("--concurrency", type=COUNT, metavar="K", help="episodes at once; default 8")
    group.add_argument("--price-in", type=price, help="of a million prompt tokens")
    group.add_argument("--price-out", type=price, help="of a million completion tokens")


def wanted(known: argparse.Namespace) -> bool:
    """Is a model behind an endpoint to be evaluated? Raises UserError for a mixture of both."""
    if known.api_base is not None:
        if known.model is not None and not known.model.endswith(".toml"):
            raise UserError(f"eval: give RUN_OR_MODEL ({known.model!r}) or --api-base, not both")
        known.configs = [file for file in (known.model, *known.configs) if file is not None]
        if known.api_model is None:
            raise UserError("eval: --api-base needs --api-model NAME")
        for option in ("checkpoint", "save_trajectories"):
            if getattr(known, option) is not None:
                raise UserError(f"eval: --{option.replace('_', '-')} goes with RUN_OR_MODEL")
        return True
    for option in (
        "api_model", "api_key_env", "api_timeout", "api_tries", "agent", "shots", "trials",
        "concurrency", "price_in", "price_out",
    ):  # fmt: skip
        if getattr(known, option) is not None:
            raise UserError(f"eval: --{option.replace('_', '-')} needs --api-base URL")
    if known.model is None:
        raise UserError("eval: give RUN_OR_MODEL, or --api-base URL and --api-model NAME")
    if known.model.endswith(".toml"):
        raise UserError(f"eval: {known.model} is a recipe; name the run or model before it")
    return False


def evaluate(known: argparse.Namespace, keys: list[str]) -> dict[str, Any]:
    """Play and journal as the options say; what was finished is not played again.

    Raises:
        UserError: bad input, before anything is sent; or what the endpoint refuses for good.
    """
    _check(known)
    resolved, key = _resolved(known, keys), _key(known.api_key_env)
    take_protocol(known, resolved)

    from paw.evals.endpoint import Endpoint
    from paw.evals.journal import Journal, journal_path
    from paw.evals.remote import Player, play_all
    from paw.evals.remote_result import result_of, settings_of
    from paw.evals.selection import chosen
    from paw.rollout.actor import on_split, open_pool, open_source
    from paw.runs.console import Bar
    from paw.runs.facts import environment_facts
    from paw.runs.files import check_writable

    config = on_split(resolved.config, known.split)
    setup, source = _setup(known, config), open_source(config)
    episodes = known.episodes or len(source)
    bar = Bar(episodes, "episode")
    endpoint = Endpoint(
        known.api_base,
        known.api_model,
        key=key,
        key_name=known.api_key_env or KEY_NAME,
        temperature=setup.temperature,
        max_tokens=setup.max_response_tokens,
        timeout=known.api_timeout or 300,
        tries=known.api_tries or 6,
        say=lambda text: bar.say(f"paw: warning: {text}"),
    )
    with ExitStack() as stack:
        journal = None
        if known.output:
            check_writable(Path(known.output))
            journal = Journal(journal_path(known.output), settings_of(setup, source))
            stack.enter_context(journal)
        agent = _agent(setup, source, episodes)
        environments = stack.enter_context(open_pool(config))
        say_settings(known, resolved, _counts)
        stack.enter_context(bar)
        records = play_all(
            Player(setup, source, agent, endpoint, environments),
            journal,
            episodes=episodes,
            concurrency=known.concurrency or 8,
            on_episode=_teller(bar, journal, set(chosen(source, episodes))),
        )
    prices = None if known.price_in is None else (known.price_in, known.price_out)
    return result_of(setup, source, records, prices) | environment_facts()


def _teller(
    bar: "Bar", journal: "Journal | None", numbers: set[int]
) -> "Callable[[int, Record], None]":
    """Shows in `bar` how many of the episodes are finished, those of the journal among them."""

    earlier = [r for r in (journal.records if journal else []) if r["number"] in numbers]
    won = {r["number"] for r in earlier if r["success"]}

    def told(num_done: int, record: "Record") -> None:
        won.update([record["number"]] if record["success"] else [])
        bar(num_done, {"won": len(won)})

    num_done = len({r["number"] for r in earlier if r["failure"] is None})
    bar(num_done, {"won": len(won)})  # the clock starts
    return told


def stopped(known: argparse.Namespace) -> str:
    """What to say after Ctrl-C."""
    from paw.evals.journal import journal_path

    if not known.output:
        return "stopped; without --output nothing is kept"
    return f"stopped; the same command goes on from {journal_path(known.output)}"


def print_costs(result: dict[str, Any]) -> None:
    """What comes behind the success of `print_evaluation`: trials, what the endpoint refused,
    answers that said nothing, tokens and cost."""
    for row in result.get("by_trial", []):
        low, high = row["interval"]
        print(
            f"  within {row['trials']} trial(s) {row['success_rate']:6.1%}  [{low:.1%}, {high:.1%}]"
        )
    for name, refused in result["left_out"].items():
        print(
            f"  {name} {refused['asked']} was refused by the endpoint and left out in "
            f"{refused['num_episodes']} of {len(result['episodes'])} episodes"
        )
    tokens, answers = result["tokens"], result["answers"]
    for name, what in (
        ("num_filtered", "were refused by the model or a filter"),
        ("num_empty", "had no text"),
    ):
        if num := answers[name]:
            print(f"  {num} of {tokens['num_requests']} answers {what}")
    cost = "" if result["cost"] is None else f", cost {result['cost']:.4f}"
    unknown = tokens["num_uncounted"]
    note = f" ({unknown} requests told nothing of tokens)" if unknown else ""
    print(
        f"  {tokens['num_requests']} requests, {tokens['prompt']} prompt and "
        f"{tokens['completion']} completion tokens{cost}{note}"
    )


def _check(known: argparse.Namespace) -> None:
    """Options that do not go together. Raises UserError."""
    if (known.price_in is None) != (known.price_out is None):
        raise UserError("eval: --price-in and --price-out go together")
    if known.shots and known.agent not in ("react", "reflexion"):
        raise UserError("eval: --shots goes with --agent react or reflexion")
    if known.trials is not None and known.agent != "reflexion":
        raise UserError("eval: --trials goes with --agent reflexion")


def _resolved(known: argparse.Namespace, keys: list[str]) -> "Resolved":
    """The environment's defaults, then the files, keys and options."""
    from paw import envs
    from paw.config.read import check_options, overlay

    for key in keys:
        name = key[2:].partition("=")[0].replace("-", "_")
        if key.startswith("--") and not name.startswith("env.") and name not in KEYS:
            raise UserError(
                f"eval: --{name} changes nothing with --api-base; keys that count: env.*, "
                + ", ".join(KEYS)
            )
    flags = list(keys)
    for key, value in (
        ("env.name", known.env),
        ("env.data_dir", known.data_dir),
        ("eval.temperature", known.temperature),
    ):
        flags += [] if value is None else [f"--{key}", str(value)]
    # An endpoint's model has no card.
    resolved = overlay(known.configs, flags, None, protocol_of, _counts)
    if not resolved.given("env.name"):
        raise UserError("eval: --api-base needs --env NAME")
    check_options(envs.factory(resolved.config.env.name), resolved.config)
    return resolved


def _counts(key: str) -> bool:
    return key.startswith("env.") or key in (*KEYS, "eval.split", "eval.episodes")


def _key(name: str | None) -> str | None:
    """The key, out of the environment; a variable named on purpose has to be there."""
    key = os.environ.get(name or KEY_NAME, "").strip()
    if name is not None and not key:
        raise UserError(f"--api-key-env {name}: that environment variable is not set")
    return key or None


def _setup(known: argparse.Namespace, config: "Config") -> "Setup":
    from paw.config.read import environment_options
    from paw.evals.endpoint import check_address
    from paw.evals.remote import Setup

    agent, rollout = known.agent or "plain", config.rollout
    return Setup(
        env=config.env.name,
        split=config.env.split,
        env_options=environment_options(config),
        agent=agent,
        trials=(known.trials or 3) if agent == "reflexion" else 1,
        shots=known.shots or 0,
        model=known.api_model,
        api_host=check_address(known.api_base),
        temperature=config.eval.temperature,
        seed=known.seed,
        max_turns=config.eval.max_turns or rollout.max_turns,
        history_turns=rollout.history_turns,
        max_response_tokens=rollout.max_response_tokens,
        validity=rollout.validity,
    )


def _agent(setup: "Setup", source: "TaskSource", episodes: int) -> "Agent":
    from paw import envs
    from paw.evals.agents import Plain, React, expert_example
    from paw.evals.selection import chosen

    if setup.agent == "plain":
        return Plain(envs.style(setup.env), setup.history_turns)
    examples = {}
    if setup.shots:
        tasks = [source[number % len(source)] for number in chosen(source, episodes)]
        avoid = frozenset(task.id for task in tasks)
        training = envs.make(setup.env, "train", **setup.env_options)
        examples = {
            kind: expert_example(training, kind, setup.max_turns, avoid)
            for kind in sorted({task.kind for task in tasks})
        }
    return React(envs.style(setup.env), examples)
