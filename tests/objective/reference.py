"""The formulas once more, slowly, in Python floats and straight from the papers: no torch."""

import math
import statistics
from difflib import SequenceMatcher


def entropy(logits):
    largest = max(logits)
    powers = [math.exp(z - largest) for z in logits]
    probs = [p / math.fsum(powers) for p in powers]
    return -math.fsum(q * math.log(q) for q in probs if q > 0)


def sampled_entropy(logprob):
    q = math.exp(logprob)
    return -q * math.log(q) if q > 0 else 0.0


def select(scores, candidates, fraction):
    """Indices kept: repeatedly the best remaining candidate, the earliest of equals."""
    remaining = [i for i, candidate in enumerate(candidates) if candidate]
    budget = max(math.ceil(fraction * len(remaining) - 1e-9), 0)
    kept = set()
    while len(kept) < budget:
        best = remaining[0]
        for i in remaining:
            if scores[i] > scores[best]:
                best = i
        kept.add(best)
        remaining.remove(best)
    return kept


def observation_loss(logprobs, loss, cap):
    """Eqs. 5, 7 to 9 of one observation: sum over its tokens / its full length."""
    total = 0.0
    for logprob in logprobs:
        p = math.exp(logprob)
        if loss == "ce":
            total += -logprob
        elif loss == "mae" or p <= cap:
            total += 1 - p
    return total / len(logprobs)


def observation_gradient(logprobs, loss, cap):
    """Derivative of `observation_loss` in each log-prob."""
    gradient = []
    for logprob in logprobs:
        p = math.exp(logprob)
        if loss == "ce":
            gradient.append(-1 / len(logprobs))
        elif loss == "mae" or p <= cap:
            gradient.append(-p / len(logprobs))
        else:
            gradient.append(0.0)
    return gradient


def group_weight(returns, max_return, clamp):
    weight = 1 - statistics.fmean(returns) / max_return
    return min(max(weight, 0.0), 1.0) if clamp else weight


def wm_objective(losses, selected, group, weights):
    """Second term of Eq. 11: mean over g of lambda_g * mean over S_g."""
    terms = []
    for g, weight in enumerate(weights):
        members = [losses[i] for i in sorted(selected) if group[i] == g]
        terms.append(weight * statistics.fmean(members) if members else 0.0)
    return statistics.fmean(terms) if terms else 0.0


def group_relative(returns, group, scale):
    result = []
    for own, g in zip(returns, group, strict=True):
        members = [r for r, h in zip(returns, group, strict=True) if h == g]
        deviation = own - statistics.fmean(members)
        if len(members) == 1:
            result.append(0.0)
        elif scale:
            result.append(deviation / (statistics.stdev(members) + 1e-6))
        else:
            result.append(deviation)
    return result


def leave_one_out(returns, group):
    result = []
    for i, g in enumerate(group):
        others = [
            r for j, (r, h) in enumerate(zip(returns, group, strict=True)) if h == g and j != i
        ]
        result.append(returns[i] - statistics.fmean(others) if others else 0.0)
    return result


def _later(i, trajectory, turn):
    """Transitions of i's trajectory from i on, in order."""
    own = [j for j in range(len(turn)) if trajectory[j] == trajectory[i] and turn[j] >= turn[i]]
    return sorted(own, key=lambda j: turn[j])


def discounted(rewards, trajectory, turn, discount):
    return [
        math.fsum(discount**k * rewards[j] for k, j in enumerate(_later(i, trajectory, turn)))
        for i in range(len(rewards))
    ]


def gigpo(returns, rewards, trajectory, turn, group, anchor, discount, step_weight, scale):
    episode = group_relative(returns, group, scale)
    pairs = [(group[t], a) for t, a in zip(trajectory, anchor, strict=True)]
    step = group_relative(discounted(rewards, trajectory, turn, discount), pairs, scale)
    return [episode[t] + step_weight * s for t, s in zip(trajectory, step, strict=True)]


def gae(rewards, values, trajectory, turn, discount, lam):
    """A_t = sum over l of (discount * lam)^l delta_{t+l}, each delta from its own definition."""
    advantages = []
    for i in range(len(rewards)):
        later = _later(i, trajectory, turn)
        terms = []
        for k, j in enumerate(later):
            following = values[later[k + 1]] if k + 1 < len(later) else 0.0
            terms.append((discount * lam) ** k * (rewards[j] + discount * following - values[j]))
        advantages.append(math.fsum(terms))
    return advantages, [a + v for a, v in zip(advantages, values, strict=True)]


def surrogate(logprob, old_logprob, advantage, low, high):
    if advantage == 0:
        return 0.0
    ratio = math.exp(logprob - old_logprob)
    return -min(ratio * advantage, min(max(ratio, 1 - low), 1 + high) * advantage)


def kl(logprob, ref_logprob):
    difference = ref_logprob - logprob
    return math.exp(difference) - difference - 1


def value_error(value, target, old, clip):
    plain = (value - target) ** 2
    if clip is None:
        return plain / 2
    return max(plain, (min(max(value, old - clip), old + clip) - target) ** 2) / 2


def anchors(texts, group, similarity):
    """Cluster representatives in order; the first that resembles wins."""
    clusters = []
    labels = []
    for text, g in zip(texts, group, strict=True):
        for label, (representative, owner) in enumerate(clusters):
            if owner != g:
                continue
            if similarity is None:
                same = text == representative
            else:
                same = SequenceMatcher(None, text, representative).ratio() >= similarity
            if same:
                labels.append(label)
                break
        else:
            labels.append(len(clusters))
            clusters.append((text, g))
    return labels
