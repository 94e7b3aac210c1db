"""The objective of PaW inside a trainer of one's own: `paw.objective` and torch, nothing else.

    python examples/objective_only.py

Two groups of two trajectories, one transition each, a vocabulary of 50. Where a real trainer calls
its model, this example has a table of logits; everything else is what a real trainer writes.
"""

import torch

import paw.objective as P

torch.manual_seed(0)
num_transitions, action_length, observation_length, vocabulary = 4, 3, 5, 50
logits = torch.randn(num_transitions, action_length + observation_length, vocabulary)
logits.requires_grad_()
tokens = torch.randint(vocabulary, (num_transitions, action_length + observation_length))
logprobs = logits.log_softmax(-1).gather(-1, tokens[..., None]).squeeze(-1)
action_logprobs, target_logprobs = logprobs.split([action_length, observation_length], dim=1)

# Judge, once per update and over all of it.
returns = torch.tensor([10.0, 0.0, 0.0, 0.0])
group = torch.tensor([0, 0, 1, 1])
advantages = P.group_relative_advantages(returns, group, scale_by_std=True)
entropy = P.token_entropy(logits[:, :action_length]).mean(1)
selected = P.select_top_fraction(entropy, torch.ones(4, dtype=torch.bool), fraction=0.75)
lambdas = P.group_weights(returns, group, max_return=10.0)
weights = P.transition_weights(selected, group, lambdas)

# Learn: weighted sums, so that any split into micro-batches gives the same gradient.
per_token = advantages[:, None].expand(-1, action_length)
surrogate = P.clipped_surrogate(action_logprobs, action_logprobs.detach(), per_token, 0.2, 0.2)
policy_weights = torch.full_like(surrogate, 1 / surrogate.numel())
policy_loss = P.weighted_sum(surrogate, policy_weights)
errors = P.clipped_mae(target_logprobs, probability_cap=0.2)
token_weights = (weights / observation_length)[:, None].expand_as(errors)
wm_loss = P.weighted_sum(errors, token_weights)
(policy_loss + wm_loss).backward()

print(f"lambda_g        {lambdas.tolist()}")
print(f"selected        {selected.tolist()}")
print(f"policy loss     {policy_loss.item():.4f}   prediction loss {wm_loss.item():.4f}")
