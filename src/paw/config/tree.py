"""The whole configuration tree: every key, its type, its default (once) and what it means.

Defaults are the paper's (Table 5 of arXiv 2606.02388; ALFWorld where the three benchmarks differ).
Layers, later ones win: defaults < the policy's own card (`paw.toml` beside its weights: how it was
trained to be prompted) < TOML files from left to right < `--table.key value` flags.
Reading and checking the layers is in `settings.py`.
"""

from dataclasses import dataclass, field
from os.path import expanduser
from typing import Any, Literal, cast


def _expand_home(table: Any, *keys: str) -> None:
    """`~/runs` is the home directory's: a shell expands it in a flag, nobody does in a file."""
    for key in keys:
        if getattr(table, key) is not None:
            object.__setattr__(table, key, expanduser(getattr(table, key)))


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    directory: str | None = None
    """Where everything is written; default `runs/<env>-<algorithm>[-paw]-seed<seed>`."""
    updates: int = 150
    """Updates to train for (act, judge, serialise, learn)."""
    seed: int = 0
    """Drives tasks, environments, sampler and data order."""
    resume: bool = True
    """Go on from the newest complete checkpoint; a changed configuration is refused."""
    checkpoint_every: int = 10
    """Updates between checkpoints; the last update always makes one."""
    keep_checkpoints: int = 2
    """How many checkpoints stay; older ones are deleted."""
    save_trajectories_every: int = 1
    """Updates between trajectory files; 0 writes none."""
    diagnostics_every: int = 0
    """Updates between measurements of the gradient norm of each loss term and of the KL after the
    update (costs a second backward and a forward); 0: never."""
    track: tuple[Literal["tensorboard", "wandb", "trackio"], ...] = ()
    """Sinks besides metrics.jsonl; need the extra `paw-rl[track]`."""
    threads: int = 0
    """CPU threads of torch; 0: one for policies below 20 M parameters, else as many as cores are
    free."""

    def __post_init__(self) -> None:
        _expand_home(self, "directory")


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    name: str = "household"
    """household | alfworld | webshop | search_qa | a registered name | module:factory."""
    split: str = "train"
    """Tasks to train on."""
    data_dir: str | None = None
    """Folder of the benchmark's official files; default: the environment's own variable."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of that environment, written as further keys of the table: `level = 2`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    path: str = "household"
    """HF directory or hub name; "household" is the policy shipped with the package."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Type of the weights (and of the optimizer's master copy)."""
    compute_dtype: Literal["same", "bfloat16"] = "same"
    """`bfloat16`: matrix products of the learner under autocast, weights as `dtype`."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N."""
    lora_rank: int = 0
    """Rank of LoRA adapters on all linear layers; 0 trains all weights. Needs `paw-rl[lora]`."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, more time."""


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    groups: int = 16
    """G: task instances of one update."""
    group_size: int = 8
    """n: trajectories of each."""
    max_turns: int = 50
    """Turns after which an episode is cut (its last observation is still a target)."""
    context: Literal["window", "append"] = "window"
    """`window`: each turn its own sample, prompt = instruction + last turns. `append`: the episode
    is one growing conversation and one sample."""
    history_turns: int = 2
    """Earlier turns shown in a `window` prompt."""
    response_format: Literal["tags", "command"] = "tags"
    """`tags`: <think>…</think><action>…</action>; `command`: the response is the command."""
    temperature: float = 1.0
    """Sampling temperature; log-probs and entropy are always those of temperature 1."""
    max_prompt_tokens: int = 2048
    """`window`: longer prompts are cut in the middle, counted. `append`: the episode ends there."""
    max_response_tokens: int = 512
    """A response is cut here (an unfinished one is an invalid turn if it does not parse)."""
    invalid_penalty: float = 0.1
    """Subtracted from the RL reward of an invalid turn; never part of R(tau) in Eq. 10."""
    validity: Literal["accepted", "format"] = "accepted"
    """Invalid = malformed or refused by the environment (`accepted`), or only malformed (`format`,
    as verl-agent counts)."""
    sampler: Literal["local"] = "local"
    """What samples: this process, with the policy's own weights. The only one so far."""
    workers: int = 1
    """Processes that hold the environments; 0: in this process, without protection from hangs."""
    step_seconds: float = 60.0
    """An environment that has not answered by then is replaced and its trajectory masked."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    name: Literal["grpo", "rloo", "gigpo", "ppo"] = "grpo"
    """Where advantages come from: the group (grpo, rloo), group and anchor states (gigpo), a critic
    (ppo)."""
    clip_low: float = 0.2
    """PPO clip range, downwards."""
    clip_high: float = 0.2
    """PPO clip range: the ratio is clipped to [1 - clip_low, 1 + clip_high]."""
    scale_by_std: bool = True
    """GRPO and GiGPO: divide centred returns by their standard deviation."""
    discount: float = 0.95
    """gamma of GiGPO's step returns."""
    step_weight: float = 1.0
    """omega of GiGPO: A = A_episode + omega A_step."""
    anchor_similarity: float | None = None
    """GiGPO: observations this similar share an anchor (search-QA: 0.9); none: equal ones."""
    gae_discount: float = 1.0
    """gamma of PPO's generalized advantages (over turns)."""
    gae_lambda: float = 1.0
    """lambda of PPO's generalized advantages; 1: returns minus values."""
    value_clip: float = 0.5
    """PPO: range in which the value may move within an update."""
    critic_learning_rate: float = 1e-5
    """PPO: learning rate of the critic's AdamW."""
    critic_warmup_updates: int = 0
    """PPO: first updates that train the critic alone."""
    kl_coefficient: float = 0.0
    """Weight of the KL loss to the initial policy (low-variance estimator); 0: no reference."""
    statistics: Literal["trajectory", "turn"] = "trajectory"
    """Group mean and deviation over trajectories, or over turns (as verl-agent does)."""
    penalty: Literal["turn", "episode"] = "turn"
    """Where the invalid-action penalty counts: on its own turn, or in the episode's return."""
    aggregation: Literal["token", "sequence"] = "token"
    """`token`: mean over the update's action tokens. `sequence`: mean over each trajectory's
    action tokens, then over trajectories."""
    old_logprobs: Literal["rollout", "score"] = "rollout"
    """Where old log-probs and the entropy of Eq. 4 come from: the sampler, or one scoring pass of
    the learner (needed with samplers that return no full-distribution entropy)."""


COEFFICIENTS = {"cmae": 1.0, "mae": 1.0, "ce": 0.03}
"""Default `paw.coefficient` by loss: cross-entropy's gradient does not fade where the model is
sure of something else; as an auxiliary loss it works at 0.01 to 0.05 and collapses near 0.2."""


@dataclass(frozen=True, kw_only=True)
class PawConfig:
    enabled: bool = True
    """Train on the next observation as well; false: the RL algorithm alone."""
    coefficient: float = cast(float, None)  # by the loss, below
    """Multiplies lambda_g; 0 is the baseline, bit for bit. Default: 1, with `loss = "ce"` 0.03."""
    loss: Literal["cmae", "mae", "ce"] = "cmae"
    """Token loss of the next observation (Eq. 8; Eq. 7 without the cap; Eq. 5)."""
    probability_cap: float = 0.2
    """rho: tokens predicted better than this are masked (cmae)."""
    selection_fraction: float = 0.75
    """alpha: share of the update's transitions that are kept (Eq. 4)."""
    select: Literal["entropy", "random", "lowest", "all"] = "entropy"
    """Which transitions: highest action entropy (the paper), or a control: as many by chance, as
    many of the lowest, or every one."""
    entropy: Literal["full", "sampled"] = "full"
    """Entropy of the whole next-token distribution, or the paper's printed -q log q of the sampled
    token."""
    weight: Literal["adaptive", "constant", "matched_constant"] = "adaptive"
    """lambda_g of Eq. 10; `constant`; or the mean lambda of the run in `match`."""
    constant: float = 1.0
    """lambda where `weight = "constant"`."""
    match: str | None = None
    """Directory of the adaptive run whose mean lambda `matched_constant` takes."""
    clamp: bool = True
    """Clamp lambda_g to [0, 1]."""
    target: Literal["next", "shuffled", "random", "repeat_current"] = "next"
    """What is predicted: o_{t+1}; or a placebo: another transition's differing observation, random
    tokens, or o_t again."""
    condition: Literal["action", "no_action"] = "action"
    """`no_action`: predict o_{t+1} from h_t alone."""
    schedule: Literal["joint", "alternate"] = "joint"
    """`alternate`: every `alternate_every`-th update trains the prediction alone, the others the
    policy alone. With `loss = "ce"` this is TAPO."""
    alternate_every: int = 5
    """At least 2: updates from one prediction update to the next (5: four of the policy)."""
    max_observation_tokens: int = 512
    """Longer targets are cut (counted)."""

    def __post_init__(self) -> None:
        if self.coefficient is None:
            object.__setattr__(self, "coefficient", COEFFICIENTS[self.loss])
        _expand_home(self, "match")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    learning_rate: float = 1e-6
    """Learning rate of the policy's AdamW, after the warm-up."""
    betas: tuple[float, float] = (0.9, 0.999)
    """AdamW's decay rates of the gradient's first and second moments."""
    weight_decay: float = 0.0
    """AdamW's decoupled weight decay."""
    warmup_steps: int = 0
    """Optimizer steps over which the learning rate rises linearly."""
    mini_batches: int = 1
    """M: optimizer steps of one update."""
    tokens_per_micro_batch: int = 16384
    """Tokens of one forward and backward pass (a single longer sample still makes one)."""
    max_grad_norm: float = 1.0
    """The gradient of an optimizer step is scaled down to this Euclidean norm."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    every: int = 0
    """Updates between evaluations (and one at the end); 0: never."""
    split: str | None = None
    """Default: the environment's validation split."""
    episodes: int = 128
    """Tasks played, once each, in order; more than there are: repeated with other seeds."""
    max_turns: int | None = None
    """Turns after which an evaluation episode is cut; default `rollout.max_turns`."""
    temperature: float = 0.4
    """Sampling temperature of evaluations; 0 takes the likeliest token."""


@dataclass(frozen=True, kw_only=True)
class ImitateConfig:
    """Warm start by behaviour cloning (`paw imitate`)."""

    output: str = "policy"
    """Directory of the resulting policy (an HF directory)."""
    demonstrations: int = 4000
    """Expert episodes to play."""
    trajectories: str | None = None
    """Learn from this trajectory file (.jsonl.zst of a run), or a run's newest, not from the
    expert."""
    noise: float | None = None
    """Randomness of the expert's exploration; default 0.7 where it takes `noise`."""
    junk: float | None = None
    """Share of useless commands played and not imitated, so that the policy learns to recover;
    default 0.12 where the expert takes `junk`."""
    expert: dict[str, Any] = field(default_factory=dict)
    """Further options of the environment's expert."""
    observation_weight: float = 1.0
    """Weight of an observation token's cross-entropy beside an action token's; 0: actions only."""
    steps: int = 700
    """Optimizer steps."""
    batch_episodes: int = 32
    """Demonstrated episodes of one step."""
    learning_rate: float = 2e-3
    """Learning rate after the warm-up."""
    final_learning_rate: float | None = None
    """Cosine decay to this; none: constant after the warm-up."""
    warmup_steps: int = 50
    """Steps over which the learning rate rises linearly."""
    max_grad_norm: float = 1.0
    """The gradient of a step is scaled down to this Euclidean norm."""
    eval_every: int = 0
    """Steps between evaluations on `eval.split`; 0: only at the end."""
    stop_at_success: float | None = None
    """Stop at the first evaluation that reaches this success rate."""
    from_scratch: bool = False
    """Make a new small model and tokenizer instead of starting from `model.path`."""
    hidden_size: int = 64
    """Width of the new model; a multiple of `num_heads`."""
    num_layers: int = 3
    """Layers of the new model."""
    num_heads: int = 4
    """Attention heads of the new model; a multiple of `num_kv_heads`."""
    num_kv_heads: int = 2
    """Key and value heads of the new model, shared by groups of attention heads."""
    max_positions: int = 2048
    """Longest sequence of the new model, in tokens."""
    phrases: tuple[str, ...] = ()
    """Frequent phrases that the new tokenizer holds as one token each."""

    def __post_init__(self) -> None:
        _expand_home(self, "output", "trajectories")


@dataclass(frozen=True, kw_only=True)
class Config:
    run: RunConfig = field(default_factory=RunConfig)
    env: EnvConfig = field(default_factory=EnvConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    rollout: RolloutConfig = field(default_factory=RolloutConfig)
    algorithm: AlgorithmConfig = field(default_factory=AlgorithmConfig)
    paw: PawConfig = field(default_factory=PawConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    imitate: ImitateConfig = field(default_factory=ImitateConfig)
