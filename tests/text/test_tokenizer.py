import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from paw.errors import UserError
from paw.text.tokenizer import END, load_tokenizer, make_tokenizer

TEXTS = ["You arrive at drawer 1. On the drawer 1, you see a mug 2, and a pen 12.\n"] * 3
TOKENIZER = make_tokenizer(TEXTS, phrases=["You arrive at", ", and a"])


def ids(text):
    return TOKENIZER(text, add_special_tokens=False, split_special_tokens=True)["input_ids"]


@given(st.text())
def test_every_text_round_trips(text):
    assert TOKENIZER.decode(ids(text)) == text


def test_words_phrases_and_numbers_are_one_token_each():
    tokens = [
        TOKENIZER.decode([i]) for i in ids("You arrive at drawer 12. On the drawer 1, and a mug")
    ]
    assert tokens == [
        "You arrive at", " drawer", " 12", ".", " On", " the", " drawer", " 1", ", and a", " mug",
    ]  # fmt: skip


def test_unknown_words_are_bytes():
    assert len(ids("zyx")) == 3


def test_control_tokens_in_text_are_not_control_tokens():
    assert TOKENIZER.convert_tokens_to_ids(END) not in ids(f"x{END}y")


def test_saved_and_loaded_beside_a_qwen2_configuration(tmp_path):
    """AutoTokenizer would read it as Qwen2's own class: other splits, one token too many."""
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "qwen2"}))
    loaded = load_tokenizer(tmp_path)
    assert len(loaded) == len(TOKENIZER)
    text = "You arrive at drawer 12. cafe\u0301"
    assert loaded(text)["input_ids"] == TOKENIZER(text)["input_ids"]
    assert loaded.chat_template == TOKENIZER.chat_template


def test_directory_without_a_tokenizer(tmp_path):
    with pytest.raises(UserError, match="no tokenizer to load there"):
        load_tokenizer(tmp_path)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("tokenizer.json", "[]"),
        ("tokenizer.json", '{"version": "1.0", "added_tokens": [], "model": {"type": "Other"}}'),
        ("tokenizer_config.json", "{"),
        ("tokenizer_config.json", "[]"),
        (
            "tokenizer_config.json",
            '{"tokenizer_class": "TokenizersBackend", "eos_token": {"id": 1}}',
        ),
    ],
)
def test_a_broken_file_is_one_line(tmp_path, name, text):
    TOKENIZER.save_pretrained(tmp_path)
    (tmp_path / name).write_text(text)
    with pytest.raises(UserError, match="no tokenizer to load there: ") as error:
        load_tokenizer(tmp_path)
    assert "\n" not in str(error.value)


def test_a_product_code_is_one_token():
    # "B09P5CRVQ6" three times: as letters and digits apart it would be six words.
    codes = make_tokenizer(["click[B09P5CRVQ6]"] * 3, phrases=["click["])
    assert codes.tokenize("click[B09P5CRVQ6]") == ["click[", "B09P5CRVQ6", "]"]
    assert codes.decode(codes.encode("B09P5CRVQ7")) == "B09P5CRVQ7"
