"""The result of episodes played through an endpoint: success, how it was got, what it cost."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from paw import __version__
from paw.envs.base import TaskSource, listing_digest
from paw.evals.play import summarise
from paw.evals.remote import Answers, Record, Setup, Usage
from paw.evals.selection import described
from paw.evals.statistics import wilson_interval
from paw.types import SampledAction, Trajectory, Transition


def settings_of(setup: Setup, source: TaskSource) -> dict[str, Any]:
    """The setup with what is known of the data: for the journal and the result.

    A data folder counts by its listing, so that it may be moved.
    """
    options = dict(setup.env_options)
    folder = options.pop("data_dir", None)
    return {
        "version": __version__,
        **asdict(setup),
        "env_options": options,
        "num_tasks": len(source),
        "source": source.facts(),
        "data_listing_sha256": None if folder is None else listing_digest(Path(folder)),
    }


def result_of(
    setup: Setup,
    source: TaskSource,
    records: Sequence[Record],
    price: tuple[float, float] | None = None,
) -> dict[str, Any]:
    """The whole result as one JSON-able object: `evaluation`, and what it was got with and cost.

    Args:
        records: of `play_all`.
        price: of a million prompt tokens and a million completion tokens.
    """
    last = {r["number"]: r for r in records}  # the latest of each
    played = [trajectory_of(r, source) for r in last.values()]
    result = summarise(
        played,
        source,
        env=setup.env,
        temperature=setup.temperature,
        seed=setup.seed,
    )
    left_out = _left_out(setup, last.values())
    if "temperature" in left_out:
        result["temperature"] = None  # the endpoint's own, which nobody here knows
    for row, record in zip(result["episodes"], last.values(), strict=True):
        row["trials"] = len(record["trials"])
    tokens, answers = Usage(), Answers()
    for record in records:
        for total, counts in ((tokens, record["tokens"]), (answers, record["answers"])):
            for name, value in counts.items():
                setattr(total, name, getattr(total, name) + value)
    cost = None
    if price is not None:
        cost = (tokens.prompt * price[0] + tokens.completion * price[1]) / 1e6
    return {
        **settings_of(setup, source),
        "data_dir": setup.env_options.get("data_dir"),
        **result,
        "selection": described(source, sorted(last)),
        **({"by_trial": by_trial(last.values(), setup.trials)} if setup.trials > 1 else {}),
        "left_out": left_out,
        "answers": asdict(answers),
        "tokens": asdict(tokens),
        "cost": cost,
    }


def _left_out(setup: Setup, records: Iterable[Record]) -> dict[str, dict[str, Any]]:
    """By parameter that the endpoint refused: what was asked, and in how many episodes."""
    asked = {
        "temperature": setup.temperature,
        "seed": setup.seed,
        "max_tokens": setup.max_response_tokens,
    }
    counts = Counter(name for record in records for name in record["left_out"])
    return {n: {"asked": asked[n], "num_episodes": count} for n, count in sorted(counts.items())}


def by_trial(records: Iterable[Record], trials: int) -> list[dict[str, Any]]:
    """Success within the first 1, 2, … trials, of the episodes that did not fail."""
    usable = [r for r in records if r["failure"] is None]
    rows: list[dict[str, Any]] = []
    for k in range(1, trials + 1):
        wins = sum(any(t["success"] for t in r["trials"][:k]) for r in usable)
        rate = wins / len(usable) if usable else 0.0
        interval = wilson_interval(wins, len(usable))
        rows.append({"trials": k, "success_rate": rate, "interval": interval})
    return rows


def trajectory_of(record: Record, source: TaskSource) -> Trajectory:
    """An episode's last trial as a trajectory of texts, without tokens."""
    task, trial = source[record["number"] % len(source)], record["trials"][-1]
    turns = trial["turns"]
    following = [t["observation"] for t in turns[1:]] + [trial["end"]]
    transitions = tuple(
        Transition(
            context_ids=(),
            context_roles=(),
            action=SampledAction((), (), None, finished=not turn["cut"]),
            response=turn["response"],
            command=turn["command"],
            reward=turn["reward"],
            penalty=0.0,
            valid=turn["valid"],
            observation=turn["observation"],
            next_observation=text or None,
            next_observation_ids=(),
        )
        for turn, text in zip(turns, following, strict=False)
    )
    return Trajectory(
        task=task,
        group=record["number"],
        index=0,
        transitions=transitions,
        success=record["success"],
        terminated=trial["terminated"],
        score=trial["score"],
        failure=record["failure"],
    )
