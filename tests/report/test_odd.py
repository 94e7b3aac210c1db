"""What is said to be odd about a run."""

from paw.report.odd import odd


def rows(**columns: list) -> list[dict]:
    """A row an update; `__` in a name stands for the slash."""
    named = {name.replace("__", "/"): values for name, values in columns.items()}
    count = len(next(iter(named.values())))
    return [{"update": i + 1, **{n: v[i] for n, v in named.items()}} for i in range(count)]


def said(found: list[dict], predicts: bool = False) -> list[str]:
    return [o.text for o in odd(found, predicts)]


def test_nothing_is_odd() -> None:
    quiet = rows(
        rollout__valid_action_rate=[0.6] * 20, policy__entropy=[0.5] * 20, policy__kl=[1e-4] * 20,
        policy__gradient_norm=[1.0] * 20, wm__weighted_transitions=[5] * 20,
        rollout__failures=[0] * 20,
    )  # fmt: skip
    assert said(quiet, predicts=True) == []
    assert said([], predicts=True) == []
    assert said([{"update": 1, "health": ["x"], "wm/loss": None}]) == []


def test_a_fall_from_the_best_stretch() -> None:
    """Five updates at 62 %, then 31 %: the best five end with update 5."""
    falling = rows(rollout__valid_action_rate=[0.62] * 5 + [0.31] * 5)
    assert said(falling) == ["valid actions fell from 62% to 31% after update 5"]
    assert said(rows(rollout__valid_action_rate=[0.31] * 5 + [0.62] * 5)) == []
    assert said(rows(rollout__valid_action_rate=[0.62] * 5 + [0.50] * 5)) == []  # 12 points
    assert said(rows(eval__success_rate=[None, 0.5, None, 0.3])) == [
        "success on the evaluation split fell from 50% to 30% after update 2"
    ]


def test_stretches_name_their_updates() -> None:
    found = rows(
        wm__weighted_transitions=[3, 3, 0, 0, 0, 3, 0],
        wm__role_confusion_rate=[0, 0, 0, 0, 0, 0.12, 0.06],
    )  # fmt: skip
    assert said(found, predicts=True) == [
        "no target had a weight in updates 3–5",
        "role confusion up to 12% in updates 6–7",
        "no target had a weight in update 7",
    ]
    assert said(found, predicts=False) == ["role confusion up to 12% in updates 6–7"]


def test_a_gap_in_the_updates_or_values_does_not_end_a_stretch_wrongly() -> None:
    found = rows(rollout__failures=[2, None, 1, 0])
    assert said(found) == ["3 trajectories whose environment failed in updates 1–3"]


def test_spikes_and_collapse() -> None:
    spike = rows(policy__gradient_norm=[1.0, 1.2, 0.9, 40.0, 1.0])
    assert said(spike) == ["policy/gradient_norm 40 in update 4, usually 1"]
    assert said(rows(policy__gradient_norm=[1e-3, 1e-3, 1e-3, 1e-3, 0.5])) == []  # small anyway
    collapse = rows(policy__entropy=[1.0] * 5 + [0.05] * 5)
    assert said(collapse) == ["the policy's entropy fell from 1 to 0.05 nats"]
