"""Sizes left open are chosen when a run begins; no others are touched."""

import pytest

from paw.config.read import resolve
from paw.model.memory import ModelShape, free_bytes
from paw.rollout.fit import precision_in_bytes, settle, usable_bytes

SHAPE = ModelShape(
    parameters=1000, backbone_parameters=900, lora_features=70, layers=2, hidden=8, query=8, key=4,
    intermediate=16, vocabulary=50,
)  # fmt: skip
FLAGS = [
    "--rollout.groups", "4", "--rollout.group_size", "2", "--rollout.max_prompt_tokens", "6",
    "--rollout.max_response_tokens", "4", "--eval.episodes", "3", "--paw.enabled", "false",
]  # fmt: skip
"""8 conversations of 10 tokens. As in tests/model/test_memory.py: learning takes 17,600 + 1,848 m,
playing 16,000 + 10,400 N."""


def chosen(room: int, *flags: str, learns: bool = True) -> tuple[int, int]:
    config = settle(resolve([], [*FLAGS, *flags]), SHAPE, room, learns=learns)
    return config.optimizer.tokens_per_micro_batch, config.rollout.conversations


def test_what_is_0_is_chosen_and_what_is_given_stays(capsys):
    room = 17_600 + 1848 * 16
    assert chosen(room) == (16, 2)  # 47,168 has room for 2.99 conversations
    assert chosen(room, "--optimizer.tokens_per_micro_batch", "7") == (7, 2)
    assert chosen(room, "--rollout.conversations", "5") == (16, 5)
    assert chosen(2**30) == (16384, 8)
    # An evaluation of more episodes than an update has plays as many side by side, up to 128.
    assert chosen(2**30, "--eval.episodes", "11") == (16384, 11)
    assert chosen(2**30, "--eval.episodes", "500") == (16384, 128)
    assert capsys.readouterr().err == ""


def test_targets_are_learned_beside_the_rows():
    """Observations of 5 tokens on rows of 10: 16 tokens take the room of 24."""
    paw = ["--paw.enabled", "true", "--paw.max_observation_tokens", "5"]
    assert chosen(17_600 + 1848 * 24, *paw)[0] == 16
    assert chosen(17_599 + 1848 * 24, *paw)[0] == 8


def test_a_policy_that_only_plays_has_no_gradients(capsys):
    """4,000 bytes stand instead of 16,000; micro-batches are left open."""
    assert chosen(4_000 + 10_400 * 4, learns=False) == (0, 4)
    assert capsys.readouterr().err == ""


def test_a_row_that_does_not_fit_is_said(capsys):
    assert chosen(17_599 + 1848 * 10)[0] == 8
    err = capsys.readouterr().err
    assert err.startswith("paw: warning: a row of 10 tokens") and err.count("\n") == 1
    chosen(17_600 + 1848 * 10)  # the row fits, though 16 tokens do not
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ([], (4, 4, 0, False)),
        (["--model.dtype", "bfloat16", "--model.lora_rank", "3"], (2, 2, 3, False)),
        (["--model.compute_dtype", "bfloat16", "--model.gradient_checkpointing", "true"],
         (4, 2, 0, True)),
    ],
)  # fmt: skip
def test_bytes_of_a_value(flags, expected):
    found = precision_in_bytes(resolve([], flags).model)
    assert (found.weight, found.compute, found.lora_rank, found.checkpointing) == expected


def test_half_of_the_free_memory_is_planned_with():
    assert usable_bytes("cpu") == pytest.approx(free_bytes("cpu") / 2, rel=0.2)
