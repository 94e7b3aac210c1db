"""The prediction as a loss of rLLM, on its verl backend:

    algorithm: {loss_fn: paw, loss_plugins: [rllm_paw], loss_params: {coefficient: 1.0}}

rLLM's main has no losses of one's own: this needs the branch of its pull request 713
(github.com/rllm-org/rllm/pull/713, read at 93c8b460; verl 0.8.0). There `ctx.obs_mask` is 1 on the
environment's tokens of a row. Beside the clipped surrogate each row has the mean error of those
tokens, over the rows of the optimizer step: lambda is `coefficient` for every group, and nothing is
selected. Reductions are named, since verl's `token-mean` divides by the step's action tokens
whatever the mask, and `token-sum` is newer than 0.8.0.

With `loss_params.weighted: true` the mask holds the weights of Eq. 11, as `weights` makes them;
that takes a change of `CustomPPOLoss._rllm_loss`, which makes the mask. rLLM's other backends are
refused: there the mask holds the prompt too. Tried with scripted contexts, not in rLLM.
"""

from typing import Any

from torch import Tensor

import paw.objective as P


def paw(ctx: Any) -> tuple[Tensor, dict[str, float]]:
    """PPO's clipped surrogate and the prediction of environment tokens; coefficient 0: the first
    alone, bit for bit.

    Raises:
        ValueError: another backend than verl.
    """
    if ctx.backend != "verl":
        raise ValueError(f"backend = {ctx.backend}: the loss paw needs the observations of verl's")
    low = float(ctx.params.get("eps_clip", 0.2))
    high = float(ctx.params.get("eps_clip_high") or low)
    surrogate = P.clipped_surrogate(ctx.logp_curr, ctx.logp_old, ctx.advantages, low, high)
    loss = ctx.aggregate(surrogate, ctx.action_mask)
    coefficient = float(ctx.params.get("coefficient", 1.0))
    if coefficient == 0:
        return loss, {}
    weights = ctx.obs_mask * (ctx.action_mask == 0)
    errors = P.clipped_mae(ctx.logp_curr, float(ctx.params.get("probability_cap", 0.2)))
    if ctx.params.get("weighted"):
        places = (weights != 0).to(errors)
        term = ctx.aggregate(errors * weights, places, mode="seq-mean-token-sum")
    else:
        term = ctx.aggregate(errors, weights, mode="seq-mean-token-mean")
    return loss + coefficient * term, {"wm/loss": term.item()}


def weights(
    entropy: Tensor,
    lengths: Tensor,
    trajectory: Tensor,
    returns: Tensor,
    group: Tensor,
    *,
    num_rows: int,
    max_return: float,
    fraction: float = 0.75,
) -> Tensor:
    """[P] what each token of a transition's next observation weighs (Eqs. 4, 10, 11), for obs_mask.

    Times the update's rows, as `seq-mean-token-sum` divides by those of an optimizer step: each of
    M steps then counts M times, as the surrogate does.

    Args:
        entropy: [P] mean over each action's tokens.
        lengths: [P] tokens of the next observation; 0 where there is none.
        trajectory: [P] 0..N-1
        returns: [N]
        group: [N] 0..G-1
        num_rows: rows of the update.
        max_return: R_max.
        fraction: alpha.
    """
    selected = P.select_top_fraction(entropy, lengths > 0, fraction)
    lambdas = P.group_weights(returns, group, max_return)
    of_transitions = P.transition_weights(selected, group[trajectory], lambdas)
    return num_rows * of_transitions / lengths.clamp(min=1)


try:
    import rllm
except ImportError:  # the functions above need none
    pass
else:
    if not hasattr(rllm, "register_loss"):
        raise ImportError("rllm has no register_loss: install the branch of its pull request 713")
    rllm.register_loss("paw")(paw)
