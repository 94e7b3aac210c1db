"""The run directory as it is for all ranks but the first: rank 0 writes, the others keep time."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from paw.runs.format import MetricsRow, TrajectoryRecord
from paw.runs.write import Run
from paw.types import TrainingSample


class Follower(Run):
    """A `Run` that writes nothing."""

    def _open(self) -> None:
        pass

    def track(self) -> None:
        pass

    def rewind(self, update: int) -> list[MetricsRow]:
        return []

    def hold(self, update: int, metrics: Mapping[str, Any]) -> MetricsRow:
        return {"update": update, **metrics, **self.times()}

    def held(self, update: int, earlier: Sequence[MetricsRow]) -> None:
        pass

    def log(self, update: int, metrics: Mapping[str, Any]) -> MetricsRow:
        return {"update": update, **self.times(), **metrics}

    def save_trajectories(self, update: int, records: Sequence[TrajectoryRecord]) -> None:
        pass

    def save_evaluation(self, update: int, result: Mapping[str, Any]) -> None:
        pass

    def dump(self, update: int, samples: Sequence[TrainingSample]) -> Path:
        return self.directory
