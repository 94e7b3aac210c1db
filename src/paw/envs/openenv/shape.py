"""Is an OpenEnv environment one of text? Read from the JSON schemas that its server gives."""

from collections.abc import Mapping
from typing import Any

from paw.errors import UserError, nearest

OWN = ("metadata", "done", "reward")
"""Of every action or observation in OpenEnv."""


def text_of_action(schema: Mapping[str, Any], chosen: str | None, where: str) -> str:
    """The field of an action that takes the command.

    Args:
        schema: of an action.
        chosen: the field, if the user says; else the only required text, or the only text.
        where: stands before a message.

    Raises:
        UserError: there is none or more than one, or an action needs more than it.
    """
    fields = _fields(schema)
    if {"tool_name", "arguments"} <= fields.keys():
        raise UserError(f"{where}: its actions are calls of tools, not text")
    needed = [name for name in schema.get("required", ()) if name in fields]
    texts = [name for name in needed if _is_text(fields[name])] or _texts(fields)
    found = _only(texts, chosen, _texts(fields), f"{where}: the text of an action", "action")
    if others := [name for name in needed if name != found]:
        raise UserError(f"{where}: an action needs {', '.join(others)} too, not only text")
    return found


def text_of_observation(schema: Mapping[str, Any], chosen: str | None, where: str) -> str:
    """The field of an observation that is read; as `text_of_action`."""
    texts = _texts(_fields(schema))
    return _only(texts, chosen, texts, f"{where}: the text of an observation", "observation")


def _only(likely: list[str], chosen: str | None, texts: list[str], what: str, option: str) -> str:
    if chosen is not None:
        if chosen not in texts:
            raise UserError(f"env.{option}: {chosen!r} is no text there{nearest(chosen, texts)}")
        return chosen
    if not likely:
        raise UserError(f"{what}: there is none in its schema, and paw plays text alone")
    if len(likely) > 1:
        raise UserError(f"{what} may be {', '.join(likely)}: say which in env.{option}")
    return likely[0]


def _fields(schema: Mapping[str, Any]) -> dict[str, Any]:
    fields = schema.get("properties")
    found = fields if isinstance(fields, dict) else {}
    return {k: v for k, v in found.items() if k not in OWN and isinstance(v, dict)}


def _texts(fields: Mapping[str, Any]) -> list[str]:
    return [name for name, field in fields.items() if _is_text(field)]


def _is_text(field: Mapping[str, Any]) -> bool:
    """A string, or one that may be missing; a choice of some words is none."""
    kinds = [x for x in field.get("anyOf", [field]) if isinstance(x, dict)]
    free = [x for x in kinds if x.get("type") != "null"]
    return bool(free) and all(
        x.get("type") == "string" and not {"const", "enum"} & x.keys() for x in free
    )
