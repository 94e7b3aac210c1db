"""Prompt texts: pure string functions. A prompt is spans, so that each token's role is known."""

from collections.abc import Sequence
from dataclasses import dataclass

from paw.types import Role, Task


@dataclass(frozen=True, slots=True)
class Span:
    """A piece of a user turn: `text` with the role of its tokens (CONTEXT or OBSERVATION)."""

    text: str
    role: Role = Role.CONTEXT


@dataclass(frozen=True, slots=True)
class Seen:
    """One past turn as a `window` prompt tells it: what was read and what was done."""

    observation: str
    command: str


INTRODUCTION = {
    "alfworld": "You are an agent in a household described in text (ALFWorld).",
    "household": "You are an agent in a household described in text.",
    "webshop": "You are an agent in an online shop (WebShop). Find and buy what is asked for.",
    "search_qa": "Answer the question. You may search a text collection as often as allowed.",
}
ANSWER_RULE = (
    "First reason about the situation inside <think> </think>. Then give one command inside "
    "<action> </action>."
)
SEARCH_RULE = (
    "First reason inside <think> </think> whenever you get new information. Then either search "
    "with <search> query </search>; the best results come back between <information> and "
    "</information>; or, when you know enough, answer with <answer> answer </answer>, in a few "
    "words and without explanation."
)


def introduction(environment: str) -> str:
    """Where the agent is, in a sentence."""
    return INTRODUCTION.get(environment, "You are an agent in an environment of text.")


def rule(environment: str) -> str:
    """What a response has to look like in the `tags` format."""
    return SEARCH_RULE if environment == "search_qa" else ANSWER_RULE


def admissible(commands: Sequence[str], environment: str) -> str:
    """The paragraph that lists the admissible commands; empty for free text (search-QA)."""
    if environment == "search_qa" or not commands:
        return ""
    shown = [c for c in commands if c != "help"]
    return "\nYour admissible commands are: [" + ", ".join(f"'{c}'" for c in shown) + "]."


def opening(
    environment: str, tags: bool, task: Task, text: str, commands: Sequence[str]
) -> list[Span]:
    """First user turn of a growing conversation; `tags=False` gives the bare observation."""
    if not tags:
        return [Span(text)]
    ask = "" if task.instruction in text else f"\nYour task is: {task.instruction}"
    head = f"{introduction(environment)}{ask}\n{rule(environment)}\nYour current observation is: "
    return [Span(head + text + admissible(commands, environment))]


def turn(environment: str, tags: bool, text: str, commands: Sequence[str]) -> list[Span]:
    """A later user turn of a growing conversation: the observation first, so that it stands right
    behind the turn's header as the target of the action before it."""
    spans = [Span(text, Role.OBSERVATION)]
    extra = admissible(commands, environment) if tags else ""
    return spans + ([Span(extra)] if extra else [])


def window(
    environment: str,
    task: Task,
    history: Sequence[Seen],
    num_taken: int,
    text: str,
    commands: Sequence[str],
) -> str:
    """One whole `window` prompt in the `tags` format (the paper's): instruction, the last turns,
    the current observation, the admissible commands."""
    lines = [introduction(environment)]
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
    lines.append(f"Your current observation is: {text}{admissible(commands, environment)}")
    lines.append(rule(environment))
    return "\n".join(lines)
