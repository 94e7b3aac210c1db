"""The recipes for rLLM and prime-rl, with scripted stand-ins of what those hand them."""

import importlib
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))

import prime_rl_paw
import rllm_paw
import verl_agent_paw

import paw.objective as P

LOGPROBS = torch.tensor([[-1.0, -3.0, -0.1, -2.0]])


def agg_loss(
    loss_mat,
    loss_mask,
    loss_agg_mode,
    dp_size=1,
    batch_num_tokens=None,
    global_batch_size=None,
    **ignored,
):
    """verl's, against which test_verl.py holds it: denominators are the optimizer step's, the
    number of tokens that of its actions."""
    per_row = (loss_mat * loss_mask).sum(-1)
    if loss_agg_mode == "token-mean":
        return per_row.sum() / batch_num_tokens * dp_size
    if loss_agg_mode == "seq-mean-token-mean":
        per_row = per_row / (loss_mask.sum(-1) + 1e-8)
    elif loss_agg_mode != "seq-mean-token-sum":
        raise ValueError(f"Invalid loss_agg_mode: {loss_agg_mode}")  # verl 0.8.0 has no token-sum
    return per_row.sum() / global_batch_size * dp_size


def context(obs_mask, **params):
    """Two action tokens, two of the environment, in one of the two rows of an optimizer step, which
    has five action tokens."""

    def aggregate(per_token, mask, mode=None):
        return agg_loss(
            per_token, mask, mode or "token-mean", batch_num_tokens=5, global_batch_size=2
        )

    return SimpleNamespace(
        logp_curr=LOGPROBS.clone().requires_grad_(),
        logp_old=LOGPROBS.clone(),
        advantages=torch.full((1, 4), 0.5),
        action_mask=torch.tensor([[1.0, 1.0, 0.0, 0.0]]),
        obs_mask=torch.tensor([obs_mask]),
        aggregate=aggregate,
        params=params,
        backend="verl",
    )


def test_rllm_without_a_coefficient_is_the_surrogate():
    """At ratio 1 the surrogate is -A = -0.5 of each action token, over the step's five."""
    ctx = context([0.0, 0.0, 1.0, 1.0], coefficient=0)
    loss, metrics = rllm_paw.paw(ctx)
    loss.backward()
    assert loss.item() == pytest.approx(-0.2) and metrics == {}
    assert ctx.logp_curr.grad.flatten().tolist() == pytest.approx([-0.1, -0.1, 0, 0])


@pytest.mark.parametrize("weighted", [False, True])
def test_rllm_predicts_what_the_mask_says(weighted):
    """p = e^-0.1 is above the cap of 0.2, p = e^-2 below: error 1 - p, gradient -p. Unweighted: the
    mean over the row's two tokens; weighted by 0.3: 0.3 (1 - p); both over the step's two rows."""
    weight = 0.3 if weighted else 1.0
    ctx = context([0.0, 0.0, weight, weight], weighted=weighted)
    loss, metrics = rllm_paw.paw(ctx)
    loss.backward()
    p, share = torch.tensor(-2.0).exp().item(), (0.3 if weighted else 0.5) / 2
    assert metrics["wm/loss"] == pytest.approx(share * (1 - p))
    assert loss.item() == pytest.approx(-0.2 + share * (1 - p))
    assert ctx.logp_curr.grad.flatten().tolist() == pytest.approx([-0.1, -0.1, 0, -share * p])


def test_rllm_weights_are_those_of_the_objective():
    """Four transitions, the last without a next observation: the upper two of three are kept.
    The groups return 10 0 and 0 0: lambda 0.5 and 1, over two groups and one selected transition
    each: 0.25 / 5 and 0.5 / 4; times four rows, by which two steps of two divide."""
    found = rllm_paw.weights(
        torch.tensor([3.0, 1.0, 2.0, 9.0]),
        torch.tensor([5, 2, 4, 0]),
        torch.tensor([0, 1, 2, 2]),
        torch.tensor([10.0, 0.0, 0.0, 0.0]),
        torch.tensor([0, 0, 1, 1]),
        num_rows=4,
        max_return=10.0,
        fraction=0.6,
    )
    assert found.tolist() == pytest.approx([0.2, 0, 0.5, 0])


def test_rllm_without_what_it_needs_is_a_line(monkeypatch):
    ctx = context([1.0, 1.0, 1.0, 1.0])
    ctx.backend = "managed"
    with pytest.raises(ValueError, match="backend = managed"):
        rllm_paw.paw(ctx)
    registered = {}
    theirs = ModuleType("rllm")
    monkeypatch.setitem(sys.modules, "rllm", theirs)
    with pytest.raises(ImportError, match="pull request 713"):
        importlib.reload(rllm_paw)
    theirs.register_loss = lambda name: lambda loss: registered.setdefault(name, loss)
    importlib.reload(rllm_paw)
    assert registered == {"paw": rllm_paw.paw}


def node(role, tokens, *, sampled=False, logprobs=(), content=()):
    return SimpleNamespace(
        message=SimpleNamespace(role=role),
        token_ids=list(range(tokens)),
        sampled=sampled,
        logprobs=list(logprobs),
        is_content=list(content),
        loss_weights=None,
    )


def trace(reward, *observations):
    """A prompt, and an action before each observation; the entropy is of its only token."""
    nodes = [node("user", 3)]
    for logprob, length, content in observations:
        nodes.append(node("assistant", 1, sampled=True, logprobs=[logprob]))
        nodes.append(node("user", length, content=content))
    return SimpleNamespace(reward=reward, nodes=nodes)


def test_prime_rl_weighs_selected_observations_by_lambda():
    """-q log q is 0.37 at log q = -1, 0.27 at -2, 0.15 at -3: of three the upper two are kept.
    lambda = 1 - 5 / 10. Lengths 2 and 4 (of its 5 tokens one is the template's), on average 3:
    weights 0.5 x 3 / 2 and 0.5 x 3 / 4, so that both transitions weigh the same."""
    won = trace(10.0, (-1.0, 2, ()), (-3.0, 4, ()))
    lost = trace(0.0, (-2.0, 5, (False, True, True, True, True)))
    prime_rl_paw.weigh([won, lost], max_return=10.0, fraction=0.6)
    found = [n.loss_weights for t in (won, lost) for n in t.nodes if n.message.role == "user"]
    assert found[0] is None and found[3] is None  # the prompts
    assert found[1]["ce"] == pytest.approx([0.75, 0.75])
    assert found[2]["ce"] == [0, 0, 0, 0]
    assert found[4]["ce"] == pytest.approx([0, 0.375, 0.375, 0.375, 0.375])
    assert sum(found[1]["ce"]) == pytest.approx(sum(found[4]["ce"]))
    prime_rl_paw.weigh([trace(0.0)], max_return=10.0)  # nothing to predict


def test_prime_rl_loss_is_that_of_the_objective():
    logprobs = LOGPROBS[0].clone().requires_grad_()
    mask = torch.tensor([False, False, True, True])
    weights = torch.tensor([0.0, 0.0, 2.0, 0.5])
    inputs = SimpleNamespace(trainer_logprobs=logprobs, loss_mask=mask, loss_weights=weights)
    loss, metrics = prime_rl_paw.clipped_mae_loss(inputs)
    loss.backward()
    expected = P.weighted_sum(P.clipped_mae(LOGPROBS[0, 2:], 0.2), weights[2:])
    assert loss.item() == pytest.approx(expected.item())
    assert logprobs.grad[:3].tolist() == [0, 0, 0] and logprobs.grad[3] < 0
    assert metrics["wm/clipped_token_fraction"] == 0.5


def test_verl_agent_rows_have_their_targets_behind_the_response():
    """Two trajectories of one group, returning 10 and 0: lambda 0.5. Rows 0 and 2 have a next
    observation, of 2 and 3 tokens; both are kept: 0.5 / 2 over 2 and over 3 tokens."""
    rows = [
        [{"anchor_obs": "a", "active_masks": True}, {"anchor_obs": "b", "active_masks": True}],
        [{"anchor_obs": "a", "active_masks": True}, {"anchor_obs": "c", "active_masks": False}],
    ]
    verl_agent_paw.note_next_observations(rows)
    assert [[row["next_obs"] for row in of] for of in rows] == [["b", ""], ["", ""]]
    prompts = torch.tensor([[0, 11], [12, 13], [14, 15]])
    responses = torch.tensor([[21, 22, 0], [23, 0, 0], [24, 25, 26]])
    mask = torch.tensor([[0, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
    ones = torch.ones(3, 3)
    tensors = {
        "input_ids": torch.cat([prompts, responses], dim=1),
        "attention_mask": mask,
        "position_ids": (mask.cumsum(1) - 1).clamp(min=0),
        "responses": responses,
        "old_log_probs": ones * mask[:, 2:],
        "advantages": ones * mask[:, 2:],
        "entropys": ones,
    }
    columns = {"uid": list("ggg"), "traj_uid": list("xyx"), "episode_rewards": [10.0, 0.0, 10.0]}
    found = verl_agent_paw.grown(
        tensors, columns, [[31, 32], [], [33, 34, 35]], [9], max_return=10.0, fraction=1.0
    )
    assert found["responses"].tolist() == [
        [21, 22, 9, 31, 32, 0, 0],
        [23, 0, 0, 0, 0, 0, 0],
        [24, 25, 26, 9, 33, 34, 35],
    ]
    assert found["input_ids"][0].tolist() == [0, 11, 21, 22, 9, 31, 32, 0, 0]
    assert found["position_ids"][0].tolist()[:7] == [0, 0, 1, 2, 3, 4, 5]
    assert found["attention_mask"].sum(1).tolist() == [6, 3, 9]
    assert found["loss_mask"].sum(1).tolist() == [2, 1, 3]  # actions alone
    weights = found["paw_weights"]
    assert weights[0].tolist() == pytest.approx([0, 0, 0, 0.125, 0.125, 0, 0])
    assert weights[2].tolist() == pytest.approx([0, 0, 0, 0, *[0.25 / 3] * 3])
    assert not weights[1].any() and not found["advantages"][0, 2:].any()


def test_verl_agent_term_does_not_depend_on_micro_batches():
    """verl scales a micro-batch of 1 of 3 rows by 1 / 3: the term comes three times as large."""
    logprobs, weights = torch.full((3, 2), -2.0), torch.rand(3, 2)
    data = {"paw_weights": weights}
    whole = verl_agent_paw.prediction_term(logprobs, data, 3)
    parts = [
        verl_agent_paw.prediction_term(logprobs[i : i + 1], {"paw_weights": weights[i : i + 1]}, 3)
        for i in range(3)
    ]
    assert whole.item() == pytest.approx(
        P.weighted_sum(P.clipped_mae(logprobs, 0.2), weights).item()
    )
    assert sum(part.item() / 3 for part in parts) == pytest.approx(whole.item())
