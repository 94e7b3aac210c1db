"""The values that cross rooms. Frozen dataclasses; every field with its shape or unit.

P transitions, N trajectories, G groups, L tokens of one sequence. No torch here, so that the
command line starts fast: token streams are tuples, arrays are made where the arithmetic is.
"""

from dataclasses import dataclass
from enum import IntEnum


class Role(IntEnum):
    """What a token is for; every token has exactly one."""

    CONTEXT = 0
    """Read, never trained on: instruction, history, admissible commands."""
    ACTION = 1
    """Sampled by the policy, its end-of-turn token included: feeds the policy loss."""
    OBSERVATION = 2
    """Raw environment text: may feed the next-observation loss."""
    SCAFFOLD = 3
    """Chat-template tokens: headers, separators, generation prompts; never a target."""


@dataclass(frozen=True, slots=True)
class Task:
    """One instance of an environment: a game, a shopping goal, a question."""

    id: str
    """Stable and unique within the environment."""
    kind: str
    """Class of task, for results per kind."""
    instruction: str
    """What is asked, in a sentence."""


@dataclass(frozen=True, slots=True)
class SampledAction:
    """One response of the policy, exactly as sampled."""

    token_ids: tuple[int, ...]
    """[A] with the end-of-turn token where the policy wrote one; never decoded and re-tokenised."""
    logprobs: tuple[float, ...]
    """[A] of the sampled tokens at temperature 1, whatever the sampling temperature."""
    entropies: tuple[float, ...] | None
    """[A] Shannon entropy (nats) of the full next-token distribution at temperature 1; None where
    the sampler cannot see the distribution."""
    finished: bool
    """False when `max_response_tokens` cut it: no end-of-turn token was sampled."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One turn: (h_t, a_t, r_t, o_{t+1})."""

    context_ids: tuple[int, ...]
    """[C] `window`: the whole prompt h_t. `append`: what the policy read since its last action, so
    that h_t is the concatenation of all earlier context and action tokens and this."""
    context_roles: tuple[int, ...]
    """[C] a Role per context token; in `append` the observation o_t stands here as OBSERVATION."""
    action: SampledAction
    """a_t: the whole response, reasoning included."""
    response: str
    """a_t decoded, for people; never fed back to the model."""
    command: str
    """What the environment was given."""
    reward: float
    """r_t, the task's own reward."""
    penalty: float
    """Invalid-action penalty of this turn (<= 0); kept out of the return that sets lambda_g."""
    valid: bool
    """The response parsed and the environment accepted the command."""
    observation: str
    """o_t, raw environment text: the anchor of GiGPO."""
    next_observation: str | None
    """o_{t+1}; None where there is none (after a final answer): then no candidate for Eq. 4."""
    next_observation_ids: tuple[int, ...]
    """[O] target tokens of o_{t+1}, at most `max_observation_tokens`."""
    num_cut_tokens: int = 0
    """Target tokens that `max_observation_tokens` cut off."""
    prompt_cut_tokens: int = 0
    """Prompt tokens that `max_prompt_tokens` cut off."""
    commands: tuple[str, ...] = ()
    """Admissible at o_t; the `tags` format shows them in the prompt."""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """The transitions of one episode, in order."""

    task: Task
    group: int
    """Index of its group in the update."""
    index: int
    """Index within the group."""
    transitions: tuple[Transition, ...]
    success: bool
    terminated: bool
    """The task ended; False when the turn or context limit cut the episode (`truncated`)."""
    score: float | None = None
    """The benchmark's own score, where it has one."""
    failure: str | None = None
    """Why the environment failed; such a trajectory is counted and never trained on."""
    prompt_limit: bool = False
    """`max_prompt_tokens` left no room for another turn and ended the episode (`append`)."""

    @property
    def return_(self) -> float:
        """R(tau): sum of task rewards, without penalties."""
        return sum(t.reward for t in self.transitions)


@dataclass(frozen=True, slots=True)
class Group:
    """The trajectories of one task in one update."""

    task: Task
    trajectories: tuple[Trajectory, ...]


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """One row of tokens and the weights with which each token enters the update's objective.

    The learner executes it: loss = sum over tokens of
    `policy_weights` x (clipped surrogate + KL) + `wm_weights` x prediction loss. Denominators are
    in the weights, so any split of the samples gives the same sum. Example, window mode:

        token_ids       P0 P1 P2 | A0 A1 | H0 | O0 O1
        roles            0  0  3 |  1  1 |  3 |  2  2
        policy_weights   0  0  0 |  w  w |  0 |  0  0
        wm_weights       0  0  0 |  0  0 |  0 |  v  v      v = lambda_g / (G |S_g| |o|)
    """

    token_ids: tuple[int, ...]
    """[L]"""
    roles: tuple[int, ...]
    """[L] Role per token."""
    old_logprobs: tuple[float, ...]
    """[L] at ACTION tokens; 0 elsewhere."""
    advantages: tuple[float, ...]
    """[L] at ACTION tokens; 0 elsewhere."""
    policy_weights: tuple[float, ...]
    """[L] at ACTION tokens; 0 elsewhere."""
    wm_weights: tuple[float, ...]
    """[L] at target tokens; 0 elsewhere."""
    base_length: int
    """Tokens without the appended target: the row's length when the WM weight is 0. Micro-batches
    are formed by it, so that PaW changes neither their number nor their members."""
    idle: bool = False
    """The episodes of its group all returned the same: no task reward drives its actions."""
    predicts_only: bool = False
    """A row of its own for a target that cannot stand behind its action: trains nothing else."""
    ref_logprobs: tuple[float, ...] = ()
    """[L] of the reference model at ACTION tokens; empty without a KL loss."""
    value_positions: tuple[int, ...] = ()
    """[turns] last prompt token of each turn, where the critic reads h_t."""
    value_targets: tuple[float, ...] = ()
    """[turns] return targets of the critic."""
    old_values: tuple[float, ...] = ()
    """[turns] the critic's values at the start of the update."""
    turns: tuple[int, ...] = ()
    """[turns] index in the update's pool of each transition whose action (or, in a row that only
    predicts, whose target) stands in this row."""
