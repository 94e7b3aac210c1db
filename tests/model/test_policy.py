import copy
import stat

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from tiny_models import VOCAB, build
from transformers import (
    AutoModelForCausalLM,
    CohereConfig,
    Gemma2Config,
    GptOssConfig,
    GraniteConfig,
    MambaConfig,
)

from paw.errors import UserError
from paw.model.lora import merged_state_dict
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.model.small import create_policy_model

ROWS = [[3, 1, 4, 1, 5, 9, 2, 6], [5, 3, 5], [8, 9, 7, 9, 3]]
# In the pack: tokens 2 and 7 of row 0, 1 of row 1, 4 of row 2.
POSITIONS = torch.tensor([2, 7, 9, 15])


@pytest.fixture
def directory(tmp_path):
    Policy(build("qwen2", tie_word_embeddings=True)).save(tmp_path / "policy")
    return tmp_path / "policy"


def plain_logprobs(model, row, position):
    """log p(row[position] | row[:position]) from the model's own logits."""
    with torch.no_grad():
        logits = model(torch.tensor([row]), use_cache=False).logits[0, position - 1]
    return logits.log_softmax(-1)[row[position]].item()


def test_logprobs_are_those_of_the_model(model):
    plain = copy.deepcopy(model)
    logprobs, entropy = Policy(model).logprobs(pack(ROWS, "cpu"), POSITIONS)
    expected = [plain_logprobs(plain, ROWS[row], p) for row, p in ((0, 2), (0, 7), (1, 1), (2, 4))]
    torch.testing.assert_close(logprobs.detach(), torch.tensor(expected), rtol=0, atol=1e-5)
    with torch.no_grad():
        logits = plain(torch.tensor([ROWS[1]]), use_cache=False).logits[0, 0]
    whole = torch.distributions.Categorical(logits=logits).entropy()
    torch.testing.assert_close(entropy[2], whole, rtol=0, atol=1e-5)


def test_gradients_are_those_of_the_models_own_loss(model):
    plain = copy.deepcopy(model)
    policy = Policy(model)
    (-policy.logprobs(pack([ROWS[0]], "cpu"), torch.arange(1, 8))[0].mean()).backward()
    ids = torch.tensor([ROWS[0]])
    plain(ids, labels=ids, use_cache=False).loss.backward()
    for ours, theirs in zip(policy.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("first", [0, 8, 11])
def test_first_token_of_a_row_is_refused(first):
    policy = Policy(build("qwen2"))
    with pytest.raises(ValueError, match="first token"):
        policy.logprobs(pack(ROWS, "cpu"), torch.tensor([2, first]))


def test_no_positions_give_zero_gradients_to_every_parameter():
    policy = Policy(build("llama"))
    logprobs, entropy = policy.logprobs(pack(ROWS, "cpu"), torch.tensor([], dtype=torch.long))
    assert logprobs.shape == entropy.shape == (0,)
    logprobs.sum().backward()
    assert all((p.grad == 0).all() for p in policy.parameters())


def test_counters_count_learning_passes():
    policy = Policy(build("qwen2"))
    assert (policy.passes.forwards, policy.passes.rows) == (0, 0)
    for _ in range(2):
        policy.logprobs(pack(ROWS, "cpu"), POSITIONS)
    assert (policy.passes.forwards, policy.passes.rows) == (2, 6)


def test_saved_directory_is_an_ordinary_one(model, tmp_path):
    policy = Policy(model)
    policy.save(tmp_path / "p")
    for file in (tmp_path / "p").iterdir():
        assert stat.S_IMODE(file.stat().st_mode) == 0o644
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "p")
    for ours, theirs in zip(model.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    again = Policy.load(tmp_path / "p")
    packed = pack(ROWS, "cpu")
    assert torch.equal(again.logprobs(packed, POSITIONS)[0], policy.logprobs(packed, POSITIONS)[0])


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_state_dict_resumes_to_the_bit(directory, lora_rank):
    policy = Policy.load(directory, lora_rank=lora_rank)
    start = {name: tensor.clone() for name, tensor in policy.state_dict().items()}
    with torch.no_grad():
        for parameter in policy.parameters():
            parameter.add_(0.1)
    packed = pack(ROWS, "cpu")
    moved = policy.logprobs(packed, POSITIONS)[0]
    other = Policy.load(directory, lora_rank=lora_rank, seed=1)
    other.load_state_dict(policy.state_dict())
    assert torch.equal(other.logprobs(packed, POSITIONS)[0], moved)
    other.load_state_dict(start)
    assert not torch.equal(other.logprobs(packed, POSITIONS)[0], moved)


def test_foreign_state_is_refused(directory):
    policy = Policy.load(directory)
    state = policy.state_dict()
    name = min(state)
    with pytest.raises(ValueError, match="one side only"):
        policy.load_state_dict({n: t for n, t in state.items() if n != name})
    with pytest.raises(ValueError, match="shape"):
        policy.load_state_dict({**state, name: torch.zeros(1)})


def test_lora_trains_the_adapter_alone_and_merges_on_saving(directory, tmp_path):
    plain, policy = Policy.load(directory), Policy.load(directory, lora_rank=2, seed=3)
    packed = pack(ROWS, "cpu")
    torch.testing.assert_close(
        policy.logprobs(packed, POSITIONS)[0], plain.logprobs(packed, POSITIONS)[0]
    )
    assert all("lora" in name for name in policy.state_dict())
    frozen = {n: p.clone() for n, p in policy.model.named_parameters() if not p.requires_grad}
    optimizer = torch.optim.SGD(policy.parameters(), lr=0.5)
    for _ in range(2):  # the first step moves B away from 0, the second A
        policy.logprobs(packed, POSITIONS)[0].sum().backward()
        optimizer.step()
    for name, parameter in policy.model.named_parameters():
        assert parameter.requires_grad or torch.equal(parameter, frozen[name])
    trained = policy.logprobs(packed, POSITIONS)[0].detach()
    policy.save(tmp_path / "merged")
    merged = Policy.load(tmp_path / "merged").logprobs(packed, POSITIONS)[0].detach()
    assert (trained - plain.logprobs(packed, POSITIONS)[0]).abs().max() > 0.01
    torch.testing.assert_close(merged, trained, rtol=0, atol=1e-4)
    assert torch.equal(policy.logprobs(packed, POSITIONS)[0], trained)  # saving changes nothing


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_saved_lora_has_the_bytes_of_pefts_own_merge(directory, tmp_path, dtype):
    """Layer by layer into the file, and the live model is what it was, to the bit."""
    plain = AutoModelForCausalLM.from_pretrained(directory, dtype=dtype)
    options = {"target_modules": "all-linear", "task_type": "CAUSAL_LM"}
    theirs = get_peft_model(plain, LoraConfig(r=2, lora_alpha=4, **options))
    policy = Policy.load(directory, dtype=dtype, lora_rank=2)
    generator = torch.Generator().manual_seed(0)
    for ours, other in zip(
        policy.parameters(), (p for p in theirs.parameters() if p.requires_grad), strict=True
    ):
        values = torch.randn(ours.shape, generator=generator).to(ours.dtype)
        with torch.no_grad():
            ours.copy_(values), other.copy_(values)
    before = {name: p.clone() for name, p in policy.model.named_parameters()}
    policy.save(tmp_path / "ours")
    theirs.merge_and_unload().save_pretrained(tmp_path / "theirs")
    saved = [(tmp_path / side / "model.safetensors").read_bytes() for side in ("ours", "theirs")]
    assert saved[0] == saved[1]
    assert (tmp_path / "ours" / "config.json").read_bytes() == (
        tmp_path / "theirs" / "config.json"
    ).read_bytes()
    after = dict(policy.model.named_parameters())
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_the_merged_weights_share_all_that_was_not_merged():
    """On a CPU nothing is copied but the layers with an adapter; what is tied stays tied."""
    policy = Policy(build("qwen2", tie_word_embeddings=True), lora_rank=2)
    merged, live = merged_state_dict(policy.model), dict(policy.model.named_parameters())
    embedding = live["model.embed_tokens.weight"]
    for name in ("model.embed_tokens.weight", "lm_head.weight"):
        assert merged[name].data_ptr() == embedding.data_ptr()
    name = "model.layers.0.mlp.up_proj"
    kept = live[f"{name}.base_layer.weight"]
    assert merged[f"{name}.weight"].data_ptr() != kept.data_ptr()
    assert not any("lora" in key or "base_layer" in key for key in merged)


def test_lora_seed_sets_the_adapter(directory):
    states = [Policy.load(directory, lora_rank=2, seed=s).state_dict() for s in (0, 0, 1)]
    name = next(n for n in states[0] if "lora_A" in n)
    assert torch.equal(states[0][name], states[1][name])
    assert not torch.equal(states[0][name], states[2][name])


def test_gradient_checkpointing_changes_no_bit(directory):
    gradients = []
    for checkpointing in (False, True):
        policy = Policy.load(directory, gradient_checkpointing=checkpointing)
        calls = 0

        def count(*_):
            nonlocal calls
            calls += 1

        policy.model.model.layers[0].mlp.register_forward_pre_hook(count)
        policy.logprobs(pack(ROWS, "cpu"), POSITIONS)[0].sum().backward()
        assert calls == 1 + checkpointing
        gradients.append([p.grad for p in policy.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_compute_dtype_keeps_fp32_weights(directory):
    policy = Policy.load(directory, compute_dtype="bfloat16")
    exact = Policy.load(directory)
    packed = pack(ROWS, "cpu")
    inside = []
    policy.model.model.layers[0].mlp.down_proj.register_forward_hook(
        lambda _module, _args, out: inside.append(out.dtype)
    )
    logprobs, _ = policy.logprobs(packed, POSITIONS)
    assert inside == [torch.bfloat16] and logprobs.dtype == torch.float32
    difference = (logprobs - exact.logprobs(packed, POSITIONS)[0]).abs().max()
    assert 0 < difference < 0.3
    logprobs.sum().backward()
    assert all(p.dtype == p.grad.dtype == torch.float32 for p in policy.parameters())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float64"])
def test_dtype(directory, dtype):
    policy = Policy.load(directory, dtype=dtype)
    assert all(p.dtype == getattr(torch, dtype) for p in policy.parameters())
    wide = torch.float64 if dtype == "float64" else torch.float32
    assert policy.logprobs(pack(ROWS, "cpu"), POSITIONS)[0].dtype == wide


def break_weights(directory):
    (directory / "model.safetensors").write_bytes(b"garbage" * 10)


def remove_weights(directory):
    (directory / "model.safetensors").unlink()


def drop_one_weight(directory):
    weights = load_file(directory / "model.safetensors")
    weights.pop("model.layers.0.mlp.gate_proj.weight")
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})


def break_config(directory):
    (directory / "config.json").write_text("{")


@pytest.mark.parametrize("damage", [break_weights, remove_weights, drop_one_weight, break_config])
def test_unreadable_models_are_one_line(directory, damage):
    damage(directory)
    with pytest.raises(UserError, match=r"model\.path") as error:
        Policy.load(directory)
    assert str(directory) in str(error.value) and "\n" not in str(error.value)


@pytest.mark.parametrize("path", ["/no/such/model", "model", "./runs/a/b"])
def test_missing_directory_is_one_line(path):
    with pytest.raises(UserError, match="no directory"):
        Policy.load(path)


def test_bad_options_are_one_line(directory):
    with pytest.raises(UserError, match="did you mean 'bfloat16'"):
        Policy.load(directory, dtype="bfloat")
    with pytest.raises(UserError, match="must be auto, cpu, cuda"):
        Policy.load(directory, device="gpu")


SHAPE = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 64,
    "bos_token_id": None,
    "eos_token_id": None,
    "pad_token_id": None,
}


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (Gemma2Config(**SHAPE, head_dim=8), "softcapping"),
        (CohereConfig(**SHAPE), "logit_scale"),
        (GraniteConfig(**SHAPE, logits_scaling=8.0), "logits_scaling"),
        (MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=1), "linear_attention"),
        (
            GptOssConfig(**SHAPE, head_dim=16, num_local_experts=2, num_experts_per_tok=1),
            "sinks",
        ),
    ],
)
def test_models_that_would_be_silently_wrong_are_refused(config, reason):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(5)
    with pytest.raises(UserError, match=reason):
        Policy(model)


def test_small_models_are_their_seed():
    shape = {
        "vocab_size": 50,
        "hidden_size": 16,
        "num_layers": 1,
        "num_heads": 2,
        "num_kv_heads": 1,
        "intermediate_size": 24,
        "max_positions": 64,
    }
    state = torch.random.get_rng_state()
    models = [create_policy_model(**shape, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(torch.random.get_rng_state(), state)
    weights = [model.model.embed_tokens.weight for model in models]
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])
    assert models[0].lm_head.weight is weights[0]
    assert (
        create_policy_model(**shape, seed=0, tie_embeddings=False).lm_head.weight is not weights[0]
    )
