"""The trainer of docs/your-own-trainer.md: its gradient is the paper's and whole, and it learns."""

import math
from types import ModuleType

import pytest
import torch
from transformers import LlamaForCausalLM

import paw.objective as P
from example_files import load


@pytest.fixture
def example() -> ModuleType:
    return load("own_trainer")


def gradient(example, model, transitions, judged, coefficient=1.0):
    model.zero_grad()
    example.learn(model, transitions, judged, coefficient)
    return torch.cat([p.grad.flatten() for p in model.parameters()])


def small(example):
    torch.manual_seed(0)
    config = example.configuration()
    config.hidden_size, config.intermediate_size = 16, 16
    model = LlamaForCausalLM(config)
    transitions, returns = example.act(model)
    return model, transitions, returns


@pytest.mark.numerics
def test_micro_batches_add_up(example, monkeypatch):
    model, transitions, returns = small(example)
    judged = example.judge(transitions, returns)
    found = gradient(example, model, transitions, judged)
    for size in (7, 1000):
        monkeypatch.setattr(example, "MICRO_BATCH", size)
        other = gradient(example, model, transitions, judged)
        torch.testing.assert_close(other, found, rtol=1e-4, atol=1e-7)


@pytest.mark.numerics
def test_gradient_is_the_papers(example, monkeypatch):
    """Two groups of two, written out: returns 1 0 and 0 0, so lambda 1/2 and 1.

    Advantages +-0.5 / (sqrt(0.5) + 1e-6), then 0. Entropies 3 1 | 2 4: the ceil(0.75 x 4) = 3
    largest, without the second; so each of the groups weighs 1/2 (G), the first's one transition
    lambda 1/2, each of the second's two 1/2 of lambda 1.
    """
    monkeypatch.setattr(example, "GROUP_SIZE", 2)
    torch.manual_seed(0)
    model = LlamaForCausalLM(example.configuration())
    with torch.no_grad():
        model.lm_head.weight.mul_(60)  # far from uniform
    rows = [
        ([1, 3], [2, 3], [13], 3.0),
        ([1, 3], [2, 4], [14, 4, 15, 16], 1.0),
        ([1, 4], [2, 3], [14, 3, 15, 16], 2.0),
        ([1, 4], [9, 9], [11, 12], 4.0),
    ]
    transitions, policy, predicted = [], torch.zeros(()), torch.zeros(())
    advantage = 0.5 / (math.sqrt(0.5) + 1e-6)
    for i, (prompt, action, seen, entropy) in enumerate(rows):
        likely = model(torch.tensor([prompt + action])).logits[0, -1].argmax()
        ids = prompt + action + [int(likely), *seen]
        logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
        at = [logprobs[place - 1, ids[place]] for place in range(1, len(ids))]
        roles = [0] * 2 + [1] * 2 + [2] * len(at[3:])
        assert at[3] > math.log(0.2)  # above the cap
        old = [float(x.detach()) for x in at[1:3]]
        transitions.append(example.Transition(i, ids, roles, old, entropy))
        policy = policy - (advantage, -advantage, 0, 0)[i] * sum(at[1:3]) / 8
        errors = [1 - x.exp() for x in at[3:] if float(x.detach().exp()) <= 0.2]
        weight = (0.5 / 2, 0, 1 / (2 * 2), 1 / (2 * 2))[i]
        predicted = predicted + weight * sum(errors) / len(at[3:])
    judged = example.judge(transitions, torch.tensor([1.0, 0.0, 0.0, 0.0]))
    for coefficient in (0.0, 1.0):
        found = gradient(example, model, transitions, judged, coefficient)
        loss = policy + coefficient * predicted
        own = torch.autograd.grad(loss, list(model.parameters()), retain_graph=True)
        own = torch.cat([g.flatten() for g in own])
        assert own.abs().max() > 1e-3
        atol = 1e-5 * float(own.abs().max())
        torch.testing.assert_close(found, own, rtol=1e-4, atol=atol)


def test_without_a_coefficient_it_is_the_loop_without_the_term_bit_for_bit(example):
    """The same loop over h_t + a_t alone. What weighs nothing (unselected, or lambda 0) carries no
    observation with a coefficient either."""
    model, transitions, returns = small(example)
    advantages, weights = example.judge(transitions, returns)
    found = gradient(example, model, transitions, (advantages, weights), coefficient=0.0)
    model.zero_grad()
    cut = [t._replace(ids=t.ids[: -t.roles.count(2)]) for t in transitions]
    for places in torch.arange(len(cut)).split(example.MICRO_BATCH):
        some = [cut[i] for i in places]
        tokens = torch.nn.utils.rnn.pad_sequence([torch.tensor(t.ids) for t in some], True)
        logprobs = model(tokens).logits[:, :-1].log_softmax(-1)
        logprobs = logprobs.gather(-1, tokens[:, 1:, None]).squeeze(-1)
        action = torch.zeros_like(logprobs, dtype=torch.bool)
        for row, t in enumerate(some):
            action[row, len(t.ids) - 1 - example.ACTION_LENGTH : len(t.ids) - 1] = True
        old = torch.tensor([value for t in some for value in t.logprobs])
        usual = advantages[places].repeat_interleave(example.ACTION_LENGTH)
        loss = P.clipped_surrogate(logprobs[action], old, usual, 0.2, 0.2)
        P.weighted_sum(loss, torch.full_like(loss, 1 / (2 * len(cut)))).backward()
    plain = torch.cat([p.grad.flatten() for p in model.parameters()])
    assert plain.abs().max() > 1e-4
    assert torch.equal(found, plain)
    carried = [2 in t.weighing(w).roles for t, w in zip(transitions, weights, strict=True)]
    assert carried == (weights != 0).tolist() and 0 < sum(carried) < len(carried)


@pytest.mark.slow
def test_it_learns(example):
    """From a third of the boxes found, three of eight by chance, to nearly all of them."""
    found = example.main(updates=40, coefficient=1.0, seed=0)
    assert sum(found[:5]) / 5 < 0.5 < 0.75 < sum(found[-5:]) / 5
