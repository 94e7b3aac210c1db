"""bf16 weights move as fp32 ones do: the optimizer has masters in fp32."""

import copy
import random

import pytest
import torch
from torch import Tensor, nn

from paw.config.tree import AlgorithmConfig, OptimizerConfig, PawConfig
from paw.train.learner import Learner
from paw.train.losses import choose_losses
from paw.train.masters import MasterAdamW
from paw.types import TrainingSample

from .fakes import VOCAB, C, tiny_policy

RATE = 1e-6
"""Of all weights of a pretrained model; bf16 resolves 0.4 % of a weight."""


def bf16_values(*shape: int, seed: int = 0) -> Tensor:
    """Normal numbers that bf16 holds, in fp32."""
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed))
    return drawn.bfloat16().float()


def pair(rate: float = RATE, **settings) -> tuple[MasterAdamW, nn.Parameter, MasterAdamW, Tensor]:
    """An optimizer and its parameter in bf16, and both in fp32, with the same numbers."""
    start = bf16_values(40, 5) / 16
    narrow, wide = (nn.Parameter(start.to(t)) for t in (torch.bfloat16, torch.float32))
    config = OptimizerConfig(**settings)
    return MasterAdamW([narrow], rate, config), narrow, MasterAdamW([wide], rate, config), wide


def backward(optimizer: MasterAdamW, parameter: Tensor, factors: Tensor) -> None:
    """Add `factors` to the gradient, by way of a loss."""
    with optimizer.accumulate():
        (parameter * factors.to(parameter.dtype)).sum().backward()


def test_masters_take_the_steps_of_fp32_weights_to_the_bit():
    """Five steps of gradients that bf16 holds, clipped and decayed. All masters move at once and
    stay moved; of the weights of AdamW on bf16 itself fewer than one in ten ever does."""
    settings = {"weight_decay": 0.01, "max_grad_norm": 3.0}
    narrow, parameter, wide, expected = pair(**settings)
    start = expected.detach().clone()
    alone = nn.Parameter(parameter.detach().clone())
    naive = torch.optim.AdamW([alone], lr=RATE, weight_decay=0.01)
    for step in range(5):
        factors = bf16_values(40, 5, seed=step + 1)
        norms = []
        for optimizer, p in ((narrow, parameter), (wide, expected)):
            backward(optimizer, p, factors)
            norms.append(optimizer.clip(3.0))
            optimizer.step()
            optimizer.zero_grad()
        assert norms[0] == norms[1] == pytest.approx(float(factors.norm()), rel=1e-6)
        assert torch.equal(narrow.masters[0], expected)
        assert torch.equal(parameter, expected.bfloat16())
        assert (expected != start).all()
        alone.grad = factors.bfloat16()
        naive.step()
    assert (alone.float() != start).float().mean() < 0.1


def test_gradients_add_up_in_fp32():
    """1 and 512 times 1 / 512 are 2; in bf16 1 + 1 / 512 is 1. The bf16 gradient is gone each
    time, and so are the hooks behind the last."""
    optimizer, parameter, _, _ = pair()
    backward(optimizer, parameter, torch.ones(40, 5))
    for _ in range(512):
        backward(optimizer, parameter, torch.full((40, 5), 2.0**-9))
        assert parameter.grad is None
    gradient = optimizer.masters[0].grad
    assert gradient is not None and gradient.dtype == torch.float32
    assert torch.equal(gradient, torch.full((40, 5), 2.0))
    assert optimizer.clip(100.0) == pytest.approx(2 * 200**0.5)  # 28.28; bf16 says 28.25
    parameter.sum().backward()
    assert parameter.grad is not None and torch.equal(gradient, torch.full((40, 5), 2.0))
    optimizer.zero_grad()
    assert parameter.grad is None and optimizer.masters[0].grad is None


def test_parameters_of_fp32_and_wider_are_their_own_masters():
    parameters = [nn.Parameter(torch.ones(3, dtype=t)) for t in (torch.float32, torch.float64)]
    mixed = [*parameters, nn.Parameter(torch.ones(3, dtype=torch.bfloat16))]
    optimizer = MasterAdamW(mixed, RATE, OptimizerConfig())
    assert [m is p for m, p in zip(optimizer.masters, mixed, strict=True)] == [True, True, False]
    assert "masters" not in MasterAdamW(parameters, RATE, OptimizerConfig()).state_dict()


def test_state_goes_on_to_the_bit_and_only_where_it_belongs():
    narrow, parameter, wide, _ = pair()
    backward(narrow, parameter, bf16_values(40, 5, seed=1))
    narrow.step()
    saved = copy.deepcopy(narrow.state_dict())
    assert (saved["masters"][0] != parameter.float()).any()  # which the weights do not tell
    again, other, _, _ = pair()
    again.load_state_dict(saved)
    assert torch.equal(other, parameter)
    for optimizer, p in ((narrow, parameter), (again, other)):
        optimizer.zero_grad()
        backward(optimizer, p, bf16_values(40, 5, seed=2))
        optimizer.step()
    assert torch.equal(narrow.masters[0], again.masters[0])
    with pytest.raises(ValueError, match="0 fp32 masters, not the 1 of this model"):
        again.load_state_dict(wide.state_dict())
    with pytest.raises(ValueError, match="1 fp32 masters, not the 0"):
        wide.load_state_dict(saved)


def learner(dtype: torch.dtype) -> Learner:
    """Of the same weights in any type: those that bf16 holds."""
    policy = tiny_policy(0, torch.bfloat16)
    policy.model.to(dtype)
    settings = OptimizerConfig(learning_rate=RATE, tokens_per_micro_batch=40)
    return Learner(policy, None, choose_losses(AlgorithmConfig(), PawConfig(loss="ce")), settings)


def rows() -> list[TrainingSample]:
    """Eight of 15 random tokens, all but the first predicted."""
    rng = random.Random(0)
    zeros = (0.0,) * 15
    return [
        TrainingSample(
            token_ids=tuple(rng.randrange(VOCAB) for _ in range(15)),
            roles=(C,) * 15,
            old_logprobs=zeros,
            advantages=zeros,
            policy_weights=zeros,
            target_weights=(0.0,) + (1 / 112,) * 14,
            base_length=15,
        )
        for _ in range(8)
    ]


@pytest.mark.numerics
def test_the_first_update_changes_what_fp32_changes():
    """Of a whole policy, in micro-batches: AdamW's first step is the rate times the gradient's
    sign, so masters differ from fp32 weights where the two gradients, which are those of bf16 and
    of fp32 products, differ in sign: where they are small. Five updates move every master."""
    narrow, wide = learner(torch.bfloat16), learner(torch.float32)
    samples = rows()
    masters = [[m.detach().clone() for m in x.optimizer.masters] for x in (narrow, wide)]
    start = torch.cat([m.flatten() for m in masters[0]])
    assert torch.equal(start, torch.cat([m.flatten() for m in masters[1]]))
    norms = [x.step(samples).total("gradient_norm") for x in (narrow, wide)]
    assert norms[0] == pytest.approx(norms[1], rel=0.05)
    ours, theirs = (
        torch.cat([m.detach().flatten() for m in x.optimizer.masters]) - start
        for x in (narrow, wide)
    )
    assert (ours != 0).float().mean() > 0.999 * (theirs != 0).float().mean() > 0.9
    assert torch.nn.functional.cosine_similarity(ours, theirs, dim=0) > 0.95
    for _ in range(4):
        narrow.step(samples)
    after = torch.cat([m.detach().flatten() for m in narrow.optimizer.masters])
    assert (after != start).all()
    for p, master in zip(narrow.policy.parameters(), narrow.optimizer.masters, strict=True):
        assert p.dtype == torch.bfloat16 and torch.equal(p, master.bfloat16())
