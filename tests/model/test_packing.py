from types import SimpleNamespace

import pytest
import torch
from tiny_models import VOCAB, build

from paw.model.packing import (
    SegmentAttention,
    _attention,
    pack,
    packed_hidden,
    use_packed_attention,
)
from paw.model.policy import Policy


def random_rows(*lengths, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randint(VOCAB, (n,), generator=generator).tolist() for n in lengths]


def hidden_of(model, rows):
    packed = pack(rows, "cpu")
    attend = SegmentAttention(packed.boundaries)
    hidden = packed_hidden(model.base_model, packed.token_ids, packed.position_ids, attend)
    return hidden.split([len(row) for row in rows])


def test_pack_lays_rows_end_to_end():
    packed = pack([[5, 6, 7], [8], [9, 9]], "cpu")
    assert packed.token_ids.tolist() == [5, 6, 7, 8, 9, 9]
    assert packed.position_ids.tolist() == [0, 1, 2, 0, 0, 1]
    assert packed.boundaries == (0, 3, 4, 6)
    assert packed.num_rows == 3


def test_a_model_that_names_no_scale_gets_the_usual_one():
    """Heads of 16: 16 ** -0.5 = 0.25."""
    scales = []

    def attend(layer, query, key, value, scaling, *, window):
        scales.append(scaling)
        return query

    query = torch.zeros(1, 1, 2, 16)
    for given in (None, 0.5):
        _attention(SimpleNamespace(layer_idx=0), query, query, query, None, attend, given)
    assert scales == [0.25, 0.5]


@pytest.mark.parametrize("rows", [[], [[1], []]])
def test_pack_refuses_nothing(rows):
    with pytest.raises(ValueError, match="empty"):
        pack(rows, "cpu")


def test_packed_rows_equal_separate_rows(model):
    """Up to rounding: a matrix product of more rows may go through another kernel, and attention's
    sums follow the instruction set. A hidden state is about 1, a sum of 32 terms of 2^-24 each
    times two layers' amplification stays far below 1e-5."""
    rows = random_rows(60, 150, 33, 4, 77, 1, 2, 3)
    plain = [model.base_model(torch.tensor([row])).last_hidden_state[0] for row in rows]
    use_packed_attention(model)
    for ours, alone, theirs in zip(
        hidden_of(model, rows), (hidden_of(model, [row])[0] for row in rows), plain, strict=True
    ):
        torch.testing.assert_close(ours, alone, rtol=0, atol=1e-5)
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_the_same_pack_gives_the_same_bits(model):
    use_packed_attention(model)
    rows = random_rows(60, 150, 33, 4, 77)
    for ours, again in zip(hidden_of(model, rows), hidden_of(model, rows), strict=True):
        assert torch.equal(ours, again)


def test_gradients_of_packed_rows_equal_the_sum_over_rows(model):
    model.double()
    use_packed_attention(model)
    rows = random_rows(20, 7, 31)
    parameters = list(model.base_model.parameters())
    together = torch.autograd.grad(
        sum(h.square().sum() for h in hidden_of(model, rows)), parameters
    )
    alone = [
        torch.autograd.grad(hidden_of(model, [row])[0].square().sum(), parameters) for row in rows
    ]
    # RMSNorm runs in fp32 even in a float64 model.
    for whole, *parts in zip(together, *alone, strict=True):
        torch.testing.assert_close(whole, sum(parts), rtol=1e-5, atol=1e-4)


def test_a_row_cannot_read_its_neighbours(model):
    use_packed_attention(model)
    first, middle, last = random_rows(12, 9, 15)
    other, _, another = random_rows(12, 9, 15, seed=1)
    before = hidden_of(model, [first, middle, last])[1]
    after = hidden_of(model, [other, middle, another])[1]
    assert torch.equal(before, after)


def test_observation_cannot_move_action_logprobs(model):
    # Causality to the bit: another observation of the same length behind the same action.
    policy = Policy(model)
    (prompt_and_action, observation, other) = random_rows(40, 25, 25)
    positions = torch.arange(30, 40)
    results = [
        policy.logprobs(pack([prompt_and_action + tail], "cpu"), positions)
        for tail in (observation, other)
    ]
    assert torch.equal(results[0][0], results[1][0]) and torch.equal(results[0][1], results[1][1])


def test_generate_still_works_on_padded_batches(model):
    short, long = random_rows(6, 14)
    ids = torch.tensor([[0] * 8 + short, long])
    mask = torch.tensor([[0] * 8 + [1] * 6, [1] * 14])
    options = {"attention_mask": mask, "do_sample": False, "max_new_tokens": 5, "pad_token_id": 0}
    before = model.generate(ids, **options)
    use_packed_attention(model)
    assert torch.equal(model.generate(ids, **options), before)


@pytest.mark.parametrize("window", [1, 2, 5, 24, 25])
def test_sliding_windows_are_those_of_the_model(window):
    """Rows below, at and beyond the window, whole pieces of it and a rest; the first layer full."""
    model = build("qwen2", use_sliding_window=True, sliding_window=window, max_window_layers=1)
    rows = random_rows(20, 24, 25, 26, 48, 61, 1)
    plain = [model.base_model(torch.tensor([row])).last_hidden_state[0] for row in rows]
    use_packed_attention(model)
    for ours, theirs in zip(hidden_of(model, rows), plain, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)


def test_gradients_within_sliding_windows_are_those_of_the_model():
    options = {"use_sliding_window": True, "sliding_window": 5, "max_window_layers": 1}
    model = build("qwen2", **options).double()
    parameters = list(model.base_model.parameters())
    rows = random_rows(12, 23, 5)
    plain = sum(model.base_model(torch.tensor([r])).last_hidden_state.square().sum() for r in rows)
    expected = torch.autograd.grad(plain, parameters)
    use_packed_attention(model)
    ours = torch.autograd.grad(sum(h.square().sum() for h in hidden_of(model, rows)), parameters)
    # RMSNorm runs in fp32 even in a float64 model.
    for a, b in zip(ours, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-4)
