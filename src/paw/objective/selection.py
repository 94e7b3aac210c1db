"""Which transitions carry the next-observation loss (Eq. 4)."""

import math

import torch
from torch import Tensor

from paw.objective._inputs import check_bool, check_unit_interval, check_vectors


def num_selected(num_candidates: int, fraction: float) -> int:
    """|S_alpha| = ceil(fraction * #candidates - 1e-9).

    The 1e-9 keeps a product such as 0.07 * 100 = 7.000000000000001 from taking one more.

    Args:
        num_candidates: transitions that have a next observation.
        fraction: alpha in [0, 1].

    Returns:
        How many of them are kept.

    Raises:
        ValueError: fraction outside [0, 1].

    Reference: arXiv 2606.02388, Eq. 4.
    """
    check_unit_interval(fraction=fraction)
    return math.ceil(fraction * num_candidates - 1e-9)


def select_top_fraction(scores: Tensor, candidates: Tensor, fraction: float) -> Tensor:
    """The candidates with the highest scores, over the whole update.

        S_alpha = the `num_selected` candidates of highest score

    Of equal scores the lower index comes first.

    Args:
        scores: [P] mean action entropy of each transition (nats), any number dtype.
        candidates: [P] bool, the transitions that have a next observation.
        fraction: alpha in [0, 1]; the paper's best is 0.75, 1 keeps every candidate.

    Returns:
        [P] bool. All False without candidates or with fraction 0; a group may end up with none.

    Raises:
        ValueError: shapes differ, `candidates` is no bool mask, fraction outside [0, 1], or the
            score of a candidate is nan (scores of other transitions are not read).

    Reference: arXiv 2606.02388, Eq. 4.
    """
    check_vectors(scores=scores, candidates=candidates)
    check_bool(candidates=candidates)
    indices = candidates.nonzero().squeeze(-1)
    # Adding 0 turns -0.0 into 0.0, which a radix sort would hold apart.
    candidate_scores = scores.detach()[indices] + 0
    if bool(candidate_scores.isnan().any()):
        raise ValueError("scores of candidates must not be nan")
    order = torch.argsort(candidate_scores, descending=True, stable=True)
    selected = torch.zeros_like(candidates)
    selected[indices[order[: num_selected(indices.numel(), fraction)]]] = True
    return selected
