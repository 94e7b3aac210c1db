"""The whole configuration tree: every key once, with its type, range, default and meaning.

Defaults are the paper's (Table 5 of arXiv 2606.02388; ALFWorld where the three benchmarks differ).
Layers, later ones win: defaults < the environment's protocol (turns, lengths: how its benchmark is
played) < presets by what is trained (`presets.py`) < the policy's own card (`paw.toml` beside its
weights) < TOML files from left to right < `--table.key value` flags. `read.py` overlays them.

Beside a type stand its range (`Meta`), what else the key needs to mean anything (`Only`), and
whether a run that goes on may change it (`MayChange`).
"""

from dataclasses import dataclass, field
from os.path import expanduser
from typing import Annotated, Any, Literal, cast

from msgspec import Meta


@dataclass(frozen=True)
class Only:
    """The key counts only where the key `key` has one of `values`; else it changes nothing."""

    key: str
    values: tuple[Any, ...]


@dataclass(frozen=True)
class MayChange:
    """A run that goes on may change the key: what is learned does not depend on it."""


Count = Annotated[int, Meta(ge=1, le=1_000_000)]
Interval = Annotated[int, Meta(ge=0, le=1_000_000)]
NumTokens = Annotated[int, Meta(ge=1, le=100_000_000)]
Share = Annotated[float, Meta(ge=0, le=1)]
NotNegative = Annotated[float, Meta(ge=0, le=1e30)]
Decay = Annotated[float, Meta(ge=0, lt=1)]
Positive = Annotated[float, Meta(gt=0, le=1e30)]
# Upper bounds are far above any real use: what is larger is a slip that would overflow, or hang
# without a word.

PPO = Only("algorithm.name", ("ppo",))
GIGPO = Only("algorithm.name", ("gigpo",))
GROUPED = Only("algorithm.name", ("grpo", "rloo", "gigpo"))
NEW_MODEL = Only("imitate.from_scratch", (True,))
EXPERT = Only("imitate.trajectories", (None,))


def _expand_home(table: Any, *keys: str) -> None:
    """`~/runs` is the home directory's: a shell expands it in a flag, nobody does in a file."""
    for key in keys:
        if getattr(table, key) is not None:
            object.__setattr__(table, key, expanduser(getattr(table, key)))


@dataclass(frozen=True, kw_only=True)
class RunConfig:
    directory: Annotated[str | None, MayChange()] = None
    """Where everything is written; default `runs/<env>-<algorithm>[-paw][-<what differs from plain
    PaW>]-seed<seed>`."""
    updates: Annotated[int, Meta(ge=0, le=999_999), MayChange()] = 150
    """Updates to train for (act, judge, serialise, learn)."""
    seed: Annotated[int, Meta(ge=0, lt=2**31)] = 0
    """Drives tasks, environments, sampler and data order."""
    resume: Annotated[bool, MayChange()] = True
    """Go on from the newest complete checkpoint; a changed configuration is refused."""
    checkpoint_every: Annotated[Count, MayChange()] = 10
    """Updates between checkpoints; there is always one before an evaluation and at the end."""
    keep_checkpoints: Annotated[Count, MayChange()] = 2
    """How many checkpoints stay; older ones are deleted."""
    save_trajectories_every: Annotated[Interval, MayChange()] = 1
    """Updates between trajectory files; 0 writes none."""
    diagnostics_every: Interval = 0
    """Updates between measurements that cost passes of their own: gradient norm of each loss term,
    NLL of all next observations before the update, KL after it; 0: never."""
    track: Annotated[tuple[Literal["tensorboard", "wandb", "trackio"], ...], MayChange()] = ()
    """Sinks besides metrics.jsonl; need the extra `paw-rl[track]`."""
    threads: Annotated[int, Meta(ge=0, le=4096), MayChange()] = 0
    """CPU threads of torch; 0: one for policies below 20 M parameters, else as many as cores are
    free."""

    def __post_init__(self) -> None:
        _expand_home(self, "directory")


@dataclass(frozen=True, kw_only=True)
class EnvConfig:
    name: str = "household"
    """household | alfworld | webshop | search_qa | a registered name | module:factory |
    openenv:URL | gymnasium:ID."""
    split: str = "train"
    """Tasks to train on."""
    data_dir: str | None = None
    """Folder of the benchmark's official files; default: the environment's own variable."""
    options: dict[str, Any] = field(default_factory=dict)
    """Options of that environment, written as further keys of the table: `level = 2`."""


@dataclass(frozen=True, kw_only=True)
class ModelConfig:
    path: str = "household"
    """HF directory, hub name or .gguf file; "household" is the policy shipped with the package."""
    adapter: str = ""
    """Directory of an adapter (peft) that is merged into those weights at the start; "": none."""
    dtype: Literal["float32", "bfloat16", "float64"] = "float32"
    """Type of the weights. Trained in bfloat16 they have masters in fp32, on which AdamW steps."""
    compute_dtype: Literal["same", "bfloat16"] = "same"
    """`bfloat16`: matrix products of the learner under autocast, weights as `dtype`."""
    device: str = "auto"
    """auto | cpu | cuda | cuda:N."""
    lora_rank: Annotated[int, Meta(ge=0, le=4096)] = 0
    """Rank of LoRA adapters on all linear layers; 0 trains all weights. Needs `paw-rl[lora]`."""
    gradient_checkpointing: Annotated[bool, MayChange()] = False
    """Recompute activations in the backward pass: less memory, more time."""
    share_prefixes: bool = True
    """Learning computes a beginning that rows of a micro-batch have in common once; the same up to
    rounding."""

    def __post_init__(self) -> None:
        _expand_home(self, "adapter")


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    groups: Count = 16
    """G: task instances of one update."""
    group_size: Count = 8
    """n: trajectories of each."""
    max_turns: Count = 50
    """Turns after which an episode is cut (its last observation is still a target)."""
    context: Literal["window", "append"] = "window"
    """`window`: each turn its own sample, prompt = instruction + last turns. `append`: the episode
    is one growing conversation and one sample."""
    history_turns: Annotated[Interval, Only("rollout.context", ("window",))] = 2
    """Earlier turns shown in a `window` prompt."""
    response_format: Literal["tags", "command"] = "tags"
    """`tags`: <think>…</think><action>…</action>; `command`: the response is the command."""
    temperature: Annotated[Positive, Meta(description="training needs sampling")] = 1.0
    """Sampling temperature; log-probs and entropy are always those of temperature 1."""
    max_prompt_tokens: NumTokens = 2048
    """`window`: longer prompts are cut in the middle, counted. `append`: the episode ends there."""
    max_response_tokens: NumTokens = 512
    """A response is cut here (an unfinished one is an invalid turn if it does not parse)."""
    invalid_penalty: NotNegative = 0.1
    """Subtracted from the RL reward of an invalid turn; never part of R(tau) in Eq. 10."""
    validity: Literal["accepted", "format"] = "accepted"
    """Invalid = malformed or refused by the environment (`accepted`), or only malformed (`format`,
    as verl-agent counts)."""
    conversations: Annotated[Interval, MayChange()] = 0
    """Most that are played side by side; 0: as many as fit, decided when the run begins. Each draws
    from a seed of its own: this changes samples by float rounding alone."""
    sampler: Literal["local", "vllm"] = "local"
    """Who samples: `local`, the policy itself; `vllm`, an engine beside it on its device or a
    server, which returns no entropies. Needs `paw-rl[vllm]`, for a server nothing."""
    vllm_memory: Annotated[
        float, Meta(gt=0, lt=1), Only("rollout.sampler", ("vllm",)), MayChange()
    ] = 0.4
    """Share of a GPU's memory that vLLM may take while it samples, its copy of the weights
    included."""
    vllm_server: Annotated[str, Only("rollout.sampler", ("vllm",)), MayChange()] = ""
    """Address of a `vllm serve` on other GPUs that samples instead: `http://HOST:PORT`
    (docs/vllm.md); "": in this process."""
    workers: Annotated[int, Meta(ge=0, le=1024), MayChange()] = 1
    """Processes that hold the environments; 0: in this process, without protection from hangs."""
    step_seconds: Annotated[float, Meta(gt=0, le=1_000_000), MayChange()] = 60.0
    """An environment that has not answered by then is replaced and its trajectory masked."""


@dataclass(frozen=True, kw_only=True)
class AlgorithmConfig:
    name: Literal["grpo", "rloo", "gigpo", "ppo"] = "grpo"
    """Where advantages come from: the group (grpo, rloo), group and anchor states (gigpo), a critic
    (ppo)."""
    clip_low: NotNegative = 0.2
    """PPO clip range, downwards."""
    clip_high: NotNegative = 0.2
    """PPO clip range: the ratio is clipped to [1 - clip_low, 1 + clip_high]."""
    scale_by_std: Annotated[bool, Only("algorithm.name", ("grpo", "gigpo"))] = True
    """GRPO and GiGPO: divide centred returns by their standard deviation."""
    discount: Annotated[Share, GIGPO] = 0.95
    """gamma of GiGPO's step returns."""
    step_weight: Annotated[NotNegative, GIGPO] = 1.0
    """omega of GiGPO: A = A_episode + omega A_step."""
    anchor_similarity: Annotated[Share | None, GIGPO] = None
    """GiGPO: observations this similar share an anchor (search-QA: 0.9); none: equal ones."""
    gae_discount: Annotated[Share, PPO] = 1.0
    """gamma of PPO's generalized advantages (over turns)."""
    gae_lambda: Annotated[Share, PPO] = 1.0
    """lambda of PPO's generalized advantages; 1: returns minus values."""
    value_clip: Annotated[Positive, PPO] = 0.5
    """PPO: range in which the value may move within an update."""
    critic_learning_rate: Annotated[NotNegative, PPO] = 1e-5
    """PPO: learning rate of the critic's AdamW."""
    critic_warmup_updates: Annotated[Interval, PPO] = 0
    """PPO: first updates that train the critic alone."""
    kl_coefficient: NotNegative = 0.0
    """Weight of the KL loss to the initial policy (low-variance estimator); 0: no reference."""
    statistics: Annotated[Literal["trajectory", "turn"], GROUPED] = "trajectory"
    """Group mean and deviation over trajectories, or over turns (as verl-agent does)."""
    penalty: Annotated[Literal["turn", "episode"], GROUPED] = "turn"
    """Where the invalid-action penalty counts: on its own turn, or in the episode's return."""
    aggregation: Literal["token", "sequence"] = "token"
    """`token`: mean over the update's action tokens. `sequence`: mean over each trajectory's
    action tokens, then over trajectories."""
    old_logprobs: Literal["rollout", "score"] = "rollout"
    """Where old log-probs and the entropy of Eq. 4 come from: the sampler, or one scoring pass of
    the learner (needed with samplers that return no full-distribution entropy)."""
    importance_cap: Annotated[Positive | None, Only("algorithm.old_logprobs", ("score",))] = None
    """Weigh the policy loss of a token by min(exp(score - sampler), importance_cap), log-probs of
    the scoring pass and of the sampler; none: not at all."""


COEFFICIENTS = {"cmae": 1.0, "mae": 1.0, "ce": 0.03}
"""Default `paw.coefficient` by loss: cross-entropy's gradient does not fade where the model is
sure of something else; as an auxiliary loss it works at 0.01 to 0.05 and collapses near 0.2."""

BY_LOSS = cast(float, None)
"""Until the loss is known."""


@dataclass(frozen=True, kw_only=True)
class PawConfig:
    enabled: bool = True
    """Train on the next observation as well; false: the RL algorithm alone."""
    coefficient: NotNegative = BY_LOSS
    """Multiplies lambda_g; 0 is the baseline, bit for bit. Default: 1, with `loss = "ce"` 0.03."""
    loss: Literal["cmae", "mae", "ce"] = "cmae"
    """Token loss of the next observation (Eq. 8; Eq. 7 without the cap; Eq. 5)."""
    probability_cap: Annotated[Share, Only("paw.loss", ("cmae",))] = 0.2
    """rho: tokens predicted better than this are masked (cmae)."""
    selection_fraction: Annotated[Share, Only("paw.select", ("entropy", "random", "lowest"))] = 0.75
    """alpha: share of the update's transitions that are kept (Eq. 4)."""
    select: Literal["entropy", "random", "lowest", "all"] = "entropy"
    """Which transitions: highest action entropy (the paper), or a control: as many by chance, as
    many of the lowest, or every one."""
    entropy: Annotated[Literal["full", "sampled"], Only("paw.select", ("entropy", "lowest"))] = (
        "full"
    )
    """Entropy of the whole next-token distribution, or the paper's printed -q log q of the sampled
    token."""
    weight: Literal["adaptive", "constant", "matched_constant", "decay"] = "adaptive"
    """lambda_g of Eq. 10; `constant`; the mean lambda of the run in `match`; or `decay`: from
    `constant` linearly to 0, by updates: at update u of U it is constant (1 - (u - 1) / U)."""
    constant: Annotated[NotNegative, Only("paw.weight", ("constant", "decay"))] = 1.0
    """lambda where `weight = "constant"`; with `decay` that of the first update."""
    match: Annotated[str | None, Only("paw.weight", ("matched_constant",))] = None
    """Directory of the adaptive run whose mean lambda `matched_constant` takes."""
    clamp: Annotated[bool, Only("paw.weight", ("adaptive",))] = True
    """Clamp lambda_g to [0, 1]."""
    target: Literal["next", "shuffled", "random", "vocabulary", "repeat_current"] = "next"
    """What is predicted: o_{t+1}; or a placebo: another transition's differing observation, random
    tokens (of the update's targets, or of the whole vocabulary), or o_t again."""
    random_sign: bool = False
    """A placebo: each transition's prediction loss counts with a random sign."""
    normalise: Literal["transition", "token"] = "transition"
    """What weighs the same within a group: each selected transition (Eq. 9), or each token of
    their targets."""
    dedup: bool = False
    """A transition (observation, command, next observation) seen k times in the update weighs
    1/k."""
    horizon: Annotated[int, Meta(ge=1, le=1000)] = 1
    """K: predict o_{t+1} to o_{t+K}, each behind the actions and observations before it; the weight
    of a transition is shared among those that there are."""
    condition: Literal["action", "no_action"] = "action"
    """`no_action`: predict o_{t+1} from h_t alone."""
    schedule: Literal["joint", "alternate"] = "joint"
    """`alternate`: every `alternate_every`-th update trains the prediction alone, the others the
    policy alone. With `loss = "ce"` this is TAPO."""
    alternate_every: Annotated[
        int,
        Meta(ge=2, le=1_000_000, description="at 1 every update would train the prediction alone"),
        Only("paw.schedule", ("alternate",)),
    ] = 5
    """Updates from one prediction update to the next (5: four of the policy)."""
    max_observation_tokens: NumTokens = 512
    """Longer targets are cut (counted)."""

    def __post_init__(self) -> None:
        if self.coefficient is None:
            object.__setattr__(self, "coefficient", COEFFICIENTS[self.loss])
        _expand_home(self, "match")


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    learning_rate: NotNegative = 1e-6
    """Learning rate of the policy's AdamW, after the warm-up."""
    betas: tuple[Decay, Decay] = (0.9, 0.999)
    """AdamW's decay rates of the gradient's first and second moments."""
    weight_decay: NotNegative = 0.0
    """AdamW's decoupled weight decay."""
    warmup_steps: Interval = 0
    """Optimizer steps over which the learning rate rises linearly."""
    mini_batches: Count = 1
    """M: optimizer steps of one pass over an update's samples."""
    epochs: Annotated[int, Meta(ge=1, le=1000)] = 1
    """Passes over an update's samples, each with M steps of the same size."""
    tokens_per_micro_batch: Annotated[int, Meta(ge=0, le=100_000_000), MayChange()] = 0
    """Tokens of one forward and backward pass (a single longer sample still makes one); 0: as many
    as fit, up to 16,384, decided when the run begins."""
    max_grad_norm: Positive = 1.0
    """The gradient of an optimizer step is scaled down to this Euclidean norm."""


@dataclass(frozen=True, kw_only=True)
class ParallelConfig:
    """Several processes: `torchrun --nproc-per-node N -m paw train …`."""

    mode: Annotated[Literal["auto", "replicate", "shard"], MayChange()] = "auto"
    """`replicate`: every process has the whole policy. `shard`: what is trained is divided among
    them. `auto`: the latter where one process has no room for it."""


@dataclass(frozen=True, kw_only=True)
class EvalConfig:
    every: Annotated[Interval, MayChange()] = 0
    """Updates between evaluations (and one at the end); 0: never."""
    split: str | None = None
    """Default: the environment's validation split."""
    episodes: Annotated[int, Meta(ge=1, le=10_000_000), MayChange()] = 128
    """Tasks played, once each; fewer than there are: spread over their kinds; more: repeated with
    other seeds."""
    max_turns: Count | None = None
    """Turns after which an evaluation episode is cut; default `rollout.max_turns`."""
    temperature: NotNegative = 0.4
    """Sampling temperature of evaluations; 0 takes the likeliest token."""


@dataclass(frozen=True, kw_only=True)
class ImitateConfig:
    """Warm start by behaviour cloning (`paw imitate`)."""

    output: Annotated[str, MayChange()] = "policy"
    """Directory of the resulting policy (an HF directory); the work in progress is beside it, in
    `<output>.partial`."""
    demonstrations: Annotated[int, Meta(ge=1, le=100_000_000), EXPERT] = 4000
    """Expert episodes to play."""
    trajectories: str | None = None
    """Learn from this trajectory file (.jsonl.zst of a run), or a run's newest, not from the
    expert."""
    noise: Annotated[Share | None, EXPERT] = None
    """Randomness of the expert's exploration; default 0.7 where it takes `noise`."""
    junk: Annotated[Share | None, EXPERT] = None
    """Share of useless commands played and not imitated, so that the policy learns to recover;
    default 0.12 where the expert takes `junk`."""
    expert: Annotated[dict[str, Any], EXPERT] = field(default_factory=dict)
    """Further options of the environment's expert."""
    observation_weight: NotNegative = 1.0
    """Weight of an observation token's cross-entropy beside an action token's; 0: actions only."""
    steps: Count = 700
    """Optimizer steps."""
    batch_episodes: Count = 32
    """Demonstrated episodes of one step."""
    learning_rate: Positive = 1e-5
    """Learning rate after the warm-up."""
    final_learning_rate: NotNegative | None = None
    """Cosine decay to this; none: constant after the warm-up."""
    warmup_steps: Interval = 50
    """Steps over which the learning rate rises linearly."""
    max_grad_norm: Positive = 1.0
    """The gradient of a step is scaled down to this Euclidean norm."""
    checkpoint_every: Annotated[Count, MayChange()] = 50
    """Steps between checkpoints; there is always one before an evaluation and after it."""
    eval_every: Annotated[Interval, MayChange()] = 0
    """Steps between evaluations on `eval.split`; 0: only at the end."""
    stop_at_success: Annotated[Share | None, MayChange()] = None
    """Stop at the first evaluation that reaches this success rate."""
    from_scratch: bool = False
    """Make a new small model and tokenizer instead of starting from `model.path`."""
    hidden_size: Annotated[int, Meta(ge=1, le=16_384), NEW_MODEL] = 64
    """Width of the new model; a multiple of `num_heads`."""
    num_layers: Annotated[int, Meta(ge=1, le=1024), NEW_MODEL] = 3
    """Layers of the new model."""
    num_heads: Annotated[int, Meta(ge=1, le=1024), NEW_MODEL] = 4
    """Attention heads of the new model; a multiple of `num_kv_heads`."""
    num_kv_heads: Annotated[int, Meta(ge=1, le=1024), NEW_MODEL] = 2
    """Key and value heads of the new model, shared by groups of attention heads."""
    max_positions: Annotated[NumTokens, NEW_MODEL] = 2048
    """Longest sequence of the new model, in tokens."""
    phrases: Annotated[tuple[str, ...], NEW_MODEL] = ()
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
    paw: Annotated[PawConfig, Only("paw.enabled", (True,))] = field(default_factory=PawConfig)
    optimizer: OptimizerConfig = field(default_factory=OptimizerConfig)
    eval: EvalConfig = field(default_factory=EvalConfig)
    parallel: Annotated[ParallelConfig, MayChange()] = field(default_factory=ParallelConfig)
    imitate: Annotated[ImitateConfig, MayChange()] = field(default_factory=ImitateConfig)
