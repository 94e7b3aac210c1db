"""Beginnings that rows have in common are computed once: which, and that nothing else changes."""

import pytest
import torch
from tiny_models import VOCAB, build

from paw.model.critic import Critic
from paw.model.packing import PIECE, pack
from paw.model.policy import Policy
from paw.model.prefixes import LEAST, find_prefixes

ALIKE = list(range(LEAST))
FIRST = [*ALIKE, 30, 31, 32]
SECOND = [*ALIKE, 30, 31, 40, 41]
THIRD = [*ALIKE, 50]
OTHER = [9, 8, 7]


def test_a_row_computes_what_no_earlier_row_has():
    """SECOND has 18 tokens of FIRST, THIRD 16 of both; 19 + 3 + 2 + 1 are computed."""
    prefixes = find_prefixes([FIRST, OTHER, SECOND, THIRD], [99] * 4)
    assert prefixes is not None
    assert prefixes.starts == (0, 0, 18, 16)
    assert prefixes.computed.tolist() == [*range(19), *range(19, 22), 40, 41, 58]
    assert prefixes.places.tolist() == [
        *range(19), *range(19, 22), *range(18), 22, 23, *range(16), 24
    ]  # fmt: skip


def test_a_row_may_go_on_from_what_another_went_on_with():
    """The last has 16 tokens of FIRST and two more of SECOND's own."""
    prefixes = find_prefixes([FIRST, SECOND, [*SECOND, 60]], [99] * 3)
    assert prefixes is not None and prefixes.starts == (0, 18, 20)
    assert prefixes.places.tolist()[-21:] == [*range(18), 19, 20, 21]


def test_what_stands_behind_the_base_is_not_shared():
    rows = [FIRST, FIRST, THIRD]
    prefixes = find_prefixes(rows, [17, 18, 17])
    assert prefixes is not None and prefixes.starts == (0, 17, 16)
    # Another target behind the same base changes no place of the base.
    other = find_prefixes([FIRST, [*FIRST[:18], 77], THIRD], [17, 18, 17])
    assert other is not None and other.starts == prefixes.starts
    assert torch.equal(other.places, prefixes.places)


def test_equal_rows_leave_a_token_to_each():
    prefixes = find_prefixes([FIRST, FIRST], [99, 99])
    assert prefixes is not None and prefixes.starts == (0, len(FIRST) - 1)


@pytest.mark.parametrize("rows", [[OTHER, FIRST], [OTHER * 5, OTHER * 4], [FIRST]])
def test_short_beginnings_are_not_worth_it(rows):
    assert find_prefixes(rows, [99] * len(rows)) is None


def test_packs_are_shared_only_when_asked():
    whole = pack([FIRST, SECOND], "cpu")
    shared = pack([FIRST, SECOND], "cpu", True)
    assert whole.prefixes is None and whole.num_computed == 39 and shared.num_computed == 21
    assert torch.equal(shared.token_ids, whole.token_ids)
    ids, positions = shared.inputs()
    assert ids.tolist() == [*FIRST, 40, 41] and positions.tolist() == [*range(19), 18, 19]


def tree_of_rows(*lengths: int) -> list[list[int]]:
    """Rows that share ever less, the longest longer than two pieces of attention."""
    generator = torch.Generator().manual_seed(0)
    trunk = torch.randint(VOCAB, (max(lengths),), generator=generator).tolist()
    tails = [torch.randint(VOCAB, (n,), generator=generator).tolist() for n in lengths]
    return [trunk[: n // 2] + tail for n, tail in zip(lengths, tails, strict=True)]


@pytest.mark.numerics
@pytest.mark.parametrize("window", [None, 24], ids=["full", "sliding"])
def test_shared_equals_whole(window):
    """A model of transformers rounds its norms to fp32; hidden states are about 1 (see
    test_packing): gradients of 1,500 tokens sum up to 1,500 such roundings."""
    options = {"use_sliding_window": True, "sliding_window": window, "max_window_layers": 0}
    policy = Policy(build("qwen2", **(options if window else {})).double())
    rows = tree_of_rows(40, 2 * PIECE + 90, 60, 33)
    assert len(rows[1]) - len(rows[0]) // 2 > 2 * PIECE
    found = []
    for share in (False, True):
        packed = pack(rows, "cpu", share)
        assert (packed.prefixes is not None) == share
        positions = packed.position_ids.nonzero().squeeze(1)
        logprobs, entropy = policy.logprobs(packed, positions)
        weights = torch.linspace(-1, 1, len(positions), dtype=torch.float64)
        gradients = torch.autograd.grad((weights * logprobs).sum(), policy.parameters())
        found.append((logprobs, entropy, torch.cat([g.flatten() for g in gradients])))
    for whole, shared in zip(*found, strict=True):
        torch.testing.assert_close(
            shared, whole, rtol=0, atol=1e-5 * whole.detach().abs().max().item()
        )


@pytest.mark.numerics
def test_narrow_beginnings_sum_wide():
    """Products in bf16 (8 bits): values within 2^-8 of fp32, times a few layers."""
    model = build("qwen2")
    rows = tree_of_rows(*[40] * 8)
    gradients = []
    for share in (False, True):
        policy = Policy(model, compute_dtype="bfloat16")
        packed = pack(rows, "cpu", share)
        logprobs, _ = policy.logprobs(packed, packed.position_ids.nonzero().squeeze(1))
        found = torch.autograd.grad(logprobs.sum(), policy.parameters())
        gradients.append(torch.cat([g.flatten() for g in found]))
    whole, shared = gradients
    assert float((whole - shared).norm() / whole.norm()) < 0.03


def test_values_of_shared_rows():
    critic = Critic.from_policy(Policy(build("qwen2")))
    torch.nn.init.ones_(critic.head.weight)
    positions = torch.tensor([18, 36, 38])
    whole, shared = (
        critic.values(pack([FIRST, SECOND], "cpu", share), positions) for share in (False, True)
    )
    torch.testing.assert_close(shared, whole, rtol=0, atol=1e-4)
