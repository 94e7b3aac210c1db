"""Imitations that are killed, stopped and resumed end with the bytes of one that never was."""

import json
import random
import shutil
import signal
import time
from pathlib import Path

import pytest

from paw.runs import read
from paw.runs.layout import complete

from .test_imitate import NEW_MODEL, arguments, wait_for
from .tiny_runs import ForkServer, metrics

pytestmark = pytest.mark.timeout(1800)

VARIANTS: dict[str, dict[str, object]] = {
    "window": {"imitate__steps": 8, "imitate__checkpoint_every": 3},
    "scratch": {
        **NEW_MODEL,
        "rollout__context": "append",
        "imitate__steps": 6,
        "imitate__checkpoint_every": 1,
        "imitate__eval_every": 3,
    },
    "lora": {
        "model__lora_rank": 2,
        "imitate__steps": 5,
        "imitate__checkpoint_every": 2,
        "imitate__final_learning_rate": 1e-4,
        "imitate__learning_rate": 1e-2,
        "imitate__warmup_steps": 2,
    },
}


def command(policy: Path, output: Path, variant: str, **changed: object) -> list[str]:
    small = {"rollout__response_format": "command", "imitate__learning_rate": 1e-2}
    return arguments(policy, output, **{**small, **VARIANTS[variant], **changed})


def work_of(output: Path) -> Path:
    return output.with_name(output.name + ".partial")


@pytest.fixture(scope="module")
def uninterrupted(server: ForkServer, policy: Path, tmp_path_factory: pytest.TempPathFactory):
    """Variant -> output and file events of an imitation that nobody stopped."""
    made: dict[str, tuple[Path, int]] = {}

    def get(variant: str) -> tuple[Path, int]:
        if variant not in made:
            output = tmp_path_factory.mktemp("uninterrupted") / "policy"
            finished = server.run(command(policy, output, variant), watch=str(output))
            assert finished.code == 0, finished.err
            made[variant] = output, finished.events
        return made[variant]

    return get


def same_policy(one: Path, other: Path) -> None:
    """Assert that two outputs hold the same bytes, reports and metrics, and nothing is beside."""
    varying = ("imitate.json", "imitate.toml", "metrics.jsonl")
    files = [{f.name: f.read_bytes() for f in d.iterdir()} for d in (one, other)]
    assert files[0].keys() == files[1].keys() >= set(varying)
    assert [n for n in files[0] if n not in varying and files[0][n] != files[1][n]] == []
    reports = [json.loads((d / "imitate.json").read_text()) for d in (one, other)]
    for report in reports:
        assert report.pop("finished") and report.pop("command")
    assert reports[0] == reports[1]
    assert metrics(one) == metrics(other)
    assert [p.name for p in other.parent.iterdir()] == [other.name]


def moment(output: Path, number: signal.Signals, at: int) -> dict[str, str | int]:
    """An imitation gets the signal before its `at`-th file event: certain on any machine."""
    return {"watch": str(output), "signal": int(number), "at": at}


@pytest.mark.parametrize(
    ("variant", "share"), [("window", 0.3), ("scratch", 0.6), ("lora", 0.7), ("scratch", 0.98)]
)
def test_kill_and_resume(
    server: ForkServer, policy: Path, uninterrupted, tmp_path: Path, variant: str, share: float
):
    expected, events = uninterrupted(variant)
    output = tmp_path / "policy"
    when = moment(output, signal.SIGKILL, int(share * events))
    assert server.run(command(policy, output, variant), **when).code == -signal.SIGKILL
    finished = server.run(command(policy, output, variant))
    assert finished.code == 0, finished.err
    same_policy(expected, output)


@pytest.mark.slow
@pytest.mark.parametrize("variant", VARIANTS)
def test_killed_three_times_at_random_moments(
    server: ForkServer, policy: Path, uninterrupted, tmp_path: Path, variant: str
):
    expected, events = uninterrupted(variant)
    rng = random.Random(20)
    for trial in range(8):
        output = tmp_path / str(trial) / "policy"
        for _ in range(3):
            at = rng.randint(1, events)
            killed = server.run(
                command(policy, output, variant), **moment(output, signal.SIGKILL, at)
            )
            assert killed.code == -signal.SIGKILL or (killed.code, killed.events < at) == (0, True)
        finished = server.run(command(policy, output, variant))
        assert finished.code == 0, finished.err
        same_policy(expected, output)


@pytest.mark.slow
def test_killed_while_the_output_takes_its_place(
    server: ForkServer, policy: Path, uninterrupted, tmp_path: Path
):
    """The output takes its place and the work goes: no moment of it loses the policy."""
    expected, events = uninterrupted("scratch")
    for at in range(events - 60, events + 1, 2):
        output = tmp_path / str(at) / "policy"
        when = moment(output, signal.SIGKILL, at)
        assert server.run(command(policy, output, "scratch"), **when).code == -signal.SIGKILL
        finished = server.run(command(policy, output, "scratch"))
        assert finished.code == 0, finished.err
        same_policy(expected, output)


@pytest.mark.parametrize(
    ("variant", "number"), [("window", signal.SIGINT), ("scratch", signal.SIGTERM)]
)
def test_ctrl_c_finishes_the_step_and_saves(
    server: ForkServer,
    policy: Path,
    uninterrupted,
    tmp_path: Path,
    variant: str,
    number: signal.Signals,
):
    expected, events = uninterrupted(variant)
    output = tmp_path / "policy"
    when = moment(output, number, events // 3)
    stopped = server.run(command(policy, output, variant), **when)
    assert stopped.code == 130, stopped.err
    assert "Traceback" not in stopped.err
    (*_, newest) = complete(work_of(output) / "checkpoints")
    step = int(newest.name[-6:])
    assert stopped.err.splitlines()[-1] == (
        f"paw: stopped; the same command goes on from step {step} of "
        f"{VARIANTS[variant]['imitate__steps']}, in {work_of(output)}; {output} holds the policy "
        f"of step {step}"
    )
    assert [row["update"] for row in read.metrics(work_of(output))] == [*range(1, step + 1)]
    assert not read.imitation(output).finished
    # Weights lie on the disk once; no half of the trainer's state is in the output.
    assert (output / "model.safetensors").samefile(newest / "model.safetensors")
    assert not (output / "trainer.pt").exists()
    finished = server.run(command(policy, output, variant))
    assert finished.code == 0, finished.err
    assert f"; {step} done" in finished.err
    same_policy(expected, output)


def test_killed_in_its_last_evaluation_has_lost_one_step(
    server: ForkServer, policy: Path, tmp_path: Path
):
    """The evaluation may take longer than all the steps."""
    output = tmp_path / "policy"
    rare = {"imitate__checkpoint_every": 100}
    process = server.start(command(policy, output, "window", eval__episodes=10**4, **rare))
    wait_for((work_of(output) / "checkpoints" / "update-000007" / "trainer.pt").is_file)
    process.signal(signal.SIGKILL)
    assert process.wait().code == -signal.SIGKILL
    assert not list((work_of(output) / "eval").iterdir())
    assert [c.name for c in complete(work_of(output) / "checkpoints")] == ["update-000007"]


@pytest.fixture
def halfway(server: ForkServer, policy: Path, uninterrupted, tmp_path: Path) -> Path:
    """The output of an imitation that was stopped in the middle."""
    output = tmp_path / "policy"
    when = moment(output, signal.SIGINT, uninterrupted("window")[1] // 3)
    assert server.run(command(policy, output, "window"), **when).code == 130
    return output


def test_a_changed_configuration_is_refused(
    server: ForkServer, policy: Path, uninterrupted, halfway: Path
):
    changed = {"imitate__noise": 0.1, "imitate__batch_episodes": 5, "run__seed": 3}
    finished = server.run(command(policy, halfway, "window", **changed))
    assert (finished.code, finished.err.count("\n")) == (2, 1), finished.err
    line = finished.err
    assert f"{work_of(halfway)} holds a run of another configuration (run.seed: 0 -> 3" in line
    assert "imitate.noise: None -> 0.1; imitate.batch_episodes: 4 -> 5)" in line
    assert "choose another imitate.output or restore the values" in line
    decay = command(policy, halfway, "window", imitate__final_learning_rate=0)
    assert "imitate.final_learning_rate" in server.run(decay).err
    again = command(policy, halfway, "window", run__resume=False)
    assert "holds an imitation already" in server.run(again).err
    # What is learned does not depend on these.
    free = {"imitate__checkpoint_every": 1, "run__threads": 1, "algorithm__clip_low": 0.1}
    finished = server.run(command(policy, halfway, "window", **free))
    assert finished.code == 0, finished.err
    expected = uninterrupted("window")[0] / "model.safetensors"
    assert (halfway / "model.safetensors").read_bytes() == expected.read_bytes()


def test_more_steps_may_be_taken_and_fewer_not_than_are_made(
    server: ForkServer, policy: Path, halfway: Path
):
    done = read.imitation(halfway).steps
    fewer = server.run(command(policy, halfway, "window", imitate__steps=done))
    assert (fewer.code, f"imitate.steps = {done}: {done} are made already" in fewer.err) == (
        2,
        True,
    )
    assert server.run(command(policy, halfway, "window", imitate__steps=9)).code == 0
    whole = halfway.with_name("whole")
    assert server.run(command(policy, whole, "window", imitate__steps=9)).code == 0
    assert (halfway / "model.safetensors").read_bytes() == (
        whole / "model.safetensors"
    ).read_bytes()
    assert [row["update"] for row in read.metrics(halfway)] == [*range(1, 10)]


def test_a_finished_one_says_so_and_stays(server: ForkServer, policy: Path, tmp_path: Path):
    output = tmp_path / "policy"
    assert server.run(command(policy, output, "window")).code == 0
    before = {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in output.iterdir()}
    shutil.copytree(output, work_of(output))  # as if killed before the work was deleted
    again = server.run(command(policy, output, "window"))
    assert again.code == 0, again.err
    assert again.out.startswith(f"already complete: 8 steps in {output};")
    assert again.out.splitlines()[-1].startswith(f"policy  {output}")
    assert {f.name: (f.read_bytes(), f.stat().st_mtime_ns) for f in output.iterdir()} == before
    assert not work_of(output).exists()
    more = server.run(command(policy, output, "window", imitate__steps=9))
    assert (more.code, "imitate.steps: 8 -> 9" in more.err) == (2, True)


def test_demonstrations_are_those_of_the_beginning(
    server: ForkServer, policy: Path, uninterrupted, halfway: Path, tmp_path: Path
):
    """They are kept: a file of them may go, or a run of which it was the newest."""
    kept = read.trajectories(work_of(halfway), update=0)
    assert len(kept) == read.imitation(halfway).demonstrations
    source, output = tmp_path / "file.jsonl.zst", tmp_path / "learned"
    shutil.copy(work_of(halfway) / "trajectories" / "update-000000.jsonl.zst", source)
    from_file = command(policy, output, "window", imitate__trajectories=source)
    when = moment(output, signal.SIGKILL, uninterrupted("window")[1] // 3)
    assert server.run(from_file, **when).code == -signal.SIGKILL
    source.unlink()
    assert server.run(from_file).code == 0
    expected = uninterrupted("window")[0] / "model.safetensors"
    assert (output / "model.safetensors").read_bytes() == expected.read_bytes()


def test_a_broken_checkpoint_is_named(
    server: ForkServer, policy: Path, uninterrupted, tmp_path: Path
):
    output = tmp_path / "policy"
    when = moment(output, signal.SIGINT, uninterrupted("scratch")[1] // 3)
    assert server.run(command(policy, output, "scratch"), **when).code == 130
    before, broken = complete(work_of(output) / "checkpoints")
    for name in ("trainer.pt", "model.safetensors", "imitate.json"):
        file = broken / name
        data = file.read_bytes()
        file.unlink()  # the output's weights are the same file
        file.write_bytes(data[: len(data) // 2])
        finished = server.run(command(policy, output, "scratch"))
        assert finished.code == 2, finished.err
        line = finished.err.splitlines()[-1]
        assert f"delete the directory {broken}" in line and f"goes on from {before.name}" in line
        file.write_bytes(data)
    demonstrations = work_of(output) / "trajectories" / "update-000000.jsonl.zst"
    data = demonstrations.read_bytes()
    demonstrations.write_bytes(data[:50])
    line = server.run(command(policy, output, "scratch")).err
    assert f"delete the directory {work_of(output)}: the same command then begins anew" in line
    demonstrations.write_bytes(data)
    shutil.rmtree(broken)
    assert server.run(command(policy, output, "scratch")).code == 0
    same_policy(uninterrupted("scratch")[0], output)


def test_a_disk_that_fills_on_the_way(
    server: ForkServer, policy: Path, uninterrupted, halfway: Path
):
    """No file may grow beyond 4,000 bytes: metrics still do, and the next checkpoint's not."""
    newest = complete(work_of(halfway) / "checkpoints")[-1]
    finished = server.run(command(policy, halfway, "window"), file_bytes=12_000)
    assert finished.code == 2, finished.err
    line = finished.err.splitlines()[-1]
    assert "File too large" in line and f"the same command then goes on from {newest.name}" in line
    assert "Traceback" not in finished.err
    assert server.run(command(policy, halfway, "window")).code == 0
    same_policy(uninterrupted("window")[0], halfway)


def test_a_gradient_that_is_not_finite(server: ForkServer, policy: Path, tmp_path: Path):
    output = tmp_path / "policy"
    finished = server.run(command(policy, output, "window", imitate__learning_rate=1e30))
    assert "Traceback" not in finished.err
    line = finished.err.splitlines()[-1]
    file = work_of(output) / "failed-update-000002.jsonl"
    assert f"step 2: the gradient is not finite; the batch is in {file}" in line
    assert file.is_file() and not output.exists()


def test_two_processes_cannot_share_an_output(server: ForkServer, policy: Path, tmp_path: Path):
    output = tmp_path / "policy"
    endless = command(policy, output, "window", imitate__steps=10**6)
    first = server.start(endless)
    deadline = time.monotonic() + 60
    while not (work_of(output) / "metrics.jsonl").is_file() and time.monotonic() < deadline:
        time.sleep(0.01)
    second = server.run(endless)
    first.signal(signal.SIGKILL)
    first.wait()
    assert second.code == 2
    assert f"imitate.output = {str(output)!r}: {work_of(output)}: another process" in second.err


def test_neither_command_trains_in_the_other_ones_directory(
    server: ForkServer, policy: Path, halfway: Path, tmp_path: Path
):
    for place in (halfway, work_of(halfway)):
        refused = server.run(["train", "--run.directory", str(place), "--model.path", str(policy)])
        assert (refused.code, "holds something else" in refused.err) == (2, True)
    (tmp_path / "mine.partial").mkdir()
    (tmp_path / "mine.partial" / "notes.txt").write_text("mine")
    refused = server.run(command(policy, tmp_path / "mine", "window"))
    assert (refused.code, "mine.partial holds something else (notes.txt)" in refused.err) == (
        2,
        True,
    )


def test_the_work_is_a_run_directory(server: ForkServer, policy: Path, halfway: Path):
    work = work_of(halfway)
    again = server.run(["eval", str(work), "--episodes", "1", "--eval.max_turns", "1"])
    assert again.code == 0, again.err
    dry = server.run([*command(policy, halfway, "window"), "--dry-run"])
    newest = complete(work / "checkpoints")[-1].name
    assert f"{halfway} (goes on from {newest})" in dry.out


def test_actions_and_observations_are_measured_by_themselves(uninterrupted):
    """`imitate/nll` is the mean over both; in a file of few demonstrations each step has both."""
    rows = read.metrics(uninterrupted("scratch")[0])
    for row in rows:
        actions, observations = row["imitate/action_tokens"], row["imitate/observation_tokens"]
        assert actions > 0 and observations > 0
        both = actions * row["imitate/action_nll"] + observations * row["imitate/observation_nll"]
        assert row["imitate/nll"] == pytest.approx(both / (actions + observations), rel=1e-6)
    assert rows[-1]["imitate/action_nll"] < rows[0]["imitate/action_nll"]
    assert [row["update"] for row in rows if "eval/success_rate" in row] == [3, 6]
    assert {"time/learn", "time/update", "memory/peak_bytes", "imitate/learning_rate"} <= set(
        rows[0]
    )
