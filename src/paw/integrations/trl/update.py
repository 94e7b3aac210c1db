"""One update of TRL: the rows of this process's generation batch, and what becomes of them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import torch
from accelerate.utils import gather_object
from torch import Tensor

from paw import objective
from paw.config.tree import PawConfig
from paw.errors import UserError
from paw.integrations.judge import Judged, Measured
from paw.integrations.trl.environment import TextEnvironment
from paw.integrations.trl.sampling import Ids, Sampled, Samples
from paw.integrations.trl.turns import Turn, turns_of


@dataclass(slots=True)
class Batch:
    """What is seen while TRL makes a generation batch."""

    samples: Samples = field(default_factory=Samples)
    spans: dict[Ids, tuple[int, ...]] = field(default_factory=dict)
    """Positions of the environment's text in the tokens of tool messages"""
    scored: list[tuple[Tensor, Tensor | None]] = field(default_factory=list)
    """Log-probs and entropies [B, C] of TRL's own scoring passes"""
    inputs: Sequence[dict[str, Any]] = ()
    """[B] rows of the dataset, with the fields of a `rollout_func`"""
    completions: Sequence[Any] = ()
    """[B] messages, or texts"""
    returns: list[float] = field(default_factory=list)
    """[N] what TRL trains on, of all processes; nan where nothing gave a reward"""
    task_returns: list[float] = field(default_factory=list)
    """[N] R(tau) of Eq. 10; nan where an environment failed, or nothing gave a reward"""

    def cut(self, b: int, environment: Any) -> bool:
        """Does row b end with a call whose answer TRL dropped, or for which it never asked? Calls
        behind the end of an episode of ours that was seen do not count."""
        completion = self.completions[b] if self.completions else None
        message = completion[-1] if isinstance(completion, list) and completion else None
        if not isinstance(message, dict) or not message.get("tool_calls"):
            return False
        if not isinstance(environment, TextEnvironment) or not environment._ended():
            return True
        return sum(map(len, self.answers(b))) < len(environment._steps)

    def answers(self, b: int) -> list[list[str]]:
        """What tools said after each of a row's messages."""
        found: list[list[str]] = []
        for message in self.completions[b] if self.completions else ():
            if isinstance(message, dict) and message.get("role") == "tool":
                found[-1].append(str(message["content"]))
            elif isinstance(message, dict):
                found.append([])
        return found

    def given(self, name: str, b: int, length: int) -> list[float] | None:
        """[C] a field of the `rollout_func` for row b; None: it has none.

        Raises:
            UserError: other than one finite number a token.
        """
        value = self.inputs[b].get(name) if self.inputs else None
        if value is None:
            return None
        try:
            found = [float(x) for x in value]
        except (TypeError, ValueError):
            found = []
        if len(found) < length or not all(map(math.isfinite, found)):
            raise UserError(
                f"rollout_func: `{name}` of row {b} must be a finite number for each of the "
                f"{length} tokens of its completion"
            )
        return found


@dataclass(slots=True)
class TurnOf:
    """A turn of a row."""

    place: Turn
    target: tuple[int, ...]
    """[O] positions of what is predicted: o_{t+1}, cut to `max_observation_tokens`"""
    sampled: Sampled | None
    """Log-probs and entropies of its action; None where nothing shows them"""
    answers: Sequence[str] = ()
    """What the tools said that its action called"""
    current_ids: Ids = ()
    """Tokens of o_t, where they are known"""
    selected: bool = False
    token_weight: float = 0.0
    predicted: Ids = ()
    """[O] what it shall predict: `target`'s tokens or a placebo; () where nothing"""
    logprobs: list[float] | None = None
    """[O] of them, before the first step that learned from them"""


@dataclass(slots=True)
class RowOf:
    """A trajectory: one row of the batch."""

    prompt_ids: Ids
    """[P]"""
    token_ids: Ids
    """[C] of the completion, without padding; () where TRL masks a row as a whole"""
    turns: list[TurnOf]
    advantage: float

    def target_ids(self, turn: TurnOf) -> Ids:
        """[O] tokens of o_{t+1}."""
        return tuple(self.token_ids[p] for p in turn.target)

    def own_row(self, turn: TurnOf) -> Ids:
        """What is read before a placebo: all that is read before o_{t+1}."""
        return self.prompt_ids + self.token_ids[: turn.target[0]]


def read_rows(batch: Batch, output: dict[str, Tensor], max_tokens: int) -> list[RowOf]:
    """The rows of this process: their turns, and how sure the policy was of its actions.

    Args:
        batch: what was seen while they were made.
        output: TRL's tensors.
        max_tokens: longer targets are cut.

    Raises:
        UserError: a field of the `rollout_func` does not fit its rows.
    """
    prompts, completions = output["prompt_ids"].tolist(), output["completion_ids"].tolist()
    prompt_mask, mask = output["prompt_mask"].tolist(), output["completion_mask"].tolist()
    model_mask = output["tool_mask"].tolist() if "tool_mask" in output else mask
    shown = _Shown(batch, output)
    rows = []
    for b in range(len(prompts)):
        prompt = tuple(i for i, m in zip(prompts[b], prompt_mask[b], strict=True) if m)
        length = sum(mask[b])
        ids = tuple(completions[b][:length])
        given = batch.given("observation_mask", b, length)
        turns = turns_of(model_mask[b][:length], ids, batch.spans, given)
        found = [TurnOf(t, t.target[:max_tokens], shown.sampled(b, prompt, ids, t)) for t in turns]
        for turn, answers in zip(found, batch.answers(b), strict=False):
            turn.answers = answers
        row = RowOf(prompt, ids, found, float(output["advantages"][b].mean()))
        for before, turn in pairwise(found):
            turn.current_ids = row.target_ids(before)
        rows.append(row)
    return rows


class _Shown:
    """Where log-probs and entropies of actions may come from, best first: the sampler's logits,
    TRL's own scoring pass, fields of the `rollout_func`, the log-probs of its sampler."""

    def __init__(self, batch: Batch, output: dict[str, Tensor]) -> None:
        self._batch = batch
        self._logps: list[list[float]] | None = None
        self._entropies: list[list[float]] | None = None
        # The first pass is of old log-probs, where there are any; others are the reference's.
        if "old_per_token_logps" in output and batch.scored:
            logps, entropies = batch.scored[0]
            self._logps = logps.tolist()
            self._entropies = None if entropies is None else entropies.tolist()
        if "sampling_per_token_logps" in output:
            self._logps = output["sampling_per_token_logps"].tolist()

    def sampled(self, b: int, prompt: Ids, ids: Ids, turn: Turn) -> Sampled | None:
        """Of the action of a turn of row b."""
        action, span = ids[turn.start : turn.end], slice(turn.start, turn.end)
        found = self._batch.samples.find(prompt + ids[: turn.start], action)
        if found is not None:
            return found
        given = self._batch.given("entropies", b, len(ids))
        logps = self._logps
        entropies = self._entropies[b][span] if self._entropies is not None else None
        if entropies is None and given is not None:
            entropies = given[span]
        if logps is None and entropies is None:
            return None
        return Sampled(action, logps[b][span] if logps is not None else (), entropies or ())


def gathered(rows: Sequence[RowOf], paw: PawConfig) -> list[list[Measured]]:
    """What `judge` reads of the rows of all processes.

    Raises:
        UserError: the selection needs entropies that nothing shows.
    """
    return gather_object(
        [
            [Measured(_entropy(t, paw), row.target_ids(t), t.current_ids) for t in row.turns]
            for row in rows
        ]
    )


def _entropy(turn: TurnOf, paw: PawConfig) -> float:
    """Mean over an action's tokens (Eq. 4); 0 where the selection does not read it."""
    if paw.select not in ("entropy", "lowest"):
        return 0.0
    sampled = turn.sampled
    if paw.entropy == "full":
        values = sampled.entropies if sampled is not None else ()
    else:
        logps = torch.tensor(sampled.logprobs if sampled is not None else ())
        values = objective.sampled_token_entropy(logps).tolist()
    if not values:
        raise UserError(
            f'nothing shows the entropies of actions (paw.entropy = "{paw.entropy}"): let the '
            "rollout_func return `entropies` [C] of each row, or set paw.entropy to "
            '"sampled" with its log-probs, or paw.select to "random" or "all"'
        )
    return sum(values) / len(values)


def weight_rows(rows: Sequence[RowOf], shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """[B, C] weight of each token as a target; 0 elsewhere, and where a placebo is predicted."""
    weights = torch.zeros(tuple(shape), dtype=dtype)
    for b, row in enumerate(rows):
        for turn in row.turns:
            if turn.predicted and turn.predicted == row.target_ids(turn):
                weights[b, list(turn.target)] = turn.token_weight
    return weights


@dataclass(slots=True)
class Update:
    """A generation batch while it is learned from."""

    number: int
    """The first is 1"""
    begun: int
    """Optimizer steps made before it"""
    rows: list[RowOf]
    """Of this process"""
    returns: list[float]
    """[N] of all processes; nan where nothing gave a reward"""
    metrics: dict[str, float] = field(default_factory=dict)
    """`wm/*` by our names, of all processes"""

    def take(self, judged: Judged, process: int) -> None:
        """What was decided about the rows of this process."""
        first = process * len(self.rows)
        for r, row in enumerate(self.rows, start=first):
            for t, turn in enumerate(row.turns):
                turn.token_weight = judged.token_weights[r][t]
                turn.predicted = judged.targets[r][t]
                turn.selected = judged.selected[r][t]
        self.metrics = judged.metrics()

    def placebos(self, numbers: Tensor) -> list[tuple[RowOf, TurnOf]]:
        """Turns of a micro-batch's rows whose target does not stand in its row."""
        rows = [self.rows[r] for r in numbers.tolist()]
        pairs = [(row, turn) for row in rows for turn in row.turns if turn.predicted]
        return [(row, turn) for row, turn in pairs if turn.predicted != row.target_ids(turn)]

    def meet(self, numbers: Tensor, logps: Tensor) -> None:
        """Log-probs [b, C] of a micro-batch's rows; those of the first pass are kept."""
        for r, values in zip(numbers.tolist(), logps.detach().float().tolist(), strict=True):
            row = self.rows[r]
            for turn in row.turns:
                if turn.logprobs is None and turn.predicted == row.target_ids(turn):
                    turn.logprobs = [values[p] for p in turn.target]


@dataclass(frozen=True, slots=True)
class OwnRows:
    """Rows that only predict: h_t a_t and a placebo. R rows, filled up on the left."""

    token_ids: Tensor
    """[R, L]"""
    mask: Tensor
    """[R, L]"""
    weights: Tensor
    """[R, O] of the last O tokens"""


def own_rows(
    placebos: Sequence[tuple[RowOf, TurnOf]], device: torch.device, dtype: torch.dtype
) -> OwnRows:
    """The rows of some placebos."""
    rows = [row.own_row(turn) + turn.predicted for row, turn in placebos]
    length, targets = max(map(len, rows)), max(len(turn.predicted) for _, turn in placebos)
    ids, mask = (torch.zeros(len(rows), length, dtype=torch.long) for _ in range(2))
    weights = torch.zeros(len(rows), targets, dtype=dtype)
    for r, (row, (_, turn)) in enumerate(zip(rows, placebos, strict=True)):
        ids[r, length - len(row) :] = torch.tensor(row)
        mask[r, length - len(row) :] = 1
        weights[r, targets - len(turn.predicted) :] = turn.token_weight
    return OwnRows(ids.to(device), mask.to(device), weights.to(device))
