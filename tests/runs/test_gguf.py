"""GGUF files as model directories: what comes through, what is refused, whole or not at all."""

import json
import os
import sys
import threading
from pathlib import Path

import pytest
import torch

from paw.errors import UserError
from paw.model.load import load_model, read_shape
from paw.runs import gguf
from paw.runs.gguf import unpack
from paw.runs.layout import resolve_model
from paw.text.tokenizer import load_tokenizer
from runs.gguf_files import CONTROL, END, START, TEMPLATE, llama, tokens, write_gguf

SAID = "dequantising"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.Q8.gguf")


def test_weights_tokens_and_template_come_through(file: Path, tmp_path: Path):
    """fp32 tensors lose nothing; the header's facts are written down beside."""
    assert resolve_model(str(file)) == str(file)
    shape = read_shape(str(file))
    directory = unpack(str(file))
    assert directory == str(tmp_path / "tiny.Q8.hf") == resolve_model(str(file))
    assert read_shape(directory) == shape
    original, loaded = llama(len(tokens())), load_model(directory, torch.float32)
    states = original.state_dict(), loaded.state_dict()
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert loaded.config.rope_parameters["rope_theta"] == 5e4
    tokenizer = load_tokenizer(directory)
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id) == (START, END)
    assert tokenizer.pad_token_id == END and tokenizer.chat_template == TEMPLATE
    assert tokenizer.convert_tokens_to_ids(CONTROL) == [0, 1, 2]
    assert load_tokenizer(file).get_vocab() == tokenizer.get_vocab()
    assert not list(tmp_path.glob("*.tmp"))
    assert all(p.stat().st_mode & 0o044 == 0o044 for p in Path(directory).iterdir())


def test_special_tokens_are_the_headers(file: Path, monkeypatch: pytest.MonkeyPatch):
    """transformers 5.17 makes a tokenizer with a Llama's end token, whatever the header says."""

    def of_another_mind(path):
        tokenizer = load_tokenizer(path)
        tokenizer.eos_token = tokenizer.bos_token
        tokenizer.pad_token = tokenizer.bos_token
        return tokenizer

    monkeypatch.setattr(gguf, "load_tokenizer", of_another_mind)
    tokenizer = load_tokenizer(unpack(str(file)))
    ids = tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id
    assert ids == (START, END, END)


def test_quantised_weights_are_rounded_ones(tmp_path: Path):
    """Q8_0: 127 steps to the largest of 32 weights, of a size that is stored in fp16: a weight is
    half a step away at most, and 127 / 2^11 = 0.06 of one by the size's own rounding."""
    directory = unpack(str(write_gguf(tmp_path / "q.gguf", quantise=True)))
    name = "model.layers.0.mlp.down_proj.weight"
    loaded = load_model(directory, torch.float32).state_dict()[name]
    original = llama(len(tokens())).state_dict()[name]
    assert not torch.equal(loaded, original)
    steps = original.view(-1, 32).abs().amax(1, keepdim=True) / 127
    assert ((loaded - original).view(-1, 32).abs() <= 0.57 * steps).all()


def test_is_made_once_and_anew_when_the_file_changes(file: Path, capsys):
    directory = Path(unpack(str(file)))
    assert capsys.readouterr().err.count(SAID) == 1
    assert unpack(str(file)) == unpack(resolve_model(str(file))) == str(directory)
    assert SAID not in capsys.readouterr().err
    before = (directory / "model.safetensors").read_bytes()
    write_gguf(file, llama(len(tokens()), seed=1))
    assert resolve_model(str(file)) == str(file)
    assert unpack(str(file)) == str(directory)
    assert (directory / "model.safetensors").read_bytes() != before
    assert resolve_model(str(file)) == str(directory)


def test_two_at_once(file: Path, capsys):
    """The second waits, and finds it done."""
    barrier, found = threading.Barrier(2), []

    def run():
        barrier.wait()
        found.append(unpack(str(file)))

    threads = [threading.Thread(target=run) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found[0] == found[1] == resolve_model(str(file))
    assert capsys.readouterr().err.count(SAID) == 1


def test_where_the_folder_is_read_only_it_lies_in_the_cache(file: Path, tmp_path, monkeypatch):
    """Tests may run as root, whom no folder refuses: the question is answered for it."""
    cache = tmp_path / "cache"
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache))
    monkeypatch.setattr(os, "access", lambda path, mode: Path(path) != file.parent)
    directory = Path(unpack(str(file)))
    assert directory.parent == cache / "paw" and directory.name.startswith("tiny.Q8-")
    assert not (tmp_path / "tiny.Q8.hf").exists()
    assert resolve_model(str(file)) == str(directory)


def test_another_directory_of_that_name_stays(file: Path, tmp_path: Path):
    (tmp_path / "tiny.Q8.hf").mkdir()
    (tmp_path / "tiny.Q8.hf" / "mine").write_text("x")
    with pytest.raises(UserError, match=r"tiny\.Q8\.hf, where its weights .* is something else"):
        unpack(str(file))
    assert (tmp_path / "tiny.Q8.hf" / "mine").read_text() == "x"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"architecture": "wavenet"}, "architecture wavenet is not supported"),
        ({"more": {"llama.rope.scaling.type": "yarn"}}, r"leaves out its rotary scaling \(yarn\)"),
        ({"more": {"llama.attention.sliding_window": 64}}, r"attention\.sliding_window = 64"),
        ({"tensors": {"rope_freqs.weight": torch.ones(4)}}, "26,948 weights, .* takes 26,944"),
        ({"more": {"split.count": 3}}, "one of 3 parts: merge them"),
        ({"more": {"general.type": "adapter"}}, r"holds no model \(adapter\)"),
    ],
)
def test_what_transformers_would_misread_is_refused(tmp_path: Path, options, message):
    """Each loads without a word, as a model that computes something else, or not at all."""
    file = write_gguf(tmp_path / "odd.gguf", **options)
    with pytest.raises(UserError, match=message) as error:
        unpack(resolve_model(str(file)))
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == ["odd.gguf"]


@pytest.mark.parametrize("share", [0.0001, 0.01, 0.2, 0.9, 0.9999])
def test_a_broken_file_is_one_line(file: Path, tmp_path: Path, share: float):
    data = file.read_bytes()
    file.write_bytes(data[: max(4, int(len(data) * share))])
    with pytest.raises(UserError, match="a broken GGUF file") as error:
        unpack(resolve_model(str(file)))
    assert "\n" not in str(error.value)
    assert os.listdir(tmp_path) == [file.name]


def test_names(file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(UserError, match=r"no such file"):
        resolve_model(str(tmp_path / "other.gguf"))
    with pytest.raises(UserError, match=r"no config\.json.*give its file '.*tiny\.Q8\.gguf'"):
        resolve_model(str(tmp_path))
    (tmp_path / "named.gguf").write_bytes(b"PK\3\4")
    with pytest.raises(UserError, match="not a GGUF file"):
        resolve_model(str(tmp_path / "named.gguf"))
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(UserError, match=r"gguf must be installed: pip install 'paw-rl\[gguf\]'"):
        resolve_model(str(file))


def test_a_made_directory_needs_no_package(file: Path, monkeypatch: pytest.MonkeyPatch):
    directory = unpack(str(file))
    monkeypatch.setitem(sys.modules, "gguf", None)
    assert resolve_model(str(file)) == directory
    assert json.loads((Path(directory) / "gguf.json").read_text())["file"] == file.name
