"""The shop's data files: damaged, missing, compressed, the full set's index on disk."""

import gzip
import json

import pytest
import zstandard
from webshop_small import PRODUCTS, play, product, shop, start, write

from paw.envs.webshop import catalog
from paw.errors import UserError


def damage(directory, name, content):
    (directory / f"{name}.json").unlink()
    path = directory / (f"{name}.json.gz" if content[:2] == b"\x1f\x8b" else f"{name}.json")
    path.write_bytes(content)


ITEMS = json.dumps(PRODUCTS).encode()
WITHOUT_NAME = json.dumps([{k: v for k, v in PRODUCTS[0].items() if k != "name"}]).encode()


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("items_shuffle_1000", gzip.compress(ITEMS, mtime=0)[:-30]),
        ("items_shuffle_1000", b"\x1f\x8bno gzip at all"),
        ("items_shuffle_1000", ITEMS[:-20]),
        ("items_shuffle_1000", ITEMS.replace(b'"asin":', b'"asin"', 1)),
        ("items_shuffle_1000", b"{}"),
        ("items_shuffle_1000", b""),
        ("items_shuffle_1000", b"[]"),
        ("items_shuffle_1000", b"[1]"),
        ("items_shuffle_1000", b"\xff\xfe\xfd"),
        ("items_shuffle_1000", WITHOUT_NAME),
        ("items_shuffle_1000", json.dumps([product(5, "x")]).encode()),
        ("items_shuffle_1000", json.dumps([product("B1", "x", options={"a": [1]}), 7]).encode()),
        ("items_shuffle_1000", json.dumps([PRODUCTS[0] | {"customization_options": "x"}]).encode()),
        ("items_ins_v2_1000", b"[]"),
        ("items_ins_v2_1000", b'{"B000000001": {"attributes": 3}}'),
        ("items_ins_v2_1000", b'{"B000000001": '),
        ("items_human_ins_1000", b"[]"),
        ("items_human_ins_1000", b'{"B000000001": [{"instruction": 3}]}'),
        ("items_human_ins_1000", gzip.compress(b"{}", mtime=0)[:-4]),
    ],
)
def test_bad_data(tmp_path, name, content):
    write(tmp_path)
    damage(tmp_path, name, content)
    with pytest.raises(UserError) as caught:
        shop(tmp_path, goals="human")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name", ["items_shuffle_1000", "items_ins_v2_1000", "items_human_ins_1000"]
)
def test_missing_file(tmp_path, name):
    write(tmp_path)
    (tmp_path / f"{name}.json").unlink()
    stem = name.removesuffix("_1000")
    with pytest.raises(UserError, match=stem):
        shop(tmp_path, goals="human")


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_compressed_files(shop_dir, tmp_path, pack):
    suffix = ".gz" if pack is gzip.compress else ".zst"
    for path in shop_dir.glob("*.json"):
        (tmp_path / (path.name + suffix)).write_bytes(pack(path.read_bytes()))
    assert list(shop(tmp_path)) == list(shop(shop_dir))


def test_full_set_is_indexed_on_disk_once(shop_dir, tmp_path, monkeypatch):
    directory, cache = tmp_path / "data", tmp_path / "cache"
    directory.mkdir()
    odd = product("B000000006", "Lone \ud83d surrogate")
    write(directory, "", items_shuffle=[*PRODUCTS, odd])
    source = shop(directory, cache_dir=cache)
    assert list(source) == list(shop(shop_dir))
    env = start(source, "B000000001")
    assert "Page 1 (Total results: 2)" in play(env, "search[red boots]").observation.text
    assert "Lone ? surrogate" in play(env, "search[surrogate]").observation.text
    (built,) = cache.iterdir()
    assert not list(built.glob("block*"))
    inode = built.stat().st_ino
    catalog._open.cache_clear()  # as in another process
    assert list(shop(directory, cache_dir=cache)) == list(source)
    assert [path.stat().st_ino for path in cache.iterdir()] == [inode]
