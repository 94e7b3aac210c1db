"""The objective of PaW and of the base algorithms, as pure functions on tensors.

`import paw.objective as P` is all that another trainer needs: torch and the standard library,
nothing else of `paw`. P transitions, N trajectories, G groups; nothing averages over a batch. One
update, with the update-level weights of Eq. 11:

    entropy  = P.segment_mean(P.token_entropy(action_logits), transition_of_token, num_transitions)
    selected = P.select_top_fraction(entropy, has_next_observation, 0.75)                   # Eq. 4
    weights  = P.group_weights(returns, group, max_return=10.0)                             # Eq. 10
    weights  = P.transition_weights(selected, group[trajectory], weights)                   # Eq. 11
    errors   = P.clipped_mae(observation_logprobs, probability_cap=0.2)                     # Eq. 8
    wm_loss  = P.weighted_sum(errors, (weights / observation_length)[transition_of_target]) # Eq. 9

Results lie on the device of the inputs. Floating results are at least float32: float32 and float64
are kept, half precision is upcast, integers become the default float. A wrong shape or range is a
ValueError of one line.
"""

from paw.objective.advantages import (
    discounted_returns,
    generalized_advantages,
    gigpo_advantages,
    group_relative_advantages,
    leave_one_out_advantages,
    step_advantages,
)
from paw.objective.anchors import anchor_labels
from paw.objective.entropy import sampled_token_entropy, token_entropy
from paw.objective.prediction import (
    clipped_mae,
    clipped_tokens,
    cross_entropy,
    mean_absolute_error,
)
from paw.objective.reduce import segment_mean, weighted_sum
from paw.objective.selection import num_selected, select_top_fraction
from paw.objective.surrogate import (
    clipped_actions,
    clipped_surrogate,
    kl_estimate,
    truncated_importance,
    value_loss,
)
from paw.objective.weights import group_weights, transition_weights

__all__ = [
    "anchor_labels",
    "clipped_actions",
    "clipped_mae",
    "clipped_surrogate",
    "clipped_tokens",
    "cross_entropy",
    "discounted_returns",
    "generalized_advantages",
    "gigpo_advantages",
    "group_relative_advantages",
    "group_weights",
    "kl_estimate",
    "leave_one_out_advantages",
    "mean_absolute_error",
    "num_selected",
    "sampled_token_entropy",
    "segment_mean",
    "select_top_fraction",
    "step_advantages",
    "token_entropy",
    "transition_weights",
    "truncated_importance",
    "value_loss",
    "weighted_sum",
]
