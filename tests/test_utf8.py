"""Files with a byte-order mark, or in another encoding, wherever a user's file is read."""

import codecs
import json
from collections.abc import Callable
from pathlib import Path

import pytest
import zstandard

from envs.alfworld_small import HEAT, write_game
from envs.webshop_small import write
from paw.config.parse import read_toml
from paw.envs.alfworld import Alfworld
from paw.envs.retrieval import build_index, open_index
from paw.envs.webshop import WebShop
from paw.errors import UserError
from paw.imitate.demonstrations import read_demonstrations
from paw.utf8 import utf8

TURN = {"observation": "a room", "response": "look", "command": "look", "next_observation": "end",
        "reward": 1.0, "penalty": 0.0, "valid": True}  # fmt: skip
EPISODE = {"update": 0, "group": 0, "index": 0, "task": {"id": "t", "kind": "k",
           "instruction": "do it"}, "success": True, "turns": [TURN]}  # fmt: skip


def toml(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    file = folder / "c.toml"
    file.write_text("[run]\nupdates = 3\n")
    return [file], lambda: read_toml(file)


def corpus(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    file = folder / "corpus.jsonl"
    file.write_text('{"id": "1", "title": "Été", "text": "hot"}\n')

    def read() -> object:
        build_index(file, folder / "index")
        (found,) = open_index(folder / "index").search(["hot"], 1)
        return found[0].title

    return [file], read


def webshop(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    write(folder)
    names = ("items_shuffle_1000.json", "items_ins_v2_1000.json", "items_human_ins.json")

    def read() -> object:
        return [t.instruction for t in WebShop("all", data_dir=folder, goals="human")]

    return [folder / name for name in names if (folder / name).exists()], read


def alfworld(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    game = f"{HEAT}/trial_T1"
    write_game(folder, game)
    (file,) = folder.rglob("game.tw-pddl")

    def read() -> object:
        source = Alfworld("train", data_dir=folder)
        return source.open(source[0]).reset().text

    return [file], read


def demonstrations(folder: Path) -> tuple[list[Path], Callable[[], object]]:
    file = folder / "d.jsonl.zst"
    file.write_bytes(zstandard.compress(json.dumps(EPISODE).encode() + b"\n"))
    return [file], lambda: read_demonstrations(str(file))


KINDS = [toml, corpus, webshop, alfworld, demonstrations]


def rewritten(file: Path, change: Callable[[bytes], bytes]) -> None:
    data = file.read_bytes()
    if file.suffix == ".zst":
        data = zstandard.compress(
            change(zstandard.ZstdDecompressor().decompressobj().decompress(data))
        )
    else:
        data = change(data)
    file.write_bytes(data)


@pytest.mark.parametrize("kind", KINDS)
def test_a_mark_changes_nothing(tmp_path: Path, monkeypatch, kind):
    monkeypatch.setenv("PAW_CACHE", str(tmp_path / "cache"))
    plain, marked = tmp_path / "plain", tmp_path / "marked"
    results = []
    for folder in (plain, marked):
        folder.mkdir()
        files, read = kind(folder)
        for file in files if folder is marked else ():
            rewritten(file, lambda data: codecs.BOM_UTF8 + data)
        results.append(read())
    assert results[0] == results[1]


@pytest.mark.parametrize("kind", KINDS)
def test_another_encoding_is_one_line(tmp_path: Path, monkeypatch, kind):
    monkeypatch.setenv("PAW_CACHE", str(tmp_path / "cache"))
    files, read = kind(tmp_path)
    for file in files:
        rewritten(file, lambda data: data.decode().encode("utf-16"))
    with pytest.raises(UserError, match="UTF-16 or UTF-32 text; save it as UTF-8") as caught:
        read()
    assert "\n" not in str(caught.value)


def test_encodings_told_apart():
    """{" in UTF-16 LE is 7b 00 22 00; bytes of no text are not taken for it."""
    assert utf8(b"\xef\xbb\xbf{}") == b"{}"
    for data in (b"", b"{", b"{}", bytes(range(256)), "é".encode(), b"\0\0\0\0"):
        assert utf8(data) == data
    for encoding in ("utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-le", "utf-32-be"):
        with pytest.raises(ValueError, match="UTF-16"):
            utf8('{"a": 1}'.encode(encoding))
