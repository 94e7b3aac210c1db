import pytest
import torch
from tiny_models import build

from paw.model.critic import Critic
from paw.model.packing import pack
from paw.model.policy import Policy

ROWS = [[3, 1, 4, 1, 5], [9, 2, 6]]
POSITIONS = torch.tensor([4, 5, 7])


@pytest.fixture
def policy() -> Policy:
    return Policy(build("qwen2"))


def test_starts_at_zero(policy):
    values = Critic.from_policy(policy).values(pack(ROWS, "cpu"), POSITIONS)
    assert values.dtype == torch.float32 and torch.equal(values, torch.zeros(3))


def test_reads_the_row_up_to_the_position(policy):
    critic = Critic.from_policy(policy)
    torch.nn.init.ones_(critic.head.weight)
    values = critic.values(pack(ROWS, "cpu"), POSITIONS)
    # Position 5 is token 0 of row 1 and position 7 its last: separate rows cut there agree.
    for value, row in zip(values, (ROWS[0], ROWS[1][:1], ROWS[1]), strict=True):
        alone = critic.values(pack([row], "cpu"), torch.tensor([len(row) - 1]))
        torch.testing.assert_close(value, alone[0], rtol=0, atol=1e-5)
    assert values.unique().numel() == 3


def test_shares_nothing_with_the_policy(policy):
    critic = Critic.from_policy(policy)
    packed = pack(ROWS, "cpu")
    before = policy.logprobs(packed, POSITIONS[[0, 2]])[0]
    optimizer = torch.optim.SGD(critic.parameters(), lr=0.1)
    for _ in range(2):  # the zero head passes no gradient to the decoder in the first step
        (critic.values(packed, POSITIONS) - 1).square().sum().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert (critic.values(packed, POSITIONS) != 0).all()
    assert all(p.grad is None for p in policy.parameters())
    assert torch.equal(policy.logprobs(packed, POSITIONS[[0, 2]])[0], before)
    moved = critic.backbone.layers[0].mlp.up_proj.weight
    assert not torch.equal(moved, policy.backbone.layers[0].mlp.up_proj.weight)


def test_state_dict_resumes_to_the_bit(policy):
    critic, other = Critic.from_policy(policy), Critic.from_policy(policy)
    with torch.no_grad():
        for parameter in critic.parameters():
            parameter.add_(0.1)
    other.load_state_dict(critic.state_dict())
    packed = pack(ROWS, "cpu")
    assert torch.equal(other.values(packed, POSITIONS), critic.values(packed, POSITIONS))
    with pytest.raises(ValueError, match="one side only"):
        other.load_state_dict(policy.state_dict())


def test_critic_of_a_lora_policy_trains_adapter_and_head():
    critic = Critic.from_policy(Policy(build("qwen2"), lora_rank=2))
    assert all("lora" in n or n.startswith("head") for n in critic.state_dict())
