"""Makes the runs of a plan: a process each, several at a time, to be stopped and gone on with.

A run that fails is noted and the others go on. What was stopped or killed is no failure: the same
command goes on from its newest checkpoint.
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from paw.compare.plan import Planned, in_turns
from paw.config.read import to_toml
from paw.errors import UserError
from paw.runs.console import Say
from paw.runs.files import write_atomically
from paw.runs.interrupt import InterruptGuard
from paw.runs.layout import training_place
from paw.runs.write import lock

PATIENCE = 0.5
"""Seconds between two looks at the runs."""
PR_SET_PDEATHSIG = 1
CANNOT_GO_ON = (1, 2)
"""Exit statuses of `paw train` after which the same command would end the same way."""

Watch = Callable[[int], None]
"""Told how many updates all runs have made together."""


@dataclass(slots=True)
class _Job:
    planned: Planned
    process: subprocess.Popen[bytes]
    slot: int


def run_plan(
    plan: Sequence[Planned],
    jobs: int,
    devices: Sequence[str],
    watch: Watch,
    say: Say,
) -> dict[Path, str]:
    """Make every run that is missing, `jobs` at a time, the arms in turns.

    Args:
        plan: all runs; finished and failed ones are left as they are.
        jobs: at a time.
        devices: CUDA devices that they take in turns; none: as the configuration says.
        watch: called about twice a second.
        say: gets a line when a run ends.

    Returns:
        Why runs ended before their last update that the same command goes on with, by their
        directory: somebody or the machine killed them.

    Raises:
        KeyboardInterrupt: Ctrl-C or SIGTERM; the runs have saved what they had.
    """
    waiting = [p for p in in_turns(plan) if p.status == "missing"]
    made = {p.directory: _updates_so_far(p) for p in plan}
    running: list[_Job] = []
    killed: dict[Path, str] = {}
    with InterruptGuard() as interrupt:
        try:
            while waiting or running:
                for job in [j for j in running if j.process.poll() is not None]:
                    running.remove(job)
                    reason = _ended(job, say, stopped=interrupt.asked)
                    made[job.planned.directory] = _updates_so_far(job.planned)
                    if reason is not None:
                        killed[job.planned.directory] = reason
                if interrupt.asked:
                    raise KeyboardInterrupt
                under_way = {p.directory for p in [*waiting, *(j.planned for j in running)]}
                waiting = [p for p in waiting if not _given_up(p, plan, under_way, say)]
                for planned in list(waiting):
                    if len(running) < jobs and _may_begin(planned, under_way):
                        waiting.remove(planned)
                        slot = min(set(range(jobs)) - {j.slot for j in running})
                        running.append(_Job(planned, _start(planned, slot, devices), slot))
                for job in running:
                    made[job.planned.directory] = updates_logged(job.planned.directory)
                watch(sum(made.values()))
                time.sleep(PATIENCE)
        finally:
            for job in running:
                job.process.send_signal(signal.SIGTERM)
            for job in running:
                job.process.wait()
    watch(sum(made.values()))
    return killed


def _updates_so_far(planned: Planned) -> int:
    """All of a finished run, whose metrics need not be here, and of a failed one, whose others will
    not be made."""
    if planned.status == "missing":
        return updates_logged(planned.directory)
    return planned.config.run.updates


def updates_logged(run: Path) -> int:
    """Updates in a run's metrics."""
    with contextlib.suppress(OSError):
        return (run / "metrics.jsonl").read_bytes().count(b"\n")
    return 0


def _may_begin(planned: Planned, under_way: set[Path]) -> bool:
    """Is what it waits for there, and nobody else at work on it? A run whose comparison was killed
    may still be saving."""
    if planned.after in under_way:
        return False
    if planned.directory.is_dir():
        try:
            os.close(lock(training_place(planned.config)))
        except UserError:
            return False
    return True


def _given_up(planned: Planned, plan: Sequence[Planned], under_way: set[Path], say: Say) -> bool:
    """Does it wait for a run that will not finish now, or whose metrics are gone?"""
    if planned.after is None or planned.after in under_way:
        return False
    other = next((p for p in plan if p.directory == planned.after), None)
    if other is None:
        return False
    if other.status == "finished":
        if updates_logged(planned.after):
            return False
        _fail(planned, f"{planned.after} is not here any more, whose lambda it takes", say)
        return True
    if other.status == "failed":
        _fail(planned, f"{planned.after} did not finish", say)
    return True


def _start(planned: Planned, slot: int, devices: Sequence[str]) -> subprocess.Popen[bytes]:
    planned.directory.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(planned.settings, to_toml(planned.config).encode())
    environment = dict(os.environ)
    if devices:
        environment["CUDA_VISIBLE_DEVICES"] = devices[slot % len(devices)]
    with open(planned.log, "ab") as log:
        return subprocess.Popen(
            [sys.executable, "-m", "paw", "train", str(planned.settings)],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            # Ctrl-C in a terminal reaches its whole group: runs get one signal, and from here.
            start_new_session=True,
            preexec_fn=_die_with_parent,
        )


def _die_with_parent() -> None:
    """In the new process: when this one is killed, a run saves and ends as after Ctrl-C."""
    with contextlib.suppress(OSError, AttributeError):  # Linux alone has it
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def _ended(job: _Job, say: Say, *, stopped: bool) -> str | None:
    """Note how a run ended; why, where the same command goes on with it."""
    planned, status = job.planned, job.process.returncode
    if planned.status == "finished":
        say(f"{planned.arm} seed {planned.seed}: finished")
        return None
    if stopped or status == 130:
        return None
    text = planned.log.read_text(encoding="utf-8", errors="replace").strip()
    last = text.splitlines()[-1] if text else ""
    how = f"killed by signal {-status}" if status < 0 else last.removeprefix("paw: ")
    if status in CANNOT_GO_ON:
        _fail(planned, how, say)
        return None
    say(f"{planned.arm} seed {planned.seed}: {how}; the same command goes on with it")
    return how


def _fail(planned: Planned, reason: str, say: Say) -> None:
    planned.failure.parent.mkdir(parents=True, exist_ok=True)
    write_atomically(planned.failure, f"{reason}\n".encode())
    say(f"{planned.arm} seed {planned.seed}: failed: {reason}")
