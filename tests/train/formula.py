"""The objective of one update written once more, slowly, from the paper's equations.

Nothing of the trainer's or the objective's code: loops over groups, one plain forward pass of the
transformers model per transition, autograd through all of it.
"""

import math
import statistics
from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from paw.config.tree import AlgorithmConfig, PawConfig
from paw.types import Group, Transition

from .fakes import POLICY, to_user

MAX_RETURN = 10.0


def transitions_of(groups: Sequence[Group], append: bool) -> list[SimpleNamespace]:
    """P of Eq. 4: transition, h_t, group number, trajectory number, turn; failures left out."""
    pool, g, n = [], -1, -1
    for group in groups:
        usable = [t for t in group.trajectories if t.failure is None]
        if not usable:
            continue
        g += 1
        for trajectory in usable:
            n += 1
            conversation: list[int] = []
            for number, t in enumerate(trajectory.transitions):
                conversation = [*(conversation if append else []), *t.context_ids]
                whole = sum(x.reward for x in trajectory.transitions)
                pool.append(
                    SimpleNamespace(
                        t=t, prompt=list(conversation), group=g, trajectory=n, turn=number,
                        observation=t.observation, return_=whole,
                    )
                )  # fmt: skip
                conversation += t.action.token_ids
    return pool


def logprobs_of(model, prompt: Sequence[int], continuation: Sequence[int]) -> Tensor:
    """log p of each token of `continuation` after `prompt`."""
    ids = torch.tensor([[*prompt, *continuation]])
    rows = model(input_ids=ids, use_cache=False).logits[0].log_softmax(-1)
    at = torch.arange(len(prompt), ids.shape[1])
    return rows[at - 1, ids[0, at]]


def normalised(values: Sequence[float], own: float, by_std: bool = True) -> float:
    if len(values) == 1:
        return 0.0
    deviation = own - statistics.fmean(values)
    return deviation / (statistics.stdev(values) + 1e-6) if by_std else deviation


def advantages(
    pool: Sequence[SimpleNamespace], algorithm: AlgorithmConfig, values: Sequence[float]
) -> tuple[list[float], list[float]]:
    """A_t of Eq. 1 and, for PPO, the critic's targets; penalties on their own turns."""
    if algorithm.name == "ppo":
        raw, targets = [], []
        for i, x in enumerate(pool):
            later = [j for j, y in enumerate(pool) if y.trajectory == x.trajectory and j >= i]
            total = 0.0
            for k, j in enumerate(later):
                after = values[later[k + 1]] if k + 1 < len(later) else 0.0
                delta = pool[j].t.reward + pool[j].t.penalty - values[j]
                delta += algorithm.gae_discount * after
                total += (algorithm.gae_discount * algorithm.gae_lambda) ** k * delta
            raw.append(total)
            targets.append(total + values[i])
        return [normalised(raw, a) for a in raw], targets
    result = []
    for x in pool:
        members = [y for y in pool if y.group == x.group]
        returns = {y.trajectory: y.return_ for y in members}
        if algorithm.name == "rloo":
            others = [r for n, r in returns.items() if n != x.trajectory]
            advantage = x.return_ - statistics.fmean(others) if others else 0.0
        else:
            advantage = normalised(list(returns.values()), x.return_)
        advantage += x.t.penalty - statistics.fmean(y.t.penalty for y in members)
        if algorithm.name == "gigpo":
            same = [
                discounted(pool, y, algorithm) for y in members if y.observation == x.observation
            ]
            advantage += algorithm.step_weight * normalised(same, discounted(pool, x, algorithm))
        result.append(advantage)
    return result, []


def discounted(pool: Sequence[SimpleNamespace], x: SimpleNamespace, algorithm) -> float:
    later = [y for y in pool if y.trajectory == x.trajectory and y.turn >= x.turn]
    return math.fsum(
        algorithm.discount**k * (y.t.reward + y.t.penalty) for k, y in enumerate(later)
    )


def selected(pool: Sequence[SimpleNamespace], fraction: float) -> set[int]:
    """S_alpha of Eq. 4: indices of the most uncertain candidates of the whole update."""
    candidates = [i for i, x in enumerate(pool) if x.t.next_observation is not None]
    candidates.sort(key=lambda i: -statistics.fmean(pool[i].t.action.entropies))
    return set(candidates[: math.ceil(fraction * len(candidates) - 1e-9)])


def group_weight(returns: Sequence[float]) -> float:
    """lambda_g of Eq. 10."""
    return 1 - statistics.fmean(returns) / MAX_RETURN


def observation_loss(logprobs: Tensor, paw: PawConfig) -> Tensor:
    """Eq. 8 (or 5, 7) of one observation, summed over its tokens."""
    total = torch.zeros((), dtype=logprobs.dtype)
    for logprob in logprobs:
        p = logprob.exp()
        if paw.loss == "ce":
            total = total - logprob
        elif paw.loss == "mae" or float(p.detach()) <= paw.probability_cap:
            total = total + (1 - p)
    return total


Steps = list[tuple[Tensor, int]]
"""(summed loss, number of tokens) of each observation that one transition predicts."""


def group_loss(losses: Sequence[tuple[int, Steps]], pool, paw: PawConfig) -> Tensor:
    """Mean over S_g of Eq. 9; over its tokens; each where a repeated transition counts once.

    Args:
        losses: (index of the transition, what it predicts).
    """
    learned = [x for x in pool if x.learned]
    total, size = torch.zeros((), dtype=torch.float64), 0.0
    for i, steps in losses:
        own = (pool[i].t.observation, pool[i].t.command, pool[i].t.next_observation)
        same = sum(own == (x.t.observation, x.t.command, x.t.next_observation) for x in learned)
        part = 1 / same if paw.dedup else 1.0
        if paw.normalise == "token":
            total = total + part * torch.stack([loss for loss, _ in steps]).sum()
            size += part * sum(count for _, count in steps)
        else:
            total = total + part * torch.stack([loss / count for loss, count in steps]).mean()
            size += part
    return total / size


def predicted(
    pool: Sequence[SimpleNamespace], i: int, model, paw: PawConfig, append: bool
) -> Steps:
    """o_{t+1}, o_{t+2}, … of transition i, each behind what was said and done before it: the
    conversation's own past, or h_t and all since."""
    steps = []
    context = [*pool[i].prompt, *pool[i].t.action.token_ids]
    for j in range(i, min(i + paw.horizon, len(pool))):
        x = pool[j]
        if x.trajectory != pool[i].trajectory or not x.t.next_observation_ids:
            break
        if j > i:
            context += [POLICY, *x.t.action.token_ids]
        if append:
            context = [*x.prompt, *x.t.action.token_ids]
        context += to_user(x.t.action)
        logprobs = logprobs_of(model, context, x.t.next_observation_ids)
        steps.append((observation_loss(logprobs, paw), len(logprobs)))
        context += x.t.next_observation_ids
    return steps


def action_losses(
    logprobs: Tensor,
    t: Transition,
    advantage: float,
    algorithm: AlgorithmConfig,
    ref: Tensor | None,
) -> list[Tensor]:
    """Eq. 1 in its clipped form, and the KL loss, for each token of an action."""
    losses = []
    for i, logprob in enumerate(logprobs):
        ratio = (logprob - t.action.logprobs[i]).exp()
        clipped = ratio.clamp(1 - algorithm.clip_low, 1 + algorithm.clip_high)
        loss = -torch.minimum(ratio * advantage, clipped * advantage)
        if ref is not None:
            d = ref[i] - logprob
            loss = loss + algorithm.kl_coefficient * (d.exp() - d - 1)
        losses.append(loss)
    return losses


def objective(
    groups: Sequence[Group],
    model,
    reference,
    algorithm: AlgorithmConfig,
    paw: PawConfig,
    *,
    append: bool,
    values: Sequence[float],
) -> Tensor:
    """Eq. 11: L_RL + mean over g of lambda_g * (mean over S_g of the observation loss)."""
    pool = transitions_of(groups, append)
    advantage, _ = advantages(pool, algorithm, values)
    kept = selected(pool, paw.selection_fraction) if paw.enabled else set()
    per_token: dict[int, list[Tensor]] = {}
    predictions: dict[int, list[tuple[int, Steps]]] = {}
    # PPO has no groups: each trajectory is its own.
    own = [x.trajectory if algorithm.name == "ppo" else x.group for x in pool]
    weight = {g: paw.coefficient * lambda_of(pool, own, g) for g in set(own)}
    for i, x in enumerate(pool):
        x.learned = i in kept and weight[own[i]] > 0
    for i, x in enumerate(pool):
        action = x.t.action.token_ids
        spoken = logprobs_of(model, x.prompt, action)
        with torch.no_grad():
            ref = logprobs_of(reference, x.prompt, action) if algorithm.kl_coefficient else None
        per_token.setdefault(x.trajectory, [])
        per_token[x.trajectory] += action_losses(spoken, x.t, advantage[i], algorithm, ref)
        if i in kept:
            steps = predicted(pool, i, model, paw, append)
            predictions.setdefault(own[i], []).append((i, steps))
    if algorithm.aggregation == "token":
        everything = [loss for losses in per_token.values() for loss in losses]
        policy = torch.stack(everything).sum() / len(everything)
    else:
        means = [torch.stack(losses).mean() for losses in per_token.values()]
        policy = torch.stack(means).mean()
    wm = torch.zeros((), dtype=policy.dtype)
    for g in set(own):
        if g in predictions and weight[g]:
            wm = wm + weight[g] * group_loss(predictions[g], pool, paw) / len(weight)
    return policy + wm


def lambda_of(pool: Sequence[SimpleNamespace], own: Sequence[int], g: int) -> float:
    """lambda_g of Eq. 10, of the transitions of the pool whose own group is g."""
    returns = {x.trajectory: x.return_ for x, o in zip(pool, own, strict=True) if o == g}
    return group_weight(list(returns.values()))


def critic_objective(
    groups: Sequence[Group],
    backbone,
    head,
    algorithm: AlgorithmConfig,
    *,
    append: bool,
    values: Sequence[float],
) -> Tensor:
    """Mean over P of the clipped squared error of V(h_t) against the returns."""
    pool = transitions_of(groups, append)
    _, targets = advantages(pool, algorithm, values)
    total = torch.zeros((), dtype=torch.float64)
    for x, target, old in zip(pool, targets, values, strict=True):
        hidden = backbone(input_ids=torch.tensor([x.prompt]), use_cache=False).last_hidden_state
        value = head(hidden[0, -1]).squeeze()
        near = old + (value - old).clamp(-algorithm.value_clip, algorithm.value_clip)
        total = total + torch.maximum((value - target) ** 2, (near - target) ** 2) / 2
    return total / len(pool)
