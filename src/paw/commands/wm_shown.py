"""What `paw wm-eval` prints."""

from typing import Any

from paw.commands.frozen import number, percent
from paw.visible import visible

PARTS = {
    "all": "all",
    "changed": "changed tokens",
    "accepted": "accepted commands",
    "accepted_changed": "  changed tokens",
    "refused": "refused commands",
}
CONDITIONS = {"other": "another admissible command", "none": "no command"}


def print_models(result: dict[str, Any]) -> None:
    """A comparison where there are several, then a table for each."""
    models = result["models"]
    if len(models) > 1:
        _print_comparison(models)
    for name, found in models.items():
        print(f"\n{name} ({found['context']}, {found['response_format']})")
        _print_quality(found, result["probability_cap"])
        _print_actions(found["actions"])


def _print_comparison(models: dict[str, Any]) -> None:
    """Nats an observation side by side."""
    width = max(28, *map(len, models))
    print()
    _line("", "nats/obs.", "nats in all", "less the first", "95 % interval", "top-1", width=width)
    for name, found in models.items():
        whole, apart = found["all"], found.get("against_first")
        difference = f"{apart['difference']:+.3f}" if apart else ""
        _line(
            name,
            number(whole["nats_per_observation"]),
            f"{whole['nats']:,.0f}",
            difference,
            _interval(apart["interval"]) if apart else "",
            percent(whole["top1_fraction"]),
            width=width,
        )
    if len({found["all"]["tokens"] for found in models.values()}) > 1:
        print("  tokens differ: what is said of one token does not compare, nats of texts do")


def _print_quality(found: dict[str, Any], cap: float) -> None:
    """A row for each part of the text."""
    columns = ("obs.", "tokens", "nats/obs.", "nats/token", "top-1", "mean p", f"p <= {cap:g}")
    _row("", *columns)
    for key, name in PARTS.items():
        _print_part(name, found[key])
    for name, part in found["classes"].items():
        _print_part(name, part)


def _print_part(name: str, part: dict[str, Any] | None) -> None:
    if part is None:
        _row(name, "0", "0", *"-----")
        return
    _row(
        name,
        f"{part['observations']:,}",
        f"{part['tokens']:,}",
        number(part["nats_per_observation"]),
        number(part["nats_per_token"]),
        percent(part["top1_fraction"]),
        number(part["mean_probability"]),
        percent(part["below_cap_fraction"]),
    )


def _print_actions(actions: dict[str, Any]) -> None:
    """What knowing the true command is worth."""
    heads = ("obs.", "nats/obs.", "command saves", "95 % interval", "better")
    _line("in place of the command", *heads)
    for condition, name in CONDITIONS.items():
        for part, shown in (("all", name), ("changed", "  changed tokens")):
            effect = actions[condition][part]
            if effect is None:
                _line(shown, "0", *"----")
                continue
            _line(
                shown,
                f"{effect['observations']:,}",
                number(effect["nats_per_observation"]),
                f"{effect['difference']:+.3f}",
                _interval(effect["interval"]),
                percent(effect["better_fraction"]),
            )


def _interval(interval: tuple[float, float] | None) -> str:
    return "few tasks" if interval is None else f"[{interval[0]:+.3f}, {interval[1]:+.3f}]"


def _row(name: str, *cells: str) -> None:
    print(f"  {visible(name):28}" + "".join(f"{cell:>11}" for cell in cells))


def _line(name: str, *cells: str, width: int = 28) -> None:
    widths = (9, 13, 16, 19, 9)
    print(
        f"  {visible(name):{width}}"
        + "".join(f"{c:>{w}}" for c, w in zip(cells, widths, strict=True))
    )
