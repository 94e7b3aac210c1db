"""The prediction term beside verl's own loss, from the log-probs of the same forward pass."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor
from verl.utils import tensordict_utils as tu
from verl.utils.metric import AggregationType, Metric
from verl.workers.utils.padding import no_padding_2_padding

from paw import objective
from paw.train.prediction.loss import LOSSES

WEIGHTS, LOSS, CAP = "paw_weights", "paw_loss", "paw_probability_cap"
"""Fields of a batch that has a prediction term."""


@dataclass(frozen=True, slots=True)
class PawLoss:
    """verl's loss, and where the batch has `paw_weights` the prediction term.

    The term is sum over tokens of weight x token loss, times `dp_size`, as FSDP averages gradients
    over processes. All denominators stand in the weights, so it does not depend on how the update
    is split. A micro-batch without a weight is verl's own, bit for bit.
    """

    base: Callable[..., tuple[Tensor, dict[str, Any]]]
    """verl's `ppo_loss` with its configuration"""

    def __call__(
        self, model_output: Any, data: Any, dp_group: Any = None
    ) -> tuple[Tensor, dict[str, Any]]:
        """(loss, metrics) of a micro-batch."""
        loss, metrics = self.base(model_output=model_output, data=data, dp_group=dp_group)
        if WEIGHTS not in data:
            return loss, metrics
        term = prediction_term(model_output["log_probs"], data)
        metrics["actor/wm/loss"] = Metric(value=term.detach(), aggregation=AggregationType.SUM)
        return (loss + term if bool((data[WEIGHTS].values() != 0).any()) else loss), metrics


def prediction_term(log_probs: Tensor, data: Any) -> Tensor:
    """Scalar: the term of a micro-batch.

    Args:
        log_probs: of the model at temperature 1, as verl's engines give them.
        data: the micro-batch; `paw_weights` [B, R] nested, as long as `responses`.
    """
    logprobs = no_padding_2_padding(log_probs, data)  # [B, R]
    weights = data[WEIGHTS].to_padded_tensor(0.0)
    weights = F.pad(weights, (0, logprobs.shape[1] - weights.shape[1])).to(logprobs.device)
    errors = LOSSES[str(tu.get(data, LOSS))](logprobs, float(tu.get(data, CAP)))
    return objective.weighted_sum(errors, weights) * int(tu.get(data, "dp_size", 1))
