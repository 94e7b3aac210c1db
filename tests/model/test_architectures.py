"""Decoders of many kinds at tiny size: log-probabilities of packed rows and of the sampler over its
cache are the model's own, also beyond a window, or the model is refused by name."""

from typing import Any

import pytest
import torch
import transformers
from test_policy import SHAPE
from tiny_models import VOCAB
from transformers import AutoModelForCausalLM, PreTrainedConfig

from paw.errors import UserError
from paw.model.decode import draw
from paw.model.head import TokenLogprobs
from paw.model.load import fresh_model, shape_of
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.model.positions import Positions, check_length, positions_of
from paw.rollout.local import LocalSampler
from paw.rollout.sampler import SampleRequest

LONG = {**SHAPE, "head_dim": 8, "max_position_embeddings": 512}
WINDOW = {**LONG, "sliding_window": 7}
MLA = {
    "q_lora_rank": 16, "kv_lora_rank": 16, "qk_rope_head_dim": 8, "qk_nope_head_dim": 8,
    "v_head_dim": 6, "n_routed_experts": 4, "num_experts_per_tok": 2, "n_shared_experts": 1,
    "moe_intermediate_size": 24, "first_k_dense_replace": 1, "num_key_value_heads": 4,
}  # fmt: skip
IMAGES = {
    "hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1,
    "num_attention_heads": 2, "image_size": 28, "patch_size": 14,
}  # fmt: skip
SECTIONS = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
FRAMES = {
    "depth": 1, "hidden_size": 16, "intermediate_size": 16, "num_heads": 2, "out_hidden_size": 32,
}  # fmt: skip

EXACT: dict[str, tuple[str, dict[str, Any]]] = {
    "windows on every layer": ("Mistral", WINDOW),
    "windows on some layers": ("Gemma3Text", {**WINDOW, "num_hidden_layers": 6}),
    "windows on the upper layers": (
        "Qwen2", {**WINDOW, "use_sliding_window": True, "max_window_layers": 1}
    ),
    "windows that only the mask knows": (
        "Qwen2Moe",
        {
            **WINDOW, "use_sliding_window": True, "num_experts": 4, "num_experts_per_tok": 2,
            "moe_intermediate_size": 24, "shared_expert_intermediate_size": 24,
        },
    ),
    "layers without positions": ("SmolLM3", {**LONG, "num_hidden_layers": 4}),
    "scales by position": ("Ministral3", LONG),
    "latent attention, values narrower than keys": (
        "DeepseekV3", {**LONG, **MLA, "head_dim": 8, "n_group": 1, "topk_group": 1}
    ),
    "output that is viewed, gates": ("Afmoe", {**LONG, "num_experts": 4, "num_experts_per_tok": 2}),
    "learned positions": ("OPT", {**LONG, "ffn_dim": 48, "word_embed_proj_dim": 32}),
    "one key head": ("Gemma", {**LONG, "num_key_value_heads": 1}),
    "partial rotation": ("Phi", LONG),
    "scales of all kinds": ("Granite", {**LONG, "embedding_multiplier": 3.0}),
    "experts": ("Mixtral", {**LONG, "num_local_experts": 4, "router_jitter_noise": 0.5}),
    "heads of two sizes, keys of earlier layers": (
        "Gemma4Text", {
            **WINDOW, "num_hidden_layers": 12, "num_kv_shared_layers": 6, "global_head_dim": 16,
            "num_global_key_value_heads": 2, "hidden_size_per_layer_input": 8,
            "vocab_size_per_layer_input": VOCAB,
            "layer_types": [*["sliding_attention"] * 5, "full_attention"] * 2,
        },
    ),
    "a text model within one of images": (
        "Gemma3", {"text_config": WINDOW, "vision_config": IMAGES, "mm_tokens_per_image": 4}
    ),
    "coordinates of images": (
        "Qwen2_5_VL",
        {"text_config": {**LONG, "rope_parameters": SECTIONS}, "vision_config": FRAMES},
    ),
    "a text model of another type": (
        "Mistral3", {
            "text_config": {**WINDOW, "model_type": "mistral"},
            "vision_config": {**IMAGES, "model_type": "pixtral"},
        },
    ),
}  # fmt: skip


def config_of(family: str, options: dict[str, Any]) -> PreTrainedConfig:
    return getattr(transformers, f"{family}Config")(**options)


def opinionated(config: PreTrainedConfig) -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = fresh_model(config).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(0, 0.25)
    return model


def rows_of(*lengths: int) -> list[list[int]]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(4, VOCAB, (n,), generator=generator).tolist() for n in lengths]


@torch.no_grad()
def own(model: Any, row: list[int]) -> torch.Tensor:
    ids = torch.tensor([row])
    logprobs = model(input_ids=ids, use_cache=False).logits[0, :-1].log_softmax(-1)
    return logprobs.gather(1, ids[0, 1:, None]).squeeze(1)


def check_own(model: Any) -> None:
    """Packed rows and three turns of a sampler against the model's own forward passes. Entries of
    0.25 in 32 dimensions amplify rounding little: 1e-4 is far above it, far below any mistake."""
    rows = rows_of(40, 9, 3, 23)
    expected = torch.cat([own(model, row) for row in rows])
    policy = Policy(model)
    packed = pack(rows, "cpu")
    with torch.no_grad():
        ours, _ = policy.logprobs(packed, packed.position_ids.nonzero().squeeze(1))
    torch.testing.assert_close(ours, expected, rtol=0, atol=1e-4)
    sampler = LocalSampler(policy, (1,))
    prompts = [tuple(rows[0][:17]), tuple(rows[1]), tuple(rows[2])]
    for turn in range(3):
        requests = [SampleRequest(i, prompt, (turn, i)) for i, prompt in enumerate(prompts)]
        actions = sampler.sample(requests, temperature=0.0, max_tokens=4)
        for i, action in enumerate(actions):
            row = [*prompts[i], *action.token_ids]
            expected = own(policy.model, row)[len(prompts[i]) - 1 :]
            torch.testing.assert_close(torch.tensor(action.logprobs), expected, rtol=0, atol=1e-4)
            prompts[i] = (*row, 5, 9, 20 + turn)


@pytest.mark.parametrize(("family", "options"), EXACT.values(), ids=EXACT)
def test_packed_rows_and_the_sampler_have_the_models_own_logprobs(family, options):
    check_own(opinionated(config_of(family, options)))


ROPES = {
    "default": {},
    "linear": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "llama3": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
        "original_max_position_embeddings": 16,
    },
    "dynamic": {"factor": 4.0},
    "longrope": {
        "factor": 8.0, "original_max_position_embeddings": 64,
        "short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 8.0, 32.0],
    },
}  # fmt: skip
LIMITS = {"dynamic": 512, "longrope": 64}


@pytest.mark.parametrize("rope_type", ROPES)
def test_rotary_embeddings_are_exact_up_to_their_limit(rope_type):
    rope = {"rope_type": rope_type, "rope_theta": 1e4, **ROPES[rope_type]}
    config = config_of("Llama", {**LONG, "rope_parameters": rope})
    model = opinionated(config)
    assert positions_of(model.model).limit == LIMITS.get(rope_type)
    assert shape_of(config).positions == positions_of(model.model)  # on `meta`, for a dry run
    check_own(model)


def test_a_long_row_would_change_the_short_ones_beyond_the_limit():
    """What the limit is there for: 65 tokens in a pack turn the tokens of a row of 20."""
    # Phi-3 has its original length outside of these, and it wins.
    rope = {"rope_type": "longrope", "rope_theta": 1e4, **ROPES["longrope"]}
    options = {"original_max_position_embeddings": 64, "rope_parameters": rope}
    model = opinionated(config_of("Phi3", {**LONG, "sliding_window": None, **options}))
    policy, short = Policy(model), rows_of(20)[0]
    assert policy.positions.limit == 64
    found = []
    for length in (1, 64, 65):
        with torch.no_grad():
            beside = pack([short, rows_of(length)[0]], "cpu")
            found.append(policy.logprobs(beside, torch.arange(1, 20))[0])
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=1e-4)
    assert (found[2] - found[0]).abs().max() > 0.01


def test_one_kind_of_layer_is_enough_for_a_limit():
    """Gemma 3 has rotary embeddings by layer type."""
    ropes = {
        "sliding_attention": {"rope_type": "default", "rope_theta": 1e4},
        "full_attention": {"rope_type": "dynamic", "rope_theta": 1e6, "factor": 2.0},
    }
    model = opinionated(
        config_of("Gemma3Text", {**WINDOW, "num_hidden_layers": 6, "rope_parameters": ropes})
    )
    assert positions_of(model.model).limit == 512
    assert "dynamic" in positions_of(model.model).reason


@pytest.mark.parametrize(("family", "limit"), [("GPT2", 160), ("OPT", 160), ("Llama", None)])
def test_tables_of_positions_end(family, limit):
    """OPT's table has two rows more, for its offset of two: 160 tokens fit."""
    options = {**SHAPE, "n_embd": 32, "n_layer": 1, "n_head": 2, "n_positions": 160}
    if family != "GPT2":
        options = {**SHAPE, "max_position_embeddings": 160, "word_embed_proj_dim": 32}
    model = opinionated(config_of(family, options))
    positions = positions_of(model.base_model)
    assert (positions.made_for, positions.limit) == (160, limit)
    model(torch.tensor([rows_of(160)[0]]))
    if limit:
        with pytest.raises(IndexError):
            model(torch.tensor([rows_of(161)[0]]))


def test_lengths_beyond_a_limit_are_one_line():
    check_length(Positions(100, 160, "why"), 160, "a + b")
    check_length(Positions(100), 10_000, "a + b")
    with pytest.raises(UserError, match=r"a \+ b = 161 tokens, .* at most 160: why"):
        check_length(Positions(100, 160, "why"), 161, "a + b")


REFUSED = {
    "DiffLlama": ({**LONG}, "several times in a layer"),
    "Nemotron": ({**LONG}, "hands nothing on"),
    "Llama4Text": (
        {**LONG, "num_local_experts": 2, "intermediate_size_mlp": 48, "attention_chunk_size": 8},
        "chunked_attention",
    ),
    "Bloom": ({"vocab_size": VOCAB, "hidden_size": 32, "n_layer": 1, "n_head": 2}, "its own kind"),
    "Bert": ({**SHAPE, "is_decoder": False}, "computes otherwise|later tokens"),
    "Electra": ({**SHAPE, "is_decoder": True, "embedding_size": 16}, "a decoder of its own kind"),
    "Xmod": ({**SHAPE, "is_decoder": True}, "does not read text alone .*language"),
    "Bart": (
        {"vocab_size": VOCAB, "d_model": 32, "decoder_layers": 1, "decoder_attention_heads": 2},
        "its own kind|decoder",
    ),
}


@pytest.mark.parametrize("family", REFUSED)
def test_other_attention_is_refused_by_name(family):
    options, reason = REFUSED[family]
    with torch.random.fork_rng():
        model = AutoModelForCausalLM.from_config(config_of(family, options))
    with pytest.raises(UserError, match=reason) as error:
        Policy(model.eval())
    assert "\n" not in str(error.value)


def test_shapes_of_configurations_of_their_own_kind():
    """Worked: full layers of 4 heads of 16, windows of 4 heads of 8; keys have 2 heads. What cannot
    be loaded says so before its weights are read."""
    shape = shape_of(config_of(*EXACT["heads of two sizes, keys of earlier layers"]))
    assert (shape.query, shape.key, shape.intermediate) == (64, 32, SHAPE["intermediate_size"])
    with pytest.raises(UserError, match="linear_attention layers"):
        shape_of(transformers.MambaConfig(hidden_size=16, num_hidden_layers=1))
    with pytest.raises(UserError, match=r"quantised weights \(fp8\)"):
        shape_of(config_of("Qwen2", {**LONG, "quantization_config": {"quant_method": "fp8"}}))
    with pytest.raises(UserError, match="cannot make a 'qwen2_5_vl': split"):
        shape_of(config_of("Qwen2_5_VL", {"text_config": LONG, "vision_config": FRAMES}))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_narrow_weights_hide_nothing(dtype):
    """A mistake that bf16 would drown in its own rounding: every score is scaled by 1.001."""
    model = opinionated(config_of("Qwen2", LONG)).to(getattr(torch, dtype))
    Policy(model)
    kept = [parameter.data_ptr() for parameter in model.parameters()]
    for layer in model.model.layers:
        layer.self_attn.sliding_window = 6  # shorter than the probe's rows; the mask knows nothing
    with pytest.raises(UserError, match="computes otherwise"):
        Policy(model)
    assert [parameter.data_ptr() for parameter in model.parameters()] == kept


def test_what_reads_images_is_kept_and_learns_nothing(tmp_path):
    options = EXACT["a text model within one of images"][1]
    model = opinionated(config_of("Gemma3", options))
    for rank in (0, 2):
        policy = Policy(model, lora_rank=rank)
        names = list(policy.state_dict())
        assert names and not any("vision" in name or "projector" in name for name in names)
        assert any("language_model" in name for name in names)
        row = rows_of(9)
        policy.logprobs(pack(row, "cpu"), torch.arange(1, 9))[0].sum().backward()
        assert all(parameter.grad is not None for parameter in policy.parameters())
    policy.save(tmp_path / "saved")
    again = Policy.load(tmp_path / "saved")
    torch.testing.assert_close(own(again.model, row[0]), own(model, row[0]), rtol=0, atol=1e-4)
    shape = shape_of(model.config)
    assert (shape.hidden, shape.vocabulary, shape.positions.made_for) == (32, VOCAB, 512)


def test_training_mode_draws_nothing():
    """OPT reads its rate of dropout in each layer, Mixtral its router's jitter."""
    opt = {"dropout": 0.5, "layerdrop": 0.5, "ffn_dim": 48}
    mixtral = {"router_jitter_noise": 0.5, "num_local_experts": 4}
    for family, noise in (("OPT", opt), ("Mixtral", mixtral)):
        options = {**LONG, "word_embed_proj_dim": 32, **noise}
        policy = Policy(opinionated(config_of(family, options)), gradient_checkpointing=True)
        packed = pack(rows_of(20), "cpu")
        found = [policy.logprobs(packed, torch.arange(1, 20))[0] for _ in range(2)]
        assert policy.model.training and torch.equal(*found)


def test_ids_of_no_token_have_probability_zero():
    """Logits (1, 2, 5, 3) of which the third is padding: p = (e, e^2, 0, e^3) / (e + e^2 + e^3),
    log p = log-softmax of (1, 2, 3) = -2.407606, -1.407606, -0.407606, entropy 0.832395."""
    embedding = torch.nn.Linear(1, 4, bias=False).double()
    embedding.weight.data.copy_(torch.tensor([[1.0], [2.0], [5.0], [3.0]]))
    head = TokenLogprobs(embedding)
    head.forget({2})
    hidden = torch.ones(3, 1, dtype=torch.float64, requires_grad=True)
    logprobs, entropy = head(hidden, torch.tensor([0, 1, 3]))
    expected = torch.tensor([-2.407606, -1.407606, -0.407606], dtype=torch.float64)
    torch.testing.assert_close(logprobs, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(entropy, torch.full_like(entropy, 0.832395), rtol=0, atol=1e-6)
    logprobs[0].backward()
    gradient = embedding.weight.grad
    assert gradient is not None and gradient[2] == 0  # d log p_0 / d z = onehot - p, and p_2 = 0
    torch.testing.assert_close(gradient[0, 0].item(), 1 - 0.0900306, rtol=0, atol=1e-6)
    with torch.no_grad():
        logits = head.logits(torch.ones(1, 1, dtype=torch.float64))
    for temperature in (0.0, 0.4, 1.0, 100.0):
        uniforms = torch.linspace(0, 1 - 2**-20, 400)
        tokens, sampled, entropies = draw(logits.expand(400, 4), uniforms, temperature)
        assert 2 not in tokens.tolist()
        assert torch.equal(sampled, logits.log_softmax(-1)[0, tokens])
        torch.testing.assert_close(entropies, entropy[0].expand(400), rtol=0, atol=1e-9)


def test_sampler_and_learner_agree_on_padded_vocabularies():
    """The first update's ratio is 1 with a third of the rows unused."""
    policy = Policy(opinionated(config_of("Qwen2", LONG)))
    policy.head.forget(range(67, VOCAB))
    prompt = tuple(i % 60 for i in range(12))
    sampler = LocalSampler(policy, ())
    requests = [SampleRequest(i, prompt, (i,)) for i in range(8)]
    for action in sampler.sample(requests, temperature=1.0, max_tokens=20):
        assert max(action.token_ids) < 67
        packed = pack([(*prompt, *action.token_ids)], "cpu")
        found = policy.logprobs(packed, torch.arange(12, 32))
        ours = torch.tensor(action.logprobs), torch.tensor(action.entropies)
        torch.testing.assert_close(found, ours, rtol=0, atol=1e-4)
