"""What a model says of the answers of a trajectory file, token by token.

The model is asked as it is played: its own tokenizer, context and response format. Each answer is a
row of its own for each condition, so that both contexts are one code; rows that begin alike are
computed once.

    true    h_t, the response that was given, the header, o_{t+1}
    other   the same with another admissible command, written in the model's format
    none    the same without a response
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from paw.evals.answers import Answer, commands_of
from paw.model.policy import Policy
from paw.model.spans import SpanRow, SpanScores, score_spans
from paw.rollout.collect import has_room
from paw.runs.format import TrajectoryRecord, TurnRecord
from paw.text.dialogue import Serializer
from paw.text.parse import write_response
from paw.types import NO_ACTION, SampledAction

TRUE, OTHER, NONE = CONDITIONS = ("true", "other", "none")
MAX_TOKENS = 16_384
"""Of one forward pass, beginnings that rows share counted in each. No gradient is kept."""


@dataclass(frozen=True, slots=True)
class Asked:
    """An answer as a model reads it."""

    answer: Answer
    rows: Mapping[str, SpanRow]
    """By condition; none of another command where there is none"""
    offsets: Sequence[tuple[int, int]]
    """[target tokens] characters of the observation that each stands for"""
    prompt_cut: bool
    """`rollout.max_prompt_tokens` cut the middle out of h_t"""

    @property
    def longest(self) -> int:
        """Tokens of its longest row."""
        return max(row.base_length for row in self.rows.values())


@dataclass(frozen=True, slots=True, eq=False)
class Predictions:
    """Log-probs of T tokens of R answers, end to end."""

    logprobs: Mapping[str, NDArray[np.float64]]
    """[T] by condition, nats; NaN where there is no other command"""
    is_top: NDArray[np.bool_]
    """[T] no token is more probable, given the true action"""
    classes: NDArray[np.int64]
    """[T] index in `Wording.classes`"""
    changed: NDArray[np.bool_]
    """[T] not in the likeliest observation after such a command"""
    accepted: NDArray[np.bool_]
    """[T] of an accepted command"""
    answer: NDArray[np.int64]
    """[T] 0..R-1"""
    task: NDArray[np.int64]
    """[R] equal for answers of one task: of several episodes of it, too"""


def ask(
    serializer: Serializer,
    record: TrajectoryRecord,
    answers: Mapping[int, Answer],
    conditions: Sequence[str] = CONDITIONS,
) -> Iterator[Asked]:
    """Those of an episode's answers, by turn, that the model can be asked about: as far as the
    conversation fits into `rollout.max_prompt_tokens`.

    Responses are given as they were sampled where the tokenizer is the one that sampled them, else
    as the same text, or as the same command in the model's own response format.

    Args:
        serializer: of the model's prompts; its targets are uncut.
        record: the episode.
        answers: by turn.
        conditions: some of `CONDITIONS`.
    """
    dialogue = serializer.dialogue(record.task)
    commands = commands_of(record, serializer.style)
    shown = [turn.commands for turn in record.turns[1:]] + [()]
    for t, (turn, command, following) in enumerate(zip(record.turns, commands, shown, strict=True)):
        dialogue.observe(turn.observation, turn.commands)
        prompt = dialogue.prompt()
        if not has_room(prompt, serializer):
            return
        action = _action(serializer, turn, command)
        if t in answers:
            text = answers[t].text
            target, _ = serializer.target(text, following)
            given = {TRUE: action, OTHER: _other(serializer, answers[t]), NONE: NO_ACTION}
            header = serializer.header(text, following)
            rows = {}
            for condition in conditions:
                if (response := given[condition]) is not None:
                    scaffold = serializer.to_user(response, header)
                    before = prompt.token_ids + response.token_ids + scaffold
                    span = (len(before), len(before) + len(target))
                    rows[condition] = SpanRow(before + target, [span])
            if target:
                offsets = serializer.offsets(text, following)
                yield Asked(answers[t], rows, offsets, prompt.num_cut_tokens > 0)
        dialogue.act(action, command)


def predict(
    policy: Policy,
    asked: Iterator[Asked],
    *,
    num_classes: int,
    max_tokens: int = MAX_TOKENS,
    progress: Callable[[int], None] = lambda done: None,
) -> Predictions:
    """Ask a model, without gradients, about all of `asked`.

    Args:
        policy: the model.
        asked: in order of episodes; all with the true action.
        num_classes: of the environment's wording.
        max_tokens: of one forward pass.
        progress: told how many answers are done.
    """
    waiting: deque[tuple[Asked, str]] = deque()

    def rows() -> Iterator[SpanRow]:
        for one in asked:
            for condition, row in one.rows.items():
                waiting.append((one, condition))
                yield row

    columns = _Columns(num_classes)
    found: dict[str, SpanScores] = {}
    for (scores,) in score_spans(policy, rows(), max_tokens, share=True):
        one, condition = waiting.popleft()
        found[condition] = scores
        if len(found) == len(one.rows):
            columns.add(one, found)
            found = {}
            progress(len(columns.task))
    return columns.predictions()


class _Columns:
    """Predictions in the making."""

    def __init__(self, num_classes: int) -> None:
        self.last_class = num_classes - 1
        self.logprobs: dict[str, list[float]] = {condition: [] for condition in CONDITIONS}
        self.is_top: list[bool] = []
        self.classes: list[int] = []
        self.changed: list[bool] = []
        self.accepted: list[bool] = []
        self.answer: list[int] = []
        self.task: list[str] = []

    def add(self, asked: Asked, found: Mapping[str, SpanScores]) -> None:
        answer, count = asked.answer, len(asked.offsets)
        for condition, values in self.logprobs.items():
            scores = found.get(condition)
            values += [float("nan")] * count if scores is None else scores.logprobs
        self.is_top += found[TRUE].is_top
        for start, stop in asked.offsets:
            where = _visible(answer.text, start, stop)
            self.classes.append(min((answer.classes[i] for i in where), default=self.last_class))
            self.changed.append(any(answer.changed[i] for i in where))
        self.accepted += [answer.accepted] * count
        self.answer += [len(self.task)] * count
        self.task.append(answer.task)

    def predictions(self) -> Predictions:
        return Predictions(
            {condition: np.array(values) for condition, values in self.logprobs.items()},
            np.array(self.is_top),
            np.array(self.classes),
            np.array(self.changed),
            np.array(self.accepted),
            np.array(self.answer),
            np.unique(self.task, return_inverse=True)[1],
        )


def _action(serializer: Serializer, turn: TurnRecord, command: str) -> SampledAction:
    """The response of a turn as this model would have written it."""
    if turn.action_ids and max(turn.action_ids) < len(serializer.tokenizer):
        sampled = SampledAction(turn.action_ids, (), None, finished=turn.finished)
        if serializer.response(sampled) == turn.response:
            return sampled
    text = turn.response
    if command and serializer.parse(text).command != command:
        return _written(serializer, command)
    return SampledAction(serializer.format.response(text), (), None, finished=True)


def _other(serializer: Serializer, answer: Answer) -> SampledAction | None:
    command = answer.other_command
    return None if command is None else _written(serializer, command)


def _written(serializer: Serializer, command: str) -> SampledAction:
    text = write_response(command, serializer.response_format, serializer.style)
    return SampledAction(serializer.format.response(text), (), None, finished=True)


def _visible(text: str, start: int, stop: int) -> list[int]:
    """The characters of a token but for white space, which goes with the word behind it; those of
    white space alone."""
    where = range(start, stop)
    return [i for i in where if not text[i].isspace()] or list(where)
