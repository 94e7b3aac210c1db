"""Selection, lambda and weights as other people's trainers are given them. Pure."""

import pytest
import torch

from paw.config.tree import PawConfig
from paw.integrations.judge import Measured, judge


def test_judge_on_worked_numbers():
    """Two groups of two. Entropies 4 3 | 2 - || 1 5 | failed; `-` has no next observation.

    Candidates 4 3 2 1 5; ceil(0.6 x 5) = 3 of them: 5, 4, 3. R_max 10: the first group returned 10
    and 0: lambda 0.5; the second 2 (the failed one is left out): 0.8. Weights: 0.5 / (2 x 2) of
    each of the first group's two, 0.8 / (2 x 1) of the second's one, over 5, 2 and 4 tokens.
    """
    rows = [
        [Measured(entropy, (1,) * length) for entropy, length in row]
        for row in ([(4.0, 5), (3.0, 2)], [(2.0, 3), (9.0, 0)], [(1.0, 4), (5.0, 4)], [(7.0, 4)])
    ]
    judged = judge(
        rows,
        [10.0, 0.0, 2.0, float("nan")],
        [7, 7, 3, 3],
        PawConfig(selection_fraction=0.6),
        max_return=10.0,
        left=1.0,
        generator=torch.Generator(),
    )
    assert judged.selected == [[True, True], [False, False], [False, True], [False]]
    assert judged.group_weights.tolist() == pytest.approx([0.5, 0.8])
    expected = [[0.125 / 5, 0.125 / 2], [0, 0], [0, 0.4 / 4], [0]]
    for found, wanted in zip(judged.token_weights, expected, strict=True):
        assert found == pytest.approx(wanted)
    assert judged.num_candidates == 5
    assert judged.metrics() == {
        "wm/group_weight_mean": pytest.approx(0.65),
        "wm/selected_transitions": 3,
        "wm/selected_fraction": 0.6,
        "wm/weighted_transitions": 3,
        "wm/changed_target_fraction": 0,
    }
