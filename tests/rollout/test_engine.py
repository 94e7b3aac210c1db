"""A sampler that trusts no engine: what goes wrong is one line, never silent."""

import json
import re
import time
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path

import pytest
import torch
from fake_engine import (
    END_IDS,
    LENGTH,
    UNKNOWN,
    VOCAB,
    Behind,
    Deaf,
    FakeEngine,
    Numberless,
    Odd,
    Partial,
    Restless,
    change,
    first,
    make_policy,
    numbered,
    requests,
    token,
)

from paw.cli import main
from paw.errors import RunFailure, UserError
from paw.model.policy import Policy
from paw.rollout import actor, engine
from paw.rollout.engine import EngineSampler, Reply
from paw.rollout.local import LocalSampler
from paw.rollout.sampler import SampleRequest, check_entropy


@pytest.fixture
def policy() -> Policy:
    return make_policy()


def sampler_of(made: FakeEngine, policy: Policy) -> EngineSampler:
    return EngineSampler(made, policy, END_IDS, LENGTH)


def test_actions_are_those_of_the_engine(policy):
    """Log-probs at temperature 1, the end token part of the action, no entropies."""
    sampler = sampler_of(FakeEngine(policy, END_IDS), policy)
    actions = sampler.sample(requests(32), temperature=0.7, max_tokens=12)
    assert {a.finished for a in actions} == {True, False}
    for request, action in zip(requests(32), actions, strict=True):
        assert action.entropies is None
        assert action.finished == (action.token_ids[-1] in END_IDS)
        assert action.finished or len(action.token_ids) == 12
        row = [*request.prompt_ids, *action.token_ids]
        expected = engine._learners(policy, [row])[len(request.prompt_ids) - 1 :]
        assert action.logprobs == pytest.approx(expected, abs=1e-5)
    with pytest.raises(UserError, match="returns no entropy"):
        check_entropy(sampler, "rollout", "full")
    check_entropy(sampler, "score", "full")
    check_entropy(sampler, "rollout", "sampled")


def test_a_sample_depends_on_its_seed_alone(policy):
    """Whoever shares the call, and whichever engine starts anew."""
    together = sampler_of(FakeEngine(policy, END_IDS), policy).sample(
        requests(), temperature=1.0, max_tokens=8
    )
    made = FakeEngine(policy, END_IDS)
    sampler = sampler_of(made, policy)
    for request, action in zip(requests(), together, strict=True):
        (alone,) = sampler.sample([request], temperature=1.0, max_tokens=8)
        assert alone.token_ids == action.token_ids
    seeds = [one.seed for one in made.asked]
    assert len(set(seeds)) == len(seeds) and all(0 <= seed < 2**63 for seed in seeds)
    other = replace(requests()[0], seed=(7, 0, 0, 0, 4))
    sampler.sample([other], temperature=1.0, max_tokens=8)
    assert made.asked[-1].seed not in seeds


def test_limits_are_those_of_the_local_sampler(policy):
    """At most `max_tokens`, at most what the length leaves; a full prompt is refused."""
    made = FakeEngine(policy, END_IDS)
    sampler = sampler_of(made, policy)
    long = SampleRequest(0, tuple([5] * (LENGTH - 3)), (0,))
    sampler.sample([long], temperature=1.0, max_tokens=8)
    assert made.asked[-1].max_tokens == 3
    wrong = {
        "leaves no room": [replace(long, prompt_ids=(5,) * LENGTH)],
        "empty prompt": [replace(long, prompt_ids=())],
        "two requests of one slot": [long, long],
    }
    for line, asked in wrong.items():
        messages = []
        for one in (sampler, LocalSampler(policy, END_IDS, LENGTH)):
            with pytest.raises((UserError, ValueError), match=line) as error:
                one.sample(asked, temperature=1.0, max_tokens=8)
            messages.append(str(error.value))
        assert messages[0] == messages[1]
    assert sampler.sample([], temperature=1.0, max_tokens=8) == []


def test_weights_are_handed_over_before_the_first_sample_and_after_each_update(policy):
    """The engine sleeps while others want the memory, and the passes that compare count for none
    of the policy's."""
    made = FakeEngine(policy, END_IDS)
    sampler = sampler_of(made, policy)
    change(policy, 0.1)
    sampler.sample(requests(), temperature=1.0, max_tokens=4)
    assert made.told == ["take", "sleep", "wake", "generate"]
    sampler.sample(requests(), temperature=1.0, max_tokens=4)
    sampler.reset()
    sampler.reset()
    assert made.told[4:] == ["generate", "sleep"]
    change(policy, 0.1)
    sampler.load(policy, 1)
    assert made.told[6:] == ["wake", "take", "sleep"]
    for name, tensor in policy.model.state_dict().items():
        assert torch.equal(made.own.model.state_dict()[name], tensor)
    assert (policy.passes.forwards, policy.passes.rows) == (0, 0)
    with pytest.raises(ValueError, match="version 0 after those of 1"):
        sampler.load(policy, 0)


def test_lora_is_handed_over_merged(policy):
    pytest.importorskip("peft")
    plain = FakeEngine(policy, END_IDS)
    adapted = Policy(policy.model, lora_rank=2)
    adapted.head.forget({UNKNOWN})
    change(adapted, 0.1)
    sampler_of(plain, adapted).sample(requests(), temperature=1.0, max_tokens=4)  # is compared


BROKEN = {
    "too few": (lambda r: r[:-1], "3 responses to 4 prompts"),
    "too many": (lambda r: [*r, r[0]], "5 responses to 4 prompts"),
    "other order": (lambda r: r[::-1], "a response to another prompt"),
    "empty": (first(lambda r: {"token_ids": (), "logprobs": ()}), "without a token .*'length'"),
    "cut": (
        first(lambda r: {"token_ids": (5,), "logprobs": (-1.0,), "reason": "abort"}),
        r"cut after 1 of 6 tokens \(it ended by 'abort'\)",
    ),
    "nan": (numbered(float("nan")), "nan as the log-prob"),
    "minus infinity": (numbered(float("-inf")), "-inf as the log-prob"),
    "a probability": (numbered(0.3), "0.3 as the log-prob"),
    "missing": (numbered(None), "None as the log-prob"),
    "short": (first(lambda r: {"logprobs": r.logprobs[1:]}), "log-probs for 6 tokens"),
    "beyond the vocabulary": (token(VOCAB), f"token {VOCAB}, which is none"),
    "negative": (token(-1), "token -1, which is none"),
    "a row that is no token": (token(UNKNOWN), f"token {UNKNOWN}, which is none"),
    "behind its end": (token(0), "goes on behind its end"),
    "too long": (token(5, 5), "goes on behind its end"),
}


def test_a_broken_response_ends_the_run(policy):
    made = Odd(policy, ())  # nothing ends by chance: 6 tokens each
    sampler = sampler_of(made, policy)
    made.change = lambda replies: [_unended(r) for r in replies]
    assert len(sampler.sample(requests(), temperature=1.0, max_tokens=6)) == 4
    for broken, line in BROKEN.values():
        made.change = lambda replies, broken=broken: broken([_unended(r) for r in replies])
        with pytest.raises(RunFailure, match=line) as error:
            sampler.sample(requests(), temperature=1.0, max_tokens=6)
        assert "\n" not in str(error.value)


def _unended(reply: Reply) -> Reply:
    return replace(reply, token_ids=tuple(max(i, 2) for i in reply.token_ids))


@pytest.mark.parametrize("kind", [Deaf, Partial])
def test_weights_that_are_not_taken_over_end_the_run(policy, kind):
    sampler = sampler_of(kind(policy, END_IDS), policy)
    sampler.load(policy, 0)
    change(policy, 0.2)
    with pytest.raises(
        RunFailure, match=r"after update 1 .* differ from the learner's by"
    ) as error:
        sampler.load(policy, 1)
    off = re.search(r"by ([\d.]+) nats", str(error.value))
    assert off is not None and float(off[1]) > engine.LIMIT


def test_at_the_start_too(policy):
    made = Deaf(policy, END_IDS)
    made.heard = True
    change(policy, 0.2)
    with pytest.raises(RunFailure, match="at the start the sampler's log-probs differ"):
        sampler_of(made, policy).sample(requests(), temperature=1.0, max_tokens=4)


@pytest.mark.parametrize("kind", [Deaf, Behind])
def test_a_small_update_that_is_not_taken_over_is_seen_too(policy, kind):
    """Far below the limit: the engine is exactly where it was, or where the learner was."""
    sampler = sampler_of(kind(policy, END_IDS), policy)
    sampler.load(policy, 4)
    change(policy, 1e-3)
    with pytest.raises(RunFailure, match="still computes with the weights of update 4"):
        sampler.load(policy, 5)


@pytest.mark.parametrize("kind", [Deaf, Restless])
def test_tiny_updates_that_are_not_taken_over_add_up(policy, kind):
    sampler = sampler_of(kind(policy, END_IDS), policy)
    sampler.load(policy, 0)
    before = engine._learners(policy, sampler._rows)
    with pytest.raises(RunFailure, match="still computes with the weights of update 0"):
        for update in range(1, 1000):
            change(policy, 2e-6)
            moved = engine._difference(engine._learners(policy, sampler._rows), before)
            sampler.load(policy, update)
    assert update > 2 and moved < 2 * engine.NOTICED


def test_equal_weights_and_small_updates_are_no_fault(policy):
    sampler = sampler_of(FakeEngine(policy, END_IDS), policy)
    for update in range(4):
        sampler.load(policy, update)
        change(policy, (0, 1e-6, 1e-3, 0.1)[update])
    sampler.load(policy, 4)


@pytest.mark.parametrize(
    ("number", "line"),
    [(None, "gave no log-probs of the rows"), (float("nan"), "differ .* by nan")],
)
def test_rows_without_numbers_end_the_run(policy, number, line):
    made = Numberless(policy, END_IDS)
    made.number = number
    with pytest.raises(RunFailure, match=line):
        sampler_of(made, policy).load(policy, 0)


def test_a_late_engine_is_waited_for_with_a_line(policy, monkeypatch, capsys):
    def slowly(replies: list[Reply]) -> list[Reply]:
        time.sleep(0.3)
        return replies

    monkeypatch.setattr(engine, "LATE_SECONDS", 0.05)
    sampler = sampler_of(Odd(policy, END_IDS, slowly), policy)
    assert len(sampler.sample(requests(), temperature=1.0, max_tokens=4)) == 4
    assert "no answer of the sampler's engine for 0.05 s" in capsys.readouterr().err


TINY = [
    "--run.updates", "2", "--run.seed", "3", "--rollout.groups", "2", "--rollout.group_size", "2",
    "--rollout.max_turns", "2", "--rollout.workers", "0", "--rollout.sampler", "vllm",
    "--optimizer.learning_rate", "3e-4", "--run.checkpoint_every", "1",
]  # fmt: skip


@pytest.fixture
def fake_vllm(monkeypatch):
    """The fake in vLLM's place; gives the engines that were made."""
    made: list[FakeEngine] = []

    def start(config, policy, end_ids):
        made.append(FakeEngine(policy, end_ids))
        return EngineSampler(made[-1], policy, end_ids, 2048)

    monkeypatch.setitem(actor.SAMPLERS, "vllm", start)
    return made


def test_a_whole_run_with_an_engine(tmp_path: Path, fake_vllm, capsys):
    """Two runs, one stopped and resumed between, are equal; sampler and scoring pass agree."""
    keys = [*TINY, "--algorithm.old_logprobs", "score", "--algorithm.importance_cap", "2"]
    assert main(["train", *keys, "--run.directory", str(tmp_path / "a")]) == 0
    for updates in ("1", "2"):
        more = ["--run.directory", str(tmp_path / "b"), "--run.updates", updates]
        assert main(["train", *keys, *more]) == 0
    one, other = (
        [json.loads(line) for line in (tmp_path / x / "metrics.jsonl").read_text().splitlines()]
        for x in "ab"
    )
    for row, same in zip(one, other, strict=True):
        assert row["sampler/logprob_difference_mean"] < 1e-5
        assert row["sampler/logprob_difference_max"] < 1e-4
        assert row["sampler/logprob_difference_fraction"] == 0
        assert row["model/forwards"] == 2  # scoring and learning
        left = {k for k in row if k.startswith(("time/", "memory/"))}
        assert {k: v for k, v in row.items() if k not in left} == {
            k: v for k, v in same.items() if k not in left
        }
    assert [e.told.count("take") for e in fake_vllm] == [3, 2, 2]  # first, then after each update


def test_entropies_that_nobody_gives_are_refused(tmp_path: Path, fake_vllm, capsys):
    assert main(["train", *TINY, "--run.directory", str(tmp_path / "run")]) == 2
    line = 'the sampler returns no entropy: set algorithm.old_logprobs = "score" or'
    assert line in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(find_spec("vllm") is not None, reason="vLLM is installed")
def test_without_vllm_a_line_says_what_to_install(tmp_path: Path, capsys):
    assert main(["train", *TINY, "--run.directory", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert "vLLM is not installed: pip install 'paw-rl[vllm]'" in error and "Traceback" not in error
    assert not (tmp_path / "run").exists()
