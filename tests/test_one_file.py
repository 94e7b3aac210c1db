"""The page from which people learn the method: its gradient is the paper's, and it learns."""

import math
from types import ModuleType

import pytest
import torch

from example_files import EXAMPLES, load

FILE = EXAMPLES / "one_file.py"


@pytest.fixture
def example() -> ModuleType:
    return load("one_file")


def test_it_is_one_page():
    assert len(FILE.read_text(encoding="utf-8").splitlines()) <= 150


def test_gradient_is_the_papers(example: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """Two groups of two episodes, five transitions, written out row by row in float64.

    Returns 10, 0 and 0, 0: advantages +-5 / (sqrt(50) + 1e-6), then 0; lambda 1/2, then 1.
    """
    monkeypatch.setattr(example, "GROUP_SIZE", 2)
    monkeypatch.setattr(example, "PROBABILITY_CAP", 0.15)
    torch.manual_seed(0)
    policy = example.Policy(size=8, max_words=9).double()
    policy.encode("a b c d e f g h")
    rows = [
        (0, [1, 2], [3, 0], [4, 5, 6]),
        (0, [2], [5, 6, 0], [7]),
        (1, [1, 2, 3], [0], [8, 1]),
        (2, [4], [2, 0], [3, 3, 3, 3]),
        (3, [6, 5], [1, 2, 0], []),  # no next observation: no candidate
    ]
    transitions = [example.Transition(*row) for row in rows]
    returns = torch.tensor([10.0, 0.0, 0.0, 0.0], dtype=torch.float64)
    policy_loss, wm_loss = example.losses(policy, transitions, returns)
    found = torch.autograd.grad(policy_loss + wm_loss, list(policy.parameters()))

    advantage = [a * 5 / (math.sqrt(50) + 1e-6) for a in (1, 1, -1, 0, 0)]
    action_terms, entropies, errors = [], [], []
    for number, (_, prompt, action, target) in enumerate(rows):
        logits = policy(torch.tensor([prompt + action + target]))[0][0].log_softmax(-1)
        at = len(prompt)
        for place, token in enumerate(action, at):
            action_terms.append(-advantage[number] * logits[place - 1, token])
        spread = logits[at - 1 : at - 1 + len(action)].detach()
        entropies.append(float(-(spread.exp() * spread).sum(-1).mean()))
        p = [logits[i - 1, t].exp() for i, t in enumerate(target, at + len(action))]
        kept = [(1 - x) for x in p if float(x.detach()) <= 0.15]
        errors.append(sum(kept, torch.zeros(())) / max(len(target), 1))
    chosen = sorted(range(4), key=lambda i: -entropies[i])[:3]  # ceil(0.75 x 4)
    wm = torch.zeros((), dtype=torch.float64)
    for weight, group in ((0.5, (0, 1, 2)), (1.0, (3,))):
        members = [errors[i] for i in group if i in chosen]
        wm = wm + weight / 2 * sum(members, torch.zeros(())) / max(len(members), 1)
    loss = torch.stack(action_terms).mean() + wm
    expected = torch.autograd.grad(loss, list(policy.parameters()))
    assert wm_loss.item() == pytest.approx(wm.item(), rel=1e-9) and wm.item() > 0.1
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, rtol=1e-9, atol=1e-12)


def test_it_learns_what_its_actions_do(example: ModuleType, monkeypatch: pytest.MonkeyPatch):
    """Two games, 8 updates: the next-observation NLL of the expert's episodes falls."""
    monkeypatch.setattr(example, "NUM_GAMES", 2)
    monkeypatch.setattr(example, "MAX_TURNS", 5)
    measured = example.main(updates=8, coefficient=1.0, seed=0, imitation_steps=20)
    first, last = measured[0][1], measured[-1][1]
    assert last < first - 0.1
