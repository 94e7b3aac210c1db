"""Runs that are killed, stopped and resumed end with the bytes of a run that never was."""

import io
import os
import random
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch

from .tiny_runs import Forked, ForkServer, final_state, flags, metrics, same_run

pytestmark = pytest.mark.timeout(1800)

HALF = b"half of it"
"""Stands for the first half of a file."""

VARIANTS = {
    "window": {"run__checkpoint_every": 1},
    "append-ppo-workers": {
        "rollout__context": "append",
        "rollout__workers": 1,
        "algorithm__name": "ppo",
        "eval__every": 1,
        "algorithm__kl_coefficient": 0.1,
    },
    "lora": {"model__lora_rank": 4},
    "bfloat16-mini-batches": {
        "model__dtype": "bfloat16",
        "algorithm__name": "ppo",
        "optimizer__learning_rate": 1e-4,  # most steps are smaller than bf16 resolves
        "optimizer__mini_batches": 2,
        "optimizer__warmup_steps": 9,
    },
}


def command(policy: Path, run: Path, variant: str, **changed: object) -> list[str]:
    return ["train", *flags(policy, run, **{**VARIANTS[variant], **changed})]


@pytest.fixture(scope="module")
def uninterrupted(server: ForkServer, policy: Path, tmp_path_factory: pytest.TempPathFactory):
    """Variant -> directory and file events of a run that nobody stopped; made when asked for."""
    made: dict[str, tuple[Path, int]] = {}

    def get(variant: str) -> tuple[Path, int]:
        if variant not in made:
            run = tmp_path_factory.mktemp("uninterrupted") / "run"
            finished = server.run(command(policy, run, variant), watch=str(run))
            assert finished.code == 0, finished.err
            made[variant] = run, finished.events
        return made[variant]

    return get


def wait_for_rows(process: Forked, run: Path, count: int, seconds: float = 300) -> None:
    """Until metrics.jsonl has `count` lines."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        file = run / "metrics.jsonl"
        if file.is_file() and file.read_bytes().count(b"\n") >= count:
            return
        time.sleep(0.002)
    raise AssertionError(f"no {count} updates: {process.err.read_text()}")


def children(pid: int) -> list[int]:
    """Processes whose parent is `pid`."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[1]) == pid and fields[0] != "Z":
                found.append(int(entry.name))
    return found


def gone(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


@pytest.mark.parametrize("variant", VARIANTS)
def test_stopping_at_every_checkpoint_changes_nothing(
    server: ForkServer, policy: Path, uninterrupted, tmp_path: Path, variant: str
):
    run = tmp_path / "run"
    for updates in (1, 3, 6):
        finished = server.run(command(policy, run, variant, run__updates=updates))
        assert finished.code == 0, finished.err
    same_run(uninterrupted(variant)[0], run)


def test_training_changes_the_policy(uninterrupted, policy: Path):
    for variant in ("window", "lora"):
        run = uninterrupted(variant)[0]
        trained = final_state(run)["model.safetensors"]
        assert trained != (policy / "model.safetensors").read_bytes()


def moment(run: Path, number: signal.Signals, at: int) -> dict[str, str | int]:
    """A run gets the signal before its `at`-th file event: certain on any machine."""
    return {"watch": str(run), "signal": int(number), "at": at}


@pytest.mark.parametrize(
    ("variant", "share"), [("window", 0.05), ("window", 0.5), ("lora", 0.6), ("lora", 0.95)]
)
def test_kill_and_resume(
    server: ForkServer, policy: Path, uninterrupted, tmp_path: Path, variant: str, share: float
):
    expected, events = uninterrupted(variant)
    run = tmp_path / "run"
    when = moment(run, signal.SIGKILL, int(share * events))
    assert server.run(command(policy, run, variant), **when).code == -signal.SIGKILL
    finished = server.run(command(policy, run, variant))
    assert finished.code == 0, finished.err
    same_run(expected, run)


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["window", "append-ppo-workers"])
def test_kill_at_random_moments(
    server: ForkServer, policy: Path, uninterrupted, tmp_path: Path, variant: str
):
    expected, events = uninterrupted(variant)
    rng = random.Random(20)
    for trial in range(20):
        run = tmp_path / f"run{trial}"
        first, second = rng.randint(1, events), rng.randint(1, events)
        killed = server.run(command(policy, run, variant), **moment(run, signal.SIGKILL, first))
        assert killed.code == -signal.SIGKILL
        # The run that goes on is killed as well, unless it has fewer events to its end.
        again = server.run(command(policy, run, variant), **moment(run, signal.SIGKILL, second))
        assert again.code == -signal.SIGKILL or (again.code, again.events < second) == (0, True)
        finished = server.run(command(policy, run, variant))
        assert finished.code == 0, finished.err
        same_run(expected, run)


def test_workers_do_not_survive_a_kill(server: ForkServer, policy: Path, tmp_path: Path):
    run = tmp_path / "run"
    arguments = command(policy, run, "append-ppo-workers", run__updates=1000, eval__every=0)
    process = server.start(arguments)
    wait_for_rows(process, run, 1)
    workers = children(process.pid)
    assert len(workers) == 1
    process.signal(signal.SIGKILL)
    process.wait()
    assert gone(workers[0])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_finishes_the_update_and_saves(
    server: ForkServer, policy: Path, uninterrupted, tmp_path: Path, number: signal.Signals
):
    run = tmp_path / "run"
    arguments = command(policy, run, "lora", run__checkpoint_every=1000)
    # Within the updates; the last third of the events is the checkpoint at the end.
    middle = server.run(arguments, watch=str(run)).events // 3
    shutil.rmtree(run)
    finished = server.run(arguments, **moment(run, number, middle))
    assert finished.code == 130
    assert 0 < len(metrics(run)) < 6
    assert "Traceback" not in finished.err
    newest = sorted(p.name for p in (run / "checkpoints").iterdir())[-1]
    assert newest == f"update-{len(metrics(run)):06d}"
    assert f"the same command goes on from {newest}" in finished.err
    assert server.run(command(policy, run, "lora")).code == 0
    same_run(uninterrupted("lora")[0], run)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_what_ends_a_run_in_an_evaluation_costs_the_evaluation_alone(
    server: ForkServer, policy: Path, tmp_path: Path, number: signal.Signals
):
    """Before each of the last events: writing the evaluation and the line of metrics."""
    changed = {"run__updates": 2, "eval__every": 2, "run__checkpoint_every": 1000}
    one = tmp_path / "one"
    events = server.run(command(policy, one, "window", **changed), watch=str(one)).events
    asked = 0
    for at in range(events - 4, events):
        run = tmp_path / f"run{at}"
        arguments = command(policy, run, "window", **changed)
        ended = server.run(arguments, **moment(run, number, at))
        played = (run / "trajectories" / "update-000002.jsonl.zst").stat().st_mtime_ns
        assert (run / "checkpoints" / "update-000002").is_dir()
        if unreported := (run / "unreported.json").is_file():
            asked += 1
            assert ended.code == (130 if number == signal.SIGTERM else -number)
            assert number == signal.SIGKILL or "goes on from update-000002" in ended.err
            assert [row["update"] for row in metrics(run)] == [1]
        again = server.run(arguments)
        assert again.code == 0 and ("already complete" not in again.out) == unreported
        same_run(one, run, update=2)
        assert metrics(run)[1]["eval/success_rate"] is not None
        assert (run / "trajectories" / "update-000002.jsonl.zst").stat().st_mtime_ns == played
        assert not (run / "unreported.json").exists()
    assert asked >= 2


def test_second_ctrl_c_stops_at_once(server: ForkServer, policy: Path, tmp_path: Path):
    run = tmp_path / "run"
    settings = {"env__name": "tiny_envs:Sleepy", "env__seconds": 0.5, "rollout__max_turns": 1000}
    process = server.start(["train", *flags(policy, run, **settings)])
    deadline = time.monotonic() + 60
    while not (run / "environment.json").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(1.0)
    process.signal(signal.SIGINT)
    time.sleep(0.5)
    assert not gone(process.pid, seconds=0.1)
    start = time.monotonic()
    process.signal(signal.SIGINT)
    finished = process.wait()
    assert finished.code == 130
    assert time.monotonic() - start < 20
    assert "Ctrl-C again stops at once" in finished.err
    assert "goes on from the start" in finished.err.splitlines()[-1]


def test_finished_run_says_so_and_may_grow(server: ForkServer, policy: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert server.run(command(policy, run, "window", run__updates=2)).code == 0
    before = final_state(run, 2), metrics(run)
    again = server.run(command(policy, run, "window", run__updates=2))
    assert (again.code, again.out.splitlines()[0].startswith("already complete: 2 updates")) == (
        0,
        True,
    )
    assert (final_state(run, 2), metrics(run)) == before
    fewer = server.run(command(policy, run, "window", run__updates=1))
    assert fewer.code == 0
    assert (final_state(run, 2), metrics(run)) == before
    more = server.run(command(policy, run, "window", run__updates=3))
    assert more.code == 0
    assert [row["update"] for row in metrics(run)] == [1, 2, 3]
    assert metrics(run)[:2] == before[1]


def test_a_run_whose_weight_decays_over_its_updates_may_not_grow(
    server: ForkServer, policy: Path, tmp_path: Path
):
    """lambda of its first updates would have been another."""
    run, decay = tmp_path / "run", {"paw__weight": "decay"}
    assert server.run(command(policy, run, "window", run__updates=2, **decay)).code == 0
    assert [row["wm/group_weight_mean"] for row in metrics(run)] == [1, 0.5]
    more = server.run(command(policy, run, "window", run__updates=3, **decay))
    assert more.code == 2 and "run.updates: 2 -> 3" in more.err
    assert server.run(command(policy, run, "window", run__updates=2, **decay)).code == 0


def test_remains_of_a_crash_are_cleaned(
    server: ForkServer, policy: Path, uninterrupted, tmp_path: Path
):
    run = tmp_path / "run"
    assert server.run(command(policy, run, "lora", run__updates=4)).code == 0
    (run / "checkpoints" / "update-000006.tmp").mkdir()
    (run / "checkpoints" / "update-000006.tmp" / "model.safetensors").write_bytes(b"half")
    (run / "trajectories" / "update-000005.jsonl.zst.tmp").write_bytes(b"half")
    (run / "metrics.jsonl.tmp").write_bytes(b"half")
    with open(run / "metrics.jsonl", "ab") as file:
        file.write(b'{"update": 5, "rollout/return_me')
    finished = server.run(command(policy, run, "lora"))
    assert finished.code == 0, finished.err
    assert list(run.rglob("*.tmp")) == []
    same_run(uninterrupted("lora")[0], run)


def test_only_the_newest_checkpoints_stay(uninterrupted):
    run = uninterrupted("window")[0]
    kept = sorted(p.name for p in (run / "checkpoints").iterdir())
    assert kept == ["update-000005", "update-000006"]


def test_broken_checkpoint_is_named_and_the_one_before_it_serves(
    server: ForkServer, policy: Path, uninterrupted, tmp_path: Path
):
    run = tmp_path / "run"
    assert server.run(command(policy, run, "window", run__updates=5)).code == 0
    broken = run / "checkpoints" / "update-000005"
    something_else = io.BytesIO()
    torch.save([1, 2], something_else)
    remains: dict[str, tuple[bytes | None, ...]] = {
        "trainer.pt": (b"", b"garbage", HALF, something_else.getvalue()),
        "model.safetensors": (b"", b"garbage", HALF, None),
        "config.json": (b"", b"garbage", b"[]", b"{}", None),
    }
    for name, contents in remains.items():
        file = broken / name
        data = file.read_bytes()
        for content in contents:
            if content is None:
                file.unlink()
            else:
                file.write_bytes(data[: len(data) // 2] if content is HALF else content)
            finished = server.run(command(policy, run, "window"))
            assert finished.code == 2
            line = finished.err.splitlines()[-1]
            assert str(file if name == "trainer.pt" else broken) in line
            assert f"delete the directory {broken}" in line
            assert "goes on from update-000004" in line
            assert "Traceback" not in finished.err
        file.write_bytes(data)
    for file in broken.iterdir():
        file.unlink()
    broken.rmdir()
    assert server.run(command(policy, run, "window")).code == 0
    same_run(uninterrupted("window")[0], run)


def test_a_broken_line_of_metrics_costs_itself_alone(
    server: ForkServer, policy: Path, uninterrupted, tmp_path: Path
):
    run = tmp_path / "run"
    assert server.run(command(policy, run, "window", run__updates=5)).code == 0
    file = run / "metrics.jsonl"
    rows = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join([*rows[:2], b"garbage\n", *rows[3:]]))
    finished = server.run(command(policy, run, "window"))
    assert finished.code == 0, finished.err
    assert f"{file}: cannot read line 3;" in finished.err
    expected = metrics(uninterrupted("window")[0])
    assert metrics(run) == [*expected[:2], *expected[3:]]


def test_two_processes_cannot_share_a_directory(server: ForkServer, policy: Path, tmp_path: Path):
    run = tmp_path / "run"
    first = server.start(command(policy, run, "window", run__updates=1000))
    wait_for_rows(first, run, 1)
    second = server.run(command(policy, run, "window", run__updates=1000))
    first.signal(signal.SIGKILL)
    first.wait()
    assert second.code == 2
    assert "another process is training in it" in second.err
    assert os.path.exists(run / "metrics.jsonl")
