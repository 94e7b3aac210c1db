"""Trajectory files keep what the policy expected of each token that it learned to predict."""

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from paw.config.read import resolve
from paw.runs import read
from paw.train.loop import train

from . import tiny_runs

END, HEADER = "<|end|>", "<|observation|>"
"""What the tiny policies' template puts between an action and an observation; a finished action
brings the first itself."""


@pytest.mark.parametrize("context", ["append", "window"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"paw.target": "shuffled"},  # targets that stand nowhere get rows of their own
        {"paw.condition": "no_action"},
        {"paw.horizon": 2},  # what is predicted behind o_{t+1} is not in the record
        {"optimizer.mini_batches": 2, "optimizer.learning_rate": 1e-9},
        {"optimizer.epochs": 2, "optimizer.learning_rate": 1e-9},
        {"optimizer.tokens_per_micro_batch": 30},
    ],
    ids=lambda options: "-".join(map(str, options)),
)
def test_log_probs_of_targets(tmp_path: Path, context: str, options: dict[str, object]):
    policy = tiny_runs.make_policy(tmp_path / "policy", max_positions=2048)
    settings = {
        "rollout.context": context, "run.updates": 1, "run.seed": 3, "eval.every": 0,
        "rollout.max_prompt_tokens": 1000, "rollout.group_size": 3,
    }  # fmt: skip
    flags = tiny_runs.flags(policy, tmp_path / "run", **settings | options)
    train(resolve([], flags))

    model = AutoModelForCausalLM.from_pretrained(policy)
    end, header = AutoTokenizer.from_pretrained(policy).convert_tokens_to_ids([END, HEADER])
    acts = options.get("paw.condition") != "no_action"
    records = read.trajectories(tmp_path / "run")
    compared, nll, tokens = 0, 0.0, 0
    for record in records:
        read_so_far: list[int] = []
        for turn in record.turns:
            history = (
                [*read_so_far, *turn.context_ids] if context == "append" else [*turn.context_ids]
            )
            read_so_far = [*history, *turn.action_ids]
            if turn.target_ids is None:
                assert turn.target_logprobs is None
                continue
            assert turn.target_logprobs is not None
            before = [
                *(read_so_far if acts else history),
                *([] if acts and turn.finished else [end]),
            ]
            ids = torch.tensor([[*before, header, *turn.target_ids]])
            with torch.no_grad():
                scores = model(ids).logits[0].double().log_softmax(-1)
            expected = [
                scores[p - 1, ids[0, p]].item()
                for p in range(ids.shape[1] - len(turn.target_ids), ids.shape[1])
            ]
            assert turn.target_logprobs == pytest.approx(expected, abs=1e-4)
            compared += 1
            nll, tokens = nll - sum(expected), tokens + len(expected)
    assert compared >= 5
    if "paw.horizon" not in options:
        assert read.metrics(tmp_path / "run")[0]["wm/nll"] == pytest.approx(nll / tokens, abs=1e-4)
