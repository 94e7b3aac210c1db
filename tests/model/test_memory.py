"""What fits into a room, worked by hand; `tests/train/test_estimate.py` holds the formulas."""

from dataclasses import replace

import pytest

from paw.model.memory import (
    ModelShape,
    Precision,
    Work,
    bytes_of,
    fitting_conversations,
    fitting_tokens,
    free_bytes,
)

SHAPE = ModelShape(
    parameters=1000, backbone_parameters=900, lora_features=70, layers=2, hidden=8, query=8, key=4,
    intermediate=16, vocabulary=50,
)  # fmt: skip
FP32 = Precision(4, 4)
WORK = Work(micro_batch=0, conversations=8, length=10)
"""16,000 bytes stand; a token to learn from takes 2 x 576 + 96 of activations and 12 x 50 of
logits, beside 4 x 50 x 8 of the embedding's gradient, and half as much again lies in holes:
16,000 + 1.5 x (1,600 + 1,848 m)."""
LEARN = 18_400


@pytest.mark.parametrize(
    ("room", "tokens"),
    [
        (18_400 + 2772 * 4, 4),
        (18_399 + 2772 * 4, 2),
        (18_400 + 2772 * 2, 2),
        (0, 1),
        (10**9, 16384),
    ],
)
def test_tokens_are_the_largest_power_of_two_that_fits(room, tokens):
    assert fitting_tokens(SHAPE, FP32, WORK, room) == tokens


def test_targets_beside_the_tokens_are_counted():
    """Half as many again: 4 tokens take the room of 6."""
    assert fitting_tokens(SHAPE, FP32, WORK, LEARN + 2772 * 6, beside=0.5) == 4
    assert fitting_tokens(SHAPE, FP32, WORK, LEARN + 2772 * 6 - 1, beside=0.5) == 2


def test_conversations_are_halved_until_they_fit():
    """Each of 15 tokens (half as many again as 10): 15 x 2 x 4 x 8 of cache, and 1.5 times 16 x 50
    of logits and 15 x (4 x 3 x 16 + 2 x 8 x 8) of a prefilled layer, are 9,360."""
    for count in (8, 4, 2):
        assert fitting_conversations(SHAPE, FP32, WORK, 16_000 + 9_360 * count) == count
        assert fitting_conversations(SHAPE, FP32, WORK, 15_999 + 9_360 * count) == count // 2
    assert fitting_conversations(SHAPE, FP32, WORK, 0) == 1
    odd = replace(WORK, conversations=5)  # 5, 3, 2
    assert fitting_conversations(SHAPE, FP32, odd, 16_000 + 9_360 * 2) == 2
    # Without gradients and moments 4,000 stand.
    plays = replace(WORK, learns=False, critic=True, reference=True)
    assert fitting_conversations(SHAPE, FP32, plays, 4_000 + 9_360 * 4) == 4


SMALL = ModelShape(
    parameters=134_515_008, backbone_parameters=134_515_008, lora_features=0, layers=30,
    hidden=576, query=576, key=192, intermediate=1536, vocabulary=49_152,
)  # fmt: skip
"""135 M parameters. A layer keeps 4 x (9 x 576 + 2 x 192 + 4 x 1,536) = 46,848 bytes of a token,
all of them with 3 x 4 x 576 more 1,412,352."""
PAPER = Work(micro_batch=0, conversations=128, length=2560)


def test_135_million_parameters_in_ten_gib():
    """16 n = 2.15 GB stand, logits of 256 positions take 151 MB, the embedding's gradient 113 and
    holes 268; of the rest 4,096 tokens take 5.79 GB, 8,192 would take 11.57. A conversation of
    3,840 tokens takes 177 MB of cache and 0.8 of logits: 32 take 5.69 GB, 64 would take 11.37."""
    room = 10 * 2**30
    left = room - 16 * SMALL.parameters - 12 * 256 * 49_152 - 4 * 49_152 * 576 - 2**28
    assert left // 1_412_352 == 5701
    assert fitting_tokens(SMALL, FP32, PAPER, room) == 4096
    assert fitting_conversations(SMALL, FP32, PAPER, room) == 32
    # Layer inputs alone and one layer in full: 30 x 2,304 + 46,848 + 6,912 = 122,880 a token.
    checkpointed = Precision(4, 4, checkpointing=True)
    assert fitting_tokens(SMALL, checkpointed, PAPER, room) == 16384


def test_bf16_weights_cost_more_than_they_save():
    """18 bytes stand for a parameter: 2, a master, a gradient and two moments of 4; fp32 takes 16.
    A token of activations takes 2 (8 x 576 + 3 x 576 + 2 x 192 + 4 x 1,536) = 25,728 a layer, of
    46,848; a GPU's head 1,365 positions, and no holes."""
    work = replace(PAPER, micro_batch=4096)
    for precision in (Precision(2, 2), Precision(2, 2, device="cuda")):
        memory = bytes_of(SMALL, precision, work)
        assert memory.standing == 18 * SMALL.parameters
        assert memory.activations == 4096 * (30 * 25_728 + 3 * 2 * 576)
    assert memory.head == 14 * 1365 * 49_152 + 6 * 49_152 * 576
    assert memory.learning == memory.standing + memory.activations + memory.head
    plays = bytes_of(SMALL, Precision(2, 2), replace(work, learns=False))
    assert plays.standing == 2 * SMALL.parameters


def test_the_shipped_household_gets_everything():
    """A model of 64 x 3 in a room of 1 GiB."""
    shape = ModelShape(
        parameters=160_000, backbone_parameters=160_000, lora_features=0, layers=3, hidden=64,
        query=64, key=32, intermediate=170, vocabulary=351,
    )  # fmt: skip
    work = replace(PAPER, length=1024)
    assert fitting_tokens(shape, FP32, work, 2**30, beside=0.5) == 16384
    assert fitting_conversations(shape, FP32, work, 2**30) == 128


def test_more_room_never_fits_less():
    rooms = [2**k for k in range(28, 40)]
    found = [fitting_tokens(SMALL, FP32, PAPER, room) for room in rooms]
    assert found == sorted(found) and found[0] == 1 and found[-1] == 16384
    for tokens, room in zip(found, rooms, strict=True):
        needed = bytes_of(SMALL, FP32, replace(PAPER, micro_batch=tokens)).learning
        assert tokens == 1 or needed <= room


def test_memory_that_is_free_is_less_than_there_is():
    assert 0 < free_bytes("cpu") < 2**50
