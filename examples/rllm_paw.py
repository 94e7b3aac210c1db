"""The prediction as a loss of rLLM:

    algorithm: {loss_fn: paw, loss_plugins: [rllm_paw], loss_params: {coefficient: 1.0}}

Beside the clipped surrogate, each environment token counts with the weight that `ctx.obs_mask` has
for it. rLLM's own mask is 1 on all of them: then lambda is `coefficient` for every group, nothing
is selected, and each token weighs the same (the mean over the step's environment tokens). With
`loss_params.weighted: true` the mask holds the weights of Eq. 11, as `weights` makes them, and they
are summed as they are. Read from rLLM's `LossContext`; tried with scripted ones, not in rLLM.
"""

from typing import Any

from torch import Tensor

import paw.objective as P


def paw(ctx: Any) -> tuple[Tensor, dict[str, float]]:
    """PPO's clipped surrogate and the prediction of environment tokens; coefficient 0: the first
    alone, bit for bit."""
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
        term = ctx.aggregate(errors * weights, places, mode="token-sum")
    else:
        term = ctx.aggregate(errors, weights)
    return loss + coefficient * term, {"wm/loss": term.item()}


def weights(
    entropy: Tensor,
    lengths: Tensor,
    trajectory: Tensor,
    returns: Tensor,
    group: Tensor,
    *,
    max_return: float,
    fraction: float = 0.75,
) -> Tensor:
    """[P] what each token of a transition's next observation weighs (Eqs. 4, 10, 11), for obs_mask.

    Args:
        entropy: [P] mean over each action's tokens.
        lengths: [P] tokens of the next observation; 0 where there is none.
        trajectory: [P] 0..N-1
        returns: [N]
        group: [N] 0..G-1
        max_return: R_max.
        fraction: alpha.
    """
    selected = P.select_top_fraction(entropy, lengths > 0, fraction)
    lambdas = P.group_weights(returns, group, max_return)
    of_transitions = P.transition_weights(selected, group[trajectory], lambdas)
    return of_transitions / lengths.clamp(min=1)


try:
    import rllm
except ImportError:  # the functions above need none
    pass
else:
    rllm.register_loss("paw")(paw)
