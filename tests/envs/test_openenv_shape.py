"""Which field of an OpenEnv environment is text, and what is refused before anything runs."""

import re

import pytest

from paw import envs
from paw.envs.openenv.access import TOKEN_VARIABLE, is_loopback, read_token
from paw.envs.openenv.shape import text_of_action, text_of_observation
from paw.errors import UserError

TEXT, NUMBER = {"type": "string"}, {"type": "integer"}
MAYBE = {"anyOf": [{"type": "string"}, {"type": "null"}]}


def schema(*required: str, **fields: dict) -> dict:
    return {"properties": {"metadata": {"type": "object"}, **fields}, "required": list(required)}


@pytest.mark.parametrize(
    ("fields", "chosen", "found"),
    [
        (schema("command", command=TEXT), None, "command"),
        (schema("message", message=TEXT, note=MAYBE, size=NUMBER), None, "message"),
        (schema(message=TEXT), None, "message"),
        (schema(a=TEXT, b=TEXT), "b", "b"),
        (schema(message=MAYBE), None, "message"),
        (schema("move", "role", move=TEXT, role={"const": "x", "type": "string"}), None, None),
        (schema("a", "b", a=TEXT, b=TEXT), None, None),
        (schema("a", a=TEXT, b=TEXT), "b", None),
        (schema(a=TEXT, b=TEXT), None, None),
        (schema(a=TEXT), "c", None),
        (schema("x", x=NUMBER), None, None),
        (schema("move", move={"enum": ["up"], "type": "string"}), None, None),
        (schema("move", move={"$ref": "#/$defs/Move"}), None, None),
        (schema("tool_name", tool_name=TEXT, arguments={"type": "object"}), None, None),
        (schema(), None, None),
        ({"properties": 3}, None, None),
    ],
)
def test_the_text_of_an_action(fields, chosen, found):
    if found is not None:
        assert text_of_action(fields, chosen, "x") == found
    else:
        with pytest.raises(UserError):
            text_of_action(fields, chosen, "x")


@pytest.mark.parametrize(
    ("fields", "chosen", "found"),
    [
        (schema(text=TEXT, done=NUMBER), None, "text"),
        (schema(text=TEXT, error=MAYBE), "text", "text"),
        (schema(text=TEXT, error=MAYBE), None, "may be text, error: say which in env.observation"),
        (schema(board=NUMBER), None, "there is none in its schema"),
    ],
)
def test_the_text_of_an_observation(fields, chosen, found):
    if " " not in found:
        assert text_of_observation(fields, chosen, "x") == found
    else:
        with pytest.raises(UserError, match=re.escape(found)):
            text_of_observation(fields, chosen, "x")


@pytest.mark.parametrize(
    "name",
    [
        "openenv",
        "openenv:",
        "openenv:127.0.0.1:8000",
        "openenv:ftp://x",
        "openenv:http://",
        "openenv:$NO_SUCH_VARIABLE",
    ],
)
def test_what_is_no_address(name: str):
    with pytest.raises(UserError, match="openenv:"):
        envs.make(name)


def test_nobody_there():
    with pytest.raises(UserError, match=r"openenv:http://127.0.0.1:9: Connection refused"):
        envs.make("openenv:http://127.0.0.1:9")


def test_the_style_is_known_without_asking_anybody():
    assert envs.style("openenv:http://127.0.0.1:9").shows_commands
    assert envs.style("gymnasium:Nothing-v0").validation_split == "valid"


@pytest.mark.parametrize(
    ("host", "found"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True),
     ("0.0.0.0", False), ("::", False), ("10.0.0.1", False), ("127.0.0.1.evil.example", False),
     ("", False)],
)  # fmt: skip
def test_this_machine_alone(host: str, found: bool):
    assert is_loopback(host) is found


def test_tokens(tmp_path, monkeypatch):
    monkeypatch.delenv(TOKEN_VARIABLE, raising=False)
    assert read_token() is None
    file = tmp_path / "token"
    file.write_text("abc\n")
    monkeypatch.setenv(TOKEN_VARIABLE, "other")
    assert (read_token(str(file)), read_token()) == ("abc", "other")
    for bad in ("", " \n", "two words", "tööken", "a\x00b"):
        file.write_text(bad, encoding="utf-8")
        with pytest.raises(UserError, match="one word of ASCII"):
            read_token(str(file))
    file.write_bytes(b"\xff\xfe")
    with pytest.raises(UserError, match="one word of ASCII"):
        read_token(str(file))
    with pytest.raises(UserError, match="cannot be read"):
        read_token(str(tmp_path / "missing"))
    monkeypatch.setenv(TOKEN_VARIABLE, "")
    with pytest.raises(UserError, match=TOKEN_VARIABLE):
        read_token()
