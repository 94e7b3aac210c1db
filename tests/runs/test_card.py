"""A card takes a policy's settings along: what was trained goes on as it was trained."""

import tomllib
from dataclasses import replace

from paw import __version__
from paw.config.read import changes, resolve
from paw.config.tree import Config
from paw.runs.card import card_text
from paw.runs.facts import commit


def card(*flags: str) -> dict:
    return tomllib.loads(card_text(resolve([], flags), "paw train, update 1"))


def test_training_goes_on_with_the_settings_of_the_run():
    flags = [
        "--rollout.groups=4", "--rollout.temperature=0.7", "--rollout.context=append",
        "--algorithm.name=ppo", "--algorithm.aggregation=sequence", "--paw.loss=ce",
        "--optimizer.learning_rate=3e-4", "--optimizer.betas=0.9,0.95", "--model.lora_rank=8",
        "--eval.split=test", "--eval.episodes=50", "--eval.temperature=1", "--eval.max_turns=30",
    ]  # fmt: skip
    run = resolve([], flags)
    assert changes(run, resolve([], card=card(*flags)), []) == []


def test_what_is_of_one_run_or_one_machine_stays_behind():
    flags = [
        "--run.updates=7", "--run.seed=7", "--run.directory=x", "--eval.every=7",
        "--rollout.workers=7", "--rollout.step_seconds=7", "--optimizer.tokens_per_micro_batch=7",
        "--model.device=cpu", "--model.dtype=bfloat16", "--env.data_dir=/data",
        "--run.checkpoint_every=7", "--rollout.sampler=vllm", "--rollout.vllm_memory=0.7",
        "--rollout.vllm_server=http://x:1",
    ]  # fmt: skip
    config = resolve([], card=card(*flags))
    assert changes(Config(), config, []) == []


def test_another_loss_has_its_own_coefficient():
    assert "coefficient" not in card("--paw.loss=ce")["paw"]
    assert resolve([], ["--paw.loss=cmae"], card("--paw.loss=ce")).paw.coefficient == 1.0
    assert card("--paw.coefficient=0.5")["paw"]["coefficient"] == 0.5


def test_options_of_the_environment_but_no_place():
    options = {"top_k": 1, "shuffle": False, "observation": "text_rich", "corpus": "/data/x.jsonl"}
    config = Config()
    config = replace(config, env=replace(config.env, data_dir="/data", options=options))
    assert tomllib.loads(card_text(config, "paw train, update 1"))["env"] == {
        "name": "household", "top_k": 1, "shuffle": False, "observation": "text_rich",
    }  # fmt: skip


def test_a_card_says_where_its_policy_comes_from():
    run = resolve([], ["--run.seed=3", "--env.split=train", "--run.directory=/secret/place"])
    second = card_text(run, "paw train, update 40").splitlines()[1]
    origin = "# From paw train, update 40, on household train, seed 3 (paw-rl "
    assert second.startswith(origin + __version__)
    assert (commit() or "") in second
    assert "place" not in second
