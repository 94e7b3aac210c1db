"""The table `paw` of verl's configuration: keys of [paw]; tables `env`, `rollout`, `algorithm`."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from paw import envs
from paw.config import read
from paw.config.tree import Config
from paw.envs.base import TaskSource
from paw.errors import UserError, first_line
from paw.integrations.judge import check_fixed
from paw.rollout.actor import open_source

KEYS = {
    "rollout": (
        "max_turns",
        "context",
        "history_turns",
        "response_format",
        "max_prompt_tokens",
        "max_response_tokens",
        "invalid_penalty",
        "validity",
    ),
    "algorithm": (
        "scale_by_std",
        "discount",
        "step_weight",
        "anchor_similarity",
        "statistics",
        "penalty",
    ),
}
"""Keys of ours that count here, those of `algorithm` with gigpo alone: verl has the others."""
ESTIMATORS = {"grpo": "grpo", "gae": "ppo", "gigpo": "gigpo"}
"""`algorithm.adv_estimator` -> the same by our names."""
FIXED = {
    "condition": ("action", "rows hold every observation behind its action"),
    "schedule": ("joint", "verl trains the policy in every update"),
    "horizon": (1, "only the next observation is predicted"),
    "dedup": (False, "an update's transitions are told apart by their place alone"),
}
"""Keys that have one value here, and why."""


def read_settings(table: Any) -> Config:
    """The table `paw` as ours.

    Args:
        table: `config.paw`: keys of [paw], and the tables `env`, `rollout` and `algorithm`.

    Raises:
        UserError: no such table, an unknown key, or a value out of its range.
    """
    if table is None:
        raise UserError("the configuration has no table `paw`: see examples/verl_alfworld.yaml")
    plain = _plain(table)
    given = {name: dict(plain.get(name) or {}) for name in ("env", *KEYS)}
    given["paw"] = {key: value for key, value in plain.items() if key not in given}
    for name, keys in given.items():
        for key in keys:
            read.check_key(name, key, "" if name == "paw" else "paw.")
            if name in KEYS and key not in KEYS[name]:
                raise UserError(f"paw.{name}.{key}: verl has a key of its own for this")
    if "split" in given["env"]:
        raise UserError("paw.env.split: data.train_files and data.val_files name the splits")
    tables = {name: dict(keys) for name, keys in envs.style(_name(given["env"])).protocol.items()}
    for name, keys in given.items():
        said = {key: value for key, value in keys.items() if value is not None}
        tables[name] = tables.get(name, {}) | said
    return read.convert(tables)


def _plain(table: Any) -> Mapping[str, Any]:
    """A table without omegaconf; variables are read."""
    try:
        plain = OmegaConf.to_container(table, resolve=True) if OmegaConf.is_config(table) else table
    except OmegaConfBaseException as error:
        raise UserError(f"paw: {first_line(error)}") from error
    if not isinstance(plain, Mapping):
        raise UserError(f"paw = {plain!r}: must be a table")
    return {str(key): value for key, value in plain.items()}


def _name(env: Mapping[str, Any]) -> str:
    name = env.get("name")
    if not isinstance(name, str):
        raise UserError("paw.env.name is not set: household, alfworld, webshop, search_qa, …")
    return name


def open_tasks(settings: Config, split: str) -> TaskSource:
    """The tasks of a split. Raises UserError for an unknown or empty one."""
    return open_source(replace(settings, env=replace(settings.env, split=split)))


def is_active(settings: Config) -> bool:
    """Is there a prediction term at all?"""
    return settings.paw.enabled and settings.paw.coefficient > 0


def check_config(config: DictConfig, settings: Config) -> None:
    """May verl train this?

    Raises:
        UserError: an estimator that counts rows where we have trajectories, or a key that would
            have no effect; with a prediction term: log-probs would be none of temperature 1,
            nothing would show the entropies that select, groups would be filtered, or a target
            would have no place or no room.
    """
    estimator = str(config.algorithm.adv_estimator)
    if estimator not in ESTIMATORS:
        raise UserError(
            f"algorithm.adv_estimator = {estimator}: one of {', '.join(ESTIMATORS)}; others take "
            "each row for a trajectory"
        )
    _check_rewards(config)
    if estimator == "gigpo":
        _check_gigpo(config.algorithm)
    else:
        _check_unread(config, settings)
    if estimator == "gae" and settings.rollout.context == "window":
        for key in ("gamma", "lam"):
            if (value := config.algorithm.get(key, 1.0)) != 1:
                raise UserError(
                    f"algorithm.{key} = {value}: verl's sums of gae end with a row, here a turn: "
                    'set it to 1, or paw.rollout.context = "append"'
                )
    if is_active(settings):
        _check_prediction(config, settings)


def _check_rewards(config: DictConfig) -> None:
    """Rewards are the environment's: verl's own would have no effect, or take their place."""
    reward = config.get("reward") or {}
    if (reward.get("reward_model") or {}).get("enable"):
        raise UserError("reward.reward_model.enable: the environment gives the rewards here")
    if (path := (reward.get("custom_reward_function") or {}).get("path")) is not None:
        raise UserError(
            f"reward.custom_reward_function.path = {path}: the environment gives the rewards here"
        )


def _check_gigpo(algorithm: DictConfig) -> None:
    """Keys of verl that our estimator does not read."""
    if algorithm.get("use_kl_in_reward"):
        raise UserError("algorithm.use_kl_in_reward: gigpo reads the environment's rewards alone")
    unread = {
        "gamma": (1.0, "set paw.algorithm.discount"),
        "lam": (1.0, "gigpo has none"),
        "norm_adv_by_std_in_grpo": (True, "set paw.algorithm.scale_by_std"),
    }
    for key, (usual, instead) in unread.items():
        if (value := algorithm.get(key, usual)) != usual:
            raise UserError(f"algorithm.{key} = {value}: has no effect with gigpo; {instead}")


def _check_unread(config: DictConfig, settings: Config) -> None:
    """Keys of ours that verl's estimators do not read; an environment may have its own defaults."""
    plain = {key: value for key, value in _plain(config.paw).items() if key != "algorithm"}
    usual = read_settings(plain).algorithm
    for key in KEYS["algorithm"]:
        if (value := getattr(settings.algorithm, key)) != getattr(usual, key):
            raise UserError(
                f"paw.algorithm.{key} = {value}: has no effect with algorithm.adv_estimator = "
                f"{config.algorithm.adv_estimator}; gigpo alone reads it"
            )


def _check_prediction(config: DictConfig, settings: Config) -> None:
    actor, paw, rollout = config.actor_rollout_ref.actor, settings.paw, settings.rollout
    check_fixed(paw, "verl", FIXED)
    if (temperature := config.actor_rollout_ref.rollout.temperature) != 1:
        raise UserError(
            f"actor_rollout_ref.rollout.temperature = {temperature}: the prediction needs "
            "log-probs at temperature 1, and verl divides them by it"
        )
    if rollout.context == "append" and paw.target != "next":
        raise UserError(
            f'paw.target = "{paw.target}": in a growing conversation the true observation stands '
            'already; set paw.rollout.context = "window"'
        )
    if actor.loss_agg_mode == "seq-mean-token-sum-norm" and actor.loss_scale_factor is None:
        raise UserError(
            "actor.loss_agg_mode = seq-mean-token-sum-norm divides by the longest row, to which "
            "observations are added: set actor.loss_scale_factor"
        )
    if (config.algorithm.get("filter_groups") or {}).get("enable"):
        raise UserError(
            "algorithm.filter_groups.enable: a group whose trajectories all fail has the largest "
            "lambda, and would be left out"
        )
    if (config.get("distillation") or {}).get("enabled"):
        raise UserError(
            "distillation.enabled: the teacher scored rows without the observations that are added"
        )
    if _replays(config.actor_rollout_ref):
        raise UserError(
            "router_replay: rows were routed without the observations that are added; set mode = "
            "disabled and rollout.enable_rollout_routing_replay = false"
        )
    correction = config.algorithm.get("rollout_correction") or {}
    blind = correction.get("bypass_mode") and paw.entropy == "full"
    if blind and paw.select in ("entropy", "lowest"):
        raise UserError(
            "algorithm.rollout_correction.bypass_mode: nothing shows the entropies of actions; set "
            'paw.entropy = "sampled"'
        )
    _check_room(actor, settings)


def _replays(models: DictConfig) -> bool:
    """Are the experts that a row was routed to given again?"""
    engines = [models.actor, *(t for t in models.actor.values() if OmegaConf.is_dict(t))]
    modes = {(engine.get("router_replay") or {}).get("mode", "disabled") for engine in engines}
    return modes != {"disabled"} or bool(models.rollout.get("enable_rollout_routing_replay"))


def _processes_of_a_row(actor: DictConfig) -> int:
    """Among how many verl splits a row: it multiplies its limit by as many."""
    engine, key = {
        "megatron": ("megatron", "context_parallel_size"),
        "veomni": ("veomni", "ulysses_parallel_size"),
        "torchtitan": ("torchtitan", "tensor_parallel_size"),
    }.get(str(actor.strategy), ("fsdp_config", "ulysses_sequence_parallel_size"))
    return max(int(table.get(key) or 1) for table in (actor, actor.get(engine) or {}))


def _check_room(actor: DictConfig, settings: Config) -> None:
    """Rows grow by a target before the actor learns from them."""
    rollout = settings.rollout
    length = rollout.max_prompt_tokens + rollout.max_response_tokens
    length += settings.paw.max_observation_tokens
    room = actor.ppo_max_token_len_per_gpu * _processes_of_a_row(actor)
    if actor.use_dynamic_bsz and room <= length:
        raise UserError(
            f"actor.ppo_max_token_len_per_gpu = {actor.ppo_max_token_len_per_gpu}: a row may have "
            f"{length} tokens (paw.rollout.max_prompt_tokens + max_response_tokens + "
            "paw.max_observation_tokens) and the template's between"
        )
