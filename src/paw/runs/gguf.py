"""A GGUF file as a model directory: its weights dequantised to fp32, once.

    FILE.gguf -> FILE.hf/   config.json model.safetensors tokenizer.json …   any HF tool reads it
                            gguf.json                                        of which file it is

Where the folder cannot be written, the directory lies in the user's cache. transformers reads GGUF
files; what it leaves out without a word (other positions, windows, tensors, special tokens) is
found by holding its model and tokenizer against the file's own header, and refused.
"""

import contextlib
import errno
import fcntl
import json
import math
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from paw.errors import UserError
from paw.model.load import BROKEN, load_gguf, read_config, shape_of
from paw.model.policy import save_model
from paw.runs.files import new_directory
from paw.runs.layout import UNPACKED_FROM, gguf_identity, is_gguf, unpacked, unpacked_places
from paw.text.tokenizer import load_tokenizer

CONTROL = 3
"""Type of a token that no text may spell."""
SPECIAL = {"eos": "eos_token", "bos": "bos_token", "padding": "pad_token"}
"""Tokens that a header names, and what transformers calls them."""


def unpack(path: str) -> str:
    """The model directory of what `resolve_model` gave: a GGUF file is dequantised if it was not.

    Processes that ask at once wait for the first. Says on stderr where the directory is written.

    Raises:
        UserError: a broken file, one that transformers does not read as it is meant, no room.
    """
    if not is_gguf(path):
        return path
    file = Path(path)
    with _alone(file):
        found = unpacked(file)
        if found is None:
            found = _place(file)
            _dequantise(file, found)
    return str(found)


def check_gguf(path: str) -> PreTrainedTokenizerBase:
    """Hold what transformers makes of a GGUF file against its header; no weight is read.

    Returns:
        The tokenizer made of it.

    Raises:
        UserError: a broken file, or the two differ where it matters.
    """
    fields, num_weights = _header(path)
    _refuse(path, _misread_file(fields))
    _refuse(path, _misread_model(fields, read_config(path), num_weights))
    tokenizer = load_tokenizer(path)
    _name_special_tokens(fields, tokenizer)
    _refuse(path, _misread_tokens(fields, tokenizer))
    return tokenizer


def _refuse(path: str, problem: str | None) -> None:
    if problem:
        raise UserError(f"model.path = {path!r}: {problem}; use the model's HF directory")


def _dequantise(file: Path, final: Path) -> None:
    identity = gguf_identity(file)
    tokenizer = check_gguf(str(file))
    print(f"paw: dequantising {file} into {final}, once", file=sys.stderr, flush=True)
    model = load_gguf(file)
    with new_directory(final) as directory:
        save_model(model, directory)
        tokenizer.save_pretrained(directory)
        text = json.dumps(identity, indent=1)
        (directory / UNPACKED_FROM).write_text(text + "\n", encoding="utf-8")


def _place(file: Path) -> Path:
    """Beside the file where that can be written, else in the user's cache."""
    beside, cached = unpacked_places(file)
    if not os.access(beside.parent, os.W_OK):
        return cached
    if beside.exists() and not (beside / UNPACKED_FROM).is_file():
        raise UserError(
            f"model.path = {str(file)!r}: {beside}, where its weights would be unpacked, exists "
            "and is something else: give that directory, or move it away"
        )
    return beside


@contextlib.contextmanager
def _alone(file: Path) -> Iterator[None]:
    """Keep other processes from unpacking the same file."""
    handle = os.open(file, os.O_RDONLY)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            if error.errno in (errno.EWOULDBLOCK, errno.EACCES):  # else one without locks
                print(f"paw: another process unpacks {file}; waiting", file=sys.stderr, flush=True)
                fcntl.flock(handle, fcntl.LOCK_EX)
        yield
    finally:
        os.close(handle)


def _header(path: str) -> tuple[dict[str, Any], int]:
    """Fields of the header by name, and how many weights it lists."""
    from gguf import GGUFReader

    try:
        reader = GGUFReader(path)
        large = ("tokenizer.ggml.merges", "tokenizer.ggml.scores")
        fields = {name: f.contents() for name, f in reader.fields.items() if name not in large}
        return fields, sum(int(tensor.n_elements) for tensor in reader.tensors)
    except (*BROKEN, ArithmeticError) as error:
        raise UserError(
            f"model.path = {path!r}: a broken GGUF file ({error}); fetch it again"
        ) from error


def _misread_file(fields: dict[str, Any]) -> str | None:
    """A file that is no whole model."""
    if fields.get("split.count", 1) > 1:
        return f"one of {fields['split.count']} parts: merge them (llama-gguf-split --merge)"
    if fields.get("general.type", "model") != "model":
        return f"it holds no model ({fields['general.type']})"
    return None


def _misread_model(fields: dict[str, Any], config: Any, num_weights: int) -> str | None:
    """What the header says of the model that its configuration in transformers does not."""
    config = config.get_text_config()
    said = {k.partition(".")[2]: v for k, v in fields.items()
            if k.startswith(f"{fields['general.architecture']}.")}  # fmt: skip
    rope = getattr(config, "rope_parameters", None) or {}
    rope = rope.get("full_attention", rope)
    head = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kind = said.get("rope.scaling.type", "none")
    if kind != "none" and rope.get("rope_type", "default") == "default":
        return f"transformers leaves out its rotary scaling ({kind})"
    size = int(head * rope.get("partial_rotary_factor", 1.0))
    for key, have in (
        ("rope.freq_base", rope.get("rope_theta")),
        ("rope.dimension_count", size if rope else None),
        ("attention.sliding_window", getattr(config, "sliding_window", None)),
    ):
        wanted = said.get(key)
        if key == "attention.sliding_window" and (wanted or 0) >= said.get("context_length", 0):
            continue
        if wanted and (have is None or not math.isclose(wanted, have, rel_tol=1e-6)):
            return f"transformers leaves out its {key} = {wanted:g} (it has {have})"
    taken = shape_of(config).parameters
    if taken != num_weights:
        return f"it holds {num_weights:,} weights, of which transformers takes {taken:,}"
    return None


def _name_special_tokens(fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> None:
    """What the header calls end, begin and padding; transformers before 5.20 takes a Llama's."""
    tokens = fields.get("tokenizer.ggml.tokens", [])
    for key, attribute in SPECIAL.items():
        wanted = fields.get(f"tokenizer.ggml.{key}_token_id")
        if wanted is not None and wanted < len(tokens):
            setattr(tokenizer, attribute, tokens[wanted])


def _misread_tokens(fields: dict[str, Any], tokenizer: PreTrainedTokenizerBase) -> str | None:
    """What the header says of tokens and template that the tokenizer does not."""
    tokens = fields.get("tokenizer.ggml.tokens", [])
    for key, attribute in SPECIAL.items():
        wanted, have = (
            fields.get(f"tokenizer.ggml.{key}_token_id"),
            getattr(tokenizer, f"{attribute}_id"),
        )
        if wanted is not None and wanted != have:
            return f"its {key} token is {wanted}, that of the tokenizer made of it {have}"
    if fields.get("tokenizer.chat_template") != tokenizer.chat_template:
        return "transformers leaves out its chat template"
    special = {i for i, token in tokenizer.added_tokens_decoder.items() if token.special}
    control = {i for i, t in enumerate(fields.get("tokenizer.ggml.token_type", ())) if t == CONTROL}
    if left := sorted(control - special):
        return f"its control token {tokens[left[0]]!r} is an ordinary word of the tokenizer"
    return None
