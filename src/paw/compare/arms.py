"""Arms of a comparison: named overlays of the configuration."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from paw.config.parse import Table, check_tables, load_toml
from paw.config.read import Layer
from paw.errors import UserError, nearest

SHIPPED = Path(__file__).with_name("arms.toml")
BASELINE = "baseline"
"""The arm that others are compared with, where it is among them."""


@dataclass(frozen=True, slots=True)
class Arm:
    """What one arm changes."""

    name: str
    about: str
    """One line for tables"""
    table: Table
    """Keys that win over files and flags"""
    match: str | None = None
    """The arm whose run of the same seed gives `paw.match`"""

    @property
    def layer(self) -> Layer:
        """What lies over files and flags. Which run `paw.match` is, a plan says."""
        table = self.table
        if self.match is not None:
            table = {**table, "paw": {**table.get("paw", {}), "match": self.match}}
        return Layer(f"arm {self.name}", table)


def read_arms(files: Sequence[str | Path] = ()) -> dict[str, Arm]:
    """The shipped arms, and those of `files`; a later file may redefine an arm.

    Raises:
        UserError: an unreadable file, or an arm with unknown tables or keys.
    """
    found: dict[str, Arm] = {}
    for file in (SHIPPED, *files):
        for name, body in load_toml(file).items():
            found[name] = _arm(name, body, f"{file}: arm {name}: ")
    return found


def choose_arms(known: dict[str, Arm], names: Sequence[str]) -> list[Arm]:
    """The arms of these names, in their order, each once.

    Raises:
        UserError: an unknown name, one arm alone, or one that needs another which is not there.
    """
    for name in names:
        if name not in known:
            raise UserError(f"--arms: no arm {name!r}{nearest(name, known)}")
    arms = [known[name] for name in dict.fromkeys(names)]
    if len(arms) < 2:
        raise UserError("--arms: a comparison takes two arms or more, such as baseline,paw")
    for arm in arms:
        if arm.match is not None and arm.match not in names:
            raise UserError(f"--arms: {arm.name} needs the arm {arm.match} beside it")
    return arms


def _arm(name: str, body: Any, where: str) -> Arm:
    if not isinstance(body, dict):
        raise UserError(f"{where}must be a table: write [{name}] and its keys below it")
    if not name.isidentifier():
        raise UserError(f"{where}a name has letters, digits and underscores alone")
    body = dict(body)
    about, match = body.pop("about", ""), body.pop("match", None)
    if not isinstance(about, str) or not isinstance(match, str | None):
        raise UserError(f"{where}about and match are texts")
    check_tables(body, where)
    if any(table in body for table in ("run", "eval")):
        raise UserError(f"{where}[run] and [eval] are the same for all arms")
    return Arm(name, about, body, match)
