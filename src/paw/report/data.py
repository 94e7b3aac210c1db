"""What stands in a page of `paw report`, as types: `gather` writes it, scripts in `page/` read it.

The page holds one `Page` as JSON and, compressed beside it, one `Chunk` a group of episodes, which
the browser unpacks when somebody looks at it. Everything that environments and models have written
is text in here, never markup. A live page gets the same from its server.
"""

from typing import Any

import msgspec

from paw.style import Block

FORMAT = 1
"""Of `Page` and `Chunk`; the scripts refuse another."""


class Oddity(msgspec.Struct, frozen=True, kw_only=True):
    """Something that a person should look at: "valid actions fell from 62 % to 31 %"."""

    text: str
    first: int | None = None
    """Update where it begins, and where it ends"""
    last: int | None = None
    metric: str | None = None
    """Whose curve shows it"""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """Success of one kind of task, or of all (`kind` is empty)."""

    kind: str
    success: float
    low: float
    """Wilson, 95 %"""
    high: float
    episodes: int


class Evaluation(msgspec.Struct, frozen=True, kw_only=True):
    """One evaluation."""

    update: int | None
    """None in a file of `paw eval -o`"""
    split: str
    temperature: float | None
    kinds: tuple[Kind, ...]
    """All tasks first, then each kind"""
    failures: dict[str, int]
    """Number of episodes by reason; not among the others"""


class Episodes(msgspec.Struct, frozen=True, kw_only=True):
    """All episodes of a run as columns of one length; row i is episode i of the run."""

    update: tuple[int | None, ...]
    """None in an evaluation of `paw eval`"""
    group: tuple[int, ...]
    """Episodes of one update and group played the same task"""
    index: tuple[int, ...]
    task: tuple[int, ...]
    """Into `Run.tasks`"""
    success: tuple[bool, ...]
    return_: tuple[float, ...] = msgspec.field(name="return")
    turns: tuple[int, ...]
    valid: tuple[float | None, ...]
    """Share of valid turns; None without turns"""
    failure: tuple[str | None, ...]
    """Why its environment failed"""
    nll: tuple[float | None, ...]
    """Of a token of the next observations whose probability was kept, mean, nats"""
    advantage: tuple[float | None, ...]
    """Mean over its turns"""
    chunk: tuple[int, ...]
    """The chunk in which it is kept whole; -1: left out"""
    place: tuple[int, ...]
    """Its place in that chunk"""
    why: tuple[str, ...]
    """Why it was kept: "first", "last", "best", "worst", "most surprising", "failed", "beside" (of
    the group of such a one), "room"; "" where it was left out"""


class Task(msgspec.Struct, frozen=True, kw_only=True):
    """One task."""

    id: str
    kind: str
    instruction: str


class Run(msgspec.Struct, frozen=True, kw_only=True):
    """One run directory, or one file of `paw eval -o`."""

    name: str
    path: str
    source: str
    """run | evaluation"""
    state: str
    """finished | unfinished | failed | empty"""
    reason: str | None = None
    """Why it failed, or why it is shown in part"""
    env: str
    facts: tuple[tuple[str, str], ...]
    """(what, value): environment, model, algorithm, prediction, commit, data, versions"""
    probability_cap: float | None
    """rho; None where nothing is predicted"""
    loss: str | None
    """Of the prediction: cmae | mae | ce"""
    updates: int
    """Made"""
    planned: int | None
    odd: tuple[Oddity, ...]
    metrics: dict[str, tuple[float | None, ...]]
    """By name, `update` among them; all of one length"""
    evaluations: tuple[Evaluation, ...]
    tasks: tuple[Task, ...]
    episodes: Episodes
    left_out: str
    """Which episodes were left out and by what rule; "" where none was"""
    arm: str | None = None
    """In a comparison"""
    seed: int | None = None


class Page(msgspec.Struct, frozen=True, kw_only=True):
    """Everything but the episodes themselves."""

    format: int = FORMAT
    version: str
    """Of paw"""
    title: str
    runs: tuple[Run, ...]
    comparison: dict[str, Any] | None = None
    """compare.json of a comparison (docs/compare.md), whose runs stand in `runs`"""
    metrics: dict[str, str]
    """Meaning of each metric, by name"""
    live: bool = False


class Tokens(msgspec.Struct, frozen=True, kw_only=True):
    """n tokens as columns; their texts in a row are the text. None: not known."""

    text: tuple[str, ...]
    id: tuple[int, ...]
    role: tuple[int, ...] | None = None
    """0 context, 1 action, 2 observation, 3 scaffold"""
    entropy: tuple[float, ...] | None = None
    """Of the distribution that the token was drawn from, nats"""
    logprob: tuple[float | None, ...] | None = None
    """Of the token at temperature 1: of an action when it was sampled, of a target when it was
    learned"""


class Turn(msgspec.Struct, frozen=True, kw_only=True):
    """One turn of an episode."""

    observation: str
    commands: tuple[str, ...]
    response: str
    command: str
    reward: float
    penalty: float
    valid: bool
    next_observation: str | None
    context: Tokens | None = None
    """What was read since the last action (`append`), or the whole prompt (`window`); None without
    a tokenizer"""
    action: Tokens | None = None
    target: Tokens | None = None
    """Of the next observation, where it was learned; with a placebo something else"""
    advantage: float | None = None
    selected: bool = False
    """By Eq. 4"""
    weight: float = 0.0
    """In the prediction's loss (Eq. 11)"""
    share: float | None = None
    """Of the update's whole prediction loss, 0 to 1"""
    notes: tuple[str, ...] = ()
    """"cut by max_response_tokens", "37 tokens of the prompt cut" and the like"""
    scene: tuple[Block, ...] = ()
    """What the environment shows of `observation` in its own way"""


class Episode(msgspec.Struct, frozen=True, kw_only=True):
    """One episode, whole."""

    row: int
    """Of `Run.episodes`"""
    score: float | None
    terminated: bool
    prompt_limit: bool
    group_weight: float | None
    """lambda_g (Eq. 10) of its group; None where nothing was selected"""
    turns: tuple[Turn, ...]


class Chunk(msgspec.Struct, frozen=True, kw_only=True):
    """The kept episodes of one group of one run."""

    run: int
    """Into `Page.runs`"""
    episodes: tuple[Episode, ...]
