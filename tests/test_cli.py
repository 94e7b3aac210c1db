"""The command line itself: fast, one line for a mistake, suggestions, help."""

import os
import re
import subprocess
import sys

import pytest

from paw.cli import main

WITHOUT_TORCH = """
import sys
from paw.cli import main
status = main(sys.argv[1:])
loaded = [m for m in ("torch", "transformers", "numpy") if m in sys.modules]
assert not loaded, loaded
sys.exit(status)
"""


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60)


def complaint(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line on stderr of a command that exits 2."""
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    (line,) = captured.err.splitlines()
    assert line.startswith("paw: ")
    return line


def test_help_names_the_commands():
    done = subprocess.run(
        [sys.executable, "-m", "paw.cli", "--help"], capture_output=True, text=True, check=True
    )
    for command in ("train", "imitate", "eval", "play", "check-env", "keys"):
        assert re.search(rf"^ +{command}\s+\S", done.stdout, re.MULTILINE), command


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--rollout.gruops", "2"],
        ["train", "--algorithm.name", "grop"],
        ["train", "--updates", "2"],
        ["train", "missing.toml"],
        ["train", "--model.path", "/nonexistent/x"],
        ["train", "--env.name", "hosehold"],
        ["train", "--env.level", "two"],
        ["eval", "/nonexistent/x"],
        ["eval", "x", "--episodes", "0"],
        ["check-env", "nothing:here"],
        ["keys"],
    ],
)
def test_mistakes_show_before_torch_is_imported(arguments: list[str]):
    done = run(*arguments)
    assert done.returncode == (0 if arguments == ["keys"] else 2), done.stderr


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (["trian"], ["no command 'trian'; did you mean 'train'?", "paw --help"]),
        (["x"], ["no command 'x'; known: train, imitate, eval"]),
        (["train", "--rollout.gruops", "2"], ["rollout.gruops", "did you mean 'groups'?"]),
        (["train", "--updates", "2"], ["'--updates'", "did you mean '--run.updates'?"]),
        (["train", "--run.updates"], ["--run.updates needs a value"]),
        (["train", "--run.updates", "3", "missing.toml"], ["missing.toml: no such configuration"]),
        (["eval"], ["eval: give RUN_OR_MODEL"]),
        (["eval", "x", "--episodes", "many"], ["--episodes", "'many' is not a whole number"]),
        (["eval", "x", "--seed", "-1"], ["--seed", "'-1' is not a whole number"]),
        (["eval", "x", "--epsiodes", "3"], ["did you mean '--episodes'?"]),
        (["check-env", "nothing:here"], ["there is no module 'nothing'"]),
        (["check-env", "household", "--tasks", "0"], ["--tasks"]),
        (["check-env", "household", "--run.seed", "1"], ["unexpected argument '--run.seed'"]),
        (["check-env", "household", "--split", "tset"], ["did you mean 'test'?"]),
        (["play", "hosehold"], ["did you mean 'household'?"]),
        (["check-env", "household", "--env.levl", "2"], ["env.levl", "did you mean 'level'?"]),
        (["play", "household", "--env.level", "two"], ['env.level = "two": must be a whole']),
        (["serve-env", "household", "--host", "0.0.0.0"], ["--host 0.0.0.0", "PAW_ENV_TOKEN"]),
        (["serve-env", "household", "--port", "65536"], ["--port", "from 0 to 65,535"]),
        (["serve-env", "household", "--split", "train,tset"], ["did you mean 'test'?"]),
        (["serve-env", "household", "--token-file", "/"], ["--token-file /: cannot be read"]),
        (["play", "openenv:http://127.0.0.1:9"], ["openenv:http://127.0.0.1:9", "refused"]),
        (["check-env", "household", "--tasks", "9999999"], ["from 1 to 1,000"]),
        (["play", "household", "--task", "-1"], ["--task", "'-1' is not a whole number"]),
        (["play", "household", "--seed", "-5"], ["--seed", "'-5' is not a whole number"]),
        (["play", "household", "--task", "9999"], ["has 4000 tasks, no number 9999"]),
        (["keys", "rolout"], ["did you mean 'rollout'?"]),
    ],
)
def test_mistakes(capsys: pytest.CaptureFixture[str], arguments: list[str], parts: list[str]):
    line = complaint(capsys, *arguments)
    assert [part for part in parts if part not in line] == []


def test_keys_may_stand_anywhere(capsys: pytest.CaptureFixture[str], tmp_path):
    file = tmp_path / "c.toml"
    file.write_text("[run]\nseed = 1\n[rollout]\ngroups = 0\n")
    for arguments in (
        ["train", "--run.seed", "7", str(file)],
        ["train", str(file), "--run.seed=7"],
        ["--run.seed", "7", "train", str(file)],
    ):
        assert f"{file}: rollout.groups = 0" in complaint(capsys, *arguments)


def test_help_of_train_says_what_a_first_run_needs():
    done = run("train", "--help")
    for part in ("--env.name", "--model.path", "--run.directory", "paw keys", "Ctrl-C"):
        assert part in done.stdout


def test_no_command_shows_the_help(capsys: pytest.CaptureFixture[str]):
    assert main([]) == 0
    assert "commands" in capsys.readouterr().out


def test_keys_lists_defaults_and_meanings(capsys: pytest.CaptureFixture[str]):
    assert main(["keys", "run"]) == 0
    out = capsys.readouterr().out
    assert "checkpoint_every = 10" in out and "[rollout]" not in out


def test_check_env_passes_the_household(capsys: pytest.CaptureFixture[str]):
    assert main(["check-env", "household", "--tasks", "1"]) == 0


def test_environments_of_the_current_directory_are_found(tmp_path):
    (tmp_path / "mine.py").write_text(
        "from paw.envs.household import Household\nclass Mine(Household):\n    pass\n"
    )
    paw = os.path.join(os.path.dirname(sys.executable), "paw")
    done = subprocess.run(
        [paw, "check-env", "mine:Mine", "--tasks", "1"],
        capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_a_terminal_that_lacks_our_letters():
    done = subprocess.run(
        [sys.executable, "-m", "paw.cli", "keys", "rollout"],
        capture_output=True, env=os.environ | {"PYTHONIOENCODING": "ascii"},
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, b"") and b"<think>?</think>" in done.stdout


def test_playing_needs_an_input():
    done = subprocess.run(
        f"{sys.executable} -m paw.cli play household <&-",
        shell=True, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "the standard input is closed" in done.stderr


def test_help_of_a_narrow_terminal():
    """Prose and tables are wrapped, commands to be copied are not."""
    narrow = os.environ | {"COLUMNS": "40"}
    for command in ("train", "imitate", "eval"):
        done = subprocess.run(
            [sys.executable, "-m", "paw.cli", command, "--help"],
            capture_output=True, text=True, env=narrow,
        )  # fmt: skip
        epilog = done.stdout.partition("\nexamples:")[2].splitlines()
        long = [line for line in epilog if len(line) > 40]
        assert epilog
        assert [line for line in long if not line.startswith(("  paw ", "    "))] == []


def test_output_cut_short_is_no_mistake():
    done = subprocess.run(
        f"{sys.executable} -m paw.cli keys | head -1",
        shell=True, capture_output=True, text=True,
    )  # fmt: skip
    assert (done.stdout, done.stderr) == ("[run]\n", "")
