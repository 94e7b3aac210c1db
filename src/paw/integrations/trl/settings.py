"""`[paw]` for TRL: the same keys by the same names, and what cannot be done there."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from paw.config import read, tree
from paw.errors import UserError
from paw.integrations.judge import check_fixed
from paw.integrations.trl.environment import TextEnvironment

FIXED = {
    "condition": ("action", "TRL's rows hold every observation behind its action"),
    "schedule": ("joint", "TRL trains the policy in every step"),
    "horizon": (1, "only the next observation is predicted"),
    "dedup": (False, "TRL's rows do not say which transitions are the same"),
}
"""Keys that have one value here, and why."""


@dataclass(frozen=True, kw_only=True)
class PawConfig(tree.PawConfig):
    """Keys, defaults and meanings of `[paw]` (`paw keys paw`); an update is a generation batch.

    Raises:
        UserError: a value outside its range, or one that TRL leaves no room for.
    """

    max_return: float | None = None
    """R_max of Eq. 10, in the units of the weighted sum of the reward functions, which lambda then
    reads; None: what the environment says (`max_return`), and lambda reads its own reward alone"""

    def __post_init__(self) -> None:
        if self.loss in tree.COEFFICIENTS:
            super().__post_init__()
        _check(self)

    @property
    def active(self) -> bool:
        """Is there a prediction term at all?"""
        return self.enabled and self.coefficient > 0

    def table(self) -> dict[str, Any]:
        """The keys of `[paw]` alone."""
        keys = {field.name for field in dataclasses.fields(tree.PawConfig)}
        return {key: value for key, value in vars(self).items() if key in keys}

    def plain(self) -> tree.PawConfig:
        """As a table of `paw.config.tree.Config`."""
        return tree.PawConfig(**self.table())


def _check(paw: PawConfig) -> None:
    check_fixed(paw, "TRL", FIXED)
    given = {key: value for key, value in paw.table().items() if value is not None}
    read.convert({"paw": given})
    if paw.max_return is not None and not 0 < paw.max_return < float("inf"):
        raise UserError(f"paw.max_return = {paw.max_return}: must be positive and finite")


def check_arguments(trainer: Any, paw: PawConfig) -> None:
    """May this trainer train the prediction term?

    Raises:
        UserError: nothing is observed, log-probs would be none of temperature 1, TRL would make
            none, or nothing would show the entropies that select.
    """
    args = trainer.args
    if not trainer.tools and trainer.rollout_func is None:
        raise UserError(
            "there is no next observation to predict: give an environment_factory, tools or a "
            "rollout_func with env_mask, or PawConfig(enabled=False) for TRL's GRPO alone"
        )
    if args.temperature != 1:
        raise UserError(
            f"temperature = {args.temperature}: the prediction needs log-probs at temperature 1, "
            "and TRL divides them by it: set temperature = 1"
        )
    if args.use_liger_kernel and hasattr(trainer, "compute_liger_loss"):
        raise UserError("use_liger_kernel = True: Liger's loss makes no log-probs of tokens; off")
    if paw.select not in ("entropy", "lowest"):
        return
    mend = 'set paw.select = "random" or "all"'
    if getattr(trainer, "use_transformers_continuous_batching", False):
        raise UserError(
            f"use_transformers_continuous_batching = True: shows no entropies of actions; {mend}"
        )
    scores = args.gradient_accumulation_steps % (args.steps_per_generation * args.num_iterations)
    blind = trainer.use_vllm and not scores and not args.vllm_importance_sampling_correction
    if blind and paw.entropy == "full":
        raise UserError(
            "use_vllm = True without vllm_importance_sampling_correction: nothing shows the "
            'entropies of actions; set it, or paw.entropy = "sampled"'
        )


def max_return_of(paw: PawConfig, factories: Sequence[Any], owned: bool) -> float:
    """R_max of the settings, else of the environments' class.

    Args:
        paw: `[paw]`.
        factories: of the environments.
        owned: has any of them a `get_reward`?

    Raises:
        UserError: neither says it, several environments differ, or one that says it gives no reward
            in whose units that is.
    """
    if paw.max_return is not None:
        return paw.max_return
    if paw.weight != "adaptive":
        return 1.0  # only lambda_g of Eq. 10 reads it
    found = {getattr(f, "max_return", None) for f in factories}
    if len(found) == 1 and (only := found.pop()) is not None:
        if owned and all(hasattr(f, "get_reward") for f in factories if isinstance(f, type)):
            return float(only)
        raise UserError(
            f"the environment says max_return = {only} and has no get_reward: set paw.max_return, "
            "in the units of the reward functions' weighted sum"
        )
    raise UserError(
        "paw.max_return is not set: give the largest return that a trajectory can have, in the "
        "units of the reward functions' weighted sum"
    )


def check_target(paw: PawConfig, factories: Sequence[Any], num_processes: int) -> None:
    """May this placebo be predicted?

    Raises:
        UserError: several processes, or o_t is not known.
    """
    if paw.target == "next":
        return
    if num_processes > 1:
        raise UserError(
            f'paw.target = "{paw.target}": a placebo has a forward pass of its own, which is not '
            "done with several processes"
        )
    ours = factories and all(
        isinstance(f, type) and issubclass(f, TextEnvironment) for f in factories
    )
    if paw.target == "repeat_current" and not ours:
        raise UserError(
            'paw.target = "repeat_current": only environments of paw.integrations.trl.environment '
            "say what was observed first"
        )
