"""3,000 random and degenerate problems against the slow reference, float64, to 1e-9."""

import math
import random
from dataclasses import dataclass

import pytest
import torch

import paw.objective as P

from . import reference

TEXTS = ["", "Nothing happens.", "Nothing happened.", "You open the fridge.", "You open a fridge."]
LOGPROBS = [0.0, -math.inf, -800.0, -1e-12]


@dataclass
class Update:
    """One update of a random shape; P transitions in shuffled order."""

    returns: list[float]
    group: list[int]
    trajectory: list[int]
    turn: list[int]
    rewards: list[float]
    values: list[float]
    texts: list[str]
    scores: list[float]
    candidates: list[bool]
    observations: list[list[float]]
    fraction: float
    cap: float


def make_update(rng: random.Random) -> Update:
    cap = rng.choice([0.2, 0.25, 0.5, 1.0])
    outcome = rng.choice(["win", "lose", "mixed", "mixed", "real"])
    group = [g for g in range(rng.randint(1, 4)) for _ in range(rng.choice([1, 1, 2, 3, 5]))]
    pairs = [(n, 2 * t + 1) for n in range(len(group)) for t in range(rng.choice([1, 2, 4]))]
    rng.shuffle(pairs)
    trajectory, turn = [n for n, _ in pairs], [t for _, t in pairs]
    last = {n: max(t for m, t in pairs if m == n) for n in trajectory}
    final = [
        {"win": 10.0, "lose": 0.0, "mixed": rng.choice([0.0, 10.0])}.get(outcome, rng.random())
        for _ in group
    ]
    penalty = rng.choice([0.0, -0.1])

    def observation() -> list[float]:
        special = [*LOGPROBS, math.log(cap)]
        return [
            rng.choice(special) if rng.random() < 0.3 else math.log(1 - rng.random())
            for _ in range(rng.choice([1, 1, 2, 5]))
        ]

    return Update(
        returns=final,
        group=group,
        trajectory=trajectory,
        turn=turn,
        rewards=[
            (final[n] if t == last[n] else 0.0) + rng.choice([0.0, penalty]) for n, t in pairs
        ],
        values=[rng.uniform(-1, 1) for _ in pairs],
        texts=[rng.choice(TEXTS) for _ in pairs],
        scores=[rng.choice([0.0, 0.5, 1.0, rng.random()]) for _ in pairs],
        candidates=[rng.random() < 0.8 for _ in pairs]
        if rng.random() < 0.9
        else [False] * len(pairs),
        observations=[observation() for _ in pairs],
        fraction=rng.choice([0.0, 1 / 3, 0.75, 1.0, rng.random()]),
        cap=cap,
    )


def f64(values) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.float64)


def close(actual: torch.Tensor, expected) -> None:
    torch.testing.assert_close(actual, f64(expected), rtol=1e-9, atol=1e-9)


CHUNKS = 4


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_next_observation_objective(chunk):
    for seed in range(chunk, 1000, CHUNKS):
        rng = random.Random(seed)
        update = make_update(rng)
        loss = rng.choice(["cmae", "mae", "ce"])
        if loss == "ce":
            update.observations = [[max(x, -800) for x in o] for o in update.observations]
        clamp = rng.random() < 0.5
        max_return = rng.choice([1.0, 10.0])
        group = [update.group[n] for n in update.trajectory]

        kept = reference.select(update.scores, update.candidates, update.fraction)
        weights = [
            reference.group_weight(
                [r for r, h in zip(update.returns, update.group, strict=True) if h == g],
                max_return,
                clamp,
            )
            for g in range(max(update.group) + 1)
        ]
        losses = [reference.observation_loss(o, loss, update.cap) for o in update.observations]
        expected = reference.wm_objective(losses, kept, group, weights)
        sizes = [sum(1 for i in kept if group[i] == g) for g in range(len(weights))]
        gradient = [
            weights[group[i]] / len(weights) / sizes[group[i]] * d if i in kept else 0.0
            for i, o in enumerate(update.observations)
            for d in reference.observation_gradient(o, loss, update.cap)
        ]

        selected = P.select_top_fraction(
            f64(update.scores), torch.tensor(update.candidates), update.fraction
        )
        assert set(selected.nonzero().squeeze(-1).tolist()) == kept, seed
        lambdas = P.group_weights(
            f64(update.returns), torch.tensor(update.group), max_return, clamp
        )
        close(lambdas, weights)
        per_transition = P.transition_weights(selected, torch.tensor(group), lambdas)
        logprobs = f64([x for o in update.observations for x in o]).requires_grad_()
        owner = torch.tensor([i for i, o in enumerate(update.observations) for _ in o])
        length = torch.tensor([len(o) for o in update.observations])
        token_losses = {
            "cmae": lambda x, cap=update.cap: P.clipped_mae(x, cap),
            "mae": P.mean_absolute_error,
            "ce": P.cross_entropy,
        }[loss](logprobs)
        total = P.weighted_sum(token_losses, (per_transition / length)[owner])
        total.backward()
        close(total.detach(), expected)
        assert logprobs.grad is not None
        close(logprobs.grad, gradient)


@pytest.mark.parametrize("chunk", range(CHUNKS))
def test_advantages(chunk):
    for seed in range(chunk, 1000, CHUNKS):
        rng = random.Random(10_000 + seed)
        u = make_update(rng)
        scale, discount, lam = (
            rng.random() < 0.5,
            rng.choice([0.0, 0.95, 1.0]),
            rng.choice([0, 0.9, 1]),
        )
        step_weight, similarity = rng.choice([0.0, 0.5, 1.0]), rng.choice([None, 0.9])
        returns, rewards, values = f64(u.returns), f64(u.rewards), f64(u.values)
        group, trajectory = torch.tensor(u.group), torch.tensor(u.trajectory)
        turn = torch.tensor(u.turn)

        close(
            P.group_relative_advantages(returns, group, scale),
            reference.group_relative(u.returns, u.group, scale),
        )
        close(
            P.leave_one_out_advantages(returns, group),
            reference.leave_one_out(u.returns, u.group),
        )
        close(
            P.discounted_returns(rewards, trajectory, turn, discount),
            reference.discounted(u.rewards, u.trajectory, u.turn, discount),
        )
        advantages, targets = P.generalized_advantages(
            rewards, values, trajectory, turn, discount, lam
        )
        expected = reference.gae(u.rewards, u.values, u.trajectory, u.turn, discount, lam)
        close(advantages, expected[0])
        close(targets, expected[1])
        group_of_turn = [u.group[n] for n in u.trajectory]
        anchor = P.anchor_labels(u.texts, group_of_turn, similarity)
        assert anchor == reference.anchors(u.texts, group_of_turn, similarity), seed
        close(
            P.gigpo_advantages(
                returns, rewards, trajectory, turn, group, torch.tensor(anchor), discount,
                step_weight, scale,
            ),
            reference.gigpo(
                u.returns, u.rewards, u.trajectory, u.turn, u.group, anchor, discount,
                step_weight, scale,
            ),
        )  # fmt: skip


def test_elementwise_losses():
    rng = random.Random(0)
    for _ in range(1000):
        size = rng.choice([1, 3, 8])
        logprobs = [rng.choice([0.0, -rng.expovariate(1.0)]) for _ in range(size)]
        old = [rng.choice([x, -rng.expovariate(1.0)]) for x in logprobs]
        advantages = [rng.choice([0.0, rng.uniform(-2, 2)]) for _ in range(size)]
        low, high = rng.choice([(0.2, 0.2), (0.2, 0.28), (1.0, math.inf), (0.0, 0.0)])
        clip = rng.choice([None, 0.0, 0.2])
        close(
            P.clipped_surrogate(f64(logprobs), f64(old), f64(advantages), low, high),
            [
                reference.surrogate(*row, low, high)
                for row in zip(logprobs, old, advantages, strict=True)
            ],
        )
        close(
            P.kl_estimate(f64(logprobs), f64(old)),
            [reference.kl(*row) for row in zip(logprobs, old, strict=True)],
        )
        close(
            P.value_loss(f64(logprobs), f64(advantages), f64(old), clip),
            [
                reference.value_error(*row, clip)
                for row in zip(logprobs, advantages, old, strict=True)
            ],
        )
        close(
            P.sampled_token_entropy(f64(logprobs)), [reference.sampled_entropy(x) for x in logprobs]
        )
        close(
            P.token_entropy(f64([logprobs, old])), [reference.entropy(x) for x in (logprobs, old)]
        )
