"""The values that cross rooms. Frozen dataclasses; every field with its shape or unit.

P transitions, N trajectories, G groups, L tokens of one sequence, A tokens of one action. First
what an episode is made of, then the nouns of an update, in the order in which they are made:

    list[Group] ─▶ Columns, list[Row] ─▶ Scores ─▶ Judgement ─▶ Targets ─▶ list[TrainingSample]

Torch is not imported, so that the command line starts fast: token streams are tuples, arrays are
made where the arithmetic is.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


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


NO_ACTION = SampledAction((), (), None, finished=False)
"""What stands before an observation that is predicted without one."""


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
    next_header_ids: tuple[int, ...] = ()
    """[H] the header before o_{t+1} where its end is one token with that text's beginning, which
    is then the target's first; () where the header is the usual one."""
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


@dataclass(frozen=True, slots=True, eq=False)
class Columns:
    """All transitions of an update's N usable trajectories as columns, in order.

    Numbers and texts alone, no objects: what `judge` reads could as well have been gathered from
    several machines.
    """

    trajectory: "Tensor"
    """[P] long, 0..N-1"""
    turn: "Tensor"
    """[P] long, 0.. within the trajectory"""
    group: "Tensor"
    """[P] long, 0..G-1"""
    rewards: "Tensor"
    """[P] task rewards"""
    penalties: "Tensor"
    """[P] invalid-action penalties, <= 0"""
    candidates: "Tensor"
    """[P] bool: there is a next observation to predict (Eq. 4)"""
    num_action_tokens: "Tensor"
    """[P] long"""
    observations: tuple[str, ...]
    """[P] o_t, the anchors of GiGPO"""
    returns: "Tensor"
    """[N] task returns R(tau), without penalties"""
    trajectory_group: "Tensor"
    """[N] long, 0..G-1; every group has a trajectory"""

    @property
    def num_groups(self) -> int:
        """G"""
        return int(self.trajectory_group.max()) + 1 if len(self.trajectory_group) else 0


@dataclass(frozen=True, slots=True)
class Row:
    """Tokens that pass through the model together, before any weight: the baseline's rows.

    `window`: one transition. `append`: the transitions of one trajectory.
    """

    token_ids: tuple[int, ...]
    """[L]"""
    roles: tuple[int, ...]
    """[L] a Role per token"""
    transitions: tuple[int, ...]
    """[T] index in the update of each transition whose action stands here"""
    action_starts: tuple[int, ...]
    """[T] first token of each action"""
    action_ends: tuple[int, ...]
    """[T] one past its last token"""

    @property
    def base_length(self) -> int:
        """Its tokens; nothing is appended to a base row."""
        return len(self.token_ids)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """What the models say of the sampled actions before any learning."""

    logprobs: list[list[float]]
    """[P] of [A] log-probs of the policy that sampled, at temperature 1"""
    entropy: "Tensor"
    """[P] mean over each action's tokens: the score of Eq. 4"""
    values: "Tensor | None"
    """[P] the critic's V(h_t); None without a critic"""
    ref_logprobs: list[list[float]] | None
    """[P] of [A] under the reference policy; None without a KL loss"""
    other_entropy: "Tensor | None" = None
    """[P] by the other reading of Eq. 4 (`paw.entropy`); None where the sampler does not see whole
    distributions"""
    sampler_logprobs: list[list[float]] | None = None
    """[P] of [A] the sampler's own, where `logprobs` are of a scoring pass"""
    importance: list[list[float]] | None = None
    """[P] of [A] weight of each token's policy loss; None for 1 everywhere"""


@dataclass(frozen=True, slots=True, eq=False)
class Judgement:
    """What the learner shall do with each transition; holds all denominators of the update."""

    advantages: "Tensor"
    """[P]"""
    value_targets: "Tensor | None"
    """[P] returns that the critic learns; None without a critic"""
    action_weights: "Tensor"
    """[P] weight of each token of the action in the policy loss; 0 in an update that trains the
    prediction alone"""
    zero_advantage: "Tensor"
    """[P] bool: in a group whose trajectories all returned the same, where (but for penalties) the
    prediction is the only gradient"""
    selected: "Tensor"
    """[P] bool, S_alpha of Eq. 4; empty in an update that trains no prediction"""
    group_weights: "Tensor"
    """[G] lambda_g of Eq. 10 (or its ablation), before the coefficient; [N] where each trajectory
    is a group of its own (PPO)"""
    transition_weights: "Tensor"
    """[P] coefficient * lambda_g / (G |S_alpha,g|), 0 where not selected"""
    group: "Tensor"
    """[P] long: the group of each transition in Eqs. 10 and 11"""


@dataclass(frozen=True, slots=True)
class Target:
    """What one transition shall predict."""

    token_ids: tuple[int, ...]
    """[O]"""
    weight: float
    """Per token: transition weight (by its share) / |o|"""
    scaffold: tuple[int, ...]
    """Template tokens between the action and the target, where the target is appended."""
    between: tuple[int, ...] = ()
    """What is read before those and behind the target before, of a `later` one: the end of its
    turn and the next action."""
    later: "tuple[Target, ...]" = ()
    """With a horizon, in a `window`: what is predicted behind it"""

    @property
    def transition_weight(self) -> float:
        """Of all its tokens, later ones included."""
        return self.weight * len(self.token_ids) + sum(t.transition_weight for t in self.later)


@dataclass(frozen=True, slots=True)
class Targets:
    """The targets of an update's transitions that have a weight."""

    by_transition: Mapping[int, Target]
    changed_fraction: float
    """Share of them that are not the true next observation; 0 without any."""


@dataclass(frozen=True, slots=True)
class TrainingSample:
    """A row of tokens and the weights with which each token enters the update's objective.

    The learner executes it: loss = sum over tokens of
    `policy_weights` x policy loss + `target_weights` x prediction loss. Denominators are in the
    weights, so any split of the samples gives the same sum. Example, window mode:

        token_ids       P0 P1 P2 | A0 A1 | H0 | O0 O1
        roles            0  0  3 |  1  1 |  3 |  2  2
        policy_weights   0  0  0 |  w  w |  0 |  0  0
        target_weights   0  0  0 |  0  0 |  0 |  v  v      v = lambda_g / (G |S_g| |o|)
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
    target_weights: tuple[float, ...]
    """[L] at target tokens; 0 elsewhere."""
    base_length: int
    """Tokens without the appended target: the row's length when no target has a weight.
    Micro-batches are formed by it, so that PaW changes neither their number nor their members."""
    zero_advantage: bool = False
    """The trajectories of its group all returned the same: no task reward drives its actions."""
    predicts_only: bool = False
    """A row of its own for a target that cannot stand behind its action: trains nothing else."""
    ref_logprobs: tuple[float, ...] = ()
    """[L] of the reference model at ACTION tokens; empty without a KL loss."""
    value_positions: tuple[int, ...] = ()
    """[T] last prompt token of each transition, where the critic reads h_t."""
    value_targets: tuple[float, ...] = ()
    """[T] return targets of the critic."""
    old_values: tuple[float, ...] = ()
    """[T] the critic's values at the start of the update."""
    transitions: tuple[int, ...] = ()
    """[T] index in the update of each transition whose action (or, in a row that only predicts,
    whose target) stands in this row."""

    @property
    def has_weight(self) -> bool:
        """Does any of its tokens enter the policy's objective?"""
        return any(self.policy_weights) or any(self.target_weights)
