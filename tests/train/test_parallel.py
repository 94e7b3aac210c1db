"""Several processes on this machine, over gloo, against one: the same run.

In float64, where sums in another order differ by 1e-16: what follows from it is held to 1e-12.
"""

import functools
import itertools
import json
import multiprocessing
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from filelock import FileLock
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from parallel_worker import play
from paw.cli import main
from paw.commands.arguments import configuration
from paw.rollout.ranks import share
from paw.runs import read
from paw.train.loop import train
from paw.train.parallel import _fits

from .tiny_runs import make_policy

TOLERANCE = 1e-12
BASE = {
    "model.dtype": "float64", "run.updates": 3, "run.checkpoint_every": 3, "run.seed": 3,
    "rollout.groups": 3, "rollout.group_size": 3, "rollout.max_turns": 3, "rollout.workers": 0,
    "optimizer.learning_rate": 1e-4, "optimizer.tokens_per_micro_batch": 1000,
}  # fmt: skip
RUNS = {
    "grpo": {"run.diagnostics_every": 2, "eval.every": 3, "eval.episodes": 5},
    "gigpo": {"algorithm.name": "gigpo", "rollout.context": "append", "paw.target": "shuffled",
              "optimizer.epochs": 2},
    "ppo": {
        "algorithm.name": "ppo", "algorithm.critic_learning_rate": 1e-4,
        "optimizer.mini_batches": 2,
    },
    # Saved after each update, which merges the adapter into what plays.
    "lora": {"model.lora_rank": 2, "algorithm.old_logprobs": "score", "optimizer.mini_batches": 2,
             "run.checkpoint_every": 1},
    "ppo-lora": {"algorithm.name": "ppo", "algorithm.critic_learning_rate": 1e-4,
                 "model.lora_rank": 2, "algorithm.kl_coefficient": 0.1},
    "kl": {"algorithm.kl_coefficient": 0.1, "model.gradient_checkpointing": True},
    # Two rows of conversations and one transition that is selected: none for most ranks.
    "few": {"rollout.context": "append", "rollout.groups": 1, "rollout.group_size": 2,
            "paw.selection_fraction": 0.1},
    "kills": {"run.checkpoint_every": 1, "rollout.groups": 2, "rollout.group_size": 2},
    "fp32": {"model.dtype": "float32"},
    "bf16": {"model.dtype": "bfloat16"},
    "baseline": {"paw.enabled": False},
    "silent": {"paw.coefficient": 0.0},
}  # fmt: skip
ENDLESS = 1000
"""Updates of runs that are killed before"""
NARROW = ("fp32", "bf16")
COMPARED = tuple(name for name in RUNS if name not in ("kills", *NARROW))
MODES = ("replicate", "shard")
PAIRS = [(2, "shard", name) for name in COMPARED]
PAIRS += [(2, "replicate", name) for name in ("grpo", "ppo-lora", "baseline", "silent")]
PAIRS += [(4, "shard", name) for name in ("ppo-lora", "few")]
MORE = [one for one in itertools.product((2, 4), MODES, COMPARED) if one not in PAIRS]
"""Slow: the same again by more processes than cores, or in the mode with less to it"""


def flags(name: str, directory: Path, **more: float) -> list[str]:
    keys = BASE | RUNS[name] | {"run.directory": directory} | more
    return [
        x
        for key, value in keys.items()
        for x in (f"--{key}", str(value).lower() if isinstance(value, bool) else str(value))
    ]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


# Ranks are forked from a process that has loaded everything: a start takes no seconds. Only what is
# installed: that process does not have pytest's paths, and says nothing of what it does not find.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["paw.cli", "paw.train.loop", "paw.train.parallel"])
Ranks = list[tuple[Any, Path]]
"""Each one's process, and the file of what it says"""


def launch(
    size: int, folder: Path, work: list, last: dict[str, str] | None = None,
    first: dict[str, str] | None = None,
) -> Ranks:  # fmt: skip
    """`work` (see `parallel_worker.play`) by `size` ranks; by 1 without torchrun's variables. The
    `first` and the `last` have variables of their own."""
    port = str(free_port())
    ranks = []
    for rank in range(size):
        where = {"RANK": str(rank), "LOCAL_RANK": str(rank), "MASTER_PORT": port}
        where |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
        where |= {"MASTER_ADDR": "127.0.0.1"}
        where |= (first or {}) if rank == 0 else {}
        where |= (last or {}) if rank == size - 1 else {}
        said = folder / f"rank-{rank}.txt"
        process = FORKS.Process(target=play, args=(where if size > 1 else {}, said, work))
        process.start()
        ranks.append((process, said))
    return ranks


def finish(ranks: Ranks) -> tuple[list[int], list[str]]:
    """Exit codes, and what each of them said."""
    try:
        for process, _ in ranks:
            process.join(600)
    finally:
        for process, _ in ranks:
            process.kill()
    return [process.exitcode for process, _ in ranks], [said.read_text() for _, said in ranks]


@pytest.fixture(scope="module")
def alone(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """A run by one process, by its name."""
    folder = tmp_path_factory.mktemp("alone")

    @functools.cache
    def run(name: str) -> Path:
        train(configuration([], flags(name, folder / name)))
        return folder / name

    return run


@pytest.fixture(scope="module")
def together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The pairs, by several: once, whatever the number of pytest's own processes."""
    base = tmp_path_factory.getbasetemp()
    folder = (base.parent if os.environ.get("PYTEST_XDIST_WORKER") else base) / "together"
    with FileLock(f"{folder}.lock"):
        if not folder.exists():
            work = Path(tempfile.mkdtemp(dir=folder.parent))
            play_all(work, [*PAIRS, *itertools.product((2,), MODES, NARROW)])
            work.rename(folder)
    return folder


@pytest.fixture(scope="module")
def more_together(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The others."""
    return play_all(tmp_path_factory.mktemp("more-together"), MORE)


def play_all(folder: Path, pairs: list[tuple[int, str, str]]) -> Path:
    for size in sorted({n for n, _, _ in pairs}):
        wanted = [(mode, name) for n, mode, name in pairs if n == size]
        runs = [(mode, flags(name, folder / f"{size}-{mode}-{name}")) for mode, name in wanted]
        codes, said = finish(launch(size, folder, runs))
        assert codes == [0] * size, "\n".join(said)
    return folder


def weights(run: Path, update: int = 3) -> dict[str, torch.Tensor]:
    return load_file(run / "checkpoints" / f"update-{update:06}" / "model.safetensors")


def metrics(run: Path) -> list[dict]:
    """Without what every run has its own of."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    own = ("time/", "memory/", "model/", "tokens/computed")
    return [{k: v for k, v in row.items() if not k.startswith(own)} for row in rows]


def assert_same_metrics(run: Path, other: Path) -> None:
    for found, wanted in zip(metrics(run), metrics(other), strict=True):
        assert found.keys() == wanted.keys()
        for key, value in wanted.items():
            if isinstance(value, float):
                value = pytest.approx(value, rel=1e-9, abs=1e-12)
            assert found[key] == value, key


@pytest.mark.parametrize("size, mode, name", PAIRS)
def test_ranks_together_are_one_process(alone, together: Path, size, mode, name):
    assert_same_run(together / f"{size}-{mode}-{name}", alone(name))


@pytest.mark.slow
@pytest.mark.parametrize("size, mode, name", MORE)
def test_so_are_more(alone, more_together: Path, size, mode, name):
    assert_same_run(more_together / f"{size}-{mode}-{name}", alone(name))


def assert_same_weights(found: dict[str, torch.Tensor], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for key, value in wanted.items():
        assert float((found[key] - value).abs().max() / value.abs().max()) < TOLERANCE, key


def assert_same_run(ours: Path, theirs: Path) -> None:
    """Weights, metrics (gradient norms among them) and every transition's judgement."""
    assert_same_weights(weights(ours), weights(theirs))
    assert_same_metrics(ours, theirs)
    for update in (1, 2, 3):
        pairs = zip(*(read.trajectories(run, update) for run in (ours, theirs)), strict=True)
        for trajectory, other in pairs:
            assert [t.selected for t in trajectory.turns] == [t.selected for t in other.turns]
            assert [t.response for t in trajectory.turns] == [t.response for t in other.turns]


@pytest.mark.parametrize("mode", MODES)
def test_narrow_weights(alone, together: Path, mode: str):
    """fp32 adds gradients up another way than float64; bf16 has fp32 masters, in the shards too."""
    first, other = (metrics(run)[0] for run in (together / f"2-{mode}-fp32", alone("fp32")))
    assert first["tokens/sampled"] == other["tokens/sampled"]
    for name in ("policy/gradient_norm", "wm/loss"):
        assert first[name] == pytest.approx(other[name], rel=1e-3)
    run = together / f"2-{mode}-bf16"
    found = weights(run)
    assert {value.dtype for value in found.values()} == {torch.bfloat16}
    state = torch.load(run / "checkpoints/update-000003/trainer.pt", weights_only=True)
    masters = state["optimizer"]["masters"]
    assert len(masters) == len(found)
    if mode == "shard":
        assert {place["dtype"] for place in masters} == {"float32"}
    norms = [metrics(one)[0]["policy/gradient_norm"] for one in (run, alone("bf16"))]
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)


@pytest.mark.parametrize("size, mode", [(2, "shard"), (4, "shard"), (2, "replicate")])
def test_one_process_goes_on_with_all_that_ranks_had(
    alone, together: Path, tmp_path: Path, size: int, mode: str
):
    """Critic, adapter, their moments: saved by ranks, or by the one."""
    for name, made in (("ours", together / f"{size}-{mode}-ppo-lora"), ("one", alone("ppo-lora"))):
        shutil.copytree(made, tmp_path / name)
        train(configuration([], flags("ppo-lora", tmp_path / name, **{"run.updates": 4})))
    assert_same_weights(*(weights(tmp_path / name, 4) for name in ("ours", "one")))
    assert_same_metrics(tmp_path / "ours", tmp_path / "one")


@pytest.mark.parametrize("mode", MODES)
def test_weight_0_is_the_baseline_to_the_bit(together: Path, mode: str):
    one, other = (weights(together / f"2-{mode}-{name}") for name in ("silent", "baseline"))
    assert all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("mode", MODES)
def test_so_it_is_with_four(more_together: Path, mode: str):
    one, other = (weights(more_together / f"4-{mode}-{name}") for name in ("silent", "baseline"))
    assert all(torch.equal(one[key], other[key]) for key in one)


def test_a_policy_that_learns_nothing_stands_in_parts(tmp_path: Path):
    """Of 2 ranks, a row more or less, and in a block all of it besides."""
    codes, said = finish(launch(2, tmp_path, ["kept"]))
    assert codes == [0, 0], said
    parts = 0
    for words in said:
        before, held, gathered, after, same = words.split()[-5:]  # behind progress bars
        assert int(held) == int(after) == pytest.approx(int(before) / 2, rel=1e-3)
        assert int(gathered) == int(before) + int(held) and same == "True"
        parts += int(held)
    assert parts == int(before)


def test_a_gradient_that_is_not_finite_ends_all_ranks_with_one_dump(tmp_path: Path):
    """A learning rate of 1e30: the second mini-batch meets weights beyond all numbers."""
    keys = {"optimizer.learning_rate": 1e30, "optimizer.mini_batches": 2}
    words = ["train", *flags("few", tmp_path / "run", **keys), "--parallel.mode", "shard"]
    codes, said = finish(launch(3, tmp_path, words))
    assert codes == [1, 1, 1]
    for words in said:
        assert "the gradient is not finite; the mini-batch is in" in words.splitlines()[-1]
        assert "Traceback" not in words
    (dump,) = (tmp_path / "run").glob("failed-update-*.jsonl")
    assert dump.name in said[0] and list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_disk_that_is_full_for_one_rank_ends_all_and_leaves_nothing(tmp_path: Path):
    """Files of rank 1 end at 100 kB; its part of the moments has half of 1.3 MB."""
    words = ["train", *flags("few", tmp_path / "run"), "--parallel.mode", "shard"]
    codes, said = finish(launch(2, tmp_path, words, {"FILE_LIMIT": "100000"}))
    assert codes == [2, 2], said
    for words in said:
        line = words.splitlines()[-1]
        assert "cannot write" in line and line.endswith(
            "; the same command then goes on from the start"
        )
        assert "Traceback" not in words
    assert list((tmp_path / "run" / "checkpoints").iterdir()) == []


def test_a_broken_part_of_a_checkpoint_is_named(together: Path, tmp_path: Path, capfd):
    run = tmp_path / "run"
    shutil.copytree(together / "2-shard-few", run)
    part = run / "checkpoints" / "update-000003" / "trainer" / "__1_0.distcp"
    part.write_bytes(part.read_bytes()[:1000])
    assert main(["train", *flags("few", run, **{"run.updates": 4})]) == 2
    line = capfd.readouterr().err.splitlines()[-1]
    assert "trainer.pt: cannot read it" in line
    assert line.endswith("the same command then goes on from the start")


@pytest.mark.parametrize(
    "last, keys, line",
    [
        (
            {"WORDS": "--optimizer.weight_decay 0.1"},
            {},
            "rank 1 was started with optimizer.weight_decay = 0.1, rank 0 with 0.0",
        ),
        ({}, {"run.directory": "run"}, "does not see run/.seen-by-all-"),
        (
            {},
            {"model.path": "policy"},
            "rank 1 has loaded other weights from policy than rank 0",
        ),
    ],
)
def test_ranks_that_are_not_alike_do_not_begin(tmp_path: Path, last: dict, keys: dict, line: str):
    for number, name in enumerate(("one", "other")):  # policies of one name and other weights
        make_policy(tmp_path / name / "policy", max_positions=8192, seed=number)
    words = ["train", *flags("few", tmp_path / "run", **keys)]
    folders = [{"FOLDER": str(tmp_path / name)} for name in ("one", "other")]
    codes, said = finish(launch(2, tmp_path, words, folders[1] | last, first=folders[0]))
    assert codes == [2, 2], said
    for words in said:
        assert line in words.splitlines()[-1] and "Traceback" not in words
    assert not list(tmp_path.rglob(".seen-by-all-*"))


def test_a_checkpoint_that_a_rank_does_not_see_is_not_called_broken(tmp_path: Path):
    keys = {"run.directory": "run", "run.updates": 1}
    (tmp_path / "one").mkdir()
    (tmp_path / "other").mkdir()
    here = {"FOLDER": str(tmp_path / "one")}
    words = ["train", *flags("few", tmp_path, **keys)]
    assert finish(launch(2, tmp_path, words, here, first=here))[0] == [0, 0]
    words = ["train", *flags("few", tmp_path, **keys | {"run.updates": 2})]
    there = {"FOLDER": str(tmp_path / "other")}
    codes, said = finish(launch(2, tmp_path, words, there, first=here))
    assert codes == [2, 2], said
    for words in said:
        assert "does not see run/checkpoints/update-000001" in words.splitlines()[-1]


def test_sigterm_of_one_rank_stops_all_and_saves(tmp_path: Path):
    run = tmp_path / "run"
    ranks = launch(2, tmp_path, ["train", *kills(run, ENDLESS), "--parallel.mode", "shard"])
    while measured(run) < 1 and all(process.is_alive() for process, _ in ranks):
        time.sleep(0.02)
    ranks[1][0].terminate()
    codes, said = finish(ranks)
    assert codes == [130, 130], said
    assert "paw: stopped; the same command goes on from update-" in said[0].splitlines()[-1]
    assert weights(run, measured(run))


def kill_one(size: int, mode: str, run: Path, order: random.Random) -> None:
    """Go on with `run` as `size` ranks, one of which is killed at a moment by chance: as it begins
    or after its first update."""
    before, began, opened = measured(run), time.time(), run / "environment.json"
    ranks = launch(size, run.parent, ["train", *kills(run, ENDLESS), "--parallel.mode", mode])
    updates, pause = before + order.randint(0, 1), order.uniform(0, 0.5)

    def waits() -> bool:
        is_open = opened.is_file() and opened.stat().st_mtime > began
        return not is_open or measured(run) < updates

    while waits() and all(process.is_alive() for process, _ in ranks):
        time.sleep(0.02)
    time.sleep(pause)
    victim = order.randrange(size)
    ranks[victim][0].kill()
    codes, said = finish(ranks)
    assert codes.pop(victim) == -signal.SIGKILL, said
    said.pop(victim)
    for code, words in zip(codes, said, strict=True):
        assert code == 1 and "Traceback" not in words, words
        assert words.splitlines()[-1].count("another process of this run has gone; ") == 1


def measured(run: Path) -> int:
    file = run / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.is_file() else 0


def kills(run: Path, total: int) -> list[str]:
    return flags("kills", run, **{"run.updates": total})


@pytest.mark.parametrize("count", [4, pytest.param(10, marks=pytest.mark.slow)])
def test_kills_change_nothing(tmp_path: Path, count: int):
    """Of ranks in changing number and mode, at moments by chance."""
    order, run = random.Random(0), tmp_path / "killed"
    sizes, modes = itertools.cycle([2, 3]), itertools.cycle(["shard", "shard", "replicate"])
    for size, mode in zip(itertools.islice(sizes, count), modes, strict=False):
        kill_one(size, mode, run, order)
    total = measured(run) + 2
    codes, said = finish(launch(2, tmp_path, ["train", *kills(run, total)]))
    assert codes == [0, 0], said
    train(configuration([], kills(tmp_path / "whole", total)))
    assert_same_weights(*(weights(tmp_path / name, total) for name in ("killed", "whole")))
    assert_same_metrics(run, tmp_path / "whole")


def test_a_checkpoint_of_four_ranks_is_an_ordinary_model(together: Path):
    """Read by transformers, with the tokenizer beside it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    place = together / "4-shard-few" / "checkpoints" / "update-000003"
    model = AutoModelForCausalLM.from_pretrained(place, dtype="auto")
    assert model.dtype == torch.float64 and len(AutoTokenizer.from_pretrained(place)) > 2
    assert {file.name for file in (place / "trainer").iterdir()} >= {"__3_0.distcp"}


def test_torchrun_starts_ranks_that_speak_once(tmp_path: Path):
    """The command that users type, with all else in this module played by forks."""
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    words += ["-m", "paw", "train", *flags("few", tmp_path / "run", **{"run.updates": 1})]
    done = subprocess.run(
        words,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    said = (done.stdout + done.stderr).splitlines()
    assert sum(line.startswith("update 1/1") for line in said) == 1
    assert weights(tmp_path / "run", 1)


def test_auto_shards_what_one_device_has_no_room_to_learn(tmp_path: Path):
    """By config.json alone."""
    from transformers import Qwen2Config

    Qwen2Config(hidden_size=8192, num_hidden_layers=80, intermediate_size=29568).save_pretrained(
        tmp_path
    )
    (tmp_path / "tokenizer.json").write_text("{}")
    (tmp_path / "model.safetensors").touch()
    assert _fits(configuration([], []), 1)
    assert not _fits(configuration([], ["--model.path", str(tmp_path)]), 1)


def test_other_commands_are_one_process(monkeypatch: pytest.MonkeyPatch, capfd):
    started = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "x", "MASTER_PORT": "1"}
    for name, value in started.items():
        monkeypatch.setenv(name, value)
    for what, words in {
        "eval": ["eval", "household"],
        "train --dry-run": ["train", "--dry-run"],
    }.items():
        assert main(words) == 2
        error = capfd.readouterr().err
        assert error == f"paw: paw {what} is one process: start it without torchrun\n"


@given(st.lists(st.integers(0, 50)), st.integers(1, 9))
def test_shares_follow_each_other_and_are_even(sizes: list[int], count: int):
    """Nothing dropped or repeated, and no share is above the mean by more than the largest item."""
    parts = share(range(len(sizes)), sizes, count)
    assert len(parts) == count
    assert [i for part in parts for i in part] == list(range(len(sizes)))
    for part in parts:
        assert sum(sizes[i] for i in part) <= sum(sizes) / count + max(sizes, default=0)
