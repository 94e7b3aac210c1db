"""Prompt texts: pure string functions. A prompt is spans, so that each token's role is known."""

from collections.abc import Sequence
from dataclasses import dataclass

from paw.style import Style
from paw.types import Role, Task


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a turn: `text` with the role of its tokens (CONTEXT or OBSERVATION)."""

    text: str
    role: Role = Role.CONTEXT
    own: bool = False
    """No environment wrote it: think tags in it are the tokenizer's own tokens, where it has some,
    and not text."""


@dataclass(frozen=True, slots=True)
class Seen:
    """One past turn as a `window` prompt tells it: what was read and what was done."""

    observation: str
    command: str


def admissible(commands: Sequence[str], style: Style) -> str:
    """The paragraph that lists the admissible commands; empty where the style shows none."""
    if not style.shows_commands or not commands:
        return ""
    shown = [c for c in commands if c not in style.hidden_commands]
    return "\nYour admissible commands are: [" + ", ".join(f"'{c}'" for c in shown) + "]."


def opening(style: Style, tags: bool, task: Task, text: str, commands: Sequence[str]) -> list[Span]:
    """First user turn of a growing conversation; `tags=False` gives the bare observation."""
    if not tags:
        return [Span(text)]
    ask = "" if task.instruction in text else f"\nYour task is: {task.instruction}"
    return [
        Span(style.introduction, own=True),
        Span(ask),
        Span(f"\n{style.rule}\nYour current observation is: ", own=True),
        Span(text + admissible(commands, style)),
    ]


def turn(style: Style, tags: bool, text: str, commands: Sequence[str]) -> list[Span]:
    """A later user turn of a growing conversation: the observation first, so that it stands right
    behind the turn's header as the target of the action before it."""
    spans = [Span(text, Role.OBSERVATION)]
    extra = admissible(commands, style) if tags else ""
    return spans + ([Span(extra)] if extra else [])


def window_spans(
    style: Style,
    task: Task,
    history: Sequence[Seen],
    num_taken: int,
    text: str,
    commands: Sequence[str],
) -> list[Span]:
    """One whole `window` prompt in the `tags` format (the paper's): instruction, the last turns,
    the current observation, the admissible commands."""
    lines = [""]
    if num_taken or task.instruction not in text:
        lines.append(f"Your task is: {task.instruction}")
    if num_taken:
        lines.append(
            f"So far you have taken {num_taken} step(s). The last {len(history)} observations and "
            "the commands you gave were:"
        )
        first = num_taken - len(history) + 1
        lines += [
            f"[Observation {i}: '{seen.observation}', Command {i}: '{seen.command}']"
            for i, seen in enumerate(history, first)
        ]
        lines.append(f"You are now at step {num_taken + 1}.")
    lines.append(f"Your current observation is: {text}{admissible(commands, style)}")
    return [
        Span(style.introduction, own=True),
        Span("\n".join(lines)),
        Span(f"\n{style.rule}", own=True),
    ]


def window(
    style: Style,
    task: Task,
    history: Sequence[Seen],
    num_taken: int,
    text: str,
    commands: Sequence[str],
) -> str:
    """`window_spans` as one text."""
    spans = window_spans(style, task, history, num_taken, text, commands)
    return "".join(span.text for span in spans)
