"""The prediction in verl-agent (verl 0.3 to 0.5): three lines to change there.

 1. agent_system/multi_turn_rollout/rollout_loop.py, `gather_rollout_data`, before its loop:
        note_next_observations(total_batch_list)
 2. verl/trainer/ppo/ray_trainer.py, `fit`, where the actor learns (`entropys` from where the old
    log-probs are made, kept as batch.batch["entropys"]):
        self.actor_rollout_wg.update_actor(with_targets(batch, self.tokenizer, max_return=10.0, …))
 3. verl/workers/actor/dp_actor.py, `update_policy`, behind `policy_loss`:
        policy_loss += prediction_term(log_prob, data, self.config.ppo_mini_batch_size)
    and "paw_weights" among its `select_keys`.

Observations are put behind the responses only for that call: rewards, advantages and metrics never
see them. The observation that ends an episode is not in verl-agent's rows and is not predicted.
Read from its source; tried on scripted batches, not in verl-agent.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

import paw.objective as P

FIELDS = (
    "input_ids",
    "attention_mask",
    "position_ids",
    "responses",
    "old_log_probs",
    "advantages",
    "ref_log_prob",
)
"""What `update_policy` reads, the last one where there is a reference"""
CHATML = "\n<|im_start|>user\n"
"""What stands between a response and the next user turn, of Qwen's models."""


def note_next_observations(trajectories: Sequence[Sequence[dict[str, Any]]]) -> None:
    """Each row gets `next_obs`: the raw observation of the trajectory's next row, else ""."""
    for rows in trajectories:
        for row, following in zip(rows, [*rows[1:], {}], strict=True):
            goes_on = bool(following.get("active_masks", False))
            row["next_obs"] = str(following["anchor_obs"]) if goes_on else ""


def with_targets(batch: Any, tokenizer: Any, *, mini_batches: int, **settings: Any) -> Any:
    """A batch whose rows have their targets, for `update_actor` alone.

    Args:
        batch: verl's DataProto, with advantages and `entropys`.
        tokenizer: of the policy.
        mini_batches: M, optimizer steps of an update.
        settings: of `grown`; and `header`, the template's text before a user turn.
    """
    ids = [
        tokenizer.encode(str(o), add_special_tokens=False)
        for o in batch.non_tensor_batch["next_obs"]
    ]
    header = tokenizer.encode(settings.pop("header", CHATML), add_special_tokens=False)
    tensors = grown(batch.batch, batch.non_tensor_batch, ids, header, **settings)
    tensors["paw_weights"] = tensors["paw_weights"] * mini_batches
    return type(batch).from_dict(tensors, meta_info={**batch.meta_info, "multi_turn": True})


def grown(
    tensors: Mapping[str, Tensor],
    columns: Mapping[str, Any],
    observations: Sequence[Sequence[int]],
    header: Sequence[int],
    *,
    max_return: float,
    fraction: float = 0.75,
    max_tokens: int = 512,
) -> dict[str, Tensor]:
    """The tensors of a batch with the selected rows' observations behind their responses, a
    `loss_mask` that leaves them out, and `paw_weights` (Eqs. 4, 10, 11)."""
    response, mask = tensors["responses"], tensors["attention_mask"]
    (count, width), prompt = response.shape, mask.shape[1] - response.shape[1]
    lengths = mask[:, prompt:].sum(1).tolist()
    targets = [list(ids[:max_tokens]) for ids in observations]
    uids = list(dict.fromkeys(columns["uid"]))
    group = torch.tensor([uids.index(uid) for uid in columns["uid"]])
    members = dict(zip(columns["traj_uid"], range(count), strict=True))  # one row of each
    rows = torch.tensor(sorted(members.values()))
    returns = torch.tensor([float(columns["episode_rewards"][r]) for r in rows.tolist()])
    entropy = torch.stack([tensors["entropys"][r, :n].mean() for r, n in enumerate(lengths)])
    candidates = torch.tensor([bool(target) for target in targets])
    selected = P.select_top_fraction(entropy, candidates, fraction)
    lambdas = P.group_weights(returns, group[rows], max_return)
    weights = P.transition_weights(selected, group, lambdas)

    tails = [
        [*header, *target] if weight else []
        for target, weight in zip(targets, weights.tolist(), strict=True)
    ]
    more = max(map(len, tails))
    names = FIELDS if FIELDS[-1] in tensors else FIELDS[:-1]
    found = {name: torch.nn.functional.pad(tensors[name], (0, more)) for name in names}
    found["loss_mask"] = torch.nn.functional.pad(mask, (0, more))
    found["loss_mask"][:, :prompt] = 0
    found["paw_weights"] = torch.zeros(count, width + more)
    for r, (n, tail) in enumerate(zip(lengths, tails, strict=True)):
        if tail:
            start, end = prompt + n, prompt + n + len(tail)
            found["input_ids"][r, start:end] = torch.tensor(tail)
            found["responses"][r, n : n + len(tail)] = torch.tensor(tail)
            found["attention_mask"][r, start:end] = 1
            last = found["position_ids"][r, start - 1]
            found["position_ids"][r, start:end] = last + 1 + torch.arange(len(tail))
            first = n + len(header)
            found["paw_weights"][r, first : n + len(tail)] = weights[r] / len(targets[r])
    return found


def prediction_term(log_prob: Tensor, data: Mapping[str, Tensor], mini_batch_rows: int) -> Tensor:
    """The term of a micro-batch, as much as verl will divide it by: it scales each micro-batch by
    its share of the rows, and FSDP averages over processes."""
    errors = P.clipped_mae(log_prob, 0.2)
    world = torch.distributed.get_world_size() if torch.distributed.is_initialized() else 1
    return P.weighted_sum(errors, data["paw_weights"]) * world * mini_batch_rows / len(log_prob)
