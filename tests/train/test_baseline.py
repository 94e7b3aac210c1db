"""Whole runs on the household: PaW at weight 0 is the baseline, and runs repeat, to the bit."""

from pathlib import Path

import pytest
import torch

from paw.config.read import resolve
from paw.envs import make
from paw.errors import RunFailure
from paw.model.small import create_policy_model
from paw.text.tokenizer import make_tokenizer
from paw.train.loop import train

from .tiny_runs import metrics

NUM_TASKS = 2
ALGORITHMS = ("grpo", "rloo", "gigpo", "ppo")


@pytest.fixture(scope="module")
def policy(tmp_path_factory) -> Path:
    """From scratch, one layer of 16; says a command of the household, one token each, now and then.

    Widened embeddings of the command tokens make some of them likely: without a valid turn now and
    then every advantage would be 0, and the baseline a run that stands still.
    """
    directory = tmp_path_factory.mktemp("policy")
    source = make("household", split="train", num_tasks=NUM_TASKS)
    phrases = {c for task in source for c in source.open(task).reset().commands}
    tokenizer = make_tokenizer([], sorted(phrases))
    model = create_policy_model(
        vocab_size=len(tokenizer), hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1,
        intermediate_size=32, max_positions=2048, seed=0,
    )  # fmt: skip
    with torch.no_grad():
        ids = [tokenizer.convert_tokens_to_ids(p) for p in sorted(phrases)]
        model.get_input_embeddings().weight[ids] *= 40
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    return directory


@pytest.fixture
def run(policy, tmp_path):
    """Trains under `name` and returns the run's directory; options as `rollout__context`."""

    def run_(name: str, **options) -> Path:
        settings = {
            "run.directory": tmp_path / name, "run.updates": 2, "run.save_trajectories_every": 0,
            "env.num_tasks": NUM_TASKS, "model.path": policy,
            "rollout.groups": 2, "rollout.group_size": 3, "rollout.max_turns": 3,
            "rollout.workers": 0, "rollout.response_format": "command",
            "rollout.max_response_tokens": 1, "rollout.max_prompt_tokens": 1500,
            "paw.max_observation_tokens": 40, "optimizer.learning_rate": 1e-2,
            "optimizer.mini_batches": 2, "optimizer.tokens_per_micro_batch": 700,
        }  # fmt: skip
        settings |= {key.replace("__", "."): value for key, value in options.items()}
        flags = [x for key, value in settings.items() for x in (f"--{key}", str(value).lower())]
        # Paths keep their case.
        flags[1], flags[flags.index("--model.path") + 1] = str(tmp_path / name), str(policy)
        train(resolve([], flags))
        return tmp_path / name

    return run_


def final(run: Path) -> tuple[bytes, dict]:
    """Weights by their bytes, and the trainer's state."""
    checkpoint = sorted((run / "checkpoints").iterdir())[-1]
    state = torch.load(checkpoint / "trainer.pt", weights_only=True)
    return (checkpoint / "model.safetensors").read_bytes(), state


def equal(a, b) -> bool:
    """Equal trees, tensors to the bit."""
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(equal(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def same(one: Path, other: Path) -> bool:
    """Equal final checkpoints."""
    (weights, state), (other_weights, other_state) = final(one), final(other)
    return weights == other_weights and equal(state, other_state)


@pytest.mark.parametrize("context", ["window", "append"])
@pytest.mark.parametrize("algorithm", ALGORITHMS)
def test_weight_zero_is_the_baseline_and_no_forward_is_added(run, policy, algorithm, context):
    options = {"algorithm__name": algorithm, "rollout__context": context}
    baseline = run("baseline", paw__enabled=False, **options)
    zero = run("zero", paw__coefficient=0, **options)
    # lambda = 0 on selected transitions: they must append nothing.
    unweighted = run("unweighted", paw__weight="constant", paw__constant=0, **options)
    paw = run("paw", **options)
    assert same(baseline, zero) and same(baseline, unweighted)
    assert metrics(unweighted)[0]["wm/selected_transitions"] > 0
    assert metrics(baseline) == metrics(zero)
    # Guards: the baseline moves, and the prediction moves it elsewhere.
    assert final(baseline)[0] != (policy / "model.safetensors").read_bytes()
    assert final(paw)[0] != final(baseline)[0]
    first, other = metrics(paw)[0], metrics(baseline)[0]
    assert first["rollout/return_mean"] == other["rollout/return_mean"]
    assert first["wm/target_tokens"] > 0 == other["wm/target_tokens"]
    assert first["model/forwards"] == other["model/forwards"] == 1
    assert first["model/forward_calls"] == other["model/forward_calls"] > 2


def test_a_warm_up_of_a_critic_that_is_not_there_changes_nothing(run):
    plain, warm = run("plain"), run("warm", algorithm__critic_warmup_updates=2)
    assert same(plain, warm) and final(plain)[1]["num_steps"] == 4


def test_the_same_seed_gives_the_same_run_and_another_does_not(run):
    one, again, other = run("one"), run("again"), run("other", run__seed=1)
    assert same(one, again) and metrics(one) == metrics(again)
    assert not same(one, other)


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_a_resumed_run_is_the_uninterrupted_one(run, algorithm):
    options = {"algorithm__name": algorithm, "paw__select": "random", "paw__target": "random"}
    whole = run("whole", run__updates=3, **options)
    parts = run("parts", run__updates=1, **options)
    run("parts", run__updates=3, **options)
    assert same(whole, parts) and metrics(whole) == metrics(parts)
    assert [row["update"] for row in metrics(parts)] == [1, 2, 3]


@pytest.mark.parametrize("algorithm", ["grpo", "ppo"])
def test_epochs_are_further_steps_on_the_same_update(run, algorithm):
    """2 updates of 2 mini-batches, twice: 8 steps on the same rollouts. Losses and targets are told
    of one pass: where nothing moves (a rate of 0), as those of one epoch."""
    one = run("one", algorithm__name=algorithm)
    two = run("two", algorithm__name=algorithm, optimizer__epochs=2)
    assert (final(one)[1]["num_steps"], final(two)[1]["num_steps"]) == (4, 8)
    assert not same(one, two)
    first, other = metrics(one)[0], metrics(two)[0]
    for name in ("rollout/return_mean", "tokens/sampled", "wm/target_tokens"):
        assert first[name] == other[name]
    for name in ("model/forwards", "model/forward_calls", "tokens/trained"):
        assert 2 * first[name] == other[name]
    still = {"optimizer__learning_rate": 0, "algorithm__name": algorithm, "run__updates": 1}
    (once,) = metrics(run("once", **still))
    (twice,) = metrics(run("twice", optimizer__epochs=2, **still))
    for name in ("policy/loss", "wm/loss", "wm/nll"):
        assert twice[name] == pytest.approx(once[name], rel=1e-3, abs=1e-6)
    # A resumed run shuffles as it would have.
    parts = run("parts", algorithm__name=algorithm, optimizer__epochs=2, run__updates=1)
    run("parts", algorithm__name=algorithm, optimizer__epochs=2)
    assert same(two, parts) and metrics(two) == metrics(parts)


def test_a_step_that_breaks_the_weights_stops_the_run_and_dumps_the_batch(run, tmp_path):
    """A learning rate of 1e30: the second mini-batch meets weights beyond all numbers."""
    with pytest.raises(RunFailure, match="update 1: the gradient is not finite; the mini-batch is"):
        run("broken", optimizer__learning_rate=1e30)
    (dump,) = (tmp_path / "broken").glob("failed-update-000001*")
    assert len(dump.read_text().splitlines()) > 1
    assert list((tmp_path / "broken" / "checkpoints").iterdir()) == []


def test_weights_that_broke_in_the_last_step_stop_the_next_update(run, tmp_path):
    with pytest.raises(RunFailure, match=r"update 2: .* not finite"):
        run("broken", optimizer__learning_rate=1e30, optimizer__mini_batches=1)
