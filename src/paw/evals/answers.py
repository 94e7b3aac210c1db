"""What an environment answered, turn by turn of a trajectory file: texts alone, the same for every
model that is asked how well it predicts them."""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import SequenceMatcher
from functools import lru_cache

from paw.errors import UserError
from paw.runs.format import TrajectoryRecord, TurnRecord
from paw.style import Style, Wording
from paw.text.parse import parse_response

PIECE = re.compile(r"\w+|\s+|[^\w\s]")
"""What two observations are compared by: words, numbers, signs, white space."""
SLOT = re.compile(r"<\w+>")
"""In an admissible command: what stands there is the agent's to choose. (So are the tags of a
command that is written in tags.)"""


@dataclass(frozen=True, slots=True)
class Answer:
    """A next observation, o_{t+1}, and the command before it."""

    episode: int
    """Index in the file"""
    task: str
    """Its task's name, which other episodes may have too"""
    turn: int
    """t, from 0"""
    command: str
    other_command: str | None
    """Another one that was admissible, drawn by chance; None where there is none"""
    text: str
    accepted: bool
    """The turn was valid"""
    classes: tuple[int, ...]
    """[characters] index in `Wording.classes`"""
    changed: tuple[bool, ...]
    """[characters] not in the likeliest observation after a command of this kind"""


def read_answers(records: Sequence[TrajectoryRecord], style: Style, seed: int) -> list[Answer]:
    """Every next observation of usable episodes, in order.

    Args:
        records: of a trajectory file; those whose environment failed are left out.
        style: of their environment.
        seed: of the draws of other commands.

    Raises:
        UserError: nothing there to predict, or a wording that contradicts itself.
    """
    told = [
        (episode, t, turn, command)
        for episode, record in enumerate(records)
        if record.failure is None
        for t, (turn, command) in enumerate(
            zip(record.turns, commands_of(record, style), strict=True)
        )
        if turn.next_observation and not turn.next_observation.isspace()
    ]
    if not told:
        raise UserError("no next observation in any usable episode: there is nothing to predict")
    wording = style.wording
    likeliest = _likeliest(told, wording)
    given: dict[str, list[str]] = defaultdict(list)
    for _, _, turn, command in told:
        if turn.valid:
            given[wording.kind(command)].append(command)
    pools = {kind: sorted(set(commands)) for kind, commands in given.items()}
    answers = []
    for episode, t, turn, command in told:
        text = turn.next_observation or ""
        task = records[episode].task
        rng = random.Random(f"{seed} {episode} {t}")
        answers.append(
            Answer(
                episode,
                task.id,
                t,
                command,
                _other(turn, command, pools, style, rng),
                text,
                turn.valid,
                classes_of(text, command, task.instruction, wording),
                changed_from(likeliest[wording.kind(command)], text),
            )
        )
    return answers


def commands_of(record: TrajectoryRecord, style: Style) -> list[str]:
    """The command of each turn. Demonstrations of `paw imitate` hold responses alone, of either
    format."""
    if any(turn.command for turn in record.turns):
        return [turn.command for turn in record.turns]
    commands = []
    for turn in record.turns:
        tagged = parse_response(turn.response, "tags", style)
        plain = parse_response(turn.response, "command", style)
        commands.append((tagged if tagged.well_formed else plain).command)
    return commands


def classes_of(text: str, command: str, instruction: str, wording: Wording) -> tuple[int, ...]:
    """[characters] the index in `wording.classes` of what each belongs to.

    Raises:
        UserError: the wording finds a class that it does not have.
    """
    last = len(wording.classes) - 1
    found = [last] * len(text)
    for name, start, stop in wording.find(text, command, instruction):
        if name not in wording.classes:
            raise UserError(f"the environment's wording finds {name!r}, which is no class of it")
        rank = wording.classes.index(name)
        for at in range(max(start, 0), min(stop, len(text))):
            found[at] = min(found[at], rank)
    return tuple(found)


@lru_cache(maxsize=10_000)
def changed_from(likeliest: str, text: str) -> tuple[bool, ...]:
    """[characters of `text`] False where its words stand in `likeliest` too, in the same order:
    the longest common parts, as `difflib` finds them."""
    theirs, ours = (tuple(PIECE.findall(x)) for x in (likeliest, text))
    starts = [match.start() for match in PIECE.finditer(text)] + [len(text)]
    changed = [True] * len(text)
    matcher = SequenceMatcher(None, theirs, ours, autojunk=False)
    for block in matcher.get_matching_blocks():
        start, stop = starts[block.b], starts[block.b + block.size]
        changed[start:stop] = [False] * (stop - start)
    return tuple(changed)


def _likeliest(
    told: Sequence[tuple[int, int, TurnRecord, str]], wording: Wording
) -> dict[str, str]:
    """The most frequent observation after each kind of command; of equals the first in the file."""
    seen: dict[str, Counter[str]] = defaultdict(Counter)
    for _, _, turn, command in told:
        seen[wording.kind(command)][turn.next_observation or ""] += 1
    return {kind: texts.most_common(1)[0][0] for kind, texts in seen.items()}


def _other(
    turn: TurnRecord,
    command: str,
    pools: dict[str, list[str]],
    style: Style,
    rng: random.Random,
) -> str | None:
    """A command that was admissible beside `command`; what is the agent's to choose in it is taken
    from another turn of the file."""
    choices = []
    for admissible in turn.commands:
        if SLOT.search(admissible):
            pool = pools.get(style.wording.kind(admissible), [])
            choices.append([c for c in pool if c != command])
        elif admissible != command and admissible not in style.hidden_commands:
            choices.append([admissible])
    choices = [some for some in choices if some]
    return rng.choice(rng.choice(choices)) if choices else None
