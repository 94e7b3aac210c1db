"""One run or evaluation, read as it grows: what was read once is not read again."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from paw import envs
from paw.config.parse import load_toml
from paw.config.tree import PawConfig
from paw.errors import UserError
from paw.report.choose import Row
from paw.report.columns import cells, columns, evaluation
from paw.report.data import Chunk, Episodes, Run, Task
from paw.report.episodes import Setting, Texts, episodes_of, surprise
from paw.report.facts import Facts, prediction, readable, result_facts, run_facts
from paw.report.odd import odd
from paw.runs import read
from paw.runs.format import EvaluationRecord, MetricsRow, ResultRecord
from paw.runs.layout import newest_checkpoint, resolve_model
from paw.style import Style

PACKED = 3.0
"""Bytes that an episode takes in a page by those that it takes in its file, about: to choose by."""

Group = tuple[Path, int]
"""Trajectory file, and index of the group in its update"""


@dataclass(slots=True)
class _Seen:
    """The columns of `Episodes` as they grow, and where each episode stands."""

    rows: list[Row] = field(default_factory=list)
    columns: dict[str, list[Any]] = field(default_factory=dict)
    tasks: dict[str, int] = field(default_factory=dict)
    """Number of each, by its id"""
    told: list[Task] = field(default_factory=list)
    places: list[tuple[Path, int]] = field(default_factory=list)
    """[n] file, and place in it"""


class Source:
    """A run directory, a file of `paw eval -o` (with the trajectories beside it) or a trajectory
    file.

    Args:
        path: of it.
        name: that the page calls it by.
        failure: a file that says why the run cannot go on, where there may be one.
    """

    def __init__(self, path: Path, name: str, failure: Path | None = None) -> None:
        self.path, self.name, self.failure = path, name, failure
        self.arm: str | None = None
        self.seed: int | None = None
        self.problems: list[str] = []
        """What could not be read"""
        self.metrics: list[MetricsRow] = []
        self.evaluations: list[EvaluationRecord] = []
        self.result: ResultRecord | None = None
        """What `paw eval -o` wrote, where that is what is shown"""
        self.tables: Mapping[str, Any] = {}
        self._offset = 0
        self._read: dict[Path, float] = {}
        """Files that were read, by the time of their last change"""
        self._seen = _Seen()
        self._setting: Setting | None = None

    def refresh(self) -> bool:
        """Read what is new. Was there anything?"""
        changed = self._read_metrics()
        if self.path.is_dir():
            changed |= self._once(self.path / "config.toml", self._read_config)
            for file in sorted((self.path / "eval").glob("update-*.json")):
                changed |= self._once(file, self._read_evaluation)
            files = sorted((self.path / "trajectories").glob("update-*.jsonl.zst"))
        else:
            if self.path.suffix == ".json":
                changed |= self._once(self.path, self._read_result)
            files = [f for f in (_trajectories_beside(self.path),) if f is not None]
        for file in files:
            changed |= self._once(file, self._read_trajectories)
        return changed

    @property
    def rows(self) -> Sequence[Row]:
        """What is known of every episode, in order."""
        return self._seen.rows

    @property
    def places(self) -> Sequence[tuple[Path, int]]:
        """[n] file of every episode, and its place there."""
        return self._seen.places

    def run(self, kept: Sequence[str], chunks: Mapping[Group, int], left_out: str) -> Run:
        """What the page says of it.

        Args:
            kept: why each episode is kept, "" where it is left out.
            chunks: number of the chunk of each group that is kept.
            left_out: what is said of those that are not.
        """
        seen, paw = self._seen, self._prediction()
        planned = self.tables.get("run", {}).get("updates")
        updates = self.metrics[-1]["update"] if self.metrics else 0
        state, reason = self._state(updates, planned)
        return Run(
            name=self.name,
            path=str(self.path),
            source="run" if self._is_run() else "evaluation",
            state=state,
            reason=reason,
            env=self._env(),
            facts=self._facts(),
            probability_cap=None if paw is None else paw.probability_cap,
            loss=None if paw is None else paw.loss,
            updates=updates,
            planned=planned,
            odd=odd(self.metrics, predicts=paw is not None),
            metrics=columns(self.metrics),
            evaluations=tuple(map(evaluation, self.evaluations)),
            tasks=tuple(seen.told),
            episodes=self._episodes(kept, chunks),
            left_out=left_out,
            arm=self.arm,
            seed=self.seed,
        )

    def groups(self, kept: Sequence[str]) -> list[Group]:
        """The groups with a kept episode, in order."""
        found: dict[Group, None] = {}
        for row, why, (file, _) in zip(self.rows, kept, self._seen.places, strict=True):
            if why:
                found[file, row.group] = None
        return list(found)

    def chunks(self, groups: Sequence[Group], run: int) -> Iterator[tuple[Group, Chunk]]:
        """The episodes of groups, whole; each file is read once.

        Args:
            groups: of `groups`.
            run: index of this one in the page.
        """
        if not groups:
            return  # and no tokenizer is missed
        by_file: dict[Path, set[int]] = {}
        for file, group in groups:
            by_file.setdefault(file, set()).add(group)
        rows = {place: row for row, place in enumerate(self._seen.places)}
        setting = self._for_people()
        for file, wanted in by_file.items():
            try:
                records = read.trajectories(file)
            except UserError as error:  # it was there a moment ago
                self._problem(str(error))
                continue
            members = {
                at: rows[file, at]
                for at, record in enumerate(records)
                if record.group in wanted and (file, at) in rows
            }
            found: dict[int, list] = {}
            for at, episode in zip(members, episodes_of(records, members, setting), strict=True):
                found.setdefault(records[at].group, []).append(episode)
            for group, episodes in found.items():
                yield (file, group), Chunk(run=run, episodes=tuple(episodes))

    def _is_run(self) -> bool:
        return self.path.is_dir()

    def _prediction(self) -> PawConfig | None:
        return prediction(self.tables) if self._is_run() else None

    def _once(self, file: Path, reader: Any) -> bool:
        """Call the reader of a file that is new or has changed."""
        try:
            changed = file.stat().st_mtime
        except OSError:
            return False
        if self._read.get(file) == changed:
            return False
        self._read[file] = changed
        try:
            reader(file)
        except UserError as error:
            self._problem(str(error))
        return True

    def _problem(self, text: str) -> None:
        if text not in self.problems:
            self.problems.append(text)

    def _read_metrics(self) -> bool:
        """Whole new lines of metrics.jsonl; from its start where it is shorter than it was."""
        file = self.path / "metrics.jsonl"
        if not file.is_file():
            return False
        if file.stat().st_size < self._offset:
            self._offset, self.metrics = 0, []
        with open(file, "rb") as stream:
            stream.seek(self._offset)
            data = stream.read()
        whole = data[: data.rfind(b"\n") + 1]
        self._offset += len(whole)
        new = [read.metrics_row(line) for line in whole.splitlines()]
        rows = {row["update"]: row for row in [*self.metrics, *(r for r in new if r is not None)]}
        self.metrics = [rows[update] for update in sorted(rows)]
        return bool(whole)

    def _read_config(self, file: Path) -> None:
        self.tables, wrong = readable(load_toml(file))
        self._setting = None
        if wrong:
            self._problem(
                f"{file}: not read, as they are no such keys or values: {', '.join(wrong)}"
            )

    def _read_result(self, file: Path) -> None:
        self.result = read.result(file)
        self.evaluations = [self.result]

    def _read_evaluation(self, file: Path) -> None:
        record = read.evaluation(file)
        others = [e for e in self.evaluations if e.update != record.update]
        self.evaluations = sorted([*others, record], key=lambda e: e.update or 0)

    def _read_trajectories(self, file: Path) -> None:
        records = read.trajectories(file)
        seen = self._seen
        if any(place[0] == file for place in seen.places):
            self._forget(file)
        size = PACKED * file.stat().st_size / max(len(records), 1)
        for at, record in enumerate(records):
            nll = surprise(record)
            update = record.update if self._is_run() else None
            seen.rows.append(
                Row(update, record.group, record.success, record.return_, nll,
                    record.failure is not None, int(size))
            )  # fmt: skip
            seen.places.append((file, at))
            task = seen.tasks.setdefault(record.task.id, len(seen.tasks))
            if task == len(seen.told):
                told = record.task
                seen.told.append(Task(id=told.id, kind=told.kind, instruction=told.instruction))
            for name, value in {**cells(record), "task": task}.items():
                seen.columns.setdefault(name, []).append(value)

    def _forget(self, file: Path) -> None:
        """Episodes of a file that was written again."""
        seen = self._seen
        stay = [i for i, place in enumerate(seen.places) if place[0] != file]
        seen.rows = [seen.rows[i] for i in stay]
        seen.places = [seen.places[i] for i in stay]
        seen.columns = {name: [c[i] for i in stay] for name, c in seen.columns.items()}

    def _episodes(self, kept: Sequence[str], chunks: Mapping[Group, int]) -> Episodes:
        seen = self._seen
        places: dict[int, int] = {}
        chunk, place = [], []
        for row, why, (file, _) in zip(seen.rows, kept, seen.places, strict=True):
            number = chunks.get((file, row.group), -1) if why else -1
            chunk.append(number)
            place.append(places.get(number, 0) if number >= 0 else 0)
            places[number] = places.get(number, 0) + 1
        names = ("index", "turns", "valid", "failure", "advantage", "task")
        others = {name: tuple(seen.columns.get(name, ())) for name in names}
        return Episodes(
            update=tuple(r.update for r in seen.rows),
            group=tuple(r.group for r in seen.rows),
            success=tuple(r.success for r in seen.rows),
            return_=tuple(r.return_ for r in seen.rows),
            nll=tuple(r.nll for r in seen.rows),
            chunk=tuple(chunk),
            place=tuple(place),
            why=tuple(w if c >= 0 else "" for w, c in zip(kept, chunk, strict=True)),
            **others,
        )

    def _state(self, updates: int, planned: int | None) -> tuple[str, str | None]:
        """(state, why it failed or is shown in part)"""
        problems = "; ".join(self.problems) or None
        if not self._is_run():
            return "finished", problems
        dumps = sorted(self.path.glob("failed-update-*.jsonl"))
        if self.failure is not None and self.failure.is_file():
            return "failed", self.failure.read_text(encoding="utf-8", errors="replace").strip()
        if planned is not None and updates >= planned:
            return "finished", problems
        if dumps and f"{updates + 1:06d}" in dumps[-1].name:
            return "failed", f"a loss or gradient that was not finite: see {dumps[-1].name}"
        return ("unfinished" if updates else "empty"), problems

    def _facts(self) -> Facts:
        if self._is_run():
            try:
                environment = read.environment(self.path)
            except UserError:
                environment = None
            return run_facts(self.tables, environment)
        return () if self.result is None else result_facts(self.result)

    def _env(self) -> str:
        if self._is_run():
            return str(self.tables.get("env", {}).get("name", ""))
        return self.evaluations[-1].env if self.evaluations else self._seen_env()

    def _seen_env(self) -> str:
        return self._seen.columns.get("env", [""])[-1]

    def _for_people(self) -> Setting:
        """How its records are shown; the tokenizer is loaded once."""
        if self._setting is None:
            self._setting = Setting(
                style=_style(self._env()),
                texts=self._texts(),
                paw=self._prediction(),
                alone=self.tables.get("algorithm", {}).get("name") == "ppo",
            )
        return self._setting

    def _texts(self) -> Texts | None:
        """Of the run's newest checkpoint, or of the model that it began with."""
        newest = newest_checkpoint(self.path / "checkpoints") if self._is_run() else None
        named = self.tables.get("model", {}).get("path")
        if not named and self.result is not None:
            named = self.result.model
        if newest is None and not named:
            self._problem("no tokens are shown: nothing says which tokenizer they are of")
            return None
        try:
            from paw.text.shown import TokenTexts
            from paw.text.tokenizer import load_tokenizer

            return TokenTexts(load_tokenizer(newest or resolve_model(named)))
        except UserError as error:
            self._problem(f"no tokens are shown: {error}")
            return None


def _style(env: str) -> Style:
    try:
        return envs.style(env)
    except (UserError, ImportError):  # somebody else's environment, not installed here
        return Style()


def _trajectories_beside(file: Path) -> Path | None:
    """Of an evaluation: the file of the same name; a trajectory file is its own."""
    if file.suffix != ".json":
        return file
    beside = file.with_suffix(".jsonl.zst")
    return beside if beside.is_file() else None
