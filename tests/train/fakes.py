"""Scripted episodes of hand-made token ids, and a tiny policy in float64 to learn from them.

An update that holds every odd case at once: `scripted_groups`. Layout of the tokens:

    window  SYSTEM task… o_t… POLICY | action… END | USER | o_{t+1}…
    append  SYSTEM task… o_0… POLICY | action… END | USER o_1… POLICY | action… END | USER o_2…
"""

import random
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import cast

import torch
from transformers import Qwen2ForCausalLM
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm

from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.text.dialogue import Serializer
from paw.types import Group, Role, SampledAction, Scores, Task, Trajectory, Transition

VOCAB = 24
END, USER, POLICY, SYSTEM = range(4)
MAX_OBSERVATION_TOKENS = 5

C, A, Observed, S = (int(r) for r in (Role.CONTEXT, Role.ACTION, Role.OBSERVATION, Role.SCAFFOLD))


def to_user(action: SampledAction) -> tuple[int, ...]:
    """The header before an observation; closes an action that was cut."""
    closed = bool(action.token_ids) and action.token_ids[-1] == END
    return (USER,) if closed else (END, USER)


@dataclass(frozen=True)
class Turn:
    """One scripted turn."""

    action: tuple[int, ...]
    observation: tuple[int, ...] | None
    """Whole o_{t+1}; None after a final answer."""
    reward: float = 0.0
    penalty: float = 0.0
    entropy: float = 1.0


def say(tokens: Sequence[int]) -> str:
    """Scripted texts are their token ids, so that equal texts are equal tokens."""
    return " ".join(map(str, tokens))


def encode(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split()))


def scripted(append: bool) -> Serializer:
    """What choosing targets needs of a serializer."""
    found = SimpleNamespace(
        encode=encode,
        to_user=to_user,
        to_policy=lambda observation: (POLICY,),
        vocabulary=tuple(range(SYSTEM + 1, VOCAB)),
        append=append,
    )
    return cast(Serializer, found)


SCRIPTED = scripted(append=False)


def scores_of(
    transitions: Sequence[Transition],
    values: Sequence[float] | None = None,
    ref_logprobs: list[list[float]] | None = None,
) -> Scores:
    """What the scripted sampler said, mean entropies among it."""
    entropy = [sum(t.action.entropies or ()) / len(t.action.token_ids) for t in transitions]
    column = torch.tensor(entropy, dtype=torch.float64)
    old = None if values is None else torch.tensor(values, dtype=torch.float64)
    return Scores([list(t.action.logprobs) for t in transitions], column, old, ref_logprobs)


def play(
    turns: Sequence[Turn],
    *,
    append: bool,
    group: int = 0,
    index: int = 0,
    task: tuple[int, ...] = (4, 5),
    first: tuple[int, ...] = (6, 7),
    terminated: bool = True,
    failure: str | None = None,
    rng: random.Random | None = None,
) -> Trajectory:
    """The trajectory of a script; old log-probs are drawn from `rng`, -1 without one."""
    transitions = []
    shown, header = first, (SYSTEM, *task)
    header_roles = (S,) + (C,) * len(task)
    for number, turn in enumerate(turns):
        new = append and number > 0
        roles = (*header_roles, *(Observed if new else C for _ in shown), S)
        length = len(turn.action)
        logprobs = [rng.uniform(-4.5, -1.5) if rng else -1.0 for _ in range(length)]
        spread = [turn.entropy + 0.01 * (i - (length - 1) / 2) for i in range(length)]
        action = SampledAction(
            turn.action, tuple(logprobs), tuple(spread), finished=turn.action[-1] == END
        )
        following = turn.observation
        target = () if following is None else following[:MAX_OBSERVATION_TOKENS]
        transitions.append(
            Transition(
                context_ids=(*header, *shown, POLICY),
                context_roles=roles,
                action=action,
                response=say(turn.action),
                command=say(turn.action),
                reward=turn.reward,
                penalty=turn.penalty,
                valid=turn.penalty == 0,
                observation=say(shown),
                next_observation=None if following is None else say(following),
                next_observation_ids=target,
                num_cut_tokens=0 if following is None else len(following) - len(target),
            )
        )
        shown = following or ()
        if append:
            header = to_user(action)
            header_roles = (S,) * len(header)
    return Trajectory(
        task=Task(f"task-{group}", "scripted", say(task)),
        group=group,
        index=index,
        transitions=tuple(transitions),
        success=sum(t.reward for t in turns) > 0,
        terminated=terminated,
        failure=failure,
    )


def scripted_groups(append: bool, seed: int = 0) -> list[Group]:
    """Six groups, R_max = 10; P = 17 usable transitions, 16 candidates, 12 selected at 0.75."""
    rng = random.Random(seed)

    def words(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(4, VOCAB) for _ in range(count))

    def act(count: int) -> tuple[int, ...]:
        return (*words(count - 1), END)

    nothing = (8, 9)  # "Nothing happens.", several times
    scripts = [
        # Mixed: a win; a loss with an invalid turn and a response cut by its limit (no END); one
        # cut by the turn limit, whose last observation is still a target; one that failed.
        [
            [Turn(act(3), words(4), entropy=1.3), Turn(act(2), words(2), 10.0, entropy=0.9)],
            [Turn(words(4), nothing, penalty=-0.1, entropy=2.0), Turn(act(2), None, entropy=1.1)],
            [Turn(act(2), nothing, entropy=1.4), Turn(act(3), words(3), entropy=1.2)],
            [Turn(act(2), words(3), entropy=3.0)],
        ],
        # All win: lambda = 0, advantage 0.
        [
            [Turn(act(2), words(3), 10.0, entropy=1.5)],
            [Turn(act(3), words(3), 4.0, entropy=1.6), Turn(act(1), words(2), 6.0, entropy=1.0)],
        ],
        # All lose: lambda = 1, advantage 0; a one-token observation and one that is cut.
        [
            [Turn(act(2), (11,), entropy=1.7), Turn(act(2), words(8), entropy=1.35)],
            [Turn(act(4), nothing, penalty=-0.1, entropy=1.8)],
        ],
        # A group of one.
        [[Turn(act(2), words(4), 2.5, entropy=1.9), Turn(act(3), nothing, entropy=1.25)]],
        # Sure of every action: nothing selected.
        [
            [Turn(act(2), words(3), 5.0, entropy=0.1)],
            [Turn(act(3), words(3), entropy=0.2), Turn(act(2), words(2), entropy=0.3)],
        ],
        # Every environment failed: no group at all.
        [[Turn(act(2), words(2), entropy=1.0)]],
    ]
    groups = []
    for g, script in enumerate(scripts):
        task, first = words(2), words(3)
        members = []
        for i, turns in enumerate(script):
            failed = (g, i) in ((0, 3), (5, 0))
            members.append(
                play(
                    turns,
                    append=append,
                    group=g,
                    index=i,
                    task=task,
                    first=first,
                    terminated=(g, i) != (0, 2),
                    failure="worker died" if failed else None,
                    rng=rng,
                )
            )
        groups.append(Group(members[0].task, tuple(members)))
    return groups


def alike_groups(append: bool) -> list[Group]:
    """Two groups of four with tasks of 20 tokens, more than `LEAST`; the second trajectory plays
    the first action of the first, whose observation is then another."""
    rng = random.Random(1)

    def words(count: int) -> tuple[int, ...]:
        return tuple(rng.randrange(4, VOCAB) for _ in range(count))

    groups = []
    for g in range(2):
        task, first, action = words(20), words(3), (*words(2), END)
        scripts = [
            [Turn(action, words(4), entropy=1.5), Turn((*words(3), END), words(2), 10.0)],
            [Turn(action, words(3), entropy=1.2), Turn((*words(2), END), words(5))],
            [Turn((*words(1), END), words(4), entropy=0.5)],
            [Turn((*words(2), END), words(2)), Turn(words(4), words(3), 4.0 * g)],
        ]
        members = [
            play(turns, append=append, group=g, index=i, task=task, first=first, rng=rng)
            for i, turns in enumerate(scripts)
        ]
        groups.append(Group(members[0].task, tuple(members)))
    return groups


class ExactNorm(Qwen2RMSNorm):
    """RMSNorm that stays in float64; the original rounds to float32 on the way."""

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        variance = hidden_states.square().mean(-1, keepdim=True)
        return self.weight * hidden_states * torch.rsqrt(variance + self.variance_epsilon)


def tiny_model(seed: int = 0, dtype: torch.dtype = torch.float64) -> Qwen2ForCausalLM:
    """Two layers of 16, with weights wide enough that some probabilities pass rho = 0.2."""
    model = create_policy_model(
        vocab_size=VOCAB,
        hidden_size=16,
        num_layers=2,
        num_heads=2,
        num_kv_heads=1,
        intermediate_size=32,
        max_positions=128,
        seed=seed,
    ).to(dtype)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(10)
    for module in model.modules():
        if dtype == torch.float64 and isinstance(module, Qwen2RMSNorm):
            module.__class__ = ExactNorm
    return model


def tiny_policy(seed: int = 0, dtype: torch.dtype = torch.float64) -> Policy:
    """`tiny_model` behind the trainer's own forward pass; shares nothing with another call's."""
    return Policy(tiny_model(seed, dtype))


def gradient(parameters: Sequence[torch.nn.Parameter]) -> torch.Tensor:
    """All gradients in one vector; cleared from the parameters."""
    parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in parameters]
    for parameter in parameters:
        parameter.grad = None
    return torch.cat([p.flatten() for p in parts])
