"""The ranges of the configuration's numbers, as lists of keys; `settings.check` holds them."""

POSITIVE = (
    "rollout.groups", "rollout.group_size", "rollout.max_turns", "rollout.max_prompt_tokens",
    "rollout.max_response_tokens", "rollout.step_seconds", "run.checkpoint_every",
    "run.keep_checkpoints", "paw.max_observation_tokens", "paw.alternate_every",
    "optimizer.mini_batches", "optimizer.tokens_per_micro_batch", "optimizer.max_grad_norm",
    "algorithm.value_clip", "eval.episodes", "eval.max_turns", "imitate.demonstrations",
    "imitate.steps", "imitate.batch_episodes", "imitate.learning_rate", "imitate.max_grad_norm",
    "imitate.hidden_size", "imitate.num_layers", "imitate.num_heads", "imitate.num_kv_heads",
    "imitate.max_positions",
)  # fmt: skip
NOT_NEGATIVE = (
    "run.updates", "run.save_trajectories_every", "run.diagnostics_every", "run.threads",
    "model.lora_rank", "rollout.history_turns", "rollout.temperature", "rollout.invalid_penalty",
    "rollout.workers", "paw.coefficient", "paw.constant", "algorithm.clip_low",
    "algorithm.clip_high", "algorithm.kl_coefficient", "algorithm.step_weight",
    "algorithm.critic_learning_rate", "algorithm.critic_warmup_updates",
    "optimizer.learning_rate", "optimizer.weight_decay", "optimizer.warmup_steps", "eval.every",
    "eval.temperature", "imitate.observation_weight", "imitate.final_learning_rate",
    "imitate.warmup_steps", "imitate.eval_every",
)  # fmt: skip
SHARES = (
    "paw.selection_fraction", "paw.probability_cap", "algorithm.discount",
    "algorithm.gae_discount", "algorithm.gae_lambda", "algorithm.anchor_similarity",
    "imitate.noise", "imitate.junk", "imitate.stop_at_success",
)  # fmt: skip
AT_MOST = {
    "run.updates": 999_999,  # checkpoints are named with six digits
    "run.threads": 4096,
    "model.lora_rank": 4096,
    "rollout.groups": 1_000_000,
    "rollout.group_size": 1_000_000,
    "rollout.max_turns": 1_000_000,
    "rollout.max_prompt_tokens": 100_000_000,
    "rollout.max_response_tokens": 100_000_000,
    "rollout.workers": 1024,
    "rollout.step_seconds": 1_000_000,  # eleven days; the system's timers end at 24
    "algorithm.critic_learning_rate": 1e30,
    "optimizer.learning_rate": 1e30,
    "eval.episodes": 10_000_000,
    "eval.max_turns": 1_000_000,
    "imitate.demonstrations": 100_000_000,
    "imitate.batch_episodes": 1_000_000,
    "imitate.learning_rate": 1e30,
    "imitate.final_learning_rate": 1e30,
    "imitate.hidden_size": 16_384,
    "imitate.num_layers": 1024,
    "imitate.num_heads": 1024,
    "imitate.num_kv_heads": 1024,
    "imitate.max_positions": 100_000_000,
}
"""Far above any real use: what is larger is a slip that would overflow, or hang without a word."""
