"""What the files of a run directory hold, as types. docs/run-directory.md says the same in words.

`write` writes these and `read` reads them. A field that earlier versions did not write has a
default, so that their files are read; names in the files are the fields' own (`return` is
`return_`).
"""

from typing import Any

import msgspec

from paw.types import Task

MetricsRow = dict[str, Any]
"""A line of metrics.jsonl: `update` (int), numbers by metric name, None where there was nothing to
measure, and `health` (list of str) in an update without signal."""


class TurnRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of a trajectory: what was seen, said and done, and what was decided about it."""

    observation: str
    """o_t, raw"""
    commands: tuple[str, ...] = ()
    """Admissible at o_t"""
    response: str
    """The whole response, decoded"""
    command: str = ""
    """What the environment was given"""
    reward: float = 0.0
    """Of the task"""
    penalty: float = 0.0
    """Of an invalid turn, <= 0; no part of the return"""
    valid: bool
    """Well formed and accepted"""
    next_observation: str | None
    """o_{t+1}; None after a final answer"""
    context_ids: tuple[int, ...] = ()
    """[C] read: the whole prompt (`window`), or what came since the last action (`append`)"""
    context_roles: tuple[int, ...] = ()
    """[C] `Role` of each"""
    action_ids: tuple[int, ...] = ()
    """[A] the response as sampled"""
    sampler_logprobs: tuple[float, ...] = ()
    """[A] at temperature 1, nats"""
    entropies: tuple[float, ...] | None = None
    """[A] of the next-token distribution, nats; None where the sampler does not see it"""
    finished: bool = True
    """False where `max_response_tokens` cut it"""
    num_cut_tokens: int = 0
    """Target tokens cut off"""
    prompt_cut_tokens: int = 0
    """Prompt tokens cut off"""
    advantage: float | None = None
    """Of the base algorithm; None in a failed trajectory"""
    selected: bool = False
    """By Eq. 4"""
    transition_weight: float = 0.0
    """`paw.coefficient` x lambda_g / (G |S_g|), Eq. 11; 0 where nothing is predicted"""
    target_ids: tuple[int, ...] | None = None
    """[O] target tokens of the prediction"""
    target_logprobs: tuple[float, ...] | None = None
    """[O] at temperature 1, nats, before the optimizer step that learned from them"""


class TrajectoryRecord(msgspec.Struct, frozen=True, kw_only=True):
    """A line of `trajectories/update-*.jsonl.zst`: one episode."""

    env: str = ""
    """Name of the environment"""
    update: int = 0
    group: int = 0
    """Index of its group in the update"""
    index: int = 0
    """Index within the group"""
    task: Task
    return_: float = msgspec.field(name="return", default=0.0)
    """Sum of task rewards, without penalties"""
    success: bool
    terminated: bool = True
    """False where the turn or context limit cut it"""
    score: float | None = None
    """The benchmark's own, where it has one"""
    failure: str | None = None
    """Why its environment failed; such a trajectory is never trained on"""
    prompt_limit: bool = False
    """`max_prompt_tokens` ended it"""
    turns: tuple[TurnRecord, ...]


class EpisodeRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One episode of an evaluation."""

    task: str
    """Its id"""
    kind: str = ""
    success: bool
    return_: float = msgspec.field(name="return", default=0.0)
    score: float | None = None
    turns: int = 0
    failure: str | None = None
    prompt_limit: bool = False
    num_cut_prompts: int = 0


class EvaluationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """`eval/update-*.json` and what `paw eval -o` writes: what was played, how, and the score."""

    update: int | None = None
    """None in a file of `paw eval`"""
    env: str = ""
    split: str = ""
    num_tasks: int = 0
    selection: str = ""
    """Of the tasks: `all`, the `first`, or a `spread` over the kinds"""
    source: dict[str, Any] = {}
    """What the environment says of its tasks"""
    temperature: float | None = None
    seed: int = 0
    num_episodes: int
    """Usable ones: those whose environment did not fail"""
    num_failures: int = 0
    success_rate: float
    interval: tuple[float, float]
    """Wilson, 95 %"""
    return_mean: float = 0.0
    score_mean: float | None = None
    turns_mean: float = 0.0
    valid_action_rate: float = 0.0
    prompt_limit_fraction: float = 0.0
    """Of episodes"""
    prompt_cut_fraction: float = 0.0
    """Of prompts"""
    response_cut_fraction: float = 0.0
    """Of responses"""
    failures: dict[str, int] = {}
    """Number by reason"""
    by_kind: dict[str, dict[str, Any]] = {}
    """The same numbers per kind of task"""
    macro_average: dict[str, Any] = {}
    """Unweighted means over kinds"""
    episodes: tuple[EpisodeRecord, ...] = ()
    max_turns: int | None = None
    context: str = ""
    history_turns: int | None = None
    response_format: str = ""
    max_prompt_tokens: int | None = None
    max_response_tokens: int | None = None
    validity: str = ""
    env_options: dict[str, Any] = {}


class ResultRecord(EvaluationRecord, frozen=True, kw_only=True):
    """What `paw eval -o` writes: an evaluation, and what was evaluated."""

    model: str = ""
    """Directory of the policy"""
    commit: str | None = None


class EnvironmentRecord(msgspec.Struct, frozen=True, kw_only=True):
    """environment.json: where the run was last started."""

    versions: dict[str, str | None] = {}
    """Of the packages that matter"""
    python: str = ""
    platform: str = ""
    processor: str = ""
    cpus: int | None = None
    threads: int | None = None
    gpu: str | None = None
    commit: str | None = None
    """Of the checkout; `+` with uncommitted changes"""
    command: tuple[str, ...] = ()
    data: dict[str, Any] = {}
    """`data_dir`, and `listing_sha256` of its file names and sizes"""
    earlier: tuple[dict[str, str | None], ...] = ()
    """`start` of earlier starts that were not like this one"""

    @property
    def start(self) -> dict[str, str | None]:
        """What tells starts of a run apart: `commit`, `processor`, `gpu`, `torch`."""
        return {
            "commit": self.commit,
            "processor": self.processor,
            "gpu": self.gpu,
            "torch": self.versions.get("torch"),
        }


class ImitationRecord(msgspec.Struct, frozen=True, kw_only=True):
    """imitate.json beside a policy of `paw imitate`, with what `EnvironmentRecord` says as well."""

    steps: int
    """Optimizer steps taken"""
    finished: bool = True
    demonstrations: int = 0
    parameters: int = 0
    evaluations: tuple[dict[str, Any], ...] = ()
    """`step`, `nll` and the numbers of an evaluation"""
    seed: int = 0
