"""Checkpoints and model directories: whole or not at all, and found by any of their names."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from paw.config.read import resolve
from paw.config.tree import Config
from paw.errors import UserError
from paw.model.critic import Critic
from paw.model.policy import Policy
from paw.runs.layout import complete, newest_checkpoint, read_card, resolve_model
from paw.text.tokenizer import load_tokenizer
from paw.train import checkpoint
from paw.train.learner import Learner
from paw.train.losses import choose_losses


def learner_of(config: Config, policy: Policy, critic: Critic | None = None) -> Learner:
    losses = choose_losses(config.algorithm, config.paw)
    rate = config.algorithm.critic_learning_rate
    return Learner(policy, critic, losses, config.optimizer, rate)


def learner(policy: Path) -> Learner:
    config = Config()
    return learner_of(config, Policy.load(policy))


def names(folder: Path) -> list[str]:
    return sorted(p.name for p in folder.iterdir())


def test_keeps_the_newest(policy: Path, tmp_path: Path):
    config = Config()
    trained, tokenizer = learner(policy), load_tokenizer(policy)
    for update in (1, 2, 10, 3):
        checkpoint.save(tmp_path, update, config, trained, tokenizer)
    assert names(tmp_path) == ["update-000003", "update-000010"]
    assert newest_checkpoint(tmp_path) == tmp_path / "update-000010"


def test_is_a_model_directory_with_a_card(policy: Path, tmp_path: Path):
    config = Config()
    config = replace(config, rollout=replace(config.rollout, context="append", max_turns=7))
    saved = checkpoint.save(tmp_path, 1, config, learner(policy), load_tokenizer(policy))
    loaded, original = Policy.load(saved).state_dict(), Policy.load(policy).state_dict()
    assert all(torch.equal(loaded[name], original[name]) for name in original)
    card = resolve([], card=read_card(str(saved)))
    assert (card.rollout.context, card.rollout.max_turns) == ("append", 7)
    assert card.rollout.groups == Config().rollout.groups


def test_incomplete_ones_are_not_seen(policy: Path, tmp_path: Path):
    saved = checkpoint.save(tmp_path, 1, Config(), learner(policy), load_tokenizer(policy))
    (tmp_path / "update-000002.tmp").mkdir()
    (tmp_path / "update-000003").mkdir()
    assert complete(tmp_path) == [saved]


def test_incomplete_one_of_the_same_number_is_replaced(policy: Path, tmp_path: Path):
    (tmp_path / "update-000001").mkdir()
    (tmp_path / "update-000001" / "half").write_text("x")
    checkpoint.save(tmp_path, 1, Config(), learner(policy), load_tokenizer(policy))
    assert not (tmp_path / "update-000001" / "half").exists()
    assert names(tmp_path) == ["update-000001"]


def test_of_another_algorithm_is_refused(policy: Path, tmp_path: Path):
    saved = checkpoint.save(tmp_path, 1, Config(), learner(policy), load_tokenizer(policy))
    config, loaded = Config(), Policy.load(policy)
    critic = Critic.from_policy(loaded)
    other = learner_of(config, loaded, critic)
    with pytest.raises(UserError, match=r"trainer\.pt: cannot read it .*goes on from the start"):
        checkpoint.restore(saved, other)


def test_names_of_models(policy: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    checkpoints = tmp_path / "run" / "checkpoints"
    checkpoint.save(checkpoints, 4, Config(), learner(policy), load_tokenizer(policy))
    assert resolve_model(str(tmp_path / "run")) == str(checkpoints / "update-000004")
    assert resolve_model(str(policy)) == str(policy)
    assert Path(resolve_model("household")).parent.name == "policies"
    assert resolve_model("Qwen/Qwen2.5-0.5B") == "Qwen/Qwen2.5-0.5B"
    monkeypatch.chdir(tmp_path)
    for wrong in (".", "..", "run/nothing", "./x", "/nonexistent", "a/b/c"):
        with pytest.raises(UserError, match=r"model\.path"):
            resolve_model(wrong)
