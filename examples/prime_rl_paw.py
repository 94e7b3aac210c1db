"""The prediction in prime-rl: its algorithm `echo` with the paper's selection, lambda and loss.

    import prime_rl_paw
    prime_rl_paw.install_algorithm(max_return=10.0)   # in the orchestrator, before it starts
    prime_rl_paw.install_loss()                       # in the trainer, before it starts

`algo.type = "echo"` then weighs observations by lambda_g instead of a fixed alpha. What prime-rl's
hooks leave out: Eq. 4 selects within a group, and a group counts by its share of the step's
observation tokens, not by 1/G. Entropies are `sampled`, from the sampler's log-probs. Read from
prime-rl's source; tried with scripted traces, not in prime-rl.
"""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import torch

import paw.objective as P

ROLES = ("tool", "user")
"""Messages that are the environment's, after the first response."""


def weigh(traces: Sequence[Any], *, max_return: float, fraction: float = 0.75) -> None:
    """Write `loss_weights["ce"]` of a group's observations: lambda_g, shared so that each selected
    transition weighs the same whatever its length; 0 outside the observations' own text."""
    turns = [turn for trace in traces for turn in _turns(trace)]
    if not turns:
        return
    returns = torch.tensor([float(trace.reward) for trace in traces], dtype=torch.float64)
    weight = P.group_weights(returns, torch.zeros(len(traces), dtype=torch.long), max_return)
    entropy = torch.stack([_entropy(turn.action) for turn in turns])
    lengths = torch.tensor([sum(turn.text) for turn in turns])
    selected = P.select_top_fraction(entropy, lengths > 0, fraction)
    usual = lengths[selected].double().mean()
    for turn, chosen, length in zip(turns, selected.tolist(), lengths.tolist(), strict=True):
        value = float(weight[0] * usual / length) if chosen else 0.0
        streams = dict(turn.observation.loss_weights or {})
        streams["ce"] = [value * is_text for is_text in turn.text]
        turn.observation.loss_weights = streams


def _turns(trace: Any) -> list[Any]:
    """Actions of a trace, each with the observation right behind it."""
    found = []
    for action, node in zip(trace.nodes, trace.nodes[1:], strict=False):
        if action.sampled and not node.sampled and node.message.role in ROLES:
            text = list(node.is_content) or [True] * len(node.token_ids)
            found.append(SimpleNamespace(action=action, observation=node, text=text))
    return found


def _entropy(action: Any) -> torch.Tensor:
    return P.sampled_token_entropy(torch.tensor(action.logprobs, dtype=torch.float64)).mean()


def clipped_mae_loss(inputs: Any, probability_cap: float = 0.2) -> tuple[torch.Tensor, dict]:
    """(loss, metrics) of a sample's `ce` tokens by Eq. 8 instead of their log-likelihood."""
    chosen = inputs.trainer_logprobs[inputs.loss_mask]
    errors = P.clipped_mae(chosen, probability_cap)
    weights = torch.ones_like(chosen)
    if inputs.loss_weights is not None:
        weights = inputs.loss_weights[inputs.loss_mask].to(errors)
    masked = P.clipped_tokens(chosen, probability_cap).double().mean()
    metrics = {"nll": -chosen.detach().mean(), "wm/clipped_token_fraction": masked}
    return P.weighted_sum(errors, weights), metrics


def install_algorithm(*, max_return: float, fraction: float = 0.75) -> None:
    """`algo.type = "echo"` is ours in this process."""
    from prime_rl.orchestrator import algo  # pyright: ignore[reportMissingImports]

    class PawAlgorithm(algo.EchoAlgorithm):
        async def score_episode(self, episode: Any) -> None:
            """Nothing is known before the group is."""

        async def score_group(self, episodes: list[Any]) -> None:
            await super().score_group(episodes)
            traces = [trace for episode in episodes for trace in episode.traces]
            usable = [t for t in traces if not t.has_error and t.agent.trainable]
            weigh(usable, max_return=max_return, fraction=fraction)

    algo.ALGORITHM_CLASSES["echo"] = PawAlgorithm


def install_loss(probability_cap: float = 0.2) -> None:
    """The `ce` component is Eq. 8 in this process."""
    from prime_rl.trainer.rl import loss  # pyright: ignore[reportMissingImports]

    def ours(inputs: Any) -> Any:
        value, metrics = clipped_mae_loss(inputs, probability_cap)
        return loss.LossOutputs(loss=value, metrics=metrics)

    loss.ce_loss_fn = ours
