"""What each metric of a run means. docs/run-directory.md has the same table."""

MEANINGS = {
    "rollout/return_mean": "mean return of a trajectory, without penalties",
    "rollout/success_rate": "share of trajectories that succeeded",
    "rollout/valid_action_rate": "share of turns with a valid action",
    "rollout/turns_mean": "turns of a trajectory",
    "rollout/truncated_fraction": "share of trajectories that a limit cut",
    "rollout/unfinished_fraction": "share of responses that `max_response_tokens` cut",
    "rollout/prompt_limit_fraction": (
        "share of trajectories that `max_prompt_tokens` ended (`append`: no room for another turn)"
    ),
    "rollout/prompt_cut_fraction": "share of prompts that `max_prompt_tokens` cut",
    "rollout/groups_with_difference": (
        "groups whose trajectories differ in return: only there the reward drives GRPO, RLOO "
        "and GiGPO; null where each group has one trajectory"
    ),
    "rollout/failures": "trajectories whose environment failed",
    "rollout/restarts": "environment workers replaced since the start of the process",
    "sampler/logprob_difference_mean": (
        "absolute difference between the sampler's log-prob of an action token and that of the "
        'scoring pass, mean; with `algorithm.old_logprobs = "score"`'
    ),
    "sampler/logprob_difference_max": "the largest of an update",
    "sampler/logprob_difference_fraction": "share of action tokens where it is above 0.1 nats",
    "policy/loss": (
        "policy loss (with the KL loss), summed over the update with its weights; with "
        "`optimizer.epochs` mean over the passes"
    ),
    "policy/kl": (
        "KL(old policy to current) while learning, before each optimizer step on its own "
        "mini-batch, mean over action tokens"
    ),
    "policy/kl_zero_advantage": (
        "the same over tokens of groups whose trajectories all returned the same, where no task "
        "reward drives the policy; null where there are none"
    ),
    "policy/clipped_fraction": "share of action tokens that the clip range stops",
    "policy/entropy": "mean token entropy of the policy while learning",
    "policy/gradient_norm": "norm of the gradient before clipping, mean over optimizer steps",
    "policy/ref_kl": "KL to the initial policy; with `algorithm.kl_coefficient`",
    "policy/term_gradient_norm": (
        "gradient norm of the policy loss alone; with `run.diagnostics_every`"
    ),
    "policy/kl_after": "KL(old to new policy) after the update, mean over transitions; diagnostics",
    "policy/kl_after_zero_advantage": (
        "the same over transitions of groups whose trajectories all returned the same; null "
        "where there are none; diagnostics"
    ),
    "policy/kl_after_all_failed": (
        "the same over transitions of groups without any reward, whose lambda is 1; null where "
        "there are none; diagnostics"
    ),
    "wm/loss": (
        "next-observation loss, summed with its weights (Eq. 9 with Eq. 11); mean over the "
        "passes; null without targets"
    ),
    "wm/nll": (
        "mean negative log-likelihood of a target token; where no prediction is trained, that "
        "of the targets which would be, on diagnostic updates, else null"
    ),
    "wm/next_observation_nll": (
        "mean NLL of every next observation's tokens before learning, selected or not, the same "
        "in every arm; diagnostics"
    ),
    "wm/group_weight_mean": "mean of lambda_g over groups (Eq. 10)",
    "wm/selected_transitions": "transitions selected (Eq. 4)",
    "wm/selected_fraction": "their share of the candidates",
    "wm/selection_overlap": (
        "share of S_alpha by `paw.entropy` that the other of `full` and `sampled` selects too, "
        "at alpha = `paw.selection_fraction` in every arm, whatever it selects; alpha by "
        "chance; null where the sampler gives log-probs alone"
    ),
    "wm/weighted_transitions": "those whose weight is not 0: only these are learned",
    "wm/clipped_token_fraction": (
        "share of target tokens masked by `paw.probability_cap` (Eq. 8); null without targets"
    ),
    "wm/target_tokens": "target tokens learned from",
    "wm/cut_targets": "targets that `paw.max_observation_tokens` cut",
    "wm/changed_target_fraction": "share of targets that a placebo (`paw.target`) changed",
    "wm/most_common_target_fraction": (
        "share of the targets that are one and the same observation; null without targets"
    ),
    "wm/role_confusion_rate": (
        "share of responses that write an observation of their own: a header of the chat "
        "template, as token or (`[INST]`) as text, or text such as `Observation:`"
    ),
    "wm/term_gradient_norm": "gradient norm of the next-observation loss alone; diagnostics",
    "wm/gradient_cosine": (
        "cosine between the gradients of the two losses, mean over the optimizer steps that "
        "have both; null without; diagnostics"
    ),
    "critic/loss": "value loss, mean over turns; PPO",
    "critic/gradient_norm": "norm of the critic's gradient, mean over steps; PPO",
    "tokens/sampled": "action tokens sampled",
    "tokens/trained": "tokens of the rows in the learner's forward passes",
    "tokens/computed": (
        "of them, those that were computed: a beginning that rows have in common counts once"
    ),
    "model/forwards": "rows through the model for learning and scoring, per row of the update",
    "model/forward_calls": "forward passes for learning and scoring",
    "eval/success_rate": "success on the evaluation split, where the update was evaluated",
    "time/act": "playing",
    "time/score": "making the rows of tokens; scoring passes",
    "time/judge": "advantages, selection, weights",
    "time/serialise": "putting weights on the rows",
    "time/learn": "optimizer steps",
    "time/hand_over": "the new weights to what plays",
    "time/eval": "evaluation, where there was one",
    "time/diagnose": "measurements of a diagnostic update",
    "time/update": "act + score + judge + serialise + learn + hand_over",
    "memory/peak_bytes": "peak memory so far: of the GPU where one is used, else of the process",
    "memory/halved": (
        "1 after the GPU ran out of memory and `optimizer.tokens_per_micro_batch` was halved"
    ),
    "imitate/nll": (
        "mean negative log-likelihood of the tokens learned from, in nats, before the step"
    ),
    "imitate/action_nll": "the same over action tokens alone",
    "imitate/observation_nll": (
        "over observation tokens alone; null where `imitate.observation_weight` is 0"
    ),
    "imitate/learning_rate": "of the step",
    "imitate/gradient_norm": "before clipping",
}
"""By name"""
