"""Decoding with fixed shapes: the same draws as with shapes that follow the work."""

import random

import pytest
import torch
from test_local import END_IDS, VOCAB, Passes, make_policy, prompts, requests_of

from paw.model.cache import SlotCache
from paw.model.decode import DecodeAttention, FixedDecodeAttention, Sequences
from paw.model.graphs import StepGraphs
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.rollout.fixed import READ_EVERY, bucket
from paw.rollout.local import LocalSampler
from paw.rollout.sampler import SampleRequest


@pytest.fixture(scope="module")
def policy() -> Policy:
    return Policy(make_policy().model.double())


def assert_same(ours, theirs):
    """Equal tokens; numbers to float64's rounding, as other shapes go through other kernels."""
    assert [a.token_ids for a in ours] == [a.token_ids for a in theirs]
    assert [a.finished for a in ours] == [a.finished for a in theirs]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.logprobs, b.logprobs, rtol=0, atol=1e-10)
        torch.testing.assert_close(a.entropies, b.entropies, rtol=0, atol=1e-10)


def test_buckets_are_powers_of_two_and_the_numbers_between():
    assert [bucket(n) for n in (1, 2, 3, 4, 5, 7, 9, 13, 65, 97, 128)] == [
        1, 2, 3, 4, 6, 8, 12, 16, 96, 128, 128,
    ]  # fmt: skip
    assert [bucket(n, 64) for n in (1, 64, 65, 97, 129, 193)] == [64, 64, 96, 128, 192, 256]


@pytest.mark.numerics
@pytest.mark.parametrize("temperature", [1.0, 0.4, 0.0])
def test_conversations_equal_those_of_the_ragged_decoder(policy, temperature):
    """Conversations that skip turns, end, and end early within a turn; 23 is no bucket."""
    rng = random.Random(1)
    fixed = LocalSampler(policy, END_IDS, fixed_shapes=True)
    ragged = LocalSampler(policy, END_IDS)
    rows = prompts(23)
    for turn in range(5):
        chosen = [r for r in requests_of(rows, turn) if rng.random() < 0.7]
        rng.shuffle(chosen)
        ours = fixed.sample(chosen, temperature=temperature, max_tokens=30)
        assert_same(ours, ragged.sample(chosen, temperature=temperature, max_tokens=30))
        assert fixed._cache.tokens == ragged._cache.tokens
        for request, action in zip(chosen, ours, strict=True):
            new = tuple(rng.choices(range(VOCAB), k=rng.randint(1, 30)))
            rows[request.slot] = request.prompt_ids + action.token_ids + new


@pytest.mark.numerics
@pytest.mark.parametrize("max_tokens", [1, 2, READ_EVERY, READ_EVERY + 1, READ_EVERY + 2])
def test_limits_within_and_at_a_read_back(policy, max_tokens):
    requests = requests_of(prompts(6))
    ours = LocalSampler(policy, (), fixed_shapes=True)
    theirs = LocalSampler(policy, ())
    actions = ours.sample(requests, temperature=1.0, max_tokens=max_tokens)
    assert_same(actions, theirs.sample(requests, temperature=1.0, max_tokens=max_tokens))
    assert {len(a.token_ids) for a in actions} == {max_tokens}


@pytest.mark.numerics
def test_idle_rows_touch_no_conversation(policy):
    """Eight conversations, then some of them alone: what the others hold stays, to the bit."""
    sampler = LocalSampler(policy, (), fixed_shapes=True)
    rows = prompts(8)
    requests = requests_of(rows)
    sampler.sample(requests, temperature=1.0, max_tokens=READ_EVERY)

    def held() -> dict[int, torch.Tensor]:
        cache = sampler._cache
        keys = cache._layers[0][0]
        return {s: keys[row, :, : len(cache.tokens[s])].clone() for s, row in cache.rows.items()}

    before = held()
    # Five of eight go on, in a bucket of six rows, the sixth of which is another's.
    again = [SampleRequest(slot, rows[slot] + (1,), (slot, 1)) for slot in (7, 1, 2, 5, 6)]
    sampler.sample(again, temperature=1.0, max_tokens=2 * READ_EVERY)
    after = held()
    for slot in {0, 3, 4}:
        assert torch.equal(before[slot], after[slot])


def test_passes_have_the_size_of_a_bucket_and_shrink_with_the_work(policy):
    """Twenty conversations, one of which has room for 40 tokens and the others for 3: after the
    prompts and a first read-back the one goes on alone."""
    sampler = LocalSampler(policy, (), max_length=60, fixed_shapes=True)
    rows = [tuple(p) for p in prompts(20, low=57, high=57)]
    rows[7] = rows[7][:20]
    with Passes(policy) as sizes:
        actions = sampler.sample(requests_of(rows), temperature=1.0, max_tokens=40)
    assert [len(a.token_ids) for a in actions] == [3] * 7 + [40] + [3] * 12
    # 39 steps: 8 of a bucket of 24 rows, and then the row that goes on, brought to the front.
    assert sizes[1:] == [24] * READ_EVERY + [1] * (39 - READ_EVERY)


def test_no_position_beyond_a_table_of_positions():
    """A response that has ended runs on to the read-back without passing the model's table."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(
        vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=32,
        bos_token_id=None, eos_token_id=None,
    )  # fmt: skip
    policy = Policy(GPT2LMHeadModel(config).double().eval())
    rows = prompts(3, low=29, high=29)
    rows[0] = rows[0][:10]
    ours = LocalSampler(policy, (), fixed_shapes=True)
    actions = ours.sample(requests_of(rows), temperature=1.0, max_tokens=20)
    assert_same(
        actions, LocalSampler(policy, ()).sample(requests_of(rows), temperature=1.0, max_tokens=20)
    )
    assert [len(a.token_ids) for a in actions] == [20, 3, 3]


@pytest.mark.numerics
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({"gradient_checkpointing": True}, 1e-5), ({"compute_dtype": "bfloat16"}, 0.3)],
)
def test_training_options_do_not_disturb_fixed_shapes(options, tolerance):
    policy = make_policy(**options)
    requests = requests_of(prompts(6))
    actions = LocalSampler(policy, END_IDS, fixed_shapes=True).sample(
        requests, temperature=1.0, max_tokens=12
    )
    for request, action in zip(requests, actions, strict=True):
        row = request.prompt_ids + action.token_ids
        positions = torch.arange(len(request.prompt_ids), len(row))
        logprobs, _ = policy.logprobs(pack([row], "cpu"), positions)
        logprobs.sum().backward()  # nothing of inference mode is left behind
        assert (logprobs - torch.tensor(action.logprobs)).abs().max() < tolerance


def test_steps_run_where_nothing_can_be_recorded():
    graphs, count = StepGraphs(torch.device("cpu")), torch.zeros(1)
    for _ in range(3):
        graphs.run("key", lambda: count.add_(1))
    assert count.item() == 3


def test_fixed_attention_is_that_of_the_rows():
    """Rows 0 and 2 of three have 3 and 5 tokens; row 1 is idle and writes to the last column."""
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    caches = []
    kept = some(2, 3, 2, 9, 4)
    for _ in range(2):
        cache = SlotCache()
        cache.place([0, 1, 2])
        cache.reserve(9)
        cache._layers[0] = (kept[0].clone(), kept[1].clone())
        caches.append(cache)
    query, key, value = some(1, 4, 3, 4), some(1, 2, 3, 4), some(1, 2, 3, 4)
    for window in (None, 3):
        fixed = FixedDecodeAttention(caches[0], torch.tensor([3, 0, 5]), torch.tensor([3, 8, 5]), 8)
        ours = fixed(0, query, key, value, 0.5, window=window)
        ragged = DecodeAttention(caches[1], [0, 2], [3, 5], "cpu")
        two = (x[:, :, [0, 2]] for x in (query, key, value))
        theirs = ragged(0, *two, 0.5, window=window)
        torch.testing.assert_close(ours[:, [0, 2]], theirs)
    assert torch.equal(caches[0]._layers[0][0][1, :, :8], kept[0][1, :, :8])


def test_sequences_of_blocks_are_their_rows_up_to_where_they_stop():
    """Blocks (row 2, tokens 1 to 3) and (row 0, tokens 0 to 2)."""
    sequences = Sequences.of([(2, 1, 3), (0, 0, 2)], torch.device("cpu"))
    keys = torch.arange(3 * 1 * 4 * 1).view(3, 1, 4, 1)  # row r, column c holds 4 r + c
    assert sequences.gather(keys).flatten().tolist() == [8, 9, 10, 0, 1]
    assert [x.tolist() for x in sequences.offsets] == [[0, 2, 4], [0, 3, 5]]
    assert sequences.longest == (2, 3)


def test_kept_memory_says_nothing_of_the_conversations_before():
    """Other conversations after `reset`, fewer and longer ones, and after new weights."""
    policy = make_policy()
    sampler = LocalSampler(policy, END_IDS, fixed_shapes=True)
    sampler._may_keep = 2**30
    moves = []
    for update, (seed, num) in enumerate(((0, 6), (1, 6), (2, 3))):
        with torch.no_grad():
            for parameter in policy.parameters():
                parameter.mul_(0.95)
        sampler.load(policy, update)
        requests = requests_of(prompts(num, seed), update)
        ours = sampler.sample(requests, temperature=1.0, max_tokens=12)
        fresh = LocalSampler(policy, END_IDS, fixed_shapes=True)
        theirs = fresh.sample(requests, temperature=1.0, max_tokens=12)
        for a, b in zip(ours, theirs, strict=True):
            assert a.token_ids == b.token_ids
            torch.testing.assert_close(a.logprobs, b.logprobs, rtol=0, atol=1e-4)
        moves.append(sampler._cache.moves)
    assert moves[0] == moves[1] == moves[2] and sampler._cache.num_bytes > 0
    sampler.load(make_policy(), 9)  # another model: nothing of the first one's fits
    assert sampler._cache.num_bytes == 0
    sampler._may_keep = 0
    sampler.sample(requests_of(prompts(2)), temperature=1.0, max_tokens=2)
    sampler.reset()
    assert sampler._cache.num_bytes == 0
