"""Sums of per-element losses. Denominators are in the weights, fixed once per update, so that any
split of an update into micro-batches, mini-batches or ranks sums to the same loss and gradient."""

import torch
from torch import Tensor

from paw.objective._inputs import as_float, check_indices, check_same_shape, check_vectors, constant


def weighted_sum(values: Tensor, weights: Tensor) -> Tensor:
    """sum_i w_i x_i over the entries with w_i != 0.

    Args:
        values: [...] per-element losses.
        weights: [...] of the same shape; no gradient.

    Returns:
        Scalar, at least float32 (the wider of the two dtypes), differentiable in `values` with
        gradient w_i. An entry of weight 0 counts exactly 0 with gradient exactly 0 even if its
        value is inf or nan. 0, still in the graph, for no entries or no weight.

    Raises:
        ValueError: shapes differ.

    Reference: arXiv 2606.02388, Eq. 11, as one sum with the weights of `transition_weights`.
    """
    check_same_shape(values=values, weights=weights)
    values, weights = as_float(values), constant(weights)
    return (values.masked_fill(weights == 0, 0.0) * weights).sum()


def segment_mean(values: Tensor, segment: Tensor, num_segments: int) -> Tensor:
    """Mean of each segment, such as the mean entropy H(a|h) of each action's tokens (Eq. 4).

    Args:
        values: [T], tokens of all segments together, in any order.
        segment: [T] integers 0..num_segments-1.
        num_segments: S.

    Returns:
        [S] at least float32, differentiable; 0 for a segment without entries.

    Raises:
        ValueError: shapes differ, `segment` holds no integers or one outside 0..S-1.

    Reference: arXiv 2606.02388, Eq. 4, the mean over |a| tokens.
    """
    check_vectors(values=values, segment=segment)
    check_indices(num_segments, segment=segment)
    values, segment = as_float(values), segment.long()
    sums = values.new_zeros(num_segments).index_add(0, segment, values)
    return sums / torch.bincount(segment, minlength=num_segments).clamp(min=1)
