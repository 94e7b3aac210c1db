"""Agents around a model that only answers messages: what it is asked, and the command it gave.

`plain`: the paper's prompt (`tags`, `window`), as a trained policy is asked.
`react`: thought and action in a growing conversation, as in ReAct (arXiv 2210.03629).
`reflexion`: `react` with several trials a task; after one that is not won the model writes down
what to do better and reads it in the next (Reflexion, arXiv 2303.11366).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from paw.envs.base import Observation, TaskSource
from paw.envs.expert import ExpertEpisode, play_expert
from paw.errors import UserError
from paw.evals.endpoint import Message
from paw.evals.replies import Reply
from paw.style import Style
from paw.text import prompts
from paw.text.parse import THINK_TAG, Parsed, edge_of, parse_response, read_thought
from paw.text.prompts import Seen
from paw.types import Task

NUM_REFLECTIONS = 3
"""Reflections that a trial reads, the latest (Reflexion's memory size)."""
EXPERT_TRIES = 20
"""Expert episodes played in search of one that wins."""
TASKS_SEARCHED = 400
"""Training tasks looked through for one of the right kind."""

ACTION = re.compile(
    r"^[\s>*_#-]*action(?:\s*\d+)?[*_]*\s*:[*_]*(.*)$", re.IGNORECASE | re.MULTILINE
)
INVENTED = re.compile(r"^[\s>*_#-]*observation(?:\s*\d+)?[*_]*\s*:", re.IGNORECASE | re.MULTILINE)

REACT_RULE = (
    "Think and act in turn. Each of your responses is one thought and one command, and nothing "
    "behind it:\nThought: what you know now and what to do next\nAction: {command}\n"
    "You then read what the command did."
)
REFLECT = (
    "You tried a task and failed. Below are the task and the record of the attempt. Do not "
    "summarise it. Say in a few sentences what went wrong and give a short plan, with the commands "
    "that matter, for the next attempt at this very task. You will read it then."
)


@dataclass(frozen=True, slots=True)
class Turn:
    """A past turn: what was read, answered and done."""

    observation: str
    response: str
    command: str


class Agent(Protocol):
    """Holds nothing of an episode, so that threads share it."""

    def messages(
        self,
        task: Task,
        past: Sequence[Turn],
        observation: Observation,
        reflections: Sequence[str] = (),
    ) -> list[Message]:
        """What the model is asked at this turn."""
        ...

    def response(self, reply: Reply) -> str:
        """The response as `parse` reads it and the history shows it."""
        ...

    def parse(self, response: str) -> Parsed:
        """The command for the environment."""
        ...


class Plain:
    """One prompt a turn: instruction, the last turns, the observation, the admissible commands."""

    def __init__(self, style: Style, history_turns: int) -> None:
        self._style = style
        self._history_turns = history_turns

    def messages(
        self,
        task: Task,
        past: Sequence[Turn],
        observation: Observation,
        reflections: Sequence[str] = (),
    ) -> list[Message]:
        """The `window` prompt of training, as one user message."""
        recent = past[max(0, len(past) - self._history_turns) :]
        history = [Seen(turn.observation, turn.command) for turn in recent]
        prompt = prompts.window(
            self._style, task, history, len(past), observation.text, observation.commands
        )
        return [{"role": "user", "content": prompt}]

    def response(self, reply: Reply) -> str:
        """With the reasoning that a server keeps apart, or whose opening tag it put in its prompt,
        back in its tags: the `tags` format asks for it."""
        text = reply.text
        tag = THINK_TAG.search(text)
        if tag is not None:
            kind, closes = edge_of(tag)
            return f"<{kind}>{text}" if closes else text
        # What the server took out stays in its one block, whatever tags it has itself.
        reasoning = THINK_TAG.sub("", reply.reasoning)
        return f"<think>{reasoning}</think>{text}" if reasoning else text

    def parse(self, response: str) -> Parsed:
        """As in training."""
        return parse_response(response, "tags", self._style)


class React:
    """A growing conversation of thoughts, commands and observations.

    `examples` are texts by kind of task (see `expert_example`); "" is the one of all others.
    Admissible commands are listed for the present observation only.
    """

    def __init__(self, style: Style, examples: Mapping[str, str] | None = None) -> None:
        self._style = style
        self._examples = examples or {}

    def messages(
        self,
        task: Task,
        past: Sequence[Turn],
        observation: Observation,
        reflections: Sequence[str] = (),
    ) -> list[Message]:
        """The whole episode so far."""
        shown = [turn.observation for turn in past]
        shown.append(observation.text + prompts.admissible(observation.commands, self._style))
        texts = [f"Observation: {text}" for text in shown]
        texts[0] = self._opening(task, texts[0], reflections)
        messages: list[Message] = []
        for text, turn in zip(texts, past, strict=False):
            messages.append({"role": "user", "content": text})
            # Some endpoints refuse an empty message.
            messages.append({"role": "assistant", "content": turn.response or "Thought:"})
        return [*messages, {"role": "user", "content": texts[-1]}]

    def response(self, reply: Reply) -> str:
        """Without the model's own reasoning, and cut where it goes on to invent an observation."""
        text = "".join(read_thought(reply.text).said)
        invented = INVENTED.search(text)
        return (text[: invented.start()] if invented else text).strip()

    def parse(self, response: str) -> Parsed:
        """The first `Action:` line, code and bold marks taken off; where commands are tags
        themselves (search-QA) the first complete one, as in training."""
        if self._style.keeps_tags:
            return parse_response(response, "tags", self._style)
        found = ACTION.search(response)
        command = found.group(1).strip().strip("`*").strip() if found else ""
        return parse_response(command, "command", self._style)

    def _opening(self, task: Task, first: str, reflections: Sequence[str]) -> str:
        rule = REACT_RULE.format(command=self._style.react_command)
        parts = [self._style.introduction, rule]
        example = self._examples.get(task.kind) or self._examples.get("")
        if example:
            parts.append(f"An example, its commands only:\n\n{example}\n\nNow the task.")
        if reflections:
            lines = [f"- {' '.join(r.split())}" for r in reflections[-NUM_REFLECTIONS:]]
            parts.append("What you wrote after failed attempts at this task:\n" + "\n".join(lines))
        if task.instruction not in first:
            parts.append(f"Your task is: {task.instruction}")
        return "\n\n".join([*parts, first])


def reflection_messages(
    task: Task, past: Sequence[Turn], end: str, reflections: Sequence[str]
) -> list[Message]:
    """Asks for a reflection on a trial that was not won and showed `end` at last."""
    record = "\n".join(f"Observation: {t.observation}\n{t.response or t.command}" for t in past)
    earlier = "".join(f"\n- {' '.join(r.split())}" for r in reflections[-NUM_REFLECTIONS:])
    parts = [
        REFLECT,
        f"Task: {task.instruction}",
        f"What you wrote after earlier attempts:{earlier}" if earlier else "",
        f"{record}\nObservation: {end}\nThe attempt is over: the task was not done.",
    ]
    return [{"role": "user", "content": "\n\n".join(part for part in parts if part)}]


def reflection_text(reply: Reply) -> str:
    """The reflection in a reply, without the model's own reasoning."""
    return "".join(read_thought(reply.text).said).strip()


def expert_example(source: TaskSource, kind: str, max_turns: int, avoid: frozenset[str]) -> str:
    """An expert's won episode of `kind` (of any kind where the tasks have none such) as text.

    Args:
        source: training tasks; the first suitable one is taken.
        kind: kind of task.
        max_turns: of the episode.
        avoid: ids of tasks that are evaluated.

    Raises:
        UserError: the environment has no expert, or it wins none of its first tasks.
    """
    seen = [source[i] for i in range(min(len(source), TASKS_SEARCHED))]
    tasks = [task for task in seen if task.id not in avoid]
    same = [task for task in tasks if task.kind == kind]
    for task in (same or tasks)[:EXPERT_TRIES]:
        try:
            expert = source.expert(task, 0)
        except NotImplementedError:
            raise UserError(f"--shots: {source.name} has no expert; use --shots 0") from None
        episode = play_expert(source, task, 0, expert, max_turns)
        if episode.success:
            return _told(task, episode)
    raise UserError(
        f"--shots: the expert of {source.name} {source.split} wins none of the tasks tried in "
        f"{max_turns} turns; use --shots 0"
    )


def _told(task: Task, episode: ExpertEpisode) -> str:
    told = task.instruction in episode.observations[0].text
    lines = [] if told else [f"Task: {task.instruction}"]
    for observation, command in zip(episode.observations, episode.commands, strict=False):
        lines += [f"Observation: {observation.text}", f"Action: {command}"]
    return "\n".join(lines)
