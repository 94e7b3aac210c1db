"""How well models predict what an environment says next, on the same frozen trajectories.

Log-probs are at temperature 1, of the whole raw text of o_{t+1}. Nats an observation, and their sum
over the same texts, compare between tokenizers; what is said of a token does not.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from paw.evals.predictions import NONE, OTHER, TRUE, Predictions
from paw.evals.statistics import ratio_interval
from paw.style import Wording


def quality(
    predictions: Predictions, mask: NDArray[np.bool_], probability_cap: float
) -> dict[str, Any] | None:
    """What is said of the tokens under `mask` [T]; None where there are none."""
    logprobs = predictions.logprobs[TRUE][mask]
    count = len(logprobs)
    if not count:
        return None
    observations = len(np.unique(predictions.answer[mask]))
    probabilities, nats = np.exp(logprobs), -float(logprobs.sum())
    return {
        "observations": observations,
        "tokens": count,
        "nats": nats,
        "nats_per_observation": nats / observations,
        "nats_per_token": nats / count,
        "top1_fraction": float(predictions.is_top[mask].mean()),
        "mean_probability": float(probabilities.mean()),
        "below_cap_fraction": float((probabilities <= probability_cap).mean()),
    }


def world_model(
    predictions: Predictions, wording: Wording, probability_cap: float, seed: int
) -> dict[str, Any]:
    """Everything that is said of one model, JSON-able.

    `all`, `changed`, `accepted`, `refused` and each of `classes` are `quality` (or None);
    `actions` are `action_effect` of another and of no command, over all tokens, changed ones and
    those of each class.
    """
    p = predictions
    everything = np.ones(len(p.answer), dtype=bool)
    masks = {
        "all": everything,
        "changed": p.changed,
        "accepted": p.accepted,
        "accepted_changed": p.accepted & p.changed,
        "refused": ~p.accepted,
    }
    return {
        **{name: quality(p, mask, probability_cap) for name, mask in masks.items()},
        "classes": {
            name: quality(p, p.classes == number, probability_cap)
            for number, name in enumerate(wording.classes)
        },
        "actions": {
            condition: {
                "all": action_effect(p, condition, everything, seed),
                "changed": action_effect(p, condition, p.changed, seed),
                "classes": {
                    name: action_effect(p, condition, p.classes == number, seed)
                    for number, name in enumerate(wording.classes)
                },
            }
            for condition in (OTHER, NONE)
        },
    }


def action_effect(
    predictions: Predictions, condition: str, mask: NDArray[np.bool_], seed: int
) -> dict[str, Any] | None:
    """How much better the true action predicts the tokens under `mask` than another, or none.

    `difference`: nats an observation that are saved, with a 95 % interval over tasks;
    `better_fraction`: of observations that are more probable after the true action.
    """
    p = predictions
    there = mask & ~np.isnan(p.logprobs[condition])
    if not there.any():
        return None
    gain = p.logprobs[TRUE][there] - p.logprobs[condition][there]
    size = len(p.task)
    by_answer = _sums(p.answer[there], gain, size)
    counted = np.bincount(p.answer[there], minlength=size) > 0
    num_observations = int(counted.sum())
    return {
        "observations": num_observations,
        "nats_per_observation": -float(p.logprobs[condition][there].sum()) / num_observations,
        "difference": float(by_answer.sum()) / num_observations,
        "interval": _over_tasks(p, by_answer, counted, seed),
        "better_fraction": float((by_answer[counted] > 0).mean()),
    }


def against(one: Predictions, other: Predictions, seed: int) -> dict[str, Any]:
    """Nats an observation of `one` less those of `other`, which was asked the same, with a 95 %
    interval over tasks."""
    size = len(one.task)
    first, second = (_sums(p.answer, -p.logprobs[TRUE], size) for p in (one, other))
    difference = first - second
    counted = np.ones(size, dtype=bool)
    return {
        "difference": float(difference.mean()),
        "interval": _over_tasks(one, difference, counted, seed),
    }


def gradient_shares(
    predictions: Predictions, wording: Wording, probability_cap: float
) -> dict[str, dict[str, float]]:
    """Each class's share of the size of the gradient that the losses put on target logits.

    Per token it is 1 - p (cross-entropy), p (1 - p) (MAE) and the same where p <= rho (clipped
    MAE); A.4 of the paper, arXiv 2606.02388. A loss without any gradient has shares of 0.
    """
    p = np.exp(predictions.logprobs[TRUE])
    sizes: Mapping[str, NDArray[np.float64]] = {
        "tokens": np.ones_like(p),
        "ce": 1 - p,
        "mae": p * (1 - p),
        "cmae": p * (1 - p) * (p <= probability_cap),
    }
    shares = {}
    for number, name in enumerate(wording.classes):
        mask = predictions.classes == number
        shares[name] = {
            f"{what}_fraction": float(size[mask].sum() / size.sum()) if size.any() else 0.0
            for what, size in sizes.items()
        }
        shares[name]["tokens"] = int(mask.sum())
        shares[name]["mean_probability"] = float(p[mask].mean()) if mask.any() else None
    return shares


def _over_tasks(
    predictions: Predictions,
    by_answer: NDArray[np.float64],
    counted: NDArray[np.bool_],
    seed: int,
) -> tuple[float, float] | None:
    """The interval of sum / number of answers, with tasks as the units: episodes of one task say
    much the same."""
    tasks, unit = np.unique(predictions.task, return_inverse=True)
    sums, counts = (_sums(unit, x, len(tasks)) for x in (by_answer, counted))
    return ratio_interval(sums, counts, seed)


def _sums(unit: NDArray[Any], values: NDArray[Any], size: int) -> NDArray[np.float64]:
    """[size] the sum of the values of each unit."""
    return np.bincount(unit, weights=values.astype(float), minlength=size).astype(np.float64)
