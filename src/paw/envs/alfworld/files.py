"""Where the game files lie, which of them are tasks, and one clear line when something is amiss."""

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from paw.envs.alfworld.game import Game, GameFileError, find_task_sentence, parse_game
from paw.errors import UserError
from paw.utf8 import utf8

SPLITS = ("train", "valid_seen", "valid_unseen", "valid_train")
KINDS = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)
GAMES = "json_2.1.1"
GAME_FILE = "game.tw-pddl"
GOAL_FILE = "traj_data.json"
TAIL_BYTES = 2048


def games_root(data_dir: str | os.PathLike[str] | None, split: str) -> Path:
    """The folder `json_2.1.1`, which holds the splits.

    Raises:
        UserError: it, or the split's folder in it, is not there.
    """
    named = data_dir or os.environ.get("ALFWORLD_DATA") or Path.home() / ".cache" / "alfworld"
    folder = Path(os.path.expandvars(named)).expanduser()
    root = folder / GAMES
    if not root.is_dir():
        found = f"; give its parent {folder.parent}" if folder.name == GAMES else ""
        raise UserError(
            f"alfworld: no folder {GAMES} in {folder}{found or _how_to_get(folder)}"
            + ("" if data_dir or found else "; or set env.data_dir or ALFWORLD_DATA")
        )
    if not (root / split).is_dir():
        there = ", ".join(s for s in SPLITS if (root / s).is_dir()) or "none"
        raise UserError(
            f"alfworld: no split {split} in {root} (there: {there}){_how_to_get(folder)}"
        )
    return root


def list_games(root: Path, split: str, kinds: Sequence[str]) -> list[str]:
    """Ids of the games of these kinds, sorted; reads names and the end of each file only.

    Raises:
        UserError: there are none, or a folder cannot be read.
    """
    try:
        ids = sorted(_scan(root, split, kinds))
    except OSError as error:
        raise UserError(
            f"{error.filename}: cannot be read ({error.strerror}){_how_to_get(root.parent)}"
        ) from error
    if not ids:
        raise UserError(
            f"alfworld: no game of {', '.join(kinds)} in {root / split}{_how_to_get(root.parent)}"
        )
    return ids


def _scan(root: Path, split: str, kinds: Sequence[str]) -> Iterator[str]:
    with os.scandir(root / split) as tasks:
        for task in tasks:
            if task.name.partition("-")[0] not in kinds or _is_left_out(task.name):
                continue
            if not task.is_dir():
                continue
            with os.scandir(task.path) as trials:
                for trial in trials:
                    path = os.path.join(trial.path, GAME_FILE)
                    if not _is_left_out(trial.name) and _may_be_solvable(path):
                        yield f"{split}/{task.name}/{trial.name}"


def kind_of(task_id: str) -> str:
    return task_id.split("/")[1].partition("-")[0]


def read_game(root: Path, task_id: str) -> Game:
    """Parse one game file.

    Raises:
        UserError: it is missing, cut off or of an unknown form.
    """
    path = root / task_id / GAME_FILE
    try:
        return parse_game(_read(path))
    except GameFileError as error:
        raise UserError(f"{path}: {error}{_how_to_get(root.parent)}") from error


def read_task_sentence(root: Path, task_id: str) -> str:
    """The goal sentence; cheaper than parsing the game, for splits are often listed whole."""
    sentence = find_task_sentence(_read(root / task_id / GAME_FILE))
    return read_game(root, task_id).task if sentence is None else sentence


def read_human_goal(root: Path, task_id: str) -> str:
    """The first goal sentence that a person wrote for the game.

    Raises:
        UserError: `traj_data.json` is missing or has none.
    """
    path = root / task_id / GOAL_FILE
    text = _read(path)
    try:
        sentence = json.loads(text)["turk_annotations"]["anns"][0]["task_desc"]
    except (json.JSONDecodeError, RecursionError, KeyError, IndexError, TypeError):
        sentence = None
    if not isinstance(sentence, str) or not sentence.strip():
        raise UserError(
            f"{path}: no turk_annotations.anns[0].task_desc, which env.goals = human needs"
            + _how_to_get(root.parent)
        )
    return sentence.strip()


def _is_left_out(name: str) -> bool:
    return "movable" in name or "Sliced" in name


def _may_be_solvable(path: str) -> bool:
    """Whether there is a game file that does not say `"solvable": false`."""
    try:
        with open(path, "rb") as file:
            size = file.seek(0, os.SEEK_END)
            # The official files end with `"solvable": true, "walkthrough": [...]}`.
            file.seek(max(0, size - TAIL_BYTES))
            text = file.read()
            if b'"solvable"' not in text:
                file.seek(0)
                text = file.read()
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError:
        return True  # a task all the same; opening it says what is wrong
    return b'"solvable": false' not in text and b'"solvable":false' not in text


def _read(path: Path) -> str:
    try:
        return utf8(path.read_bytes()).decode()
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else f"not UTF-8 text: {error}"
        raise UserError(
            f"{path}: cannot be read ({reason}){_how_to_get(path.parents[4])}"
        ) from error


def _how_to_get(folder: Path) -> str:
    return f"; get the games with `pip install alfworld && alfworld-download --data-dir {folder}`"
