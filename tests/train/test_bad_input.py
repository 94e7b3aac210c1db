"""Bad input: exit 2, one line that says what and how to mend it, nothing lost."""

import json
import math
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from safetensors.torch import load_file, save_file

from .tiny_runs import Finished, ForkServer, final_state, flags, metrics, same_run

pytestmark = pytest.mark.timeout(300)


def assert_one_line(finished: Finished, *parts: str) -> str:
    """Exit 2 and a single line on stderr that has all `parts`."""
    lines = finished.err.splitlines()
    assert finished.code == 2, finished.err
    assert len(lines) == 1, finished.err
    assert lines[0].startswith("paw: ")
    assert [part for part in parts if part not in lines[0]] == [], lines[0]
    return lines[0]


def assert_last_line(finished: Finished, *parts: str) -> None:
    """Exit 2 after training began: the bar, then one line; no traceback."""
    assert finished.code == 2, finished.err
    assert "Traceback" not in finished.err
    last = finished.err.splitlines()[-1]
    assert [part for part in parts if part not in last] == [], last


@pytest.fixture
def variant(policy: Path, tmp_path: Path) -> Callable[[Callable[[Path], object]], Path]:
    """A copy of the tiny policy with something done to it."""

    def make(change: Callable[[Path], object]) -> Path:
        copy = tmp_path / "variant"
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(policy, copy)
        change(copy)
        return copy

    return make


def cut(file: Path, length: int) -> None:
    file.write_bytes(file.read_bytes()[:length])


def edit(policy: Path, change: Callable[[dict], object]) -> None:
    """Change the weights, or their names, in place."""
    file = policy / "model.safetensors"
    weights = load_file(file)
    change(weights)
    save_file(weights, file, metadata={"format": "pt"})


EMBEDDING = "model.embed_tokens.weight"


def wider(weights: dict) -> None:
    weights[EMBEDDING] = weights[EMBEDDING].repeat(1, 2)


def taller(weights: dict) -> None:
    weights[EMBEDDING] = weights[EMBEDDING].repeat(2, 1)


def not_finite(weights: dict) -> None:
    weights["model.layers.0.mlp.up_proj.weight"][0, 0] = math.nan


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (lambda p: (p / "model.safetensors").write_bytes(b"garbage"), ["cannot load"]),
        (lambda p: cut(p / "model.safetensors", 5000), ["cannot load", "incomplete"]),
        (lambda p: (p / "model.safetensors").unlink(), ["cannot load", "model.safetensors"]),
        (lambda p: (p / "config.json").unlink(), ["without a model (no config.json)"]),
        (lambda p: (p / "config.json").write_text("{"), ["config.json", "not a valid JSON"]),
        (lambda p: (p / "config.json").write_text('{"model_type": "x"}'), ["model type `x`"]),
        (lambda p: (p / "tokenizer.json").unlink(), ["no tokenizer there"]),
        (lambda p: (p / "tokenizer.json").write_text("{"), ["no tokenizer to load"]),
        (lambda p: (p / "tokenizer_config.json").write_text("{"), ["tokenizer_config.json"]),
        (lambda p: (p / "tokenizer_config.json").write_text("[1]"), ["not a JSON object"]),
        (lambda p: edit(p, wider), ["embed_tokens.weight has shape", "by config.json"]),
        (lambda p: (p / "paw.toml").write_text("[rollout]\nx = 1"), ["paw.toml: rollout.x"]),
    ],
)
def test_broken_models(server: ForkServer, variant, tmp_path: Path, change, parts: list[str]):
    broken = variant(change)
    assert_one_line(server.run(["train", *flags(broken, tmp_path / "run")]), str(broken), *parts)
    assert not (tmp_path / "run").exists()
    assert_one_line(server.run(["eval", str(broken), "--episodes", "1"]), str(broken), *parts)


@pytest.mark.parametrize(
    ("changed", "parts"),
    [
        ({"model__path": "/nonexistent/policy"}, ["'/nonexistent/policy': no such directory"]),
        ({"model__path": "./houshold"}, ["no such directory"]),
        ({"model__path": "houshold"}, ["no such directory; did you mean 'household'?"]),
        ({"model__path": "a/b/c"}, ["no such directory in /", "the hub are OWNER/NAME"]),
        ({"model__path": "nobody/nothing"}, ["cannot fetch 'nobody/nothing' from the hub"]),
        ({"model__path": "/tmp/" + "m" * 300}, ["/mmm", "File name too long"]),
        ({"run__directory": "/tmp/" + "r" * 300}, ["/rrr", "File name too long"]),
        ({"model__device": "cuda"}, ["model.device", "no usable GPU; use cpu"]),
        ({"model__device": "tpu"}, ["model.device = 'tpu'", "cuda:N"]),
        ({"env__name": "hosehold"}, ["no environment 'hosehold'; did you mean 'household'?"]),
        ({"env__name": "nothing:here"}, ["there is no module 'nothing'"]),
        ({"env__name": "tiny_envs:Slepy"}, ["tiny_envs has no 'Slepy'"]),
        ({"env__name": "tiny_envs:needs_package"}, ["pip install frobnicate"]),
        ({"env__name": "tiny_envs:Sleepy", "env__num_tasks": 0}, ["has no tasks there"]),
        ({"env__split": "trian"}, ["no split 'trian'; did you mean 'train'?"]),
        ({"env__levl": 2}, ["env.levl", "did you mean 'level'?"]),
        ({"env__num_tasks": 10**22}, ["num_tasks must be at least 1 and at most 10,000,000"]),
        ({"env__level": "two"}, ['env.level = "two": must be a whole number']),
        ({"env__name": "alfworld", "env__data_dir": "/nonexistent"}, ["/nonexistent"]),
        ({"env__name": "webshop", "env__data_dir": "/nonexistent"}, ["/nonexistent"]),
        ({"env__name": "search_qa", "env__data_dir": "/nonexistent"}, ["/nonexistent"]),
        ({"run__directory": "/proc/nothing/run"}, ["cannot write /proc/nothing"]),
        ({"run__directory": "/dev/null/run"}, ["cannot write /dev/null/run", "Not a directory"]),
        ({"run__directory": "/dev/null"}, ["holds something else (a file)"]),
        ({"paw__weight": "matched_constant", "paw__match": "/nonexistent"}, ["/nonexistent"]),
        ({"model__lora_rank": -1}, ["model.lora_rank"]),
    ],
)
def test_what_does_not_fit_what_is_there(
    server: ForkServer, policy: Path, tmp_path: Path, changed: dict, parts: list[str]
):
    finished = server.run(["train", *flags(policy, tmp_path / "run", **changed)])
    assert_one_line(finished, *parts)


def test_weights_that_are_not_finite(server: ForkServer, variant, tmp_path: Path):
    broken = variant(lambda p: edit(p, not_finite))
    finished = server.run(["train", *flags(broken, tmp_path / "run")])
    assert_one_line(finished, "not finite (model.layers.0.mlp.up_proj.weight)", "damaged")


def test_templates(server: ForkServer, variant, tmp_path: Path):
    """One that cannot be read is refused before anything is written; none at all is told once."""
    broken = variant(lambda p: (p / "chat_template.jinja").write_text("{% for %}"))
    finished = server.run(["train", *flags(broken, tmp_path / "run")])
    assert_one_line(finished, "chat template: it cannot be rendered", "Expected an expression")
    assert not (tmp_path / "run").exists()
    bare = variant(lambda p: (p / "chat_template.jinja").unlink())
    finished = server.run(["train", *flags(bare, tmp_path / "run", run__updates=1)])
    assert finished.code == 0
    assert finished.err.count("no chat template; prompts are plain") == 1


def test_a_tokenizer_with_fewer_tokens_than_the_model(server: ForkServer, variant, tmp_path: Path):
    def more_rows(policy: Path) -> None:
        settings = json.loads((policy / "config.json").read_text())
        rows = settings["vocab_size"] * 2
        (policy / "config.json").write_text(json.dumps(settings | {"vocab_size": rows}))
        edit(policy, taller)

    finished = server.run(["train", *flags(variant(more_rows), tmp_path / "run", run__updates=1)])
    assert finished.code == 0
    assert "do they belong together?" in finished.err


@pytest.mark.parametrize("algorithm", ["grpo", "rloo", "gigpo"])
def test_groups_of_one(server: ForkServer, policy: Path, tmp_path: Path, algorithm: str):
    settings = {"rollout__group_size": 1, "algorithm__name": algorithm, "run__updates": 0}
    finished = server.run(["train", *flags(policy, tmp_path / "run", **settings)])
    assert f"rollout.group_size = 1: a group of one has advantage 0, so {algorithm}" in finished.err


def test_a_directory_that_cannot_be_written(server: ForkServer, policy: Path):
    finished = server.run(["train", *flags(policy, "/proc/nothing/run")])
    assert "make room" not in assert_one_line(finished, "cannot write", "choose another")


def test_mended_mistake_needs_no_new_directory(server: ForkServer, policy: Path, tmp_path: Path):
    """What failed before its first update left nothing that a changed configuration could spoil."""
    run = tmp_path / "run"
    wrong = flags(policy, run, eval__every=1, eval__split="vlid", run__updates=1)
    assert_last_line(server.run(["train", *wrong]), "did you mean 'valid'?")
    mended = flags(policy, run, eval__every=1, eval__split="valid", run__updates=1)
    assert server.run(["train", *mended]).code == 0


def test_directory_with_something_else(server: ForkServer, policy: Path, tmp_path: Path):
    run = tmp_path / "run"
    run.mkdir()
    (run / "thesis.tex").write_text("years of work")
    finished = server.run(["train", *flags(policy, run)])
    assert_one_line(finished, "run.directory", "thesis.tex", "choose another")
    assert [p.name for p in run.iterdir()] == ["thesis.tex"]


def test_run_of_another_configuration(server: ForkServer, policy: Path, tmp_path: Path):
    run = tmp_path / "run"
    assert server.run(["train", *flags(policy, run, run__updates=1)]).code == 0
    before = {p: p.read_bytes() for p in run.rglob("*") if p.is_file()}
    changed = flags(policy, run, rollout__groups=3, env__level=2, paw__coefficient=0.5)
    assert_one_line(
        server.run(["train", *changed]),
        "rollout.groups: 2 -> 3", "env.level: None -> 2", "paw.coefficient: 1.0 -> 0.5",
    )  # fmt: skip
    kept = flags(policy, run, run__resume=False)
    assert_one_line(server.run(["train", *kept]), "holds a run already", "run.resume = true")
    assert {p: p.read_bytes() for p in run.rglob("*") if p.is_file()} == before


def test_warnings_and_what_is_recorded(server: ForkServer, policy: Path, tmp_path: Path):
    run = tmp_path / "run"
    settings = {"rollout__group_size": 1, "rollout__max_prompt_tokens": 20, "run__updates": 1}
    finished = server.run(["train", *flags(policy, run, **settings)])
    assert finished.code == 0
    assert "paw: warning: rollout.group_size = 1" in finished.err
    assert metrics(run)[0]["rollout/prompt_cut_fraction"] == 1.0
    long = flags(policy, tmp_path / "long", rollout__max_prompt_tokens=9000, run__updates=1)
    assert "the model was made for 512 tokens" in server.run(["train", *long]).err


def test_evaluation(server: ForkServer, policy: Path, tmp_path: Path):
    def complaint(*arguments: str, model: Path = policy) -> Finished:
        return server.run(["eval", str(model), *arguments])

    empty = tmp_path / "empty"
    empty.mkdir()
    assert_one_line(complaint(model=empty), "directory without a model")
    (empty / "checkpoints").mkdir()
    assert_one_line(complaint(model=empty), "no complete checkpoint yet")
    assert_one_line(complaint("--episodes", "0"), "--episodes", "from 1 to 10,000,000")
    assert_one_line(complaint("--temperature", "nan"), "eval.temperature = nan", "finite")
    assert_one_line(complaint("--temperature", "-1"), "eval.temperature = -1.0", "negative")
    assert_one_line(complaint("--run.updates", "3"), "--run.updates changes nothing here")
    assert_one_line(complaint("--eval.episodes=3"), "--eval.episodes changes nothing here")
    assert_one_line(complaint("--split", "tset"), "did you mean 'test'?")
    assert_one_line(complaint("--env", "hosehold"), "did you mean 'household'?")
    assert_one_line(complaint("-o", "/proc/result.json"), "cannot write /proc/result.json")
    assert_one_line(complaint("-o", str(empty)), "cannot write", "directory")
    result = tmp_path / "new" / "result.json"
    done = complaint("--episodes", "2", "--rollout.max_turns", "2", "-o", str(result))
    assert done.code == 0
    assert "episode" in done.err and "paw" not in done.err  # a progress bar, no complaint
    assert result.is_file()


def test_a_result_that_cannot_be_written_is_printed(
    server: ForkServer, policy: Path, tmp_path: Path
):
    """No file may grow beyond 1,000 bytes; the result has more."""
    command = ["eval", str(policy), "--episodes", "2", "--rollout.max_turns", "2"]
    output = tmp_path / "result.json"
    finished = server.run([*command, "-o", str(output)], file_bytes=1000)
    assert "all tasks" in finished.out
    assert_last_line(finished, f"cannot write {output}: File too large")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_seen_before_anything_is_played(
    server: ForkServer, policy: Path, small_disk: Path
):
    fill(small_disk, 0)
    finished = server.run(["eval", str(policy), "-o", str(small_disk / "result.json")])
    assert_one_line(finished, "cannot write", "No space left on device; make room")
    assert [p.name for p in small_disk.iterdir()] == ["ballast"]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=2m", "none", str(disk)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("mounting a file system needs root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk: Path, left: int) -> Path:
    """Fill the disk but for `left` bytes."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free - left
    with open(ballast, "wb") as file:
        file.write(b"\0" * free)
    return ballast


def test_full_disk_at_every_stage(
    server: ForkServer, policy: Path, tmp_path: Path, small_disk: Path
):
    expected = tmp_path / "expected"
    assert server.run(["train", *flags(policy, expected, run__updates=4)]).code == 0
    run, stages = small_disk / "run", set()
    begin, go_on = (flags(policy, run, run__updates=updates) for updates in (2, 4))
    assert server.run(["train", *begin]).code == 0
    before = final_state(run, 2)
    for kilobytes in (0, 4, 8, 12, 16, 60):
        ballast = fill(small_disk, kilobytes << 10)
        finished = server.run(["train", *go_on])
        assert_last_line(finished, "cannot write", "No space left", "goes on from update-000002")
        stages.add(finished.err.splitlines()[-1].split("cannot write ")[1].split(":")[0])
        assert final_state(run, 2) == before
        assert list(run.rglob("*.tmp")) == []
        ballast.unlink()
    names = {str(Path(stage).relative_to(run)) for stage in stages}
    assert names >= {"config.toml", "checkpoints/update-000004"}, names
    assert len(names) >= 3, names  # and metrics or trajectories
    assert server.run(["train", *go_on]).code == 0
    same_run(expected, run, 4)


def test_file_size_limit_at_the_checkpoint(server: ForkServer, policy: Path, tmp_path: Path):
    """A disk that refuses, without root: model.safetensors may not grow beyond its limit."""
    run = tmp_path / "run"
    assert server.run(["train", *flags(policy, run, run__updates=2)]).code == 0
    before = final_state(run, 2)
    limit = len(before["model.safetensors"]) - 100
    finished = server.run(["train", *flags(policy, run, run__updates=4)], file_bytes=limit)
    assert_last_line(finished, "cannot write", "update-000004", "goes on from update-000002")
    assert final_state(run, 2) == before
    assert [p.name for p in (run / "checkpoints").iterdir()] == ["update-000002"]
    assert server.run(["train", *flags(policy, run, run__updates=4)]).code == 0
