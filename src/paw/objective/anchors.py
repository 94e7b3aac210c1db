"""Anchors of GiGPO: which transitions of a group stand before the same observation."""

from collections.abc import Sequence
from difflib import SequenceMatcher

from torch import Tensor


def anchor_labels(
    texts: Sequence[str], group: Sequence[int] | Tensor, similarity: float | None = None
) -> list[int]:
    """Label the observations so that equal (or similar) ones of a group share a label.

    With `similarity`, clusters grow greedily in the order given: a text joins the first cluster of
    its group whose first text it resembles, ratio = 2 M / T >= similarity with M the characters
    that match and T all of both (difflib's SequenceMatcher), else it opens a cluster of its own.
    The result then depends on the order of the texts.

    Args:
        texts: [P] raw observation o_t of each transition.
        group: [P] integer group of each transition.
        similarity: None for equality, else in (0, 1]; GiGPO uses 0.9 in search-QA.

    Returns:
        [P] labels 0, 1, ... in order of first appearance, never shared across groups: as a tensor,
        the `anchor` of `gigpo_advantages`.

    Raises:
        ValueError: lengths differ, or similarity outside (0, 1].

    Reference: Feng et al. 2025, arXiv 2505.10978 (anchor state grouping).
    """
    groups = group.tolist() if isinstance(group, Tensor) else list(group)
    if len(texts) != len(groups):
        raise ValueError(
            f"expected one group per text, got {len(texts)} texts, {len(groups)} groups"
        )
    if similarity is not None and not 0 < similarity <= 1:
        raise ValueError(f"similarity must be in (0, 1] or None, got {similarity}")
    # A text seen before joins the cluster it joined then: no cluster before that one has changed.
    labels: dict[tuple[int, str], int] = {}
    clusters: dict[int, list[tuple[int, SequenceMatcher[str]]]] = {}
    num_labels = 0
    for key in zip(groups, texts, strict=True):
        if key in labels:
            continue
        found = None
        if similarity is not None:
            found = _first_similar(clusters.setdefault(key[0], []), key[1], similarity)
        if found is None:
            found, num_labels = num_labels, num_labels + 1
            if similarity is not None:
                clusters[key[0]].append((found, SequenceMatcher(None, "", key[1])))
        labels[key] = found
    return [labels[key] for key in zip(groups, texts, strict=True)]


def _first_similar(
    clusters: list[tuple[int, SequenceMatcher[str]]], text: str, similarity: float
) -> int | None:
    for label, matcher in clusters:
        matcher.set_seq1(text)
        # The quick ratios are upper bounds of the ratio, at a small part of its cost.
        if (
            matcher.real_quick_ratio() >= similarity
            and matcher.quick_ratio() >= similarity
            and matcher.ratio() >= similarity
        ):
            return label
    return None
