"""Arms: what is shipped resolves, what is wrong is one line."""

import dataclasses
from pathlib import Path

import pytest

from paw.commands.arguments import layers
from paw.compare.arms import choose_arms, read_arms
from paw.errors import UserError


def resolved(arm, *flags: str):
    return layers([], flags, on_top=arm.layer).config


def test_every_arm_is_another_configuration():
    arms = read_arms()
    configs = {name: dataclasses.asdict(resolved(arm)) for name, arm in arms.items()}
    texts = {str(config): name for name, config in configs.items()}
    assert len(texts) == len(arms)
    assert all(arm.about for arm in arms.values())
    assert not configs["baseline"]["paw"]["enabled"]
    assert configs["echo"]["paw"] == {
        **configs["ce"]["paw"], "coefficient": 0.05, "select": "all", "weight": "constant",
    }  # fmt: skip


def test_an_arm_wins_over_flags():
    echo = read_arms()["echo"]
    assert resolved(echo, "--paw.coefficient", "0.7").paw.coefficient == 0.05


def write(tmp_path: Path, text: str) -> Path:
    file = tmp_path / "mine.toml"
    file.write_text(text)
    return file


def test_own_arms(tmp_path: Path):
    file = write(tmp_path, 'half = {about = "half", paw = {coefficient = 0.5}}\n')
    arms = choose_arms(read_arms([file]), ["baseline", "half", "half"])
    assert [arm.name for arm in arms] == ["baseline", "half"]
    assert resolved(arms[1]).paw.coefficient == 0.5


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = 1", "arm a: must be a table"),
        ("a = {paw = {losss = 'ce'}}", r"arm a: paw.losss: no such key; did you mean 'loss'"),
        ("a = {paww = {loss = 'ce'}}", "arm a: paww: no such table"),
        ("a = {paw = 1}", "arm a: paw must be a table"),
        ("a = {run = {seed = 1}}", r"arm a: \[run\] and \[eval\] are the same for all arms"),
        ("a = {about = 1}", "about and match are texts"),
        ("'a b' = {}", "letters, digits and underscores"),
    ],
)
def test_wrong_files(tmp_path: Path, text: str, message: str):
    with pytest.raises(UserError, match=message):
        read_arms([write(tmp_path, text)])


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (["baseline", "pawn"], "no arm 'pawn'; did you mean 'paw'"),
        (["paw"], "two arms or more"),
        (["baseline", "matched_constant"], "matched_constant needs the arm paw"),
    ],
)
def test_wrong_choices(names: list[str], message: str):
    with pytest.raises(UserError, match=message):
        choose_arms(read_arms(), names)
