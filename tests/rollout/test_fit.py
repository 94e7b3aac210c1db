"""Sizes left open are chosen when a run begins; no others are touched."""

import pytest

from paw.config.read import resolve
from paw.errors import UserError
from paw.model.memory import ModelShape, free_bytes
from paw.model.positions import Positions
from paw.rollout.actor import check_lengths, make_serializer
from paw.rollout.fit import precision_in_bytes, settle, usable_bytes
from paw.text.tokenizer import make_tokenizer

SHAPE = ModelShape(
    parameters=1000, backbone_parameters=900, lora_features=70, layers=2, hidden=8, query=8, key=4,
    intermediate=16, vocabulary=50,
)  # fmt: skip
FLAGS = [
    "--rollout.groups", "4", "--rollout.group_size", "2", "--rollout.max_prompt_tokens", "6",
    "--rollout.max_response_tokens", "4", "--eval.episodes", "3", "--paw.enabled", "false",
    "--model.device", "cpu",
]  # fmt: skip
"""8 conversations of 10 tokens. As in tests/model/test_memory.py: learning takes 18,400 + 2,772 m,
playing 16,000 + 9,360 N."""


def chosen(room: int, *flags: str, learns: bool = True) -> tuple[int, int]:
    config = settle(resolve([], [*FLAGS, *flags]), SHAPE, room, learns=learns)
    return config.optimizer.tokens_per_micro_batch, config.rollout.conversations


def test_what_is_0_is_chosen_and_what_is_given_stays(capsys):
    room = 18_400 + 2772 * 16
    assert chosen(room) == (16, 4)  # 62,752 has room for 4.99 conversations
    assert chosen(room, "--optimizer.tokens_per_micro_batch", "7") == (7, 4)
    assert chosen(room, "--rollout.conversations", "5") == (16, 5)
    assert chosen(2**30) == (16384, 8)
    # An evaluation of more episodes than an update has plays as many side by side, up to 128.
    assert chosen(2**30, "--eval.episodes", "11") == (16384, 11)
    assert chosen(2**30, "--eval.episodes", "500") == (16384, 128)
    assert capsys.readouterr().err == ""


def test_targets_are_learned_beside_the_rows():
    """Observations of 5 tokens on rows of 10: 16 tokens take the room of 24."""
    paw = ["--paw.enabled", "true", "--paw.max_observation_tokens", "5"]
    assert chosen(18_400 + 2772 * 24, *paw)[0] == 16
    assert chosen(18_399 + 2772 * 24, *paw)[0] == 8


def test_a_plan_for_a_gpu_is_for_one_wherever_it_is_made():
    """No holes there: 16,000 + 1,600 + 1,848 m."""
    room = 17_600 + 1848 * 16
    assert chosen(room)[0] == 8
    assert chosen(room, "--model.device", "cuda:1")[0] == 16


def test_a_policy_that_only_plays_has_no_gradients(capsys):
    """4,000 bytes stand instead of 16,000; micro-batches are left open."""
    assert chosen(4_000 + 9_360 * 4, learns=False) == (0, 4)
    assert capsys.readouterr().err == ""


def test_a_row_that_does_not_fit_is_said(capsys):
    assert chosen(18_399 + 2772 * 10)[0] == 8
    err = capsys.readouterr().err
    assert err.startswith("paw: warning: a row of 10 tokens") and err.count("\n") == 1
    chosen(18_400 + 2772 * 10)  # the row fits, though 16 tokens do not
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


def test_a_horizon_stands_behind_the_rows_of_a_window():
    """Observations of 5, and K = 3: 5 and 2 x (4 + 5) behind rows of 10 tokens, so that 16 tokens
    take the room of 16 x 33 / 10 = 52.8. In a conversation they stand in the row already."""
    paw = ["--paw.enabled=true", "--paw.max_observation_tokens=5", "--paw.horizon=3"]
    assert chosen(18_400 + 2772 * 53, *paw)[0] == 16
    assert chosen(18_400 + 2772 * 52, *paw)[0] == 8
    assert chosen(18_400 + 2772 * 53, *paw, "--rollout.context=append")[0] == 32


@pytest.mark.parametrize(("limit", "fits"), [(258, True), (257, False)])
def test_a_horizon_counts_in_the_longest_row(limit: int, fits: bool):
    """100 + 20, then 2 of the template and 30, then twice 1 + 20 + 2 + 30 = 53: 258."""
    flags = [
        "--rollout.max_prompt_tokens=100", "--rollout.max_response_tokens=20",
        "--paw.max_observation_tokens=30", "--paw.horizon=3",
    ]  # fmt: skip
    config = resolve([], flags)
    serializer = make_serializer(config, make_tokenizer([]))
    positions = Positions(limit=limit)
    if fits:
        check_lengths(config, positions, serializer, learns=True)
    else:
        with pytest.raises(
            UserError, match=r"2 x \(response \+ observation\) by paw.horizon = 258"
        ):
            check_lengths(config, positions, serializer, learns=True)
