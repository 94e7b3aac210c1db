"""Anchors of GiGPO: which transitions of a group stand before the same observation."""

from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from functools import cached_property

from torch import Tensor


def anchor_labels(
    texts: Sequence[str], group: Sequence[int] | Tensor, similarity: float | None = None
) -> list[int]:
    """Label the observations so that equal (or similar) ones of a group share a label.

    With `similarity`, clusters grow greedily in the order given: a text joins the first cluster of
    its group whose first text it resembles, ratio = 2 M / T >= similarity with M the characters
    that match and T all of both, else it opens a cluster of its own. The result then depends on the
    order of the texts. The ratio is that of difflib's SequenceMatcher with its defaults: in texts
    from 200 characters on it passes over frequent characters, and M is smaller.

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
    clusters: dict[int, list[_Cluster]] = {}
    num_labels = 0
    for key in zip(groups, texts, strict=True):
        if key in labels:
            continue
        found = None
        if similarity is not None:
            text = _Cluster(num_labels, key[1])
            of_group = clusters.setdefault(key[0], [])
            found = next((c.label for c in of_group if c.resembles(text, similarity)), None)
            if found is None:
                of_group.append(text)
        if found is None:
            found, num_labels = num_labels, num_labels + 1
        labels[key] = found
    return [labels[key] for key in zip(groups, texts, strict=True)]


class _Cluster:
    """A label and the text that represents it."""

    def __init__(self, label: int, text: str) -> None:
        self.label = label
        self.text = text
        counts = Counter(text[i : i + 3] for i in range(len(text) - 2))
        # Numbered repeats make a set of the multiset: its intersection is many times faster.
        self.trigrams = {f"{t}{k}" for t, count in counts.items() for k in range(count)}

    @cached_property
    def matcher(self) -> SequenceMatcher[str]:
        return SequenceMatcher(None, "", self.text)

    def resembles(self, other: "_Cluster", similarity: float) -> bool:
        # The ratio of two long texts costs milliseconds: cheap upper bounds come first. A ratio of
        # s matches M >= s T / 2 characters and leaves T - 2 M, each of which ends at most one run;
        # a run's end costs 2 of the M - 2 trigrams that the matched characters would share.
        total = len(self.text) + len(other.text)
        matched = similarity * total / 2
        shared = matched - 2 - 2 * (total - 2 * matched)
        if shared > 0 and len(self.trigrams & other.trigrams) < shared - 1e-6:
            return False
        self.matcher.set_seq1(other.text)
        return self.matcher.real_quick_ratio() >= similarity <= self.matcher.ratio()
