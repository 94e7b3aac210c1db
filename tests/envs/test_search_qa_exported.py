"""Question files that came through an export: lists and objects as strings, byte-order marks."""

import codecs
import gzip
import json
import logging
from pathlib import Path

import pytest

from paw.envs.search_qa.exported import looks_like_a_list, unpacked
from paw.envs.search_qa.questions import read_questions
from paw.errors import UserError


def golds(tmp_path: Path, **row) -> tuple[str, ...]:
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps({"id": "1", "question": "q?"} | row))
    (question,) = read_questions(file)
    return question.golden_answers


@pytest.mark.parametrize(
    ("text", "answers"),
    [
        ('["a b","c"]', ("a b", "c")),
        (' ["x"] ', ("x",)),
        ("['red', 'b']", ("red", "b")),
        ("['red' 'b']", ("red", "b")),
        ("['red'\n 'it\\'s' \"it's\"]", ("red", "it's")),
        ("array(['red', 'b'], dtype=object)", ("red", "b")),
        ('["", "b"]', ("b",)),
        ("['red', '', 'b']", ("red", "b")),
        ('["caf\\u00e9"]', ("café",)),
        ("[sic] it was so", ("[sic] it was so",)),
        ("[unknown]", ("[unknown]",)),
        ("[Lenin", ("[Lenin",)),
        ('"Paris"', ('"Paris"',)),
        ("{'red'}", ("{'red'}",)),
        ('{"red": 1}', ('{"red": 1}',)),
        ("(1, 2)", ("(1, 2)",)),
        ("['red''b']", ("['red''b']",)),
    ],
)
def test_golds_in_a_string(tmp_path: Path, text: str, answers: tuple[str, ...]):
    assert golds(tmp_path, golden_answers=text) == answers
    assert golds(tmp_path, reward_model={"ground_truth": {"target": text}}) == answers


@pytest.mark.parametrize(
    "row",
    [
        {"golden_answers": ['["red", "b"]']},
        {"ground_truth": '["red", "b"]'},
        {"ground_truth": '{"target": ["red", "b"]}'},
        {"reward_model": '{"style": "rule", "ground_truth": {"target": ["red", "b"]}}'},
        {"reward_model": "{'ground_truth': {'target': array(['red', 'b'], dtype=object)}}"},
        {"reward_model": "{'ground_truth': {'target': array(['red'\n 'b'], dtype=object)}}"},
        {"reward_model": {"ground_truth": "{'target': ['red', 'b']}"}},
        {"env_kwargs": '{"ground_truth": {"target": "[\\"red\\", \\"b\\"]"}}'},
        {"answer": "['red' 'b']"},
    ],
)  # fmt: skip
def test_golds_in_every_field(tmp_path: Path, row: dict):
    assert golds(tmp_path, **row) == ("red", "b")


@pytest.mark.parametrize("text", ["[1, 2]", "[]", '["red", 1]', '["red", ["b"]]'])
def test_lists_of_other_things_are_refused(tmp_path: Path, text: str):
    with pytest.raises(UserError, match="line 1: no gold answers"):
        golds(tmp_path, golden_answers=text)


def test_a_list_that_cannot_be_read_is_said(tmp_path: Path, caplog):
    cut = "['red' 'b' ... 'z']"
    with caplog.at_level(logging.WARNING):
        assert golds(tmp_path, golden_answers=cut) == (cut,)
    assert "1 question(s) with a gold answer that looks like a list" in caplog.text
    assert not looks_like_a_list("[sic] it was so") and not looks_like_a_list("['red' 'b']")


@pytest.mark.parametrize(
    ("value", "ids"),
    [
        ('["p1", "p2"]', ("p1", "p2")), ("[3, 4]", ("3", "4")), ("[3 4]", ("3", "4")),
        ("['p1' 'p2']", ("p1", "p2")), ("", ()), ("nan", ()), ("[]", ()), (None, ()),
    ],
)  # fmt: skip
def test_supporting_ids_in_a_string(tmp_path: Path, value, ids):
    file = tmp_path / "test.jsonl"
    file.write_text(
        json.dumps({"question": "q?", "golden_answers": "red", "supporting_ids": value}) + "\n"
    )
    assert next(iter(read_questions(file))).supporting_ids == ids


@pytest.mark.parametrize("value", ["p1", "[3. 4.]", "3 4"])
def test_other_supporting_ids_are_refused(tmp_path: Path, value):
    with pytest.raises(UserError, match="must be a list of passage ids"):
        golds(tmp_path, golden_answers="red", supporting_ids=value)


def test_prompt_and_extra_info_in_a_string(tmp_path: Path):
    prompt = json.dumps([{"role": "user", "content": "Rules. Question: who?\n"}])
    row = {"golden_answers": "red", "prompt": prompt, "extra_info": "{'index': 7, 'split': 'test'}"}
    file = tmp_path / "test.jsonl"
    file.write_text(json.dumps(row))
    (question,) = read_questions(file)
    assert (question.text, question.id) == ("who?", "7")


def test_only_lists_and_objects_are_unpacked():
    for value in (
        None,
        3,
        ["[1]"],
        {"red": "[1]"},
        "x",
        "[",
        "[b'red' c]",
        "[" * 10_000 + "]" * 10_000,
    ):
        assert unpacked(value) is value


ROWS = '{"id": "1", "question": "q?", "golden_answers": ["é"]}\n'


@pytest.mark.parametrize("packed", [False, True])
def test_a_byte_order_mark_is_no_part_of_a_file(tmp_path: Path, packed: bool):
    """Nor in its middle, where two files were joined."""
    second = ROWS.replace('"1"', '"2"')
    data = codecs.BOM_UTF8 + ROWS.encode() + codecs.BOM_UTF8 + second.encode()
    file = tmp_path / ("test.jsonl.gz" if packed else "test.jsonl")
    file.write_bytes(gzip.compress(data) if packed else data)
    assert [q.golden_answers for q in read_questions(file)] == [("é",), ("é",)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-32-be"])
@pytest.mark.parametrize("packed", [False, True])
def test_other_encodings_are_one_line(tmp_path: Path, encoding: str, packed: bool):
    file = tmp_path / "test.jsonl"
    data = ROWS.encode(encoding)
    file.write_bytes(gzip.compress(data) if packed else data)
    with pytest.raises(UserError, match="line 1: UTF-16 or UTF-32 text; save it as UTF-8"):
        list(read_questions(file))
