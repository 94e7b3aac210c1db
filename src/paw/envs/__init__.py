"""Environments by name: `make("household", split="train", **options) -> TaskSource`.

Built in: household, alfworld, webshop, search_qa. Others register through the entry-point group
`paw.envs` or are named as `module:factory`; a factory takes `split` and keyword options.
`openenv:URL` are the tasks of an OpenEnv server, `gymnasium:ID` a text environment of Gymnasium.
"""

import importlib
import inspect
from collections.abc import Callable, Iterable
from importlib.metadata import entry_points
from typing import Any

from paw.envs.base import Environment, Episode, Expert, Observation, StepResult, TaskSource
from paw.errors import UserError, nearest
from paw.style import Style
from paw.types import Task

__all__ = [
    "Environment",
    "Episode",
    "Expert",
    "Observation",
    "StepResult",
    "Style",
    "Task",
    "TaskSource",
    "factory",
    "make",
    "names",
    "style",
]

BUILT_IN = {
    "household": "paw.envs.household:Household",
    "alfworld": "paw.envs.alfworld:Alfworld",
    "webshop": "paw.envs.webshop:WebShop",
    "search_qa": "paw.envs.search_qa:SearchQA",
}

BY_PLACE = {"openenv": "paw.envs.openenv", "gymnasium": "paw.envs.gym"}
"""`NAME:PLACE` -> the module whose `at(PLACE)` is the factory."""


def names() -> list[str]:
    """Every registered environment name."""
    return [*BUILT_IN, *(e.name for e in entry_points(group="paw.envs"))]


def factory(name: str) -> Callable[..., TaskSource]:
    """The factory registered as `name`, or named `module:factory`, `openenv:URL`, `gymnasium:ID`.

    Raises:
        UserError: no such name, module or attribute.
    """
    kind, _, place = name.partition(":")
    if kind in BY_PLACE:
        if not place:
            raise UserError(f"environment {name!r}: write openenv:URL or gymnasium:ID")
        return importlib.import_module(BY_PLACE[kind]).at(place)
    target = BUILT_IN.get(name)
    if target is None:  # each installed package is looked at, which takes a while
        registered = {e.name: e.value for e in entry_points(group="paw.envs")}
        target = registered.get(name, name)
    module, colon, attribute = target.partition(":")
    if not (colon and module and attribute):
        raise UserError(f"no environment {name!r}{nearest(name, names())}")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name and not (module == error.name or module.startswith(error.name + ".")):
            raise  # the module exists and lacks a package of its own: its message says which
        raise UserError(f"environment {name!r}: there is no module {module!r}") from error
    except AttributeError as error:
        raise UserError(f"environment {name!r}: {module} has no {attribute!r}") from error


def style(name: str) -> Style:
    """How an environment is asked, read and scored: its factory's attribute `style`.

    Raises:
        UserError: no such environment, or an attribute of another type.
    """
    found = getattr(factory(name), "style", Style())
    if not isinstance(found, Style):
        raise UserError(
            f"environment {name!r}: its style is a {type(found).__name__}, not a paw.envs.Style"
        )
    return found


def make(name: str, split: str | None = None, **options: Any) -> TaskSource:
    """Open the tasks of one split; `split=None` takes the environment's first (training) split.

    Raises:
        UserError: unknown name, split or option (with the nearest known one), missing data, or a
            factory that cannot be called with `split`, makes no TaskSource, or does not show the
            style of the tasks that it makes.
    """
    build = factory(name)
    rule = "a factory takes `split` and keyword options and returns a TaskSource"
    try:
        signature = inspect.signature(build)
        _check_options(name, signature, options)
        signature.bind(split=split, **options)
    except (TypeError, ValueError) as error:
        raise UserError(f"environment {name!r}: {error}; {rule}") from None
    if split is not None:
        options["split"] = split
    source = build(**options)
    if not isinstance(source, TaskSource):
        raise UserError(f"environment {name!r} made a {type(source).__name__}; {rule}")
    shown = style(name)
    if source.style != shown:
        if source.style != Style():
            raise UserError(
                f"environment {name!r}: its tasks have another style than its factory; give the "
                "factory the attribute `style` as well, which counts before there are tasks"
            )
        source.style = shown
    return source


def _check_options(name: str, signature: inspect.Signature, options: Iterable[str]) -> None:
    parameters = signature.parameters
    if any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        return
    for option in options:
        if option not in parameters:
            known = [p for p in parameters if p != "split"]
            raise UserError(f"env.{option}: {name} has no such option{nearest(option, known)}")
