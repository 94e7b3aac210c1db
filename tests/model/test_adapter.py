"""Adapters of one's own, merged into the weights: exactly, or refused."""

import json
from pathlib import Path

import pytest
import torch
from peft import AdaLoraConfig, IA3Config, LoraConfig, PrefixTuningConfig, get_peft_model
from tiny_models import VOCAB, build
from transformers import AutoModelForCausalLM, PreTrainedModel

from paw.errors import UserError
from paw.model.adapter import check_adapter_fits, merge_adapter

IDS = torch.tensor([[3, 10, 17, 24, 31]])


def base(**options) -> PreTrainedModel:
    return build("llama", **{"tie_word_embeddings": True, **options})


def adapter(place: Path, config, **options) -> tuple[str, torch.Tensor]:
    """A directory with a random adapter of `base`, and the adapted model's log-probs of IDS."""
    adapted = get_peft_model(base(**options), config).eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for name, parameter in adapted.named_parameters():
            if ".default" in name:
                parameter.add_(torch.randn_like(parameter), alpha=0.2)
        adapted.save_pretrained(place)
        return str(place), adapted(input_ids=IDS).logits.log_softmax(-1)


def saved(model: PreTrainedModel, place: Path) -> str:
    model.save_pretrained(place)
    return str(place)


def logprobs(model: PreTrainedModel) -> torch.Tensor:
    with torch.no_grad():
        return model(input_ids=IDS).logits.log_softmax(-1)


LORA = {"r": 4, "target_modules": ["q_proj", "down_proj"]}
UNTIED = {"tie_word_embeddings": False}


@pytest.mark.parametrize(
    ("config", "options"),
    [
        (LoraConfig(**LORA), {}),
        (LoraConfig(r=4, target_modules="all-linear", use_rslora=True), {}),
        (LoraConfig(**LORA, use_dora=True), {}),
        (LoraConfig(**LORA, init_lora_weights="pissa"), {}),
        (LoraConfig(**LORA, trainable_token_indices=[3, 10]), {}),
        (LoraConfig(**LORA, modules_to_save=["lm_head", "embed_tokens"]), UNTIED),
        (IA3Config(target_modules=["k_proj"], feedforward_modules=[]), {}),
    ],
)
def test_merged_it_says_what_the_adapted_model_says(tmp_path: Path, config, options):
    directory, wanted = adapter(tmp_path / "adapter", config, **options)
    check_adapter_fits(saved(base(**options), tmp_path / "base"), directory)
    merged = merge_adapter(base(**options), directory)
    assert (logprobs(base(**options)) - wanted).abs().max() > 0.1
    torch.testing.assert_close(logprobs(merged), wanted, atol=1e-4, rtol=0)
    assert all(p.requires_grad for p in merged.parameters())
    assert not [n for n, _ in merged.named_parameters() if "lora" in n or "base_layer" in n]
    place = saved(merged, tmp_path / "merged")
    assert not (tmp_path / "merged" / "adapter_config.json").exists()
    loaded = AutoModelForCausalLM.from_pretrained(place)
    assert torch.equal(logprobs(loaded), logprobs(merged))


@pytest.mark.parametrize("target", ["embed_tokens", "lm_head"])
def test_tied_embeddings_that_it_changes_on_one_side_are_refused(tmp_path: Path, target: str):
    """Merged, the change would act on both sides."""
    config = LoraConfig(r=4, target_modules=["q_proj", target])
    directory, _ = adapter(tmp_path / "adapter", config)
    with pytest.raises(UserError, match="embeddings that the model shares with its head"):
        merge_adapter(base(), directory)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        (PrefixTuningConfig(num_virtual_tokens=3, task_type="CAUSAL_LM"), "changes no weights"),
        (LoraConfig(**LORA, layer_replication=[(0, 2), (1, 2)]), "repeats layers"),
        (AdaLoraConfig(target_modules=["q_proj"], total_step=9), "weights have no place there"),
    ],
)
def test_what_cannot_be_merged_is_refused(tmp_path: Path, config, message: str):
    get_peft_model(base(), config).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=message):
        merge_adapter(base(), str(tmp_path))


def narrow() -> PreTrainedModel:
    """Of another width, with equal names."""
    from transformers import LlamaConfig, LlamaForCausalLM

    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=VOCAB,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=8,
            intermediate_size=48,
        )
    )


def shallow() -> PreTrainedModel:
    model = base()
    del model.model.layers[1]
    model.config.num_hidden_layers = 1
    return model


@pytest.mark.parametrize(("make", "message"), [(narrow, "size mismatch"), (shallow, "no place")])
def test_of_another_model_is_refused_with_and_without_weights(tmp_path: Path, make, message):
    directory, _ = adapter(tmp_path / "adapter", LoraConfig(**LORA))
    for attempt in (
        lambda: merge_adapter(make(), directory),
        lambda: check_adapter_fits(saved(make(), tmp_path / "other"), directory),
    ):
        with pytest.raises(UserError, match=message) as error:
            attempt()
        assert "\n" not in str(error.value)


def test_missing_weights_are_refused(tmp_path: Path):
    """peft would leave those layers as they are, without a word."""
    from safetensors.torch import load_file, save_file

    directory, _ = adapter(tmp_path / "adapter", LoraConfig(**LORA))
    file = Path(directory) / "adapter_model.safetensors"
    weights = load_file(file)
    save_file({k: v for k, v in weights.items() if "layers.1" not in k}, file)
    with pytest.raises(UserError, match="4 weights have no place there or are missing"):
        merge_adapter(base(), directory)


def test_unknown_kinds_and_broken_files_are_refused(tmp_path: Path):
    directory, _ = adapter(tmp_path / "adapter", LoraConfig(**LORA))
    file = Path(directory) / "adapter_config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps(config | {"peft_type": "NEWTYPE"}))
    with pytest.raises(UserError, match=r"knows no such adapter: 'NEWTYPE'"):
        merge_adapter(base(), directory)
    file.write_text(json.dumps(config | {"target_modules": ["nothing"]}))
    with pytest.raises(UserError, match=r"Target modules \{'nothing'\} not found"):
        merge_adapter(base(), directory)
    file.write_text(json.dumps(config))
    (Path(directory) / "adapter_model.safetensors").write_bytes(b"x" * 50)
    with pytest.raises(UserError, match="does not fit the model"):
        merge_adapter(base(), directory)
