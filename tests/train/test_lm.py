"""A pretrained model, SmolLM2-135M-Instruct: what holds for toys holds for it. `pytest -m lm`.

Updates of 2 groups x 2 episodes x 2 turns x 8 tokens, so that all of it takes minutes on one core.
"""

import gc
import hashlib
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lm_files import alone, smollm2
from paw.commands import doctor
from paw.config.read import resolve
from paw.config.tree import Config
from paw.rollout.actor import make_serializer
from paw.text.tokenizer import load_tokenizer
from paw.train.checkpoint import save_policy
from paw.train.forward import score_actions
from paw.train.loop import act, learn_from
from paw.train.score import flatten, make_rows
from paw.train.session import Session, open_session
from paw.types import Group, SampledAction, Task

pytestmark = [pytest.mark.lm, pytest.mark.timeout(900)]

SETTINGS = {
    "run.updates": 1,
    "run.save_trajectories_every": 0,
    "run.threads": 1,
    "rollout.groups": 2,
    "rollout.group_size": 2,
    "rollout.max_turns": 2,
    "rollout.workers": 0,
    "rollout.max_prompt_tokens": 400,
    "rollout.max_response_tokens": 8,
    "paw.weight": "constant",
    "optimizer.tokens_per_micro_batch": 600,
}
VOWELS = {"env.name": "lm_files:Vowels", "rollout.response_format": "command"}


@pytest.fixture(scope="session")
def model() -> Path:
    return smollm2()


@pytest.fixture
def configured(model: Path, tmp_path: Path):
    """A configuration of SETTINGS with some keys changed; `run.directory` is new."""

    def make(name: str, **changed: object) -> Config:
        keys = SETTINGS | {"model.path": model, "run.directory": tmp_path / name} | changed
        return resolve([], [x for key, value in keys.items() for x in (f"--{key}", text_of(value))])

    with alone():
        yield make
        gc.collect()


def text_of(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def update(session: Session, groups: list[Group]) -> dict:
    try:
        return learn_from(session, 1, groups)
    finally:
        session.close()


def digest(session: Session) -> str:
    """Of all weights, to the bit."""
    found = hashlib.sha256()
    for name, tensor in sorted(session.learner.policy.model.state_dict().items()):
        found.update(name.encode())
        found.update(tensor.numpy().data)
    return found.hexdigest()


def test_three_turns_are_the_template_s_tokens(model: Path):
    """Built turn by turn: the ids of the whole conversation, default system turn and all."""
    tokenizer = load_tokenizer(model)
    assert tokenizer.eos_token == tokenizer.pad_token == "<|im_end|>"
    config = resolve([], ["--rollout.context", "append", "--rollout.response_format", "command"])
    serializer = make_serializer(config, tokenizer)
    dialogue = serializer.dialogue(Task("a", "k", "x"))
    texts, answers = (
        ["Look.\n  A mug 12.", "Nothing happens.", "End"],
        ["go to shelf 1", " take it"],
    )
    messages, ids = [], []
    for turn, text in enumerate(texts):
        dialogue.observe(text, ())
        messages.append({"role": "user", "content": text})
        ids += dialogue.prompt().context_ids
        whole = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=False
        )
        assert ids == whole
        if turn < len(answers):
            tokens = (*serializer.encode(answers[turn]), serializer.format.end_of_turn)
            dialogue.act(SampledAction(tokens, (), None, finished=True), answers[turn])
            messages.append({"role": "assistant", "content": answers[turn]})
            ids += tokens
    assert serializer.format.end_ids == (tokenizer.eos_token_id,)
    assert "named SmolLM" in tokenizer.decode(ids)


def test_the_first_update_is_on_policy_and_what_it_saves_stops(configured, tmp_path: Path):
    """fp32, append, tags, GRPO + PaW on the household: the learner says of the sampled tokens what
    the sampler said (ratio 1 to 1e-4), and stock `generate` ends its answer by itself."""
    session = open_session(configured("run", **{"rollout.context": "append"}))
    groups, policy = act(session, 1), session.learner.policy
    transitions, columns = flatten(groups)
    rows = make_rows(transitions, columns, append=True)
    scored, _ = score_actions(policy, rows, 600)
    sampled = torch.tensor([p for t in transitions for p in t.action.logprobs])
    ratio = (torch.tensor([p for a in scored for p in a]) - sampled).exp()
    assert len(sampled) == 4 * 2 * 8 and (ratio - 1).abs().max() < 1e-4
    metrics = update(session, groups)
    assert 0 <= metrics["policy/kl"] < 1e-6 and metrics["policy/clipped_fraction"] == 0
    assert metrics["wm/target_tokens"] > 0 and metrics["policy/gradient_norm"] > 0
    save_policy(tmp_path / "saved", policy, session.tokenizer, card="")
    del session, policy
    gc.collect()
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "saved")
    trained = AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    question = [{"role": "user", "content": "What is the capital of France?"}]
    prompt = tokenizer.apply_chat_template(
        question, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    answer = trained.generate(**prompt, do_sample=False, max_new_tokens=40)[0]
    text = tokenizer.decode(answer[prompt["input_ids"].shape[1] :])
    assert "Paris" in text and text.endswith("<|im_end|>")


@pytest.mark.slow
def test_weight_zero_is_the_baseline(configured):
    """GiGPO, window, commands: from the same episodes to the same bits, and PaW to others."""
    settings = {**VOWELS, "rollout.context": "window", "algorithm.name": "gigpo"}
    session = open_session(configured("baseline", **settings, **{"paw.enabled": False}))
    groups, before = act(session, 1), digest(session)
    wanted = update(session, groups)
    weights = digest(session)
    assert wanted["policy/gradient_norm"] > 0 and weights != before
    del session
    gc.collect()
    session = open_session(configured("zero", **settings, **{"paw.coefficient": 0}))
    found = update(session, groups)
    assert digest(session) == weights
    varying = ("time/", "memory/")
    assert {k: v for k, v in found.items() if not k.startswith(varying)} == {
        k: v for k, v in wanted.items() if not k.startswith(varying)
    }


@pytest.mark.parametrize(
    ("compute", "most"),
    [("same", 1e-6), pytest.param("bfloat16", 5e-3, marks=pytest.mark.slow)],
)
def test_lora(configured, compute, most):
    """Runs, stays near the sampler, moves the adapter and not the weights below."""
    if compute == "bfloat16" and not doctor.processor_flags() & doctor.BF16_FLAGS:
        pytest.skip("this processor has no bf16 instructions: 50 times slower")
    keys = {
        **VOWELS, "rollout.context": "append", "model.lora_rank": 4,
        "model.compute_dtype": compute, "optimizer.learning_rate": 1e-4,
    }  # fmt: skip
    session = open_session(configured("run", **keys))
    policy = session.learner.policy
    before = {name: value.clone() for name, value in policy.state_dict().items()}
    assert all("lora_" in name for name in before)
    frozen = policy.model.model.layers[0].self_attn.q_proj.base_layer.weight.clone()
    metrics = update(session, act(session, 1))
    assert abs(metrics["policy/kl"]) < most and metrics["policy/gradient_norm"] > 0
    moved = [n for n, value in policy.state_dict().items() if not torch.equal(value, before[n])]
    assert len(moved) >= len(before) / 2  # at the start B is 0, so that A has no gradient
    assert torch.equal(policy.model.model.layers[0].self_attn.q_proj.base_layer.weight, frozen)
