"""Records of an update as the page shows them, with numbers worked out by hand."""

import math

import pytest

from paw.config.tree import PawConfig
from paw.report.episodes import Setting, episodes_of, surprise
from paw.runs.format import TrajectoryRecord, TurnRecord
from paw.style import Block, Style
from paw.types import Task

TASK = Task("t", "kind", "put a pen in the drawer")


def turn(weight: float = 0.0, ps: tuple[float, ...] | None = None, **changed: object) -> TurnRecord:
    """`ps`: what the policy expected of each target token."""
    target = {}
    if ps is not None:
        target = {"target_ids": tuple(range(len(ps))), "target_logprobs": tuple(map(math.log, ps))}
    usual = {
        "observation": "o", "response": "go", "command": "go", "valid": True,
        "next_observation": "n", "selected": weight != 0, "transition_weight": weight,
    }  # fmt: skip
    return TurnRecord(**usual | target | changed)


def record(group: int, index: int, *turns: TurnRecord, **changed: object) -> TrajectoryRecord:
    usual = {"update": 1, "group": group, "index": index, "task": TASK, "success": False}
    return TrajectoryRecord(**usual | {"turns": turns} | changed)


SETTING = Setting(Style(), paw=PawConfig(coefficient=0.5))


def test_group_weight_and_share_of_the_loss() -> None:
    """Two groups, coefficient 1/2, lambda 0.8 and 0.4; Eq. 11 gives 0.5 lambda / (2 |S_g|):
    group 0 has two selected transitions of 0.1 each, group 1 one of 0.1.

    Losses 1[p <= 0.2] (1 - p), mean over the tokens, times the weight:
      0.1 * (0.9 + 0) / 2 = 0.045;  0.1 * 0 = 0;  0.1 * (0.8 + 1 - 0.1) / 2 = 0.085.
    The whole is 0.13.
    """
    records = [
        record(0, 0, turn(0.1, (0.1, 0.5)), turn()),
        record(0, 1, turn(0.1, (0.9,))),
        record(1, 0, turn(0.1, (0.2, 0.1))),
        record(1, 1, turn(), failure="it hung"),
    ]
    found = episodes_of(records, {0: 10, 1: 11, 2: 12, 3: 13}, SETTING)
    assert [e.row for e in found] == [10, 11, 12, 13]
    assert [e.group_weight for e in found] == pytest.approx([0.8, 0.8, 0.4, 0.4])
    shares = [t.share for e in found for t in e.turns]
    assert shares == [pytest.approx(0.045 / 0.13), None, 0.0, pytest.approx(0.085 / 0.13), None]


@pytest.mark.parametrize(
    ("loss", "expected"),
    [("mae", [0.7, 0.1, 0.85]), ("ce", [-math.log(0.05) / 2, -math.log(0.9), -math.log(0.02) / 2])],
)
def test_shares_by_the_loss_that_was_trained(loss: str, expected: list[float]) -> None:
    """Means over tokens of 1 - p and of -ln p; all weigh the same."""
    records = [record(0, i, turn(0.1, ps)) for i, ps in enumerate([(0.1, 0.5), (0.9,), (0.2, 0.1)])]
    found = episodes_of(records, {0: 0, 1: 1, 2: 2}, Setting(Style(), paw=PawConfig(loss=loss)))
    assert [e.turns[0].share for e in found] == pytest.approx([x / sum(expected) for x in expected])


def test_no_share_where_one_is_not_known() -> None:
    old = turn(0.1, None, target_ids=(1, 2))  # a file of an earlier version has no log-probs
    found = episodes_of([record(0, 0, turn(0.1, (0.1,)), old)], {0: 0}, SETTING)
    assert [t.share for t in found[0].turns] == [None, None]


def test_each_trajectory_is_a_group_with_ppo() -> None:
    """N = 2 groups; 0.5 lambda / (2 * 1) = 0.1 and 0.2."""
    records = [record(0, 0, turn(0.1, (0.1,))), record(0, 1, turn(0.2, (0.1,)))]
    setting = Setting(Style(), paw=PawConfig(coefficient=0.5), alone=True)
    found = episodes_of(records, {0: 0, 1: 1}, setting)
    assert [e.group_weight for e in found] == pytest.approx([0.4, 0.8])


def test_nothing_selected_has_no_group_weight() -> None:
    assert episodes_of([record(0, 0, turn())], {0: 0}, SETTING)[0].group_weight is None


def test_tokens_and_their_numbers() -> None:
    """A column that does not fit its tokens is left out, not shown at the wrong ones."""
    one = turn(
        0.1, (0.25, 0.5), action_ids=(7, 8), entropies=(0.5, 0.25), sampler_logprobs=(-1.0,),
        context_ids=(1,), context_roles=(3,), finished=False, num_cut_tokens=4,
    )  # fmt: skip
    setting = Setting(Style(), texts=lambda ids: tuple(f"<{i}>" for i in ids))
    shown = episodes_of([record(0, 0, one)], {0: 0}, setting)[0].turns[0]
    assert shown.action is not None and shown.context is not None and shown.target is not None
    assert shown.action.text == ("<7>", "<8>") and shown.action.entropy == (0.5, 0.25)
    assert shown.action.logprob is None
    assert shown.context.role == (3,)
    assert shown.target.logprob == pytest.approx((math.log(0.25), math.log(0.5)))
    assert shown.notes == (
        "the response was cut by rollout.max_response_tokens",
        "4 tokens of the next observation are no targets",
    )
    without = episodes_of([record(0, 0, one)], {0: 0}, SETTING)[0].turns[0]
    assert without.action is None and without.target is None


def test_scene_sees_the_whole_episode() -> None:
    def scenes(instruction: str, steps: list) -> list[tuple[Block, ...]]:
        told = ("steps", repr(steps))
        return [(Block("facts", instruction, (told, ("at", str(at)))),) for at in range(len(steps))]

    turns = (turn(observation="a", command="x"), turn(observation="b", command="y"))
    found = episodes_of([record(0, 0, *turns)], {0: 0}, Setting(Style(scenes=scenes)))[0]
    assert found.turns[1].scene[0].entries == (
        ("steps", "[('a', 'x'), ('b', 'y'), ('n', '')]"), ("at", "1"),
    )  # fmt: skip


def test_a_scene_that_breaks_leaves_the_text() -> None:
    def scenes(instruction: str, steps: object) -> list[tuple[Block, ...]]:
        raise ZeroDivisionError

    found = episodes_of([record(0, 0, turn())], {0: 0}, Setting(Style(scenes=scenes)))[0]
    assert found.turns[0].scene == () and found.turns[0].observation == "o"


def test_surprise_is_the_mean_over_all_target_tokens() -> None:
    """-(ln 1/2 + 2 ln 1/4) / 3 = 5/3 ln 2."""
    told = record(0, 0, turn(0.1, (0.5, 0.25)), turn(), turn(0.1, (0.25,)))
    assert surprise(told) == pytest.approx(5 / 3 * math.log(2))
    assert surprise(record(0, 0, turn())) is None
