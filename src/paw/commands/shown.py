"""What `paw eval` prints of an evaluation."""

import textwrap
from typing import Any

from paw import envs
from paw.visible import visible


def print_evaluation(result: dict[str, Any]) -> None:
    """Data and protocol; success with its interval per kind, over all and, where the benchmark is
    reported so, as the mean over kinds; what failed, and what the prompt limit cut."""
    style = envs.style(result["env"])
    played = result["num_episodes"] + result["num_failures"]
    _say(
        f"{result['env']} {result['split']}: {_selection(result, played)}, at most "
        f"{result['max_turns']} turns, temperature {_temperature(result)}, seed {result['seed']}"
    )
    served = f" at {result['api_host']}, agent {result['agent']}" if "agent" in result else ""
    served += f", {result['shots']} example" if result.get("shots") else ""
    _say(f"model   {result['model']}{served}")
    if shown := _facts(result["source"]):
        _say(
            textwrap.fill(visible(shown), 100, initial_indent="data    ", subsequent_indent=" " * 8)
        )
    order = list(result["source"].get("data_sets", {}))
    kinds = sorted(result["by_kind"], key=lambda k: order.index(k) if k in order else -1)
    rows = {kind: result["by_kind"][kind] for kind in kinds}
    scored = any(r["score_mean"] not in (None, r["success_rate"]) for r in (result, *rows.values()))
    scored |= style.score_name is not None and result["score_mean"] is not None
    head = f"  {style.score_name or 'score':>5}" if scored else ""
    head = f"{style.rate_name:>8}  {'95 % interval':16}{head}"
    _say(f"  {'':32}{head}  {'turns':>5}  {'valid':>6}  {'n':>6}")
    if len(rows) > 1:
        rows[f"all {style.tasks_name}"] = result
    for kind, row in rows.items():
        means = f"{row['turns_mean']:5.1f}  {row['valid_action_rate']:6.1%}"
        _say(f"  {kind:32}{_row(row, scored)}  {means}  {row['num_episodes']:6,}")
    if style.average_over and len(result["by_kind"]) > 1:
        _print_average(result, style.average_over, scored)
    if result["num_failures"]:
        _say(f"{result['num_failures']} of {played} episodes failed and do not count:")
        for reason, count in result["failures"].items():
            _say(f"  {count} x {reason}")
    if share := result.get("response_cut_fraction"):
        _say(
            f"rollout.max_response_tokens = {result['max_response_tokens']} cut {share:.1%} of the "
            "responses" + (", reasoning counted" if served else "") + ": raise it"
        )
    ended, cut = result["prompt_limit_fraction"], result["prompt_cut_fraction"]
    if ended or cut:
        _say(
            f"rollout.max_prompt_tokens = {result['max_prompt_tokens']} ended {ended:.1%} of the "
            f"episodes and cut {cut:.1%} of the prompts: raise it"
        )


def _say(text: str) -> None:
    """Kinds of task, reasons of failures and names of models are texts of others."""
    print(visible(text))


def _selection(result: dict[str, Any], played: int) -> str:
    size = result["num_tasks"]
    if played >= size:
        return f"all {size:,} tasks" + (f" in {played:,} episodes" if played > size else "")
    if result.get("selection") != "spread":
        return f"the first {played:,} of {size:,} tasks"
    return f"{played:,} of {size:,} tasks, spread over the kinds"


def _temperature(result: dict[str, Any]) -> str:
    """As asked, or the endpoint's own, where it refused that."""
    if result["temperature"] is not None:
        return f"{result['temperature']:g}"
    refused, num = result["left_out"]["temperature"], len(result["episodes"])
    part = "" if refused["num_episodes"] == num else f" in {refused['num_episodes']} of {num}"
    return f"default{part} ({refused['asked']:g} was refused)"


def _row(row: dict[str, Any], scored: bool) -> str:
    """Rate, interval and score; a dash where nothing was played."""
    low, high = row["interval"]
    num = row.get("num_episodes", row.get("num_kinds"))
    score = "-" if row["score_mean"] is None else f"{row['score_mean']:.3f}"
    rate = f"{row['success_rate']:.1%}" if num else "-"
    return f"{rate:>8}  {f'[{low:.1%}, {high:.1%}]':16}" + (f"  {score:>5}" if scored else "")


def _print_average(result: dict[str, Any], kinds: str, scored: bool) -> None:
    """The mean over kinds (data sets, for one), and those that are not in it."""
    average, source = result["macro_average"], result["source"]
    name = f"average of {average['num_kinds']} {kinds}"
    _say(f"  {name:32}{_row(average, scored)}")
    played = [kind for kind, row in result["by_kind"].items() if row["num_episodes"]]
    left = [name for name in source.get("data_sets", {}) if name not in played]
    missing = source.get("missing_data_sets", [])
    for names, why in ((left, "not played"), (missing, "missing, no question file in the folder")):
        if names:
            _say(f"  {why}: {', '.join(names)}")


def _facts(source: dict[str, Any]) -> str:
    """What the environment says of its tasks, hashes cut short."""
    parts = []
    for key, value in source.items():
        if key in ("name", "split", "num_tasks", "data_sets", "missing_data_sets", "kinds"):
            continue  # stands in the table, or in the line above
        value = value[:12] if key.endswith("sha256") and isinstance(value, str) else value
        value = f"{value:,}" if key.startswith("num_") and isinstance(value, int) else value
        if value is not None:
            parts.append(f"{key} {value}")
    return ", ".join(parts)
