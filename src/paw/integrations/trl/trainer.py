"""GRPOTrainer with the next-observation term: small methods wrapped, each calling TRL's own once.

The update of the paper is TRL's generation batch: selection, lambda and all denominators are fixed
over the whole of it, on all processes, before it is shuffled and split into micro-batches. What a
token weighs travels with it in `inputs["paw_weights"]`.
"""

import logging
from typing import Any

import torch
from torch import Tensor
from trl import GRPOTrainer  # pyright: ignore[reportAttributeAccessIssue]

from paw import objective
from paw.errors import UserError
from paw.integrations.judge import judge
from paw.integrations.trl.environment import NOTICES, TextEnvironment
from paw.integrations.trl.rundir import RunDirectory
from paw.integrations.trl.sampling import watching
from paw.integrations.trl.settings import PawConfig, check_arguments, check_target, max_return_of
from paw.integrations.trl.turns import text_positions
from paw.integrations.trl.update import (
    Batch,
    RowOf,
    TurnOf,
    Update,
    gathered,
    own_rows,
    read_rows,
    weight_rows,
)
from paw.text.encode import Encoder
from paw.train.prediction.loss import LOSSES
from paw.train.session import matched

logger = logging.getLogger(__name__)


class PawGRPOTrainer(GRPOTrainer):
    """TRL's GRPOTrainer whose rollouts also teach the policy what its actions do.

    With `paw.enabled = False` or `paw.coefficient = 0` it is GRPOTrainer, bit for bit. Otherwise
    the loss has, beside TRL's, sum over targets of lambda_g / (G |S_g| |o|) x token loss (Eq. 11),
    from the log-probs that TRL's own forward pass makes anyway: no pass is added. A placebo of
    `paw.target` alone has a pass of its own, with a row a transition.

    What is predicted is what the tool mask leaves out and the chat template did not put there. A
    `rollout_func` says it by `env_mask` (0: not the model's), and by a field `observation_mask`
    [C] (1: the environment's text) where the template's tokens are not to be predicted; the
    entropies of its actions by a field `entropies` [C], unless it samples with
    `trainer._generate_single_turn`, `paw.entropy` is "sampled", or TRL makes a scoring pass of its
    own. A trajectory without any reward, or whose environment's `get_reward` gave none, is left out
    of lambda and of the prediction.

    Args:
        args: of GRPOTrainer.
        paw: `[paw]`, and `max_return`; None: the defaults of the paper.
        kwargs: of GRPOTrainer.

    Raises:
        UserError: settings that cannot be done in TRL, or nothing to observe.
    """

    _batch: Batch | None = None
    """While a generation batch is made"""
    paw_update: Update | None = None
    """What was made last"""
    _vocabulary: tuple[int, ...] = ()
    """Tokens that a text may have, where a placebo draws from them"""
    _warned = False
    _watches_loss = False
    _logps: Tensor | None = None

    def __init__(self, *args: Any, paw: PawConfig | None = None, **kwargs: Any) -> None:
        if not isinstance(paw, PawConfig | None):
            raise UserError(f"paw = {paw!r}: give a paw.integrations.trl.PawConfig")
        given = kwargs.get("reward_funcs", args[1] if len(args) > 1 else None)
        self._num_given = len(given) if isinstance(given, list) else int(given is not None)
        super().__init__(*args, **kwargs)
        self.paw = paw or PawConfig()
        self._run_directory = next(
            (c for c in self.callback_handler.callbacks if isinstance(c, RunDirectory)), None
        )
        if self._run_directory is not None:
            self._run_directory.attach(self)
        if self.paw.active:
            check_arguments(self, self.paw)
            self._constant = matched(self.paw.plain())
            factories = list((self.environment_factories or {}).values())
            owned = len(self.reward_funcs) > self._num_given
            self._max_return = max_return_of(self.paw, factories, owned)
            check_target(self.paw, factories, self.accelerator.num_processes)
            tokenizer = getattr(self.processing_class, "tokenizer", self.processing_class)
            self._text_tokenizer = tokenizer
            if self.paw.target == "vocabulary":
                encoder = Encoder(tokenizer, set(tokenizer.added_tokens_decoder))
                self._vocabulary = encoder.vocabulary()

    # ---- while a generation batch is made

    def _generate_and_score_completions(self, inputs: Any) -> Any:
        recorded = self._run_directory is not None
        if not self.model.training or not (self.paw.active or recorded):
            return super()._generate_and_score_completions(inputs)
        if self._run_directory is not None:
            self._run_directory.begin_update()
        self._batch = batch = Batch()
        try:
            output = super()._generate_and_score_completions(inputs)
        finally:
            self._batch = None
        if self.paw.active:
            self._check_observed(batch, output)
        rows = read_rows(batch, output, self.paw.max_observation_tokens)
        begun = self.state.global_step
        self.paw_update = Update(self.update_number(), begun, rows, batch.returns)
        if self.paw.active:
            output["paw_weights"], output["paw_rows"] = self._judge(batch, output, self.paw_update)
        if self._run_directory is not None:
            self._run_directory.begin_learning()
        return output

    def _generate_single_turn(self, prompt_ids: Any, *args: Any, **kwargs: Any) -> Any:
        if self._batch is None or self.use_vllm or self.use_transformers_continuous_batching:
            return super()._generate_single_turn(prompt_ids, *args, **kwargs)
        with watching(self.accelerator.unwrap_model(self.model)) as steps:
            output = super()._generate_single_turn(prompt_ids, *args, **kwargs)
        for ids, sampled in zip(prompt_ids, steps.rows(output[0]), strict=True):
            self._batch.samples.add(ids, sampled)
        return output

    def _get_tool_suffix_ids(self, tool_messages: Any) -> Any:
        if self._batch is None:
            return super()._get_tool_suffix_ids(tool_messages)
        factories = (self.environment_factories or {}).values()
        ours = any(isinstance(f, type) and issubclass(f, TextEnvironment) for f in factories)
        render, notices = super()._get_tool_suffix_ids, NOTICES if ours else ()
        ids, positions = text_positions(tool_messages, render, notices)
        self._batch.spans[ids] = positions
        return list(ids)

    def _calculate_rewards(self, inputs: Any, prompts: Any, completions: Any, *args: Any) -> Any:
        rewards = super()._calculate_rewards(inputs, prompts, completions, *args)
        if self._batch is not None:
            self._batch.inputs, self._batch.completions = inputs, completions
            returns = (rewards * self.reward_weights.to(rewards.device)).nansum(1)
            returns[rewards.isnan().all(1)] = torch.nan
            self._batch.returns = returns.tolist()
            self._batch.task_returns = self._task_returns(rewards, returns).tolist()
        return rewards

    def _task_returns(self, rewards: Tensor, returns: Tensor) -> Tensor:
        """[N] R(tau) of Eq. 10: of environments that own a reward that one alone, in whose units
        R_max is, unless `paw.max_return` says it; nan where they gave none, as they failed.

        Args:
            rewards: [N, F] of all processes; TRL's columns of environments come last.
            returns: [N] what TRL trains on.
        """
        games = self.environments or [None] * (len(returns) // self.accelerator.num_processes)
        owns = torch.tensor([hasattr(type(g), "get_reward") for g in games], device=returns.device)
        owns, own = self.accelerator.gather(owns), rewards[:, self._num_given :]
        if self.paw.max_return is None:
            returns = torch.where(owns, own.nansum(1), returns)
        return returns.masked_fill(owns & own.isnan().all(1), torch.nan)

    def _check_observed(self, batch: Batch, output: Any) -> None:
        """Raises UserError where nothing says what was observed; warns where the ends are lost."""
        if "tool_mask" not in output:
            raise UserError(
                "rollout_func: there is no next observation to predict without a field `env_mask` "
                "(1: the model's tokens, 0: the environment's)"
            )
        games = self.environments or [None] * len(batch.completions)
        if not self._warned and all(batch.cut(b, game) for b, game in enumerate(games)):
            self._warned = True
            logger.warning(
                "TRL cut every trajectory of a generation batch before its end, by "
                "max_completion_length = %s (of a whole trajectory) or max_tool_calling_iterations "
                "= %s: no last observation is predicted; raise them",
                self.max_completion_length,
                self.args.max_tool_calling_iterations,
            )

    @property
    def _weight_dtype(self) -> torch.dtype:
        """As exact as the losses that the weights multiply."""
        return torch.promote_types(next(self.model.parameters()).dtype, torch.float32)

    def update_number(self) -> int:
        """Of the generation batch, the first is 1; a run that goes on counts on."""
        args = self.args
        per_batch = args.steps_per_generation * args.num_iterations
        made = self.state.global_step * args.gradient_accumulation_steps // per_batch
        return max(made + 1, 0 if self.paw_update is None else self.paw_update.number + 1)

    def _judge(self, batch: Batch, output: Any, update: Update) -> tuple[Tensor, Tensor]:
        """[B, C] weights of this process's tokens, and [B] their rows' numbers."""
        paw, args = self._constant, self.args
        for row, game in zip(update.rows, self.environments or (), strict=False):
            if row.turns and isinstance(game, TextEnvironment):
                ids = self._text_tokenizer.encode(game._first.text, add_special_tokens=False)
                row.turns[0].current_ids = tuple(ids[: paw.max_observation_tokens])
        measured = gathered(update.rows, paw)
        updates = self.state.max_steps * args.gradient_accumulation_steps
        updates = max(updates // (args.steps_per_generation * args.num_iterations), update.number)
        judged = judge(
            measured,
            batch.task_returns,
            [n // self.num_generations for n in range(len(batch.task_returns))],
            paw,
            max_return=self._max_return,
            left=1 - (update.number - 1) / updates,
            generator=torch.Generator().manual_seed((args.seed * 1_000_003 + update.number) * 8),
            vocabulary=self._vocabulary,
        )
        update.take(judged, self.accelerator.process_index)
        for name, value in update.metrics.items():
            self._metrics["train"][name].append(value)
        mask = output["completion_mask"]
        weights = weight_rows(update.rows, mask.shape, self._weight_dtype).to(mask.device)
        return weights, torch.arange(len(weights), device=mask.device)

    # ---- while it is learned from

    def _get_per_token_logps_and_entropies(self, *args: Any, **kwargs: Any) -> Any:
        if self._batch is not None and (self.use_vllm or self.rollout_func is not None):
            kwargs["compute_entropy"] = True  # where TRL makes the pass anyway
        result = super()._get_per_token_logps_and_entropies(*args, **kwargs)
        if self._batch is not None:
            self._batch.scored.append((result[0], result[1]))
        elif self._watches_loss:
            self._logps = result[0]
        return result

    def _compute_loss(self, model: Any, inputs: Any) -> Any:
        if "paw_weights" not in inputs or not self.model.training:
            return super()._compute_loss(model, inputs)
        self._watches_loss, self._logps = True, None
        try:
            loss = super()._compute_loss(model, inputs)
        finally:
            self._watches_loss = False
        assert self._logps is not None, "TRL's loss made no log-probs of tokens"
        logps, self._logps = self._logps, None
        update, numbers = self.paw_update, inputs["paw_rows"]
        assert update is not None
        if self._run_directory is not None:
            update.meet(numbers, logps)
        errors = LOSSES[self.paw.loss](logps, self.paw.probability_cap)
        term = objective.weighted_sum(errors, inputs["paw_weights"])
        if self.paw.target != "next" and (placebos := update.placebos(numbers)):
            term = term + self._placebo_term(model, placebos)
        # Each optimizer step counts the term in full, of which it has a share of the rows; losses
        # of micro-batches add up, those of processes are averaged.
        steps = self.args.steps_per_generation / self.current_gradient_accumulation_steps
        term = self.accelerator.num_processes * steps * term
        shown = self.accelerator.gather(term.detach() * self.current_gradient_accumulation_steps)
        self._metrics["train"]["wm/loss"].append(shown.mean().item())
        return loss + term

    def _placebo_term(self, model: Any, placebos: list[tuple[RowOf, TurnOf]]) -> Tensor:
        """Of targets that do not stand in TRL's rows: a forward pass of their own."""
        own = own_rows(placebos, self.accelerator.device, self._weight_dtype)
        logps, *_ = super()._get_per_token_logps_and_entropies(
            model, own.token_ids, own.mask, own.weights.shape[1]
        )
        for (_, turn), values in zip(placebos, logps.detach().float().tolist(), strict=True):
            if turn.logprobs is None:
                turn.logprobs = values[-len(turn.predicted) :]
        errors = LOSSES[self.paw.loss](logps, self.paw.probability_cap)
        return objective.weighted_sum(errors, own.weights)
