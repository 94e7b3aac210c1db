"""`paw data alfworld`: are the game files of the official release all there and whole?"""

import hashlib
import json
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from paw.envs.alfworld import files
from paw.envs.alfworld.files import GAME_FILE, GAMES, GOAL_FILE, KINDS, SPLITS
from paw.envs.download import Remote
from paw.envs.verify import Line, Progress, named
from paw.errors import UserError, nearest

OFFICIAL = dict(
    zip(
        KINDS,
        (
            (790, 35, 24, 46),
            (308, 13, 18, 19),
            (650, 27, 31, 37),
            (459, 16, 23, 25),
            (533, 25, 21, 28),
            (813, 24, 17, 45),
        ),
        strict=True,
    )
)
"""Games of each kind in each of SPLITS: 3,553, 140, 134 and 200, the release json_2.1.2_tw-pddl."""

DIGESTS = {
    "train": "2502423cc61a7b46269a819ada2ff5ac18e9f08013147ed9c0a3862647c8c6b1",
    "valid_seen": "dcc6df6ad4a51a11a976fe82f2429eb58752c34b3eadc1d09d49670be9d270b8",
}
"""sha256 of a split's games in order, see `content`; those of valid_unseen and valid_train are not
recorded. Taken from a copy of the release: problems and goal sentences of its valid_seen are equal
to those of a second, older copy; no archive of the release itself was at hand."""

LICENCE = "ALFWorld and ALFRED, MIT licence: keep their notices with the data"
RELEASES = "https://github.com/alfworld/alfworld/releases/download"
FILES = (
    Remote(
        "json_2.1.2_tw-pddl.zip",
        f"{RELEASES}/0.4.0/json_2.1.2_tw-pddl.zip",
        size=36_493_542,
        unpack=(GAME_FILE,),
    ),
    Remote(
        "json_2.1.1_json.zip",
        f"{RELEASES}/0.2.2/json_2.1.1_json.zip",
        size=72_018_818,
        unpack=(GOAL_FILE,),
    ),
)
"""The archives of `alfworld-download` that the text game needs; no hash of theirs is on record."""

SOURCES = """\
ALFWorld (arXiv 2010.03768), MIT licence. The games, 4,027 files:
    paw data alfworld --download DIR
    or, with 0.4 GB of packages: pip install alfworld && alfworld-download --data-dir DIR
Layout: DIR/json_2.1.1/{train,valid_seen,valid_unseen,valid_train}/<task>/<trial>/game.tw-pddl
(traj_data.json beside it is needed for env.goals = "human" alone).
Then: export ALFWORLD_DATA=DIR  (default ~/.cache/alfworld), or env.data_dir = "DIR"."""


def folder_of(named: str | None) -> Path | None:
    """The folder `named`, else $ALFWORLD_DATA, else ~/.cache/alfworld."""
    chosen = named or os.environ.get("ALFWORLD_DATA") or Path.home() / ".cache" / "alfworld"
    return Path(os.path.expandvars(chosen)).expanduser()


def inventory(folder: Path) -> list[Line]:
    """How many games each split has, by their names alone."""
    there = [split for split in SPLITS if (folder / GAMES / split).is_dir()]
    if not there:
        return [Line("--", "alfworld", f"no {GAMES} in {folder}", _get(folder))]
    counts = {s: sum(1 for _ in (folder / GAMES / s).glob(f"*/*/{GAME_FILE}")) for s in there}
    short = [s for s in SPLITS if counts.get(s, 0) < _official(s)]
    found = ", ".join(f"{s} {counts.get(s, 0):,}" for s in SPLITS)
    mend = f"`paw data alfworld --check {folder}` says what is missing" if short else ""
    return [Line("warn" if short else "ok", "alfworld", f"{folder}: {found} games", mend)]


def verify(folder: Path, splits: Sequence[str], progress: Progress) -> list[Line]:
    """Read every game of `splits` (default: all four), count them by kind, compare their contents.

    Raises:
        UserError: no such split.
    """
    for split in splits:
        if split not in SPLITS:
            raise UserError(f"alfworld: no split {split!r}{nearest(split, SPLITS)}")
    if not (folder / GAMES).is_dir():
        try:
            files.games_root(folder, "train")
        except UserError as error:
            return [Line("FAIL", GAMES, _first(error), _get(folder))]
    lines = []
    for split in splits or SPLITS:
        if (folder / GAMES / split).is_dir():
            lines += _split(folder, split, progress)
        else:
            lines.append(Line("FAIL", split, f"0 of {_official(split):,} games", _get(folder)))
    return lines


def _split(folder: Path, split: str, progress: Progress) -> list[Line]:
    root = folder / GAMES
    try:
        tasks = files.list_games(root, split, KINDS)
    except UserError:
        tasks = []
    except OSError as error:
        return [Line("FAIL", split, f"cannot be read: {error.strerror}", f"chmod -R u+rX {root}")]
    damaged, without_goal, good = [], 0, Counter[str]()
    total = hashlib.sha256()
    for task in progress(tasks, len(tasks), f"alfworld {split}"):
        try:
            total.update(content(root, task))
        except UserError as error:
            damaged.append(f"{task} ({_reason(error, root / task / GAME_FILE)})")
            continue
        good[files.kind_of(task)] += 1
        without_goal += not (root / task / GOAL_FILE).is_file()
    lines = [_counts(folder, split, good)]
    if lines[0].status == "ok" and not damaged:
        lines = _contents(folder, lines[0], total.hexdigest())
    if damaged:
        mend = f"delete them and fetch again: {_get(folder)}"
        lines.append(Line("FAIL", "", f"{len(damaged):,} unreadable: {named(damaged)}", mend))
    listed = set(tasks)
    present = {
        "/".join(path.parts[-4:-1]) for path in (root / split).glob(f"*/*/{GAME_FILE}")
    } - listed  # fmt: skip
    if present:
        found = f"{len(present):,} skipped (unsolvable, `movable`, `Sliced` or of another kind)"
        lines.append(Line("--", "", f"{found}: {named(sorted(present))}"))
    if without_goal:
        found = f"{without_goal:,} games without {GOAL_FILE}: not for env.goals = human"
        lines.append(Line("--", "", found))
    return lines


def _counts(folder: Path, split: str, good: Counter[str]) -> Line:
    """The split's line: the total, and the kinds that differ from the official numbers."""
    column = SPLITS.index(split)
    kinds = {kind: (good[kind], row[column]) for kind, row in OFFICIAL.items()}
    found = f"{good.total():,} of {_official(split):,} games"
    if odd := [f"{k} {n} of {o}" for k, (n, o) in kinds.items() if n != o]:
        found += f" ({', '.join(odd)})"
    if any(n < o for n, o in kinds.values()):
        return Line("FAIL", split, found, _get(folder))
    mend = "more than the official release has: results are not comparable with others'"
    return Line("warn" if odd else "ok", split, found, mend if odd else "")


def content(root: Path, task: str) -> bytes:
    """sha256 of what a game is played from: its id, problem, goal sentence and walkthrough.

    Not of the file's bytes: other white space, order of keys or escapes in the JSON, or another
    domain text, which the engine does not read, make no other game.

    Raises:
        UserError: the game cannot be read.
    """
    game = files.read_game(root, task)
    problem = json.loads((root / task / GAME_FILE).read_bytes())["pddl_problem"]
    parts = [task, problem, game.task, game.walkthrough]
    return hashlib.sha256(json.dumps(parts).encode()).digest()


def _contents(folder: Path, counted: Line, digest: str) -> list[Line]:
    """The line of a split that has all its games, and one more where they are not the official."""
    split, short = counted.what, digest[:16]
    official = DIGESTS.get(split)
    if official is None:
        return [replace(counted, found=f"{counted.found}; digest {short}…, not on record")]
    if digest == official:
        return [replace(counted, found=f"{counted.found}, contents as released")]
    found = f"one game or more differs from the official (digest {short}…, not {official[:16]}…)"
    mend = f"delete {folder / GAMES / split} and fetch again: {_get(folder)}"
    return [counted, Line("FAIL", "", found, mend)]


def _official(split: str) -> int:
    return sum(row[SPLITS.index(split)] for row in OFFICIAL.values())


def _get(folder: Path) -> str:
    return f"pip install alfworld && alfworld-download --data-dir {folder}"


def _first(error: UserError) -> str:
    return str(error).removeprefix("alfworld: ").partition("; ")[0]


def _reason(error: UserError, path: Path) -> str:
    """Why a game cannot be read, without its path and without how to get it."""
    reason = _first(error).removeprefix(f"{path}: ")
    return "cut off or not JSON" if isinstance(_root(error), json.JSONDecodeError) else reason


def _root(error: BaseException) -> BaseException:
    while error.__cause__ is not None:
        error = error.__cause__
    return error
