"""What only a GPU shows: CUDA graphs, flash attention over the cache, bf16, peak memory."""

import pytest
import torch

from paw.config.tree import AlgorithmConfig, OptimizerConfig, PawConfig
from paw.model.cache import SlotCache
from paw.model.decode import PrefillAttention
from paw.model.graphs import StepGraphs
from paw.model.head import token_logprobs
from paw.model.packing import SegmentAttention, flash_fits, pack
from paw.model.policy import Policy
from paw.rollout.fixed import FixedDecoder
from paw.rollout.local import LocalSampler
from paw.train.learner import Learner
from paw.train.losses import choose_losses
from rollout.test_local import END_IDS, make_policy, prompts, requests_of
from train.fakes import gradient, tiny_policy
from train.test_learner import sample

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = torch.device("cuda:0")


def on_gpu(dtype: torch.dtype = torch.float32, **options) -> Policy:
    return Policy(make_policy().model.to(CUDA, dtype), **options)


def sampler_of(policy: Policy, graphs: bool) -> tuple[LocalSampler, FixedDecoder]:
    sampler = LocalSampler(policy, END_IDS)
    decoder = sampler._decoder
    assert isinstance(decoder, FixedDecoder) and decoder.graphs.records
    decoder.graphs.records = graphs
    return sampler, decoder


def turns(sampler: LocalSampler, num: int = 3):
    """Growing conversations of 20, of which ever fewer go on."""
    rows, found = prompts(20), []
    for turn in range(num):
        requests = requests_of(rows, turn)[: 20 - 7 * turn]
        actions = sampler.sample(requests, temperature=1.0, max_tokens=30)
        found += actions
        rows = [
            r.prompt_ids + a.token_ids + (50, 51) for r, a in zip(requests, actions, strict=True)
        ]
    return found


@pytest.mark.parametrize(
    "make",
    [
        on_gpu,
        lambda: on_gpu(torch.bfloat16),
        lambda: on_gpu(compute_dtype="bfloat16"),
        lambda: on_gpu(gradient_checkpointing=True),
    ],
    ids=["fp32", "bf16", "autocast", "checkpointing"],
)
def test_graphs_replay_what_eager_steps_do(make):
    """The same kernels on the same tensors; the tolerance is for another choice of kernel."""
    policy = make()
    recorded, decoder = sampler_of(policy, graphs=True)
    ours, theirs = turns(recorded), turns(sampler_of(policy, graphs=False)[0])
    assert decoder.graphs.records and decoder.graphs._graphs
    assert [a.token_ids for a in ours] == [a.token_ids for a in theirs]
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a.logprobs, b.logprobs, rtol=0, atol=1e-4)
        torch.testing.assert_close(a.entropies, b.entropies, rtol=0, atol=1e-4)


def test_a_step_that_reads_back_runs_without_a_graph(capsys):
    graphs, count = StepGraphs(CUDA), torch.zeros(1, device=CUDA)

    def step() -> None:
        count.add_(1)
        count.item()

    stream = torch.cuda.current_stream()
    for _ in range(3):
        graphs.run("key", step)
    assert not graphs.records and count.item() == 3
    assert torch.cuda.current_stream() == stream
    assert capsys.readouterr().err.count("without CUDA graphs") == 1


@pytest.mark.parametrize("moved", [False, True])
def test_graphs_see_new_weights(moved):
    """In place, by the graphs of the last update; or elsewhere, and they are recorded anew."""
    policy = on_gpu()
    sampler, decoder = sampler_of(policy, graphs=True)
    turns(sampler)
    before = set(decoder.graphs._graphs.values())
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.mul_(0.9)
            if moved:
                parameter.data = parameter.data.clone()
    sampler.load(policy, 1)
    turns(sampler, 1)
    kept = before.intersection(decoder.graphs._graphs.values())
    assert bool(kept) != moved
    sampler.load(policy, 2)
    expected = turns(LocalSampler(Policy(policy.model.cpu()), END_IDS), 1)
    policy.model.to(CUDA)
    for a, b in zip(turns(sampler, 1), expected, strict=True):
        assert a.token_ids == b.token_ids
        torch.testing.assert_close(a.logprobs, b.logprobs, rtol=0, atol=1e-3)


def test_fixed_shapes_equal_ragged_ones():
    policy = on_gpu()
    ours = turns(sampler_of(policy, graphs=True)[0])
    theirs = turns(LocalSampler(policy, END_IDS, fixed_shapes=False))
    for a, b in zip(ours, theirs, strict=True):
        assert a.token_ids == b.token_ids
        torch.testing.assert_close(a.logprobs, b.logprobs, rtol=0, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_learner_finds_what_the_sampler_said(dtype):
    """On-policy: the ratio is 1 up to rounding; in bf16 a logit of 8 is known to 2^-5."""
    policy = on_gpu(dtype)
    rows = prompts(8)
    actions = LocalSampler(policy, END_IDS).sample(
        requests_of(rows), temperature=1.0, max_tokens=20
    )
    for row, action in zip(rows, actions, strict=True):
        whole = row + action.token_ids
        positions = torch.arange(len(row), len(whole), device=CUDA)
        with torch.no_grad():
            logprobs, entropy = policy.logprobs(pack([whole], CUDA), positions)
        tolerance = 1e-3 if dtype == torch.float32 else 0.3
        assert (logprobs.cpu() - torch.tensor(action.logprobs)).abs().max() < tolerance
        assert (entropy.cpu() - torch.tensor(action.entropies)).abs().max() < tolerance


@pytest.mark.parametrize("window", [None, 7])
def test_flash_prefill_is_the_loop_over_blocks(window):
    """Blocks that begin a row, go on with it by many tokens and by one; grouped heads. bf16 keeps 8
    bits: values of size 1 agree to 2^-6."""
    generator = torch.Generator().manual_seed(0)

    def some(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator).bfloat16().float()

    blocks = [(3, 0, 20), (0, 11, 30), (2, 40, 41)]
    count, kept = 20 + 19 + 1, some(2, 4, 2, 48, 16)
    query, key, value = some(1, 6, count, 16), some(1, 2, count, 16), some(1, 2, count, 16)
    found = []
    for device, dtype in (("cpu", torch.float32), (CUDA, torch.bfloat16)):
        cache = SlotCache()
        cache.place(range(4))
        cache.reserve(48)
        cache._layers[0] = (kept[0].to(device, dtype), kept[1].to(device, dtype))
        inputs = [x.to(device, dtype) for x in (query, key, value)]
        assert flash_fits(inputs[0], inputs[2]) == (device == CUDA)
        attend = PrefillAttention(cache, blocks, device)
        found.append(attend(0, *inputs, 0.25, window=window).float().cpu())
    torch.testing.assert_close(*found, rtol=0, atol=2**-6)


@pytest.mark.parametrize("window", [None, 7])
def test_flash_rows_and_their_gradients_are_those_of_the_loop(window):
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, 6, 40, 16), (1, 2, 40, 16), (1, 2, 40, 16), (1, 40, 6, 16)]
    tensors = [torch.randn(*s, generator=generator).bfloat16().float() for s in shapes]
    found = []
    for device, dtype in (("cpu", torch.float32), (CUDA, torch.bfloat16)):
        *inputs, weights = (x.to(device, dtype) for x in tensors)
        inputs = [x.requires_grad_() for x in inputs]
        out = SegmentAttention((0, 25, 26, 40))(0, *inputs, 0.25, window=window)
        grads = torch.autograd.grad((out * weights).sum(), inputs)
        found.append([x.detach().float().cpu() for x in (out, *grads)])
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=2**-5, atol=2**-5)


def test_learner_on_a_gpu_has_the_gradient_of_the_cpu():
    samples = [sample(), sample(0.25, 0.0)]
    losses = choose_losses(AlgorithmConfig(), PawConfig(loss="ce"))
    policies = [Policy(tiny_policy(0, torch.float32).model.to(d)) for d in ("cpu", CUDA)]
    subjects = [Learner(policy, None, losses, OptimizerConfig()) for policy in policies]
    totals = [s.policy_gradient(samples).total("policy_loss") for s in subjects]
    assert totals[0] == pytest.approx(totals[1], rel=1e-4)
    cpu, gpu = (gradient(s.policy.parameters()) for s in subjects)
    torch.testing.assert_close(gpu.cpu(), cpu, rtol=1e-3, atol=1e-5)


def test_head_at_a_large_vocabulary_never_holds_all_logits():
    """4,096 positions of V = 151,936 are 2.3 GiB of logits in fp32. At once there are 2^26 of them,
    256 MiB in fp32, a few times over, and the weight's gradient, twice: 151,936 x 256 x (4 + 2)."""
    generator = torch.Generator(CUDA).manual_seed(0)
    shapes = (4096, 256), (151_936, 256)
    hidden, weight = (
        torch.randn(*s, generator=generator, device=CUDA, dtype=torch.bfloat16).requires_grad_()
        for s in shapes
    )
    targets = torch.randint(151_936, (4096,), generator=generator, device=CUDA)
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    token_logprobs(hidden, weight, targets)[0].sum().backward()
    peak = torch.cuda.max_memory_allocated() - before
    assert peak < 5 * 2**28 + 151_936 * 256 * 6 + 2**26


def test_shared_beginnings_through_flash():
    """Queries fewer than keys. In bf16 log-probs of about 6 are known to 2^-5 each way."""
    policy = on_gpu(torch.bfloat16)
    begin = list(prompts(1)[0]) * 8
    rows = [begin + list(row) for row in prompts(6)]
    found = []
    for share in (False, True):
        packed = pack(rows, CUDA, share)
        positions = packed.position_ids.nonzero().squeeze(1)
        logprobs, _ = policy.logprobs(packed, positions)
        logprobs.sum().backward()
        found.append((logprobs.detach(), gradient(policy.parameters()).float()))
    assert packed.num_computed < 0.7 * len(packed.token_ids)
    (whole, expected), (shared, ours) = found
    torch.testing.assert_close(shared, whole, rtol=0, atol=0.1)
    assert float((ours - expected).norm() / expected.norm()) < 0.05
