"""One update in numbers: metrics.jsonl. Pure."""

from collections import Counter
from collections.abc import Sequence, Set

from torch import Tensor

from paw import objective
from paw.text.parse import writes_observation
from paw.train.score import is_usable
from paw.train.statistics import Statistics
from paw.types import Columns, Group, Judgement, Scores, Targets, Transition


def rollout_metrics(
    groups: Sequence[Group], header_ids: Set[int] = frozenset(), header_text: str = ""
) -> dict[str, float | None]:
    """What the policy did in the environments; the header's ids and text as in `TurnFormat`."""
    trajectories = [t for g in groups for t in g.trajectories]
    returns = [[t.return_ for t in g.trajectories if is_usable(t)] for g in groups]
    compared = [r for r in returns if len(r) > 1]
    usable = [t for t in trajectories if is_usable(t)]
    turns = [turn for t in usable for turn in t.transitions]
    count, num_turns = max(len(usable), 1), max(len(turns), 1)
    confused = [
        writes_observation(t.response, t.action.token_ids, header_ids, header_text) for t in turns
    ]
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
        "rollout/groups_with_difference": sum(len(set(r)) > 1 for r in compared)
        if compared
        else None,
        "tokens/sampled": sum(len(t.action.token_ids) for t in turns),
        "wm/role_confusion_rate": sum(confused) / num_turns,
    }


def selection_overlap(scores: Scores, candidates: Tensor, fraction: float) -> float | None:
    """Share of S_alpha (Eq. 4) that the other reading of an action's entropy selects as well; both
    select as many. None where only one reading is known, or nothing is selected.

    Args:
        scores: entropies [P] by both readings.
        candidates: [P] bool.
        fraction: alpha.
    """
    if scores.other_entropy is None:
        return None
    one, other = (
        objective.select_top_fraction(entropy, candidates, fraction)
        for entropy in (scores.entropy, scores.other_entropy)
    )
    return float((one & other).sum()) / float(one.sum()) if one.any() else None


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
    times = Counter(target.token_ids for target in targets.by_transition.values())
    metrics: dict[str, float | None] = {
        "policy/loss": mean("policy_loss", "passes"),
        "policy/kl": mean("kl", "action_tokens"),
        "policy/kl_zero_advantage": mean("zero_advantage_kl", "zero_advantage_tokens"),
        "policy/clipped_fraction": mean("clipped", "action_tokens"),
        "policy/entropy": mean("entropy", "action_tokens"),
        "policy/gradient_norm": mean("gradient_norm", "steps"),
        "wm/loss": mean("wm_loss", "passes") if total("target_tokens") else None,
        "wm/group_weight_mean": float(judgement.group_weights.mean()),
        "wm/selected_transitions": num_selected,
        "wm/selected_fraction": num_selected / max(int(columns.candidates.sum()), 1),
        "wm/weighted_transitions": int((judgement.transition_weights != 0).sum()),
        "wm/clipped_token_fraction": mean("masked_targets", "target_tokens"),
        "wm/nll": mean("target_nll", "target_tokens"),
        "wm/target_tokens": mean("target_tokens", "passes"),
        "wm/cut_targets": sum(c > 0 for c in cut),
        "wm/changed_target_fraction": targets.changed_fraction,
        "wm/most_common_target_fraction": max(times.values()) / times.total() if times else None,
        "tokens/trained": total("tokens"),
        "tokens/computed": total("computed"),
    }
    if "ref_kl" in sums:
        metrics["policy/ref_kl"] = mean("ref_kl", "action_tokens")
    if "values" in sums:
        metrics["critic/loss"] = mean("value_loss", "values")
        metrics["critic/gradient_norm"] = mean("critic_gradient_norm", "steps")
    if "measured" in sums:
        metrics["policy/term_gradient_norm"] = mean("policy_gradient_norm", "measured")
        metrics["wm/term_gradient_norm"] = mean("wm_gradient_norm", "measured")
        metrics["wm/gradient_cosine"] = mean("gradient_cosine", "cosines")
    return metrics
