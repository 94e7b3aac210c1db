"""One update in numbers (metrics.jsonl) and in full (the trajectory file). Pure."""

import itertools
from collections.abc import Sequence, Set
from typing import Any

from paw.text.parse import writes_observation
from paw.train.learner import Statistics
from paw.train.score import is_usable
from paw.types import Columns, Group, Judgement, Targets, Transition


def rollout_metrics(
    groups: Sequence[Group], header_ids: Set[int] = frozenset()
) -> dict[str, float]:
    """What the policy did in the environments; `header_ids` as in `TurnFormat`."""
    trajectories = [t for g in groups for t in g.trajectories]
    usable = [t for t in trajectories if is_usable(t)]
    turns = [turn for t in usable for turn in t.transitions]
    count, num_turns = max(len(usable), 1), max(len(turns), 1)
    confused = [writes_observation(t.response, t.action.token_ids, header_ids) for t in turns]
    return {
        "rollout/return_mean": sum(t.return_ for t in usable) / count,
        "rollout/success_rate": sum(t.success for t in usable) / count,
        "rollout/valid_action_rate": sum(t.valid for t in turns) / num_turns,
        "rollout/turns_mean": len(turns) / count,
        "rollout/truncated_fraction": sum(not t.terminated for t in usable) / count,
        "rollout/prompt_limit_fraction": sum(t.prompt_limit for t in usable) / count,
        "rollout/unfinished_fraction": sum(not t.action.finished for t in turns) / num_turns,
        "rollout/prompt_cut_fraction": sum(t.prompt_cut_tokens > 0 for t in turns) / num_turns,
        "rollout/failures": len(trajectories) - len(usable),
        "tokens/sampled": sum(len(t.action.token_ids) for t in turns),
        "wm/role_confusion_rate": sum(confused) / num_turns,
    }


def learning_metrics(
    transitions: Sequence[Transition],
    columns: Columns,
    judgement: Judgement,
    targets: Targets,
    statistics: Statistics,
) -> dict[str, float | None]:
    """What was learned from it; None where there was nothing to measure."""
    mean, total, sums = statistics.mean, statistics.total, statistics.sums
    num_selected = int(judgement.selected.sum())
    cut = [transitions[i].num_cut_tokens for i in targets.by_transition]
    metrics: dict[str, float | None] = {
        "policy/loss": total("policy_loss"),
        "policy/kl": mean("kl", "action_tokens"),
        "policy/kl_zero_advantage": mean("zero_advantage_kl", "zero_advantage_tokens"),
        "policy/clipped_fraction": mean("clipped", "action_tokens"),
        "policy/entropy": mean("entropy", "action_tokens"),
        "policy/gradient_norm": mean("gradient_norm", "steps"),
        "wm/loss": total("wm_loss") if total("target_tokens") else None,
        "wm/group_weight_mean": float(judgement.group_weights.mean()),
        "wm/selected_transitions": num_selected,
        "wm/selected_fraction": num_selected / max(int(columns.candidates.sum()), 1),
        "wm/weighted_transitions": len(targets.by_transition),
        "wm/clipped_token_fraction": mean("masked_targets", "target_tokens"),
        "wm/nll": mean("target_nll", "target_tokens"),
        "wm/target_tokens": total("target_tokens"),
        "wm/cut_targets": sum(c > 0 for c in cut),
        "wm/changed_target_fraction": targets.changed_fraction,
        "tokens/trained": total("tokens"),
    }
    if "ref_kl" in sums:
        metrics["policy/ref_kl"] = mean("ref_kl", "action_tokens")
    if "values" in sums:
        metrics["critic/loss"] = mean("value_loss", "values")
        metrics["critic/gradient_norm"] = mean("critic_gradient_norm", "steps")
    if "measured" in sums:
        metrics["policy/term_gradient_norm"] = mean("policy_gradient_norm", "measured")
        metrics["wm/term_gradient_norm"] = mean("wm_gradient_norm", "measured")
    return metrics


def records(
    update: int,
    groups: Sequence[Group],
    judgement: Judgement,
    targets: Targets,
) -> list[dict[str, Any]]:
    """One JSON-able object per trajectory, with what was decided about each turn."""
    number = itertools.count()
    advantages, selected = judgement.advantages.tolist(), judgement.selected.tolist()

    def turn(transition: Transition, at: int | None) -> dict[str, Any]:
        action = transition.action
        target = None if at is None else targets.by_transition.get(at)
        return {
            "observation": transition.observation,
            "commands": transition.commands,
            "response": transition.response,
            "command": transition.command,
            "reward": transition.reward,
            "penalty": transition.penalty,
            "valid": transition.valid,
            "next_observation": transition.next_observation,
            "context_ids": transition.context_ids,
            "context_roles": transition.context_roles,
            "action_ids": action.token_ids,
            "sampler_logprobs": [round(x, 5) for x in action.logprobs],
            "entropies": action.entropies and [round(x, 4) for x in action.entropies],
            "finished": action.finished,
            "num_cut_tokens": transition.num_cut_tokens,
            "prompt_cut_tokens": transition.prompt_cut_tokens,
            "advantage": None if at is None else advantages[at],
            "selected": at is not None and selected[at],
            "transition_weight": 0.0 if target is None else target.weight * len(target.token_ids),
            "target_ids": None if target is None else target.token_ids,
        }

    return [
        {
            "update": update,
            "group": t.group,
            "index": t.index,
            "task": {"id": t.task.id, "kind": t.task.kind, "instruction": t.task.instruction},
            "return": t.return_,
            "success": t.success,
            "terminated": t.terminated,
            "score": t.score,
            "failure": t.failure,
            "prompt_limit": t.prompt_limit,
            "turns": [turn(x, next(number) if is_usable(t) else None) for x in t.transitions],
        }
        for g in groups
        for t in g.trajectories
    ]
