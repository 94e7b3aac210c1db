"""Every recipe in the repository is a configuration that resolves."""

from itertools import product
from pathlib import Path

import pytest

from paw.compare.arms import read_arms
from paw.config.read import overlay, resolve, to_toml

RECIPES = Path(__file__).parents[2] / "recipes"
PAPER = RECIPES / "paper"
BENCHMARKS = ["alfworld", "webshop", "search_qa"]
MODELS = ["qwen2.5-1.5b", "qwen2.5-3b", "qwen2.5-7b"]
ALGORITHMS = ["grpo", "rloo", "gigpo", "ppo"]


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.toml")), ids=lambda p: p.stem)
def test_recipe_resolves(recipe):
    resolve([recipe])


def test_own_arms_resolve():
    """Those of the sweeps, beside the shipped ones."""
    arms = read_arms(sorted((RECIPES / "arms").glob("*.toml")))
    assert len(arms) > len(read_arms())
    for arm in arms.values():
        overlay([], on_top=arm.layer)


def test_paper_overlays_keep_what_each_says():
    """One cell per benchmark, model and algorithm: no overlay undoes another."""
    for benchmark, model, algorithm in product(BENCHMARKS, MODELS, ALGORITHMS):
        config = resolve([PAPER / f"{name}.toml" for name in (benchmark, model, algorithm)])
        assert config.env.name == benchmark
        assert config.model.path == f"Qwen/Qwen2.5-{model[8:-1]}B-Instruct"
        assert config.algorithm.name == algorithm
        assert config.paw.probability_cap == 0.2 and config.paw.selection_fraction == 0.75
        limits = {"alfworld": (2048, 50), "webshop": (4096, 15), "search_qa": (4096, 4)}
        assert (config.rollout.max_prompt_tokens, config.rollout.max_turns) == limits[benchmark]


def test_resolved_recipe_reads_back_equal(tmp_path):
    config = resolve([PAPER / "search_qa.toml", PAPER / "gigpo.toml"])
    file = tmp_path / "config.toml"
    file.write_text(to_toml(config))
    assert resolve([file]) == config
