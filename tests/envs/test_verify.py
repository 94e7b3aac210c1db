"""`paw data`: folders that are whole, incomplete, damaged or of something else."""

import gzip
import json
from hashlib import sha256
from pathlib import Path

import pytest
from alfworld_small import HEAT, game_text, write_game

from paw.cli import main
from paw.envs.alfworld import verify as alfworld
from paw.envs.search_qa import verify as search_qa
from paw.envs.verify import MOST_NAMES, Line, format_lines, named, passed, verifier
from paw.envs.webshop import verify as webshop
from paw.errors import UserError


def quietly(things, count, what):
    return things


def by_what(lines: list[Line]) -> dict[str, Line]:
    return {line.what: line for line in lines}


def test_table_and_names():
    lines = [Line("ok", "a", "fine"), Line("FAIL", "long", "gone", "fetch it")]
    shown = ["ok    a     fine", "FAIL  long  gone", "            -> fetch it"]
    assert format_lines(lines).splitlines() == shown
    assert not passed(lines) and passed(lines[:1])
    names = [f"g{i}" for i in range(MOST_NAMES + 3)]
    assert named(names).endswith(f"g{MOST_NAMES - 1} and 3 more")
    assert named(["x"]) == "x"


def test_only_benchmarks_with_files_have_a_verifier():
    with pytest.raises(UserError, match="did you mean 'webshop'"):
        verifier("webshp")
    with pytest.raises(UserError, match="part of the package"):
        verifier("household")
    for name in ("alfworld", "webshop", "search_qa"):
        assert "DIR" in verifier(name).SOURCES


# --- alfworld


def test_official_numbers_of_games():
    """The totals of the release: 3,553 + 140 + 134 + 200 = 4,027 games."""
    totals = [sum(row[i] for row in alfworld.OFFICIAL.values()) for i in range(4)]
    assert totals == [3553, 140, 134, 200]


def test_alfworld_counts_skips_and_names(tmp_path: Path):
    write_game(tmp_path, f"{HEAT}/trial_T1")
    write_game(tmp_path, f"{HEAT}/trial_T2", game_text()[:-400])
    unsolvable = game_text().replace('"solvable": true', '"solvable": false')
    write_game(tmp_path, f"{HEAT}/trial_T3", unsolvable)
    write_game(tmp_path, "pick_and_place_simple-AppleSliced-None-Shelf-1/trial_T4")
    lines = alfworld.verify(tmp_path, ["train"], quietly)
    counts, damaged, skipped, goals = lines
    assert counts.status == damaged.status == "FAIL"
    assert counts.found.startswith("1 of 3,553 games")
    assert "pick_heat_then_place_in_recep 1 of 459" in counts.found
    assert "alfworld-download --data-dir" in counts.mend
    assert f"1 unreadable: train/{HEAT}/trial_T2 (cut off or not JSON)" in damaged.found
    assert skipped.status == "--" and skipped.found.startswith("2 skipped")
    assert "trial_T3" in skipped.found and "trial_T4" in skipped.found
    assert goals.found.startswith("1 games without traj_data.json")


def test_alfworld_missing_splits_and_wrong_folders(tmp_path: Path):
    write_game(tmp_path, f"{HEAT}/trial_T1", split="valid_seen")
    lines = by_what(alfworld.verify(tmp_path, [], quietly))
    assert lines["train"].found == "0 of 3,553 games" and lines["train"].status == "FAIL"
    (line,) = alfworld.verify(tmp_path / "json_2.1.1", [], quietly)
    assert line.status == "FAIL" and "give its parent" not in line.found
    with pytest.raises(UserError, match="did you mean 'valid_seen'"):
        alfworld.verify(tmp_path, ["valid_sen"], quietly)


def test_alfworld_inventory_counts_by_name(tmp_path: Path):
    (line,) = alfworld.inventory(tmp_path)
    assert line.status == "--"
    write_game(tmp_path, f"{HEAT}/trial_T1")
    (line,) = alfworld.inventory(tmp_path)
    assert line.status == "warn" and "train 1, valid_seen 0" in line.found


@pytest.mark.data
def test_official_games_are_whole(alfworld_dir: Path, capsys: pytest.CaptureFixture[str]):
    arguments = ["data", "alfworld", "--check", str(alfworld_dir), "--split", "valid_seen"]
    assert main(arguments) == 0
    assert capsys.readouterr().out == "ok    valid_seen  140 of 140 games, contents as released\n"


def test_changed_but_readable_games_are_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    ids = [f"valid_seen/{HEAT}/trial_T{i}" for i in (1, 2)]
    paths = [write_game(tmp_path, id.partition("/")[2], split="valid_seen") for id in ids]
    paths.append(write_game(tmp_path, f"{HEAT}/trial_T1", split="valid_unseen"))
    for path in paths:
        (path.parent / "traj_data.json").touch()
    whole = game_text()
    # A release of two games in valid_seen and one in valid_unseen, all of one kind.
    numbers = dict.fromkeys(alfworld.OFFICIAL, (0, 0, 0, 0))
    numbers["pick_heat_then_place_in_recep"] = (0, 2, 1, 0)
    monkeypatch.setattr(alfworld, "OFFICIAL", numbers)

    def contents() -> bytes:
        return b"".join(alfworld.content(tmp_path / "json_2.1.1", id) for id in ids)

    monkeypatch.setattr(alfworld, "DIGESTS", {"valid_seen": sha256(contents()).hexdigest()})

    def check() -> list[Line]:
        return alfworld.verify(tmp_path, ["valid_seen"], quietly)

    good = [Line("ok", "valid_seen", "2 of 2 games, contents as released")]
    assert check() == good
    paths[1].write_text(json.dumps(json.loads(whole), indent=1, sort_keys=True))
    assert check() == good  # the same game, written otherwise
    for old, new in (
        ("(openable Fridge_bar_01)", "(openable Shelf_bar_01)"),
        ("put a hot apple in shelf.", "put a hot apple on shelf."),
        ("take apple 2 from", "take apple 1 from"),
    ):
        assert old in whole
        paths[1].write_text(whole.replace(old, new))
        counts, changed = check()
        assert (counts.status, counts.found) == ("ok", "2 of 2 games")
        assert changed.status == "FAIL" and "differs from the official (digest" in changed.found
        assert changed.mend.startswith(f"delete {tmp_path / 'json_2.1.1' / 'valid_seen'} and fetch")
    (unknown,) = alfworld.verify(tmp_path, ["valid_unseen"], quietly)
    assert unknown.status == "ok" and unknown.found.startswith("1 of 1 games; digest ")
    assert unknown.found.endswith("…, not on record")


# --- webshop


def product(asin: str, sizes: list[str]) -> dict:
    options = {"Size": [{"value": v} for v in sizes]} if sizes else ""
    return {
        "asin": asin, "name": "Shoes", "full_description": "Red", "small_description": ["x"],
        "pricing": "$10.00", "images": ["x.jpg"], "category": "fashion", "query": "shoes",
        "product_category": "Shoes", "customization_options": options,
    }  # fmt: skip


def write_shop(folder: Path, suffix: str = "_1000", human: bool = True) -> None:
    """Two products, one with an instruction and three sizes: three synthetic goals, one human."""
    wanted = {"attributes": ["red"], "instruction": "find", "instruction_attributes": ["red"]}
    products = [product("B1", ["S", "M", "L"]), product("B2", [])]
    text = json.dumps(products).encode()
    (folder / f"items_shuffle{suffix}.json.gz").write_bytes(gzip.compress(text))
    (folder / f"items_ins_v2{suffix}.json").write_text(json.dumps({"B1": wanted}))
    if human:
        row = {"instruction": "x", "instruction_attributes": ["red"], "instruction_options": []}
        none = row | {"instruction_attributes": []}
        written = {"B1": [row, none], "B9": [row]}
        (folder / f"items_human_ins{suffix}.json").write_text(json.dumps(written))


def test_webshop_counts_products_and_goals(tmp_path: Path):
    write_shop(tmp_path)
    lines = by_what(webshop.verify(tmp_path, [], quietly))
    assert lines["1000 products"].found.startswith("2 of 1,000")
    assert lines["1000 synthetic goals"].found.startswith("3 of 6,910")
    assert lines["1000 human goals"].found.startswith("1 of 13")
    assert {line.status for line in lines.values()} == {"FAIL"}


def test_webshop_full_set_has_no_published_number_of_products(tmp_path: Path):
    write_shop(tmp_path, suffix="", human=False)
    lines = webshop.verify(tmp_path, [], quietly)
    assert [line.status for line in lines] == ["ok", "ok", "--"]
    (line,) = webshop.inventory(tmp_path)
    assert line.found.endswith("full products without human instructions")


def test_webshop_damage(tmp_path: Path):
    (line,) = webshop.verify(tmp_path, [], quietly)
    assert line.status == "FAIL" and "items_shuffle_1000.json" in line.found
    assert webshop.inventory(tmp_path)[0].status == "--"
    write_shop(tmp_path)
    packed = tmp_path / "items_shuffle_1000.json.gz"
    packed.write_bytes(packed.read_bytes()[:-20])
    (line,) = webshop.verify(tmp_path, [], quietly)
    assert line.status == "FAIL" and "truncated or damaged" in line.found
    with pytest.raises(UserError, match="drop --split"):
        webshop.verify(tmp_path, ["train"], quietly)


# --- search_qa


def write_rows(file: Path, rows: list[dict]) -> None:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))


def question(number: int, **fields) -> dict:
    return {"id": number, "question": f"what is {number}", "golden_answers": ["x"], **fields}


def test_search_qa_counts_and_matches_ids(tmp_path: Path):
    assert search_qa.inventory(tmp_path)[0].status == "--"
    lines = search_qa.verify(tmp_path, [], quietly)
    assert [line.status for line in lines] == ["FAIL", "warn"]
    write_rows(tmp_path / "train.jsonl", [question(0, supporting_ids=["7"]), question(1)])
    write_rows(tmp_path / "eval_bamboogle.jsonl", [question(i) for i in range(125)])
    write_rows(tmp_path / "mine.jsonl", [question(0)])
    assert search_qa.inventory(tmp_path)[0].status == "warn"  # no corpus
    write_rows(tmp_path / "corpus.jsonl", [{"id": "6", "title": "a", "text": "b"}])
    lines = by_what(search_qa.verify(tmp_path, [], quietly))
    assert lines["train"].status == "warn" and lines["train"].found.startswith("2 of 169,615")
    assert (lines["bamboogle"].status, lines["nq"].status) == ("ok", "--")
    assert "1 of the 1 supporting_ids are not among them" in lines["corpus"].found
    lines = by_what(search_qa.verify(tmp_path, ["mine"], quietly))
    assert lines["mine"] == Line("ok", "mine", "1 questions")
    assert search_qa.verify(tmp_path, ["yours"], quietly)[0].status == "FAIL"


def test_search_qa_damage(tmp_path: Path):
    (tmp_path / "train.jsonl").write_text('{"id": 1}\n')
    (tmp_path / "corpus.jsonl").write_text("no json\n")
    lines = by_what(search_qa.verify(tmp_path, [], quietly))
    assert lines["train"].status == lines["corpus"].status == "FAIL"
    assert "line 1" in lines["train"].found and "line 1" in lines["corpus"].found


# --- the command


def test_data_command(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch):
    assert main(["data", "alfworld"]) == 0
    assert "alfworld-download" in capsys.readouterr().out
    write_shop(tmp_path)
    monkeypatch.setenv("WEBSHOP_DATA", str(tmp_path))
    assert main(["data", "webshop", "--check"]) == 1
    assert capsys.readouterr().out.startswith("FAIL  1000 products")
    monkeypatch.delenv("SEARCH_QA_DATA", raising=False)
    for arguments in (["search_qa", "--check"], ["alfworld", "--check", "/nonexistent"], ["alf"]):
        assert main(["data", *arguments]) == 2
        assert capsys.readouterr().err.startswith("paw: data: ")
