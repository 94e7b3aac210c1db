"""What stands above the bar."""

from dataclasses import replace
from typing import Any

import torch

from paw.config.read import resolve
from paw.config.tree import Config
from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.runs.header import (
    EXCHANGE_LINES,
    WIDTH,
    first_exchange,
    imitation_header,
    method,
    training_header,
)


def policy() -> Policy:
    model = create_policy_model(
        vocab_size=10, hidden_size=8, num_layers=1, num_heads=2, num_kv_heads=1,
        intermediate_size=16, max_positions=64, seed=0,
    )  # fmt: skip
    return Policy(model)


def rows(text: str) -> dict[str, str]:
    return {line[:11].strip(): line[11:] for line in text.splitlines()}


def test_header_of_a_run():
    config = resolve([], ["--run.updates=80", "--rollout.max_turns=20", "--run.seed=3"])
    text = training_header(
        config, policy(), "runs/x", 40, ["card: rollout.max_turns = 20", "flags: …"]
    )
    found = rows(text)
    assert list(found) == ["paw", "model", "tasks", "method", "budget", "directory", "settings", ""]
    assert f"torch {torch.__version__}, cpu, threads: {torch.get_num_threads()}" in found["paw"]
    assert found["model"] == "household, 0.00 M parameters"
    assert found["tasks"] == "household train, seed 3"
    assert found["budget"] == (
        "80 updates of 16 groups x 8 episodes of at most 20 turns, window; 40 done"
    )
    assert (found["directory"], found["settings"]) == ("runs/x", "card: rollout.max_turns = 20")


def test_method_names_what_is_trained():
    config = Config()
    assert method(config) == "grpo + PaW (cmae, rho 0.2, alpha 0.75, adaptive lambda x 1)"
    flags = ["--paw.target", "shuffled", "--paw.random_sign", "true", "--paw.dedup", "true"]
    told = method(resolve([], [*flags, "--optimizer.epochs", "2"]))
    assert told.startswith("grpo, 2 epochs + PaW (cmae, ")
    assert told.endswith("x 1, target shuffled, random_sign true, dedup true)")
    bare: Any = replace(config, paw=replace(config.paw, enabled=False))
    assert method(bare) == "grpo"


def test_header_of_an_imitation():
    config = resolve([], ["--imitate.from_scratch=true", "--imitate.output=p"])
    found = rows(imitation_header(config, policy(), 3900))
    assert found["model"].startswith("a new one, ")
    assert found["budget"] == "700 steps of 32 episodes; 3,900 demonstrations of the expert"
    assert found["directory"] == "p"


def test_a_long_prompt_is_cut_in_the_middle():
    prompt = "\n".join(f"line {n}" for n in range(100)) + "\n" + "word " * 40
    lines = first_exchange(prompt, "go<|end|>").splitlines()
    assert lines[:2] == ["first prompt:", "  line 0"]
    assert lines[-2:] == ["first response:", "  go<|end|>"]
    shown = lines[1:-2]
    assert len(shown) == EXCHANGE_LINES - 1 and max(map(len, shown)) <= WIDTH
    # 100 lines and 200 letters in 3 more; 9 stay at either end
    assert shown[9] == "  ... 85 lines left out ..." and shown[8] == "  line 8"


def test_what_would_act_on_a_terminal_is_escaped():
    lines = first_exchange("a\rb\x1b[2J\u202e\u2028c\x0cd\ud800", "ok").splitlines()
    assert lines[1] == r"  a\rb\x1b[2J\u202e\u2028c\x0cd\ud800"


def test_a_short_prompt_stays_whole():
    lines = first_exchange("  a\n\nb", "").splitlines()
    assert lines == ["first prompt:", "    a", "", "  b", "first response:"]
