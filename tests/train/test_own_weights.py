"""Commands on weights of one's own: a .gguf file, a base with an adapter, and where responses end.

A saved policy is a model directory of its own: stock `generate` stops where the policy learned to.
"""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from paw.model.small import create_policy_model
from runs.gguf_files import write_gguf
from text.templates import QWEN25, chat_tokenizer

from .tiny_runs import ForkServer, flags, same_run

pytestmark = pytest.mark.timeout(300)
peft = pytest.importorskip("peft")


@pytest.fixture(scope="module")
def adapter(policy: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random LoRA adapter of the tiny policy."""
    place = tmp_path_factory.mktemp("adapters") / "mine"
    config = peft.LoraConfig(r=2, target_modules=["q_proj", "down_proj"])
    adapted = peft.get_peft_model(AutoModelForCausalLM.from_pretrained(policy), config)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        for name, parameter in adapted.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=0.3)
    adapted.save_pretrained(place)
    return place


def merged(policy: Path, adapter: Path, place: Path) -> Path:
    """The directory that peft makes of both."""
    shutil.copytree(policy, place)
    adapted = peft.PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(policy), adapter)
    adapted.merge_and_unload().save_pretrained(place)
    return place


def weights(run: Path, update: int) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"update-{update:06d}" / "model.safetensors")


def test_training_goes_on_from_the_merged_weights(server, policy, adapter, tmp_path: Path):
    """As from the directory that peft makes; also through a stop, which must not merge twice."""
    plain = merged(policy, adapter, tmp_path / "merged")
    runs = {name: tmp_path / name for name in ("theirs", "ours", "stopped")}
    theirs = server.run(["train", *flags(plain, runs["theirs"], run__updates=2)])
    assert theirs.code == 0, theirs.err
    with_adapter = {"model__adapter": adapter}
    ours = server.run(["train", *flags(policy, runs["ours"], run__updates=2, **with_adapter)])
    assert ours.code == 0, ours.err
    assert f"{policy} + adapter {adapter} (made for {policy}), merged" in ours.err
    one = server.run(["train", *flags(policy, runs["stopped"], run__updates=1, **with_adapter)])
    two = server.run(["train", *flags(policy, runs["stopped"], run__updates=2, **with_adapter)])
    assert (one.code, two.code) == (0, 0), two.err
    same_run(runs["ours"], runs["stopped"], update=2)
    expected, found = weights(runs["theirs"], 2), weights(runs["ours"], 2)
    assert all(torch.equal(expected[name], found[name]) for name in expected)


def test_a_new_lora_goes_on_it(server: ForkServer, policy: Path, adapter: Path, tmp_path: Path):
    """At rate 0 what is saved are the merged weights; through a stop too."""
    plain = load_file(merged(policy, adapter, tmp_path / "merged") / "model.safetensors")
    settings = {
        "model__adapter": adapter, "model__lora_rank": 2, "optimizer__learning_rate": 0,
        "algorithm__kl_coefficient": 0.1,
    }  # fmt: skip
    for updates in (1, 2):
        run = server.run(
            ["train", *flags(policy, tmp_path / "run", run__updates=updates, **settings)]
        )
        assert run.code == 0, run.err
        found = weights(tmp_path / "run", updates)
        assert all(torch.equal(plain[name], found[name]) for name in plain)
    rows = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    # Zero but for rounding: the reference reads other packs than the policy.
    assert json.loads(rows[0])["policy/ref_kl"] == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("command", ["train", "dry", "imitate", "eval", "play"])
def test_adapters_in_the_wrong_place_end_every_command_at_once(
    server: ForkServer, policy: Path, adapter: Path, tmp_path: Path, command: str
):
    """Beside weights, alone, of nothing: one line that says what is there and what to write."""
    both, wide = tmp_path / "both", tmp_path / "wide"
    shutil.copytree(policy, both)
    for file in adapter.iterdir():
        shutil.copy(file, both)
    shutil.copytree(adapter, wide)
    state = load_file(wide / "adapter_model.safetensors")
    state = {k: torch.cat([v, v], 1) if "lora_A" in k else v for k, v in state.items()}
    from safetensors.torch import save_file

    save_file(state, wide / "adapter_model.safetensors")
    cases = [
        (both, "", "weights and an adapter"),
        (adapter, "", f"--model.path {policy} --model.adapter {adapter}"),
        (policy, policy, "no adapter there (no adapter_config.json); a model is model.path"),
        (policy, tmp_path / "none", "no such directory"),
        (policy, wide, "does not fit the model: size mismatch"),
    ]
    for number, (path, with_adapter, message) in enumerate(cases[: 2 if command == "play" else 5]):
        finished = server.run(arguments(command, path, with_adapter, tmp_path / f"{number}"))
        assert finished.code == 2, (number, finished.err)
        line = finished.err.strip().splitlines()[-1]
        assert line.startswith("paw: ") and message in line, (number, finished.err)
        assert not (tmp_path / f"{number}").exists()


def arguments(command: str, path: Path, adapter: Path | str, output: Path) -> list[str]:
    more = ["--model.adapter", str(adapter)]
    if command == "eval":
        return ["eval", str(path), "--env", "household", "--episodes", "1", *more]
    if command == "play":
        return ["play", "household", "--policy", str(path)]
    if command == "imitate":
        options = {
            "imitate__output": output,
            "imitate__demonstrations": 2,
            "rollout__max_turns": 20,
        }
        return ["imitate", *flags(path, **options), *more]
    dry = ["--dry-run"] if command == "dry" else []
    return ["train", *flags(path, output), *dry, *more]


def test_a_gguf_file_is_a_model_path(server: ForkServer, tmp_path: Path):
    """The dry run writes nothing, training dequantises once, a run needs the file no more."""
    folder = tmp_path / "models"
    folder.mkdir()
    file = write_gguf(folder / "tiny.gguf")
    run = tmp_path / "run"
    settings = {"run__updates": 1, "rollout__max_prompt_tokens": 1500}
    dry = server.run(["train", *flags(file, run, **settings), "--dry-run"])
    assert dry.code == 0, dry.err
    assert "not measured: the file is dequantised when a run begins" in dry.out
    assert [p.name for p in folder.iterdir()] == ["tiny.gguf"]
    trained = server.run(["train", *flags(file, run, **settings)])
    assert trained.code == 0, trained.err
    assert trained.err.count("paw: dequantising") == 1
    imitated = server.run(
        [
            *arguments("imitate", file, "", tmp_path / "imitated"),
            *("--imitate.steps", "1", "--rollout.max_prompt_tokens", "1500"),
        ]
    )
    assert imitated.code == 0, imitated.err
    assert "dequantising" not in imitated.err
    file.unlink()
    evaluated = server.run(["eval", str(run), "--episodes", "1", "--eval.max_turns", "1"])
    assert evaluated.code == 0, evaluated.err
    generation = json.loads(
        (run / "checkpoints" / "update-000001" / "generation_config.json").read_text()
    )
    assert (generation["eos_token_id"], generation["pad_token_id"]) == (2, 2)


def response(directory: Path | str) -> tuple[list[int], list[int]]:
    """What stock `generate` answers to a first observation, and the ids at which it may stop."""
    tokenizer = AutoTokenizer.from_pretrained(directory)
    model = AutoModelForCausalLM.from_pretrained(directory)
    text = "You are in the kitchen. You see a fridge 1, a cabinet 1 and a table 1."
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": text}], add_generation_prompt=True, return_dict=True,
        return_tensors="pt",
    )  # fmt: skip
    found = model.generate(**prompt, do_sample=False, max_new_tokens=60)
    ends = model.generation_config.eos_token_id
    return found[0, prompt["input_ids"].shape[1] :].tolist(), ends if isinstance(ends, list) else [
        ends
    ]


@pytest.mark.parametrize("command", ["none", "train", "lora", "imitate"])
def test_stock_generate_stops_where_the_policy_does(
    server: ForkServer, tmp_path: Path, command: str
):
    output = tmp_path / "out"
    if command == "none":
        from paw.runs.layout import resolve_model

        directory = Path(resolve_model("household"))
    elif command == "imitate":
        options = {"imitate__steps": 1, "imitate__output": output}
        finished = server.run(
            [
                "imitate",
                *flags("household", **options, imitate__demonstrations=2, rollout__max_turns=20),
            ]
        )
        assert finished.code == 0, finished.err
        directory = output
    else:
        options = {"run__updates": 1, "optimizer__learning_rate": 0}
        options |= {"model__lora_rank": 2} if command == "lora" else {}
        finished = server.run(["train", *flags("household", output, **options)])
        assert finished.code == 0, finished.err
        directory = output / "checkpoints" / "update-000001"
    tokens, ends = response(directory)
    assert len(tokens) < 60 and tokens[-1] in ends
    assert json.loads((directory / "generation_config.json").read_text())["pad_token_id"] == 256


def test_a_base_model_with_a_chat_template_ends_at_both(server: ForkServer, tmp_path: Path):
    """ChatML put on a base model: its EOS is still <|endoftext|>, and turns end with <|im_end|>.
    Sampling settings that the model came with, odd ones too, stay."""
    tokenizer = chat_tokenizer(QWEN25)
    tokenizer.eos_token = tokenizer.pad_token = "<|endoftext|>"
    model = create_policy_model(
        vocab_size=len(tokenizer), hidden_size=16, num_layers=1, num_heads=2, num_kv_heads=1,
        intermediate_size=32, max_positions=2048, seed=0,
    )  # fmt: skip
    end, turn = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    base = tmp_path / "base"
    model.save_pretrained(base)
    tokenizer.save_pretrained(base)
    settings = {"eos_token_id": end, "temperature": 0.6, "do_sample": False, "top_p": 0.9}
    (base / "generation_config.json").write_text(json.dumps(settings))
    run, options = tmp_path / "run", {"run__updates": 2, "rollout__max_prompt_tokens": 1500}
    finished = server.run(["train", *flags(base, run, run__checkpoint_every=1, **options)])
    assert finished.code == 0, finished.err
    for update in (1, 2):
        file = run / "checkpoints" / f"update-{update:06d}" / "generation_config.json"
        found = json.loads(file.read_text())
        assert (found["eos_token_id"], found["pad_token_id"]) == ([turn, end], end)
        assert (found["temperature"], found["top_p"]) == (0.6, 0.9)
