"""The real vLLM as the sampler, on a CPU: docs/vllm.md says how to install it."""

import importlib.util
import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

if importlib.util.find_spec("vllm") is None:  # not imported here: settings come before it
    pytest.skip("vLLM is not installed: docs/vllm.md", allow_module_level=True)

from paw.cli import main
from paw.config.read import resolve
from paw.errors import RunFailure, UserError
from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.rollout.engine import EngineSampler, _learners
from paw.rollout.local import LocalSampler
from paw.rollout.ranks import ALONE
from paw.rollout.sampler import SampleRequest
from paw.rollout.vllm import NEVER, vllm_sampler
from paw.rollout.vllm_server import server_sampler
from paw.types import SampledAction

pytestmark = [pytest.mark.vllm, pytest.mark.filterwarnings("ignore")]

VOCAB, END_IDS = 200, (0, 1, 2, 3)
FLAGS = ["--rollout.max_prompt_tokens", "200", "--rollout.max_response_tokens", "56"]


def make_policy(num_heads: int = 2) -> Policy:
    """Random weights with opinions."""
    model = create_policy_model(
        vocab_size=VOCAB, hidden_size=128, num_layers=2, num_heads=num_heads, num_kv_heads=1,
        intermediate_size=192, max_positions=512, seed=0,
    )  # fmt: skip
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.mul_(1 if "norm" in name else 3)
    return Policy(model)


@pytest.fixture(scope="module")
def policy() -> Policy:
    return make_policy()


@pytest.fixture(scope="module")
def sampler(policy: Policy) -> EngineSampler:
    """One for all tests: an engine stays until its process ends."""
    before = torch.random.get_rng_state(), torch.get_num_threads()
    made = vllm_sampler(resolve([], FLAGS), policy, END_IDS)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert torch.get_num_threads() == before[1]
    return made


def requests(num: int = 16) -> list[SampleRequest]:
    """Prompts of 5 to 20 tokens; every fourth is the one before it, as in a group."""
    generator = torch.Generator().manual_seed(2)
    ids = torch.randint(4, VOCAB, (num, 20), generator=generator).tolist()
    rows = [tuple(ids[i - (i % 4 == 3)][: 5 + (i - (i % 4 == 3)) % 16]) for i in range(num)]
    return [SampleRequest(i, row, (7, 0, 1, i, 0)) for i, row in enumerate(rows)]


def check(policy: Policy, sampler: EngineSampler, temperature: float) -> list[SampledAction]:
    """Each action's log-probs are those of one forward pass of the learner, at temperature 1."""
    actions = sampler.sample(requests(), temperature=temperature, max_tokens=12)
    for request, action in zip(requests(), actions, strict=True):
        row = [*request.prompt_ids, *action.token_ids]
        expected = _learners(policy, [row])[len(request.prompt_ids) - 1 :]
        assert action.logprobs == pytest.approx(expected, abs=1e-4)
    ended = [a.finished for a in actions]
    assert ended == [a.token_ids[-1] in END_IDS for a in actions]
    return actions


@pytest.mark.parametrize("temperature", [1.0, 0.4, 0.0])
def test_logprobs_are_those_of_temperature_one(policy, sampler, temperature):
    actions = check(policy, sampler, temperature)
    assert len({len(a.token_ids) for a in actions}) > 1 or temperature == 0


def test_the_most_likely_tokens_are_those_of_the_local_sampler(policy, sampler):
    ours, theirs = (
        [a.token_ids for a in one.sample(requests(), temperature=0.0, max_tokens=12)]
        for one in (LocalSampler(policy, END_IDS), sampler)
    )
    assert ours == theirs


def test_a_sample_depends_on_its_seed_alone(sampler):
    first, again = (
        [a.token_ids for a in sampler.sample(requests(), temperature=1.0, max_tokens=12)]
        for _ in range(2)
    )
    assert first == again
    assert any(first[i] != first[i - 1] for i in range(3, 16, 4))  # of one prompt
    backwards = sampler.sample(requests()[::-1], temperature=1.0, max_tokens=12)[::-1]
    assert [a.token_ids for a in backwards] == first
    for request, ids in zip(requests()[:3], first, strict=False):
        (alone,) = sampler.sample([request], temperature=1.0, max_tokens=12)
        assert alone.token_ids == ids


def test_more_than_vllm_reads_at_once(policy, sampler):
    """400 prompts of 190 tokens: they queue, and each draws what it draws alone."""
    generator = torch.Generator().manual_seed(3)
    ids = torch.randint(4, VOCAB, (400, 190), generator=generator).tolist()
    asked = [SampleRequest(i, tuple(row), (8, i)) for i, row in enumerate(ids)]
    actions = sampler.sample(asked, temperature=1.0, max_tokens=4)
    for i in (0, 21, 22, 100, 399):  # 21 fit into 4096 tokens
        (alone,) = sampler.sample([asked[i]], temperature=1.0, max_tokens=4)
        assert alone.token_ids == actions[i].token_ids
        row = [*asked[i].prompt_ids, *actions[i].token_ids]
        assert actions[i].logprobs == pytest.approx(_learners(policy, [row])[189:], abs=1e-4)


def test_new_weights_are_taken_over_in_place(policy, sampler):
    """Also small ones, also after samples filled the prefix cache; and back."""
    old = {n: t.clone() for n, t in policy.model.state_dict().items()}
    check(policy, sampler, 1.0)
    for version, size in enumerate((1e-4, 0.05), start=1):
        with torch.no_grad():
            for p in policy.parameters():
                p.add_(size * torch.randn_like(p))
        sampler.load(policy, version)
        check(policy, sampler, 1.0)
    policy.model.load_state_dict(old)
    sampler.load(policy, 3)
    check(policy, sampler, 1.0)


def test_weights_that_do_not_arrive_end_the_run(policy, sampler, monkeypatch):
    old = {n: t.clone() for n, t in policy.model.state_dict().items()}
    with torch.no_grad():
        for p in policy.parameters():
            p.add_(1e-3 * torch.randn_like(p))
    monkeypatch.setattr(sampler.engine, "take", lambda weights: None)
    with pytest.raises(RunFailure, match="still computes with the weights of update 3"):
        sampler.load(policy, 4)
    policy.model.load_state_dict(old)


def test_rows_that_are_no_token_are_never_drawn(sampler, monkeypatch):
    """Here tokens stand for them which the policy likes."""
    actions = sampler.sample(requests(64), temperature=1.0, max_tokens=12)
    times = Counter(i for a in actions for i in a.token_ids if i not in END_IDS)
    liked = [i for i, _ in times.most_common(3)]
    assert times[liked[2]] > 5
    monkeypatch.setattr(sampler.engine, "bias", dict.fromkeys(liked, NEVER))
    for temperature in (1.0, 0.0):
        actions = sampler.sample(requests(64), temperature=temperature, max_tokens=12)
        assert not set(liked) & {i for a in actions for i in a.token_ids}


def test_what_vllm_cannot_compute_is_refused(policy):
    wide, odd = Policy(make_policy().model.double()), make_policy(num_heads=8)  # of 16 each
    for one, line in ((wide, "computes no float64"), (odd, "cannot play this policy: .*head_dim")):
        with pytest.raises(UserError, match=line):
            vllm_sampler(resolve([], FLAGS), one, END_IDS)


TRAIN = [
    "--run.updates", "3", "--run.checkpoint_every", "2", "--rollout.groups", "2",
    "--rollout.group_size", "4", "--rollout.max_turns", "6", "--eval.every", "3",
    "--eval.episodes", "8", "--rollout.sampler", "vllm", "--algorithm.old_logprobs", "score",
    "--algorithm.importance_cap", "2", "--optimizer.learning_rate", "1e-3",
]  # fmt: skip


@pytest.fixture(scope="module")
def household(tmp_path_factory) -> Path:
    """A policy that has seen the household a little; the shipped one's heads are too small for
    vLLM's CPU kernels."""
    output = tmp_path_factory.mktemp("household") / "policy"
    flags = [
        "--imitate.from_scratch", "true", "--imitate.hidden_size", "128", "--imitate.num_heads",
        "2", "--imitate.num_kv_heads", "1", "--imitate.num_layers", "2", "--imitate.steps", "60",
        "--imitate.demonstrations", "100", "--imitate.batch_episodes", "8",
        "--imitate.learning_rate", "3e-3", "--eval.episodes", "1", "--rollout.workers", "0",
    ]  # fmt: skip
    assert main(["imitate", *flags, "--imitate.output", str(output)]) == 0
    return output


def train(policy: Path, directory: Path, *flags: str, ranks: int = 1) -> list[dict]:
    """Metrics of `paw train` on the household, without seconds and bytes."""
    torchrun = ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={ranks}"]
    launch = torchrun if ranks > 1 else []
    places = ["--model.path", str(policy), "--run.directory", str(directory)]
    done = subprocess.run(
        [sys.executable, *launch, "-m", "paw", "train", *TRAIN, *places, *flags],
        capture_output=True, text=True, timeout=600, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    rows = [json.loads(line) for line in (directory / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if not k.startswith(("time/", "memory/"))} for r in rows]


def test_a_whole_training(household: Path, tmp_path: Path):
    """Sampler and learner agree in every update; the same command again is the same run, also
    stopped after its second update; LoRA is handed over merged."""
    rows = train(household, tmp_path / "one")
    assert len(rows) == 3 and rows[-1]["eval/success_rate"] is not None
    for row in rows:
        assert row["tokens/sampled"] > 100 and row["rollout/valid_action_rate"] > 0.1
        assert row["sampler/logprob_difference_max"] < 1e-3
        assert row["model/forwards"] == 2 and row["policy/gradient_norm"] > 0
    train(household, tmp_path / "two", "--run.updates", "2", "--eval.every", "0")
    again = train(household, tmp_path / "two")
    assert again == rows
    adapted = train(
        household, tmp_path / "lora", "--model.lora_rank", "4", "--run.updates", "2",
        "--algorithm.old_logprobs", "rollout", "--paw.entropy", "sampled",
    )  # fmt: skip
    assert all("sampler/logprob_difference_max" not in row for row in adapted)


def test_two_processes_are_one(household: Path, tmp_path: Path):
    """Each has a vLLM of its own and plays its share; the same run up to rounding."""
    keys = ("--run.updates", "2", "--eval.every", "0", "--rollout.group_size", "3")
    one = train(household, tmp_path / "one", *keys)
    two = train(household, tmp_path / "two", *keys, "--parallel.mode", "shard", ranks=2)
    for row, other in zip(one, two, strict=True):
        for name in ("tokens/sampled", "rollout/turns_mean", "model/forwards"):
            assert row[name] == other[name]
        assert other["policy/gradient_norm"] == pytest.approx(row["policy/gradient_norm"], rel=1e-3)
        assert other["sampler/logprob_difference_max"] < 1e-3


@pytest.fixture(scope="module")
def url(household: Path, tmp_path_factory) -> Iterator[str]:
    """`vllm serve`, as docs/vllm.md says, on the first household policy."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    settings = {
        "VLLM_SERVER_DEV_MODE": "1", "VLLM_CPU_KVCACHE_SPACE": "1", "OMP_NUM_THREADS": "1",
        "VLLM_CPU_OMP_THREADS_BIND": "nobind", "VLLM_NO_USAGE_STATS": "1",
        "PYTHONPATH": str(Path(__file__).parent),
    }  # fmt: skip
    command = [  # what `vllm serve` runs, whose script wants a package named vllm
        sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", str(household),
        "--host", "127.0.0.1", "--port", str(port), "--tokens-only", "--dtype", "float32",
        "--max-model-len", "2048", "--no-enable-chunked-prefill", "--enforce-eager",
        "--worker-extension-cls", "plain_linear.PlainLinear",
    ]  # fmt: skip
    log = tmp_path_factory.mktemp("server") / "log"
    with log.open("wb") as file:
        server = subprocess.Popen(command, env=os.environ | settings, stdout=file, stderr=file)
    try:
        for _ in range(600):
            assert server.poll() is None, log.read_text()[-3000:]
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5).close()
                break
            except OSError:
                time.sleep(1)
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(60)


def test_a_server_samples_as_an_engine_does(household: Path, url: str, tmp_path: Path):
    """Log-probs at temperature 1, a seed each, small and large changes of weights taken over."""
    policy = Policy.load(str(household))
    config = resolve([], [*FLAGS, "--rollout.vllm_server", url])
    outside = server_sampler(config, policy, END_IDS, ALONE, tmp_path)
    outside.load(policy, 0)
    for version, size in enumerate((0.0, 1e-4, 0.02), start=1):
        before = outside._seen
        with torch.no_grad():
            for p in policy.parameters():
                p.add_(size * torch.randn_like(p))
        outside.load(policy, version)
        assert before is not None and outside._seen is not None
        assert (outside._seen.theirs != before.theirs) == (size > 0)
        for temperature in (1.0, 0.4, 0.0):
            check(policy, outside, temperature)
    first = outside.sample(requests(), temperature=1.0, max_tokens=12)
    for request, action in zip(requests()[:3], first, strict=False):
        (alone,) = outside.sample([request], temperature=1.0, max_tokens=12)
        assert alone.token_ids == action.token_ids
    assert not list(tmp_path.iterdir())


def test_training_by_a_server_is_that_by_an_engine(household: Path, url: str, tmp_path: Path):
    """The same tokens; also where two ranks ask the same server, and one hands over for both."""
    keys = ("--run.updates", "2", "--eval.every", "0", "--rollout.group_size", "3")
    inside = train(household, tmp_path / "inside", *keys)
    asked = (*keys, "--rollout.vllm_server", url)
    alone = train(household, tmp_path / "alone", *asked)
    shared = train(household, tmp_path / "shared", *asked, "--parallel.mode", "shard", ranks=2)
    for row, *others in zip(inside, alone, shared, strict=True):
        for other in others:
            for name in ("tokens/sampled", "rollout/turns_mean", "model/forwards"):
                assert row[name] == other[name]
            norms = [x["policy/gradient_norm"] for x in (row, other)]
            assert norms[1] == pytest.approx(norms[0], rel=1e-3)
            assert other["sampler/logprob_difference_max"] < 1e-3
