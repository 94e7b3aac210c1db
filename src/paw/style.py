"""How an environment is asked, read and scored, wherever its name is all that is known of it.

An environment says it once, as its factory's attribute `style`. Prompts, parsing, evaluation and
the configuration's defaults take it from there: `paw.envs.style(name)`.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

REASON = "First reason about the situation inside <think> </think>. Then give"

WORD = re.compile(r"[^\W\d_]+")
LINKS = frozenset((
    "a", "an", "and", "are", "at", "by", "did", "do", "does", "for", "from", "how", "in", "into",
    "is", "of", "off", "on", "onto", "or", "the", "to", "was", "were", "what", "when", "where",
    "which", "who", "whom", "whose", "why", "with",
))  # fmt: skip
"""Words that name nothing."""

Found = tuple[str, int, int]
"""(class, first character, one past the last)"""


@dataclass(frozen=True, slots=True)
class Block:
    """A part of an environment's own view of a turn, for people: `paw report` draws it."""

    kind: Literal["facts", "items", "buttons", "passage"]
    """facts: labels and texts; items: a list; passage: long texts under their labels"""
    title: str
    entries: tuple[tuple[str, str], ...]
    """(label, text); a label may be empty"""
    marks: tuple[tuple[int, int, int], ...] = ()
    """(entry, first character, one past the last): what to mark in the texts"""


Step = tuple[str, str]
"""(what was seen, the command that was given then)"""


@dataclass(frozen=True, slots=True)
class Wording:
    """What an environment's texts are made of, for what is measured of their prediction."""

    classes: tuple[str, ...]
    """Classes of tokens. Where two claim a token the earlier has it; the last is all else."""
    find: Callable[[str, str, str], Iterable[Found]]
    """(observation, the command before it, the task's instruction) -> what is found where"""
    kind: Callable[[str], str]
    """command -> its kind: after commands of one kind observations are likely alike"""


def words_of(text: str) -> set[str]:
    """The words of a text in lower case that may name something."""
    return {word.lower() for word in WORD.findall(text)} - LINKS


def verb(command: str) -> str:
    """The first word of a command: `go to shelf 1` is `go`, `search[shoes]` is `search`."""
    found = WORD.search(command)
    return found[0].lower() if found else ""


def _game_words(text: str, command: str, instruction: str) -> Iterator[Found]:
    """Things have a number behind their name: "a mug 2"."""
    said = words_of(command.partition(" ")[2])
    for match in WORD.finditer(text):
        if match[0].lower() in said:
            yield "names in the command", *match.span()
        elif re.match(r" \d", text[match.end() : match.end() + 2]):
            yield "other names", *match.span()
    for match in re.finditer(r"\d+", text):
        yield "numbers", *match.span()


GAME = Wording(("names in the command", "other names", "numbers", "fixed words"), _game_words, verb)
"""Of a game of commands."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Style:
    """What is particular to one environment; the defaults suit a game of commands.

    Raises:
        ValueError: tags that are not words, or a rule that does not name them.
    """

    introduction: str = "You are an agent in an environment of text."
    """Where the agent is, in a sentence: the first of a prompt in the `tags` format."""
    tags: tuple[str, ...] = ("action",)
    """A response's command stands in the first complete pair of one of these tags."""
    keeps_tags: bool = False
    """The environment's commands are such pairs, tags included; otherwise what stands in them."""
    needs_reasoning: bool = True
    """A response without <think> </think> before its command is malformed."""
    rule: str = ""
    """What a response has to look like in the `tags` format; empty: a sentence with the tags."""
    lower_case: bool = False
    """Commands are lower case throughout; a response's is lowered."""
    shows_commands: bool = True
    """Prompts in the `tags` format list the admissible commands."""
    hidden_commands: tuple[str, ...] = ()
    """Admissible commands that no prompt lists."""
    react_command: str = "the command"
    """What stands behind `Action:` in the instruction of the ReAct agent."""
    validation_split: str | None = None
    """Split on which training evaluates unless told otherwise; None: the split it trains on."""
    rate_name: str = "success"
    """The share of episodes with success, in tables of results."""
    score_name: str | None = None
    """`info["score"]` in such tables; None: `score`, left out where it says the same as success."""
    tasks_name: str = "tasks"
    """The tasks of a split, in such tables."""
    average_over: str | None = None
    """What the kinds of task are called where a benchmark's result is the mean over them, each the
    same weight; None: its result is that of all tasks together."""
    protocol: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)
    """Configuration of training and evaluation that differs from the defaults: table -> key ->
    value, such as {"rollout": {"max_turns": 15}}. A card, a file or a flag goes before it."""
    wording: Wording = GAME
    """Classes of tokens and kinds of command, for `paw wm-eval` and `paw noise`."""
    scenes: Callable[[str, Sequence[Step]], Iterable[Sequence[Block]]] | None = None
    """(the task's instruction, all turns of an episode) -> of each turn what is seen at it and what
    follows from those before it, from the texts alone; None: there are only the texts"""

    def __post_init__(self) -> None:
        if not self.tags or not all(re.fullmatch(r"\w+", tag) for tag in self.tags):
            raise ValueError(f"a style's tags are words, at least one, not {self.tags!r}")
        if not self.rule:
            shown = " or ".join(f"<{tag}> </{tag}>" for tag in self.tags)
            start = REASON if self.needs_reasoning else "Give"
            object.__setattr__(self, "rule", f"{start} one command inside {shown}.")
        for tag in self.tags:
            if f"<{tag}>" not in self.rule:
                raise ValueError(f"a style's rule has to name its tags; <{tag}> is not in it")
