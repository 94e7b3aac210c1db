import random

import pytest
import torch

from paw.errors import UserError
from paw.model.decode import draw, uniform_numbers
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.rollout.local import LocalSampler, _common_prefix
from paw.rollout.sampler import SampleRequest, check_entropy

VOCAB = 100
END_IDS = frozenset(range(12))


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def make_policy(**options) -> Policy:
    model = create_policy_model(
        vocab_size=VOCAB,
        hidden_size=32,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        intermediate_size=48,
        max_positions=512,
        seed=0,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)  # opinions: entropies of 1 to 4 nats
    return Policy(model, **options)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return make_policy()


class Passes:
    """Tokens of each pass through the policy's decoder while it is entered."""

    def __init__(self, policy: Policy):
        self.policy = policy

    def __enter__(self) -> list[int]:
        sizes: list[int] = []
        self.hook = self.policy.backbone.register_forward_pre_hook(
            lambda module, args, inputs: sizes.append(inputs["input_ids"].numel()),
            with_kwargs=True,
        )
        return sizes

    def __exit__(self, *_: object) -> None:
        self.hook.remove()


def prompts(num: int, seed: int = 0, low: int = 5, high: int = 40) -> list[tuple[int, ...]]:
    rng = random.Random(seed)
    return [tuple(rng.choices(range(VOCAB), k=rng.randint(low, high))) for _ in range(num)]


def requests_of(rows, turn=0) -> list[SampleRequest]:
    return [SampleRequest(i, tuple(row), (7, 0, i, 0, turn)) for i, row in enumerate(rows)]


def check_against_one_forward(policy, prompt, action):
    """Log-probabilities and entropies of one forward pass over the finished conversation."""
    positions = torch.arange(len(prompt), len(prompt) + len(action.token_ids))
    with torch.no_grad():
        expected = policy.logprobs(pack([prompt + action.token_ids], "cpu"), positions)
    ours = torch.tensor(action.logprobs), torch.tensor(action.entropies)
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize("temperature", [1.0, 0.4, 0.0])
def test_growing_conversations_keep_exact_logprobs(policy, temperature):
    # Ragged observations, conversations that skip turns or end: every kind of row movement.
    rng = random.Random(1)
    sampler = LocalSampler(policy, END_IDS)
    rows = prompts(24)
    for turn in range(5):
        chosen = [r for r in requests_of(rows, turn) if rng.random() < 0.7]
        rng.shuffle(chosen)
        actions = sampler.sample(chosen, temperature=temperature, max_tokens=12)
        for request, action in zip(chosen, actions, strict=True):
            check_against_one_forward(policy, request.prompt_ids, action)
            new = tuple(rng.choices(range(VOCAB), k=rng.randint(1, 30)))
            rows[request.slot] = request.prompt_ids + action.token_ids + new


def test_windows_reuse_what_they_share(policy):
    # The instruction stays, the history behind it slides: only what follows it is read again.
    sampler = LocalSampler(policy, END_IDS)
    instruction, *turns = prompts(6, low=20, high=20)
    for turn, text in enumerate(turns):
        prompt = instruction + text
        request = SampleRequest(3, prompt, (0, turn))
        with Passes(policy) as sizes:
            [action] = sampler.sample([request], temperature=1.0, max_tokens=5)
        check_against_one_forward(policy, prompt, action)
        assert sizes[0] == (20 if turn else 40)


def test_only_new_tokens_are_prefilled(policy):
    sampler = LocalSampler(policy, END_IDS)
    [prompt] = prompts(1)
    with Passes(policy) as sizes:
        [action] = sampler.sample(requests_of([prompt]), temperature=1.0, max_tokens=6)
    # The prompt, then one token at a time; the last one is not read yet.
    assert sizes == [len(prompt)] + [1] * (len(action.token_ids) - 1)
    longer = prompt + action.token_ids + (50, 51, 52)
    with Passes(policy) as sizes:
        sampler.sample(requests_of([longer], 1), temperature=1.0, max_tokens=6)
    assert sizes[0] == 1 + 3


def test_the_same_prompt_again_reads_its_last_token_only(policy):
    sampler = LocalSampler(policy, END_IDS)
    requests = requests_of(prompts(1))
    first = sampler.sample(requests, temperature=1.0, max_tokens=6)
    with Passes(policy) as sizes:
        second = sampler.sample(requests, temperature=1.0, max_tokens=6)
    assert sizes[0] == 1
    assert second[0].token_ids == first[0].token_ids


def test_a_group_prefills_its_prompt_once(policy):
    sampler = LocalSampler(policy, END_IDS)
    rows = [prompt for prompt in prompts(3) for _ in range(4)]
    with Passes(policy) as sizes:
        actions = sampler.sample(requests_of(rows), temperature=1.0, max_tokens=8)
    assert sizes[0] == sum(len(row) for row in rows[::4])
    assert len({action.token_ids for action in actions[:4]}) > 1
    for row, action in zip(rows, actions, strict=True):
        check_against_one_forward(policy, row, action)
    # Each member goes on from a copy of its own.
    longer = [
        row + action.token_ids + (20 + i,)
        for i, (row, action) in enumerate(zip(rows, actions, strict=True))
    ]
    for row, action in zip(
        longer, sampler.sample(requests_of(longer, 1), temperature=1.0, max_tokens=8), strict=True
    ):
        check_against_one_forward(policy, row, action)


def test_equal_prompts_meet_with_unequal_caches(policy):
    # Slot 0 knows the prompt, slot 1 half of it, slot 2 nothing: read once, copied to the others.
    sampler = LocalSampler(policy, END_IDS)
    [prompt] = prompts(1, low=30, high=30)
    first = [SampleRequest(0, prompt, (0,)), SampleRequest(1, (*prompt[:15], 1, 2), (1,))]
    sampler.sample(first, temperature=1.0, max_tokens=3)
    requests = [SampleRequest(slot, prompt, (slot, 1)) for slot in (2, 1, 0)]
    with Passes(policy) as sizes:
        actions = sampler.sample(requests, temperature=1.0, max_tokens=8)
    assert sizes[0] == 1
    for action in actions:
        check_against_one_forward(policy, prompt, action)


def test_a_sample_does_not_depend_on_its_batch(policy):
    requests = requests_of(prompts(64))
    together = LocalSampler(policy, END_IDS).sample(requests, temperature=1.0, max_tokens=10)
    backwards = LocalSampler(policy, END_IDS).sample(
        requests[::-1], temperature=1.0, max_tokens=20
    )[::-1]
    for i in (0, 13, 63):
        request = SampleRequest(0, requests[i].prompt_ids, requests[i].seed)
        [alone] = LocalSampler(policy, END_IDS).sample([request], temperature=1.0, max_tokens=10)
        assert alone.token_ids == together[i].token_ids == backwards[i].token_ids[:10]
        assert alone.finished == together[i].finished


def test_same_seed_same_bits(policy):
    requests = requests_of(prompts(8))
    runs = [
        LocalSampler(policy, END_IDS).sample(requests, temperature=1.0, max_tokens=10)
        for _ in range(2)
    ]
    assert runs[0] == runs[1]
    other = [SampleRequest(r.slot, r.prompt_ids, (8, *r.seed[1:])) for r in requests]
    assert LocalSampler(policy, END_IDS).sample(other, temperature=1.0, max_tokens=10) != runs[0]


def test_actions_end_with_their_end_token_or_are_cut(policy):
    requests = requests_of(prompts(64))
    actions = LocalSampler(policy, END_IDS).sample(requests, temperature=1.0, max_tokens=6)
    for action in actions:
        *inner, last = action.token_ids
        assert not END_IDS & set(inner)
        assert action.finished == (last in END_IDS)
        assert action.finished or len(action.token_ids) == 6
        assert len(action.token_ids) == len(action.logprobs) == len(action.entropies)
    assert {action.finished for action in actions} == {True, False}
    assert len({len(action.token_ids) for action in actions}) > 3


def test_greedy_is_the_models_own_greedy(policy):
    rows = prompts(5)
    actions = LocalSampler(policy, ()).sample(requests_of(rows), temperature=0.0, max_tokens=7)
    for row, action in zip(rows, actions, strict=True):
        ids = torch.tensor([row])
        out = policy.model.generate(ids, do_sample=False, max_new_tokens=7, pad_token_id=0)
        assert tuple(out[0, len(row) :].tolist()) == action.token_ids


def test_generation_config_does_not_interfere(policy):
    requests = requests_of(prompts(8))
    before = LocalSampler(policy, END_IDS).sample(requests, temperature=1.0, max_tokens=8)
    other = make_policy()
    other.model.generation_config.update(
        top_k=1, temperature=0.1, repetition_penalty=2.0, eos_token_id=99, do_sample=True
    )
    after = LocalSampler(other, END_IDS).sample(requests, temperature=1.0, max_tokens=8)
    assert before == after


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_frequencies_are_the_probabilities(temperature):
    # 4000 draws of p = (1/2, 0, 1/3, 1/6) at temperature 1; at temperature 2 of p^(1/2) / sum.
    # Five standard deviations of a frequency are at most 5 sqrt(1/4 / 4000) = 0.04.
    logits = torch.tensor([1 / 2, 0.0, 1 / 3, 1 / 6]).log().clamp(min=-200.0)
    uniforms = uniform_numbers([(0,)], 4000)[0]
    tokens, logprobs, entropies = draw(logits.expand(4000, 4), uniforms, temperature)
    expected = (logits / temperature).softmax(0)
    frequencies = torch.bincount(tokens, minlength=4) / 4000
    torch.testing.assert_close(frequencies, expected, rtol=0, atol=0.04)
    assert frequencies[1] == 0
    # Whatever the temperature of sampling, log-probabilities and entropy are those at 1:
    # H = 1/2 ln 2 + 1/3 ln 3 + 1/6 ln 6.
    torch.testing.assert_close(logprobs, logits[tokens])
    torch.testing.assert_close(entropies, torch.full((4000,), 1.0114042647))


def test_probabilities_that_sum_to_less_than_one_never_draw_an_impossible_token():
    """In fp32 a sum over 2,000 often falls short of 1 - 2^-24, the largest uniform number."""
    generator, num_short = torch.Generator().manual_seed(0), 0
    for _ in range(20):
        logits = torch.randn(1, 2000, generator=generator)
        logits[0, -1] = -torch.inf
        num_short += int(logits.softmax(-1).cumsum(-1)[0, -1] < 1 - 2**-24)
        tokens, _, _ = draw(logits, torch.tensor([1 - 2**-24]), 1.0)
        assert tokens.item() < 1999
    assert num_short > 0


@pytest.mark.parametrize("u", [0.0, 1 - 2**-24])
def test_the_ends_of_the_unit_interval_never_draw_an_impossible_token(u):
    # Tokens 0, 2 and 4 have probability 0: u = 0 must give 1, the largest u below 1 must give 3.
    logits = torch.tensor([[-200.0, 0.0, -200.0, 0.0, -200.0]])
    tokens, _, _ = draw(logits, torch.tensor([u]), 1.0)
    assert tokens.tolist() == [1 if u == 0 else 3]


def test_loading_forgets_old_weights():
    policy = make_policy()
    sampler = LocalSampler(policy, END_IDS)
    requests = requests_of(prompts(4))
    sampler.sample(requests, temperature=1.0, max_tokens=4)
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(0.9)
    sampler.load(policy, 1)
    for request, action in zip(
        requests, sampler.sample(requests, temperature=1.0, max_tokens=4), strict=True
    ):
        check_against_one_forward(policy, request.prompt_ids, action)


def test_loading_another_policy_samples_from_it(policy):
    other = make_policy()
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(0.9)
    sampler, requests = LocalSampler(policy, END_IDS), requests_of(prompts(4))
    sampler.sample(requests, temperature=1.0, max_tokens=4)
    sampler.load(other, 1)
    actions = sampler.sample(requests, temperature=1.0, max_tokens=4)
    for request, action in zip(requests, actions, strict=True):
        check_against_one_forward(other, request.prompt_ids, action)


class SampledOnly(LocalSampler):
    """As an engine that gives the log-probabilities of sampled tokens alone."""

    returns_entropy = False


def test_entropy_that_the_sampler_does_not_return_is_refused(policy):
    without, whole = SampledOnly(policy, ()), LocalSampler(policy, ())
    for old_logprobs, entropy in (("score", "full"), ("rollout", "sampled")):
        check_entropy(without, old_logprobs, entropy)
    check_entropy(whole, "rollout", "full")
    with pytest.raises(UserError, match="returns no entropy") as error:
        check_entropy(without, "rollout", "full")
    assert "\n" not in str(error.value)


def test_max_length_cuts_a_response_and_refuses_a_prompt(policy):
    sampler = LocalSampler(policy, (), max_length=10)
    rows = [tuple(range(7)), tuple(range(5)), tuple(range(2))]
    actions = sampler.sample(requests_of(rows), temperature=1.0, max_tokens=6)
    assert [len(action.token_ids) for action in actions] == [3, 5, 6]
    assert not any(action.finished for action in actions)
    with pytest.raises(UserError, match="max_prompt_tokens"):
        sampler.sample([SampleRequest(0, tuple(range(10)), (0,))], temperature=1.0, max_tokens=1)


def test_long_prefills_are_split(policy):
    # 24 prompts of 400 tokens: 9600 tokens, in two passes of at most 8192.
    rows = prompts(24, low=400, high=400)
    sampler = LocalSampler(policy, ())
    with Passes(policy) as sizes:
        actions = sampler.sample(requests_of(rows), temperature=1.0, max_tokens=2)
    assert sizes == [8000, 1600, 24]
    for i in (0, 19, 20, 23):
        check_against_one_forward(policy, rows[i], actions[i])


def test_bad_calls(policy):
    sampler = LocalSampler(policy, END_IDS)
    assert sampler.sample([], temperature=1.0, max_tokens=4) == []
    with pytest.raises(ValueError, match="one slot"):
        sampler.sample([SampleRequest(0, (1,), (0,))] * 2, temperature=1.0, max_tokens=4)
    with pytest.raises(ValueError, match="empty"):
        sampler.sample([SampleRequest(0, (), (0,))], temperature=1.0, max_tokens=4)


@pytest.mark.parametrize(
    "options", [{"gradient_checkpointing": True}, {"compute_dtype": "bfloat16"}]
)
def test_training_options_do_not_disturb_sampling(options):
    policy = make_policy(**options)
    requests = requests_of(prompts(6))
    actions = LocalSampler(policy, END_IDS).sample(requests, temperature=1.0, max_tokens=6)
    for request, action in zip(requests, actions, strict=True):
        row = request.prompt_ids + action.token_ids
        logprobs, _ = policy.logprobs(
            pack([row], "cpu"), torch.arange(len(request.prompt_ids), len(row))
        )
        logprobs.sum().backward()  # nothing of inference mode is left behind
        tolerance = 0.3 if policy.compute_dtype else 1e-5
        assert (logprobs - torch.tensor(action.logprobs)).abs().max() < tolerance


@pytest.mark.parametrize(
    ("cached", "prompt", "length"),
    [
        ([], (1, 2), 0),
        ([1, 2, 3], (1, 2, 3, 4), 3),
        ([1, 2, 3], (1, 2, 3), 2),
        ([1, 2, 3, 4, 5], (1, 2), 1),
        ([1, 2, 9, 4], (1, 2, 3, 4, 5), 2),
        ([9, 2, 3], (1, 2, 3, 4), 0),
        ([5], (5, 6), 1),
        ([4], (5, 6), 0),
    ],
)
def test_common_prefix(cached, prompt, length):
    assert _common_prefix(cached, prompt) == length


def test_common_prefix_equals_the_plain_loop():
    rng = random.Random(0)
    for _ in range(500):
        cached = rng.choices(range(2), k=rng.randint(0, 12))
        prompt = tuple(rng.choices(range(2), k=rng.randint(1, 12)))
        length = 0
        while length < min(len(cached), len(prompt) - 1) and cached[length] == prompt[length]:
            length += 1
        assert _common_prefix(cached, prompt) == length


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cuda_agrees_with_cpu(policy):
    cuda = make_policy()
    cuda = Policy(cuda.model.to("cuda"))
    requests = requests_of(prompts(16))
    ours = LocalSampler(cuda, END_IDS).sample(requests, temperature=0.0, max_tokens=6)
    theirs = LocalSampler(policy, END_IDS).sample(requests, temperature=0.0, max_tokens=6)
    for a, b in zip(ours, theirs, strict=True):
        assert a.token_ids == b.token_ids
        torch.testing.assert_close(a.logprobs, b.logprobs, rtol=0, atol=1e-3)
