"""The plot of `paw noise`; the one file of it that needs matplotlib."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure

COLOURS = ("#9aa3ad", "#d1495b", "#edae49", "#00798c")
"""Tokens in grey, then the losses; told apart in grey-scale and by the colour-blind."""


def draw(result: dict[str, Any], losses: Mapping[str, str], file: str) -> None:
    """Bars: each class's share of the tokens and of the gradient of each loss; `losses` by name,
    the tokens first."""
    classes = {name: row for name, row in result["classes"].items() if row["tokens"]}
    height = 0.8 / len(losses)
    figure = Figure(figsize=(7.5, 1.4 + 0.75 * len(classes)), layout="constrained")
    axes = figure.add_subplot()
    for number, ((loss, label), colour) in enumerate(zip(losses.items(), COLOURS, strict=True)):
        shares = [100 * row[f"{loss}_fraction"] for row in classes.values()]
        places = [i + (number - (len(losses) - 1) / 2) * height for i in range(len(classes))]
        name = "share of tokens" if loss == "tokens" else f"gradient of {label}"
        bars = axes.barh(places, shares, height, color=colour, label=name)
        axes.bar_label(bars, fmt="%.1f", padding=2, fontsize=7)
    axes.set_yticks(range(len(classes)), list(classes))
    axes.invert_yaxis()
    axes.set_xlim(0, min(112, 1.15 * max(axes.get_xlim()[1], 1)))
    axes.set_xlabel("% of the whole")
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"Where the gradient of the prediction goes: {result['env']}, "
        f"{result['observations']:,} observations, $\\rho$ = {result['probability_cap']:g}",
        fontsize=10,
        loc="left",
    )
    figure.legend(loc="outside lower center", ncols=len(losses), frameon=False, fontsize=8)
    figure.savefig(file, dpi=160)
