"""What is said of predictions, on numbers by hand."""

from math import log

import numpy as np
import pytest

from paw.evals.predictions import Predictions
from paw.evals.statistics import ratio_interval
from paw.evals.world_model import action_effect, against, gradient_shares, quality, world_model
from paw.style import Wording

WORDING = Wording(("names", "rest"), lambda text, command, task: [], lambda command: command)


def predictions(true, other=None, none=None, **columns):
    """Three answers of two, one and one tokens of two tasks."""
    as_logs = {
        "true": np.log(true),
        "other": np.log(true if other is None else other),
        "none": np.log(true if none is None else none),
    }
    settings = {
        "is_top": np.array([True, False, True, True]),
        "classes": np.array([0, 1, 1, 0]),
        "changed": np.array([False, True, False, True]),
        "accepted": np.array([True, True, False, True]),
        "answer": np.array([0, 0, 1, 2]),
        "task": np.array([0, 0, 4]),
    }
    return Predictions(as_logs, **(settings | columns))


P = [0.5, 0.1, 0.8, 0.2]


def test_quality_by_hand():
    """-ln(0.5 0.1 0.8 0.2) = -ln 0.008 over 4 tokens and 3 observations; two of four p <= 0.2, one
    of them equal."""
    found = quality(predictions(P), np.ones(4, dtype=bool), 0.2)
    assert found == pytest.approx(
        {
            "observations": 3,
            "tokens": 4,
            "nats": -log(0.008),
            "nats_per_observation": -log(0.008) / 3,
            "nats_per_token": -log(0.008) / 4,
            "top1_fraction": 0.75,
            "mean_probability": 0.4,
            "below_cap_fraction": 0.5,
        }
    )


def test_parts_of_the_text():
    """Changed tokens: the second of answer 0 and that of answer 2. Refused: answer 1 alone."""
    found = world_model(predictions(P), WORDING, 0.2, seed=0)
    assert found["changed"]["tokens"] == found["changed"]["observations"] == 2
    assert found["changed"]["nats"] == pytest.approx(-log(0.1 * 0.2))
    assert found["refused"]["nats"] == pytest.approx(-log(0.8))
    assert found["accepted"]["nats"] == pytest.approx(-log(0.5 * 0.1 * 0.2))
    assert found["accepted_changed"] == found["changed"]
    assert found["classes"]["names"]["nats_per_observation"] == pytest.approx(-log(0.5 * 0.2) / 2)
    nothing = world_model(predictions(P, accepted=np.ones(4, dtype=bool)), WORDING, 0.2, seed=0)
    assert nothing["refused"] is None


def test_an_action_is_worth_what_it_saves():
    """Other actions give 0.25, 0.2 | 0.8 | nothing there. Answer 0 saves ln 2 - ln 2 = 0, answer 1
    saves 0: nothing in all, and no observation is more probable. On changed tokens answer 0 alone
    counts, which loses ln 2."""
    p = predictions(P, other=[0.25, 0.2, 0.8, np.nan])
    found = action_effect(p, "other", np.ones(4, dtype=bool), seed=0)
    assert found is not None
    assert found["observations"] == 2
    assert found["difference"] == pytest.approx(0, abs=1e-12)
    assert found["nats_per_observation"] == pytest.approx(-log(0.25 * 0.2 * 0.8) / 2)
    changed = action_effect(p, "other", p.changed, seed=0)
    assert changed is not None
    assert (changed["observations"], changed["better_fraction"]) == (1, 0)
    assert changed["difference"] == pytest.approx(-log(2))
    assert changed["interval"] is None  # of two tasks


def test_no_other_command_anywhere_is_none():
    p = predictions(P, other=[np.nan] * 4)
    assert action_effect(p, "other", np.ones(4, dtype=bool), seed=0) is None


def test_against_another_model():
    """Half of each probability: ln 2 a token more, 4 ln 2 over 3 observations."""
    one, other = predictions([p / 2 for p in P]), predictions(P)
    assert against(one, other, seed=0)["difference"] == pytest.approx(4 * log(2) / 3)


def test_episodes_of_a_task_are_one_unit():
    """60 answers: of 30 tasks, or of 10 whose answers are all alike, as eight samples of a game
    nearly are. The 10 say as much as 10: an interval is wider by sqrt(30 / 10) or so."""
    rng = np.random.default_rng(0)
    p = np.repeat(rng.uniform(0.2, 0.9, 10), 6)
    columns = {
        **dict.fromkeys(("is_top", "changed", "accepted"), p > 0),
        "classes": np.zeros(60, dtype=int),
        "answer": np.arange(60),
    }
    widths = []
    for tasks in (30, 10):
        task = np.arange(60) // (60 // tasks)
        one, other = (predictions(x, task=task, **columns) for x in (p, np.full(60, 0.5)))
        low, high = against(one, other, seed=0)["interval"]
        widths.append(high - low)
    assert 1.4 < widths[1] / widths[0] < 2.1


def test_models_with_other_tokens_compare():
    """The second splits nothing: one token an answer, each as probable as the first's together."""
    whole = predictions(
        [0.05, 0.8, 0.2], is_top=np.ones(3, dtype=bool), classes=np.zeros(3, dtype=int),
        changed=np.ones(3, dtype=bool), accepted=np.ones(3, dtype=bool),
        answer=np.arange(3),
    )  # fmt: skip
    assert against(whole, predictions(P), seed=0)["difference"] == pytest.approx(0, abs=1e-12)


def test_gradient_shares_by_hand():
    """p = 0.5, 0.1 | 0.8 | 0.2; names are the first and the last.
    CE 1-p: 0.5 + 0.8 of 0.5 + 0.9 + 0.2 + 0.8 = 2.4.
    MAE p(1-p): 0.25 + 0.16 of 0.25 + 0.09 + 0.16 + 0.16 = 0.66.
    Clipped, p <= 0.2: 0.16 of 0.09 + 0.16 = 0.25."""
    found = gradient_shares(predictions(P), WORDING, 0.2)
    assert found["names"] == pytest.approx(
        {
            "tokens_fraction": 0.5,
            "ce_fraction": 1.3 / 2.4,
            "mae_fraction": 0.41 / 0.66,
            "cmae_fraction": 0.16 / 0.25,
            "tokens": 2,
            "mean_probability": 0.35,
        }
    )
    for loss in ("tokens", "ce", "mae", "cmae"):
        assert sum(row[f"{loss}_fraction"] for row in found.values()) == pytest.approx(1)


def test_a_loss_without_gradient_has_no_shares():
    found = gradient_shares(predictions([0.5] * 4), WORDING, 0.2)
    assert [row["cmae_fraction"] for row in found.values()] == [0, 0]


def test_interval_of_a_ratio():
    """Units that all have ratio 3 leave no doubt; one without a count says nothing; below ten
    there is none. Of units with 0 or 1 in equal parts the interval is that of a rate of one half:
    0.5 -+ 1.96 sqrt(0.25 / 100) = [0.402, 0.598], to the drawing."""
    counts = np.array([1.0, 2.0, 3.0] * 4)
    assert ratio_interval(3 * counts, counts, seed=0) == (3, 3)
    with_empty = np.append(counts, 0.0)
    assert ratio_interval(np.append(3 * counts, 99.0), with_empty, seed=0) == (3, 3)
    assert ratio_interval(counts[:9], counts[:9], seed=0) is None
    interval = ratio_interval(np.array([0.0, 1.0] * 50), np.ones(100), seed=0)
    assert interval == pytest.approx((0.402, 0.598), abs=0.015)
    assert interval == ratio_interval(np.array([0.0, 1.0] * 50), np.ones(100), seed=0)
