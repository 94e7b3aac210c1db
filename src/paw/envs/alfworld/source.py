"""The tasks of an ALFWorld split and one episode of a task.

Needs nothing but the official game files: `data_dir` holds `json_2.1.1/<split>/<task>/<trial>/`,
as `alfworld-download` leaves them. Source: ALFWorld (arXiv 2010.03768), release json_2.1.2.
"""

import os
from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Literal

from paw.envs.alfworld import files
from paw.envs.alfworld.engine import REFUSED, GameState
from paw.envs.alfworld.expert import Explorer, Walkthrough
from paw.envs.alfworld.game import Game
from paw.envs.base import Observation, StepResult, TaskSource, digest
from paw.envs.places import scenes
from paw.errors import UserError, nearest
from paw.style import Style
from paw.types import Task

MAX_RETURN = 10.0
"""Reward for a won game, as the paper and the GiGPO code have it; 0 otherwise."""
NUM_CACHED_GAMES = 256
"""Parsed games that a source keeps, about 20 kB each."""


class AlfworldEnvironment:
    """One game. Any string is a command; one that is not admissible gets "Nothing happens."."""

    max_return = MAX_RETURN

    def __init__(self, game: Game, instruction: str):
        self._game = game
        self._instruction = instruction
        self._state: GameState | None = None
        self._over = False

    def reset(self) -> Observation:
        if self._state is not None or self._over:
            raise RuntimeError("an alfworld environment is played once: open a new one")
        self._state = GameState(self._game)
        return Observation(self._state.intro(self._instruction), self._state.commands)

    def step(self, command: str) -> StepResult:
        state = self._state
        if state is None or self._over:
            raise RuntimeError("step() before reset() or after the end of the game")
        answer = state.step(command)
        self._over = won = state.won
        return StepResult(
            observation=Observation(REFUSED if answer is None else answer, state.commands),
            reward=MAX_RETURN if won else 0.0,
            terminated=won,
            valid=answer is not None,
            success=True if won else None,
            info={"score": 1.0 if won else 0.0},
        )

    def close(self) -> None:
        self._state = None
        self._over = True


class Alfworld(TaskSource):
    """The games of one split, ordered by id (the trial folder below `json_2.1.1`).

    Args:
        split: train (3,553 games), valid_seen (140), valid_unseen (134) or valid_train (200).
        data_dir: folder that holds `json_2.1.1`; default `$ALFWORLD_DATA`, else ~/.cache/alfworld.
        kinds: only tasks of these kinds (a name or a sequence of names; KINDS has all six).
        goals: `template` shows the game's own sentence; `human` the first sentence that a person
            wrote for it (`traj_data.json`).
        engine: `native`, the only one.

    Games whose folder is named `movable` or `Sliced`, and games marked unsolvable, are left out,
    as the official collector does.

    Raises:
        UserError: no such split, kind or option value, or the data are not there.
    """

    name = "alfworld"
    max_return = MAX_RETURN
    style = Style(
        introduction="You are an agent in a household described in text (ALFWorld).",
        lower_case=True,  # the game matches its commands exactly
        hidden_commands=("help",),
        validation_split="valid_seen",
        protocol={"rollout": {"max_turns": 50}},
        scenes=scenes,
    )

    def __init__(
        self,
        split: str = "train",
        data_dir: str | os.PathLike[str] | None = None,
        kinds: str | Sequence[str] | None = None,
        goals: Literal["template", "human"] = "template",
        engine: Literal["native"] = "native",
    ):
        if split not in files.SPLITS:
            raise UserError(f"alfworld: no split {split!r}{nearest(split, files.SPLITS)}")
        if goals not in ("template", "human"):
            raise UserError(f"env.goals: {goals!r} is not one of template, human")
        if engine != "native":
            raise UserError(f"env.engine: {engine!r} does not exist; the only one is native")
        kinds = (kinds,) if isinstance(kinds, str) else tuple(kinds) if kinds else files.KINDS
        for kind in kinds:
            if kind not in files.KINDS:
                raise UserError(f"env.kinds: no kind {kind!r}{nearest(kind, files.KINDS)}")
        self.split = split
        self.goals = goals
        self.kinds = tuple(kinds)
        self._root = files.games_root(data_dir, split)
        self._ids = files.list_games(self._root, split, kinds)
        self._games: dict[str, Game] = {}
        self._sentences: dict[str, str] = {}

    def __len__(self) -> int:
        return len(self._ids)

    def facts(self) -> dict[str, Any]:
        """Split, number of games, a hash of their ids, kinds, whose sentences, engine."""
        return super().facts() | {
            "kinds": sorted(self.kinds),
            "goals": self.goals,
            "engine": "native",
            "tasks_sha256": digest(self._ids),
        }

    def __getstate__(self) -> dict:
        return {**self.__dict__, "_games": {}, "_sentences": {}}

    def task(self, index: int) -> Task:
        task_id = self._ids[index]
        return Task(task_id, files.kind_of(task_id), self._sentence(task_id))

    def find(self, task_id: str) -> Task:
        """The task with this id.

        Raises:
            UserError: there is none.
        """
        index = bisect_left(self._ids, task_id)
        if self._ids[index : index + 1] != [task_id]:
            raise UserError(f"alfworld: {self.split} has no game {task_id!r}")
        return self.task(index)

    def game(self, task_id: str) -> Game:
        """The parsed game.

        Raises:
            UserError: the file is missing or cannot be read.
        """
        game = self._games.get(task_id)
        if game is None:
            game = files.read_game(self._root, task_id)
            if len(self._games) >= NUM_CACHED_GAMES:
                oldest, *_ = self._games  # at once: other threads may be here
                self._games.pop(oldest, None)
            self._games[task_id] = game
        return game

    def open(self, task: Task, seed: int = 0) -> AlfworldEnvironment:
        """A fresh episode. Games have no chance in them: `seed` changes nothing."""
        return AlfworldEnvironment(self.game(task.id), task.instruction)

    def expert(  # pyright: ignore[reportIncompatibleMethodOverride]  # options by name
        self,
        task: Task,
        seed: int = 0,
        kind: Literal["explorer", "walkthrough"] = "explorer",
        noise: float = 0.7,
        junk: float = 0.0,
    ) -> Explorer | Walkthrough:
        """An expert for one episode.

        Args:
            kind: `explorer` knows only what it reads; `walkthrough` replays the game's own plan,
                made with full knowledge.
            noise: of the explorer's order of search (0: the most likely place first).
            junk: probability of a useless or refused command that changes no state, per turn.
        """
        game = self.game(task.id)
        if kind == "walkthrough":
            return Walkthrough(game.walkthrough, f"{task.id} {seed}", junk)
        if kind == "explorer":
            return Explorer(game.task, f"{task.id} {seed}", noise, junk)
        raise UserError(f"alfworld: no expert {kind!r}; known: explorer, walkthrough")

    def _sentence(self, task_id: str) -> str:
        if task_id not in self._sentences:
            if self.goals == "human":
                sentence = files.read_human_goal(self._root, task_id)
            else:
                sentence = files.read_task_sentence(self._root, task_id)
            self._sentences[task_id] = sentence
        return self._sentences[task_id]
