"""`paw episodes`: which episodes are printed, and how."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import zstandard

from paw.cli import main
from paw.commands.episodes import LONG

TURN = {"observation": "You are in a room.", "response": "<action>look</action>",
        "command": "look", "reward": 0.0, "valid": True,
        "next_observation": "You see a mug 1."}  # fmt: skip
OLD = {"task": {"id": "t", "kind": "k", "instruction": "find it"}, "success": False, "turns": []}
"""All that the first versions wrote."""


def episode(index: int, kind: str = "place", turns: Any = (TURN,), **fields: Any) -> Any:
    task = {"id": f"train/{index}", "kind": kind, "instruction": "put a mug on the shelf."}
    return {"env": "household", "update": 1, "group": 0, "index": index, "task": task,
            "return": 0.0, "success": False, "terminated": True, "turns": turns,
            **fields}  # fmt: skip


def write(file: Path, *episodes: Any) -> Path:
    """As another program might, with escapes for all but ASCII."""
    file.parent.mkdir(exist_ok=True, parents=True)
    lines = b"".join(json.dumps(e).encode() + b"\n" for e in episodes)
    file.write_bytes(zstandard.ZstdCompressor().compress(lines))
    return file


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """An unfinished run: two updates kept, an episode failed in the first."""
    kept = tmp_path / "run" / "trajectories"
    lost = {**TURN, "valid": False, "penalty": -0.1, "command": "", "finished": False}
    write(kept / "update-000001.jsonl.zst", episode(0, failure="ValueError: broken", turns=[]),
          episode(1, "look"))  # fmt: skip
    won = {**TURN, "reward": 10.0, "next_observation": None}
    write(
        kept / "update-000012.jsonl.zst",
        episode(0, update=12, turns=[TURN, won], success=True, score=0.5) | {"return": 10.0},
        episode(1, "look", update=12, turns=[lost], terminated=False),
    )
    (kept / "update-000013.jsonl.zst.tmp").write_bytes(b"half")
    return tmp_path / "run"


def shown(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert main(["episodes", *map(str, arguments)]) == 0
    return capsys.readouterr().out


def heads(text: str) -> list[str]:
    return [line for line in text.splitlines() if line.startswith("== ")]


def test_the_newest_kept_update_turn_by_turn(run: Path, capsys):
    text = shown(capsys, run)
    assert text == (
        "== update 12, group 0, episode 0: place, train/0: won, return 10, score 0.5, 2 turns, "
        "100% valid\n"
        "task         put a mug on the shelf.\n"
        "-- turn 1\n"
        "observation  You are in a room.\n"
        "response     <action>look</action>\n"
        "command      look\n"
        "-- turn 2\n"
        "observation  You are in a room.\n"
        "response     <action>look</action>\n"
        "command      look\n"
        "reward       +10\n"
        "\n"
        "== update 12, group 0, episode 1: look, train/1: lost (cut by the turn limit), return 0, "
        "1 turn, 0% valid\n"
        "task         put a mug on the shelf.\n"
        "-- turn 1\n"
        "observation  You are in a room.\n"
        "response     <action>look</action>\n"
        "command\n"
        "refused      not valid, penalty -0.1\n"
        "notes        response cut by max_response_tokens\n"
        "-- then\n"
        "observation  You see a mug 1.\n"
        "\n"
    )


def test_which_episodes(run: Path, capsys):
    file = run / "trajectories" / "update-000001.jsonl.zst"
    assert len(heads(shown(capsys, run, "--update", 1))) == 2
    assert shown(capsys, file) == shown(capsys, run, "--update", 1)
    (failed,) = heads(shown(capsys, run, "--failed"))  # of all updates
    assert "update 1," in failed and "failed (ValueError: broken), return 0, 0 turns" in failed
    (look,) = heads(shown(capsys, run, "--kind", "look"))
    assert "update 12, group 0, episode 1: look" in look
    assert shown(capsys, run, "--failed", "--update", 12) == f"{run}: none of 2 episodes failed\n"
    assert shown(capsys, run, "--failed", "--kind", "look").endswith("none of 2 episodes failed\n")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{run}", "--update", "7"], "no trajectories of update 7 there; kept are 2 updates from 1 "
         "to 12, the nearest 12"),
        (["{run}", "--update", "x"], "'x' is not a whole number"),
        (["{run}", "--kind", "lok"], "no task of kind 'lok'; did you mean 'look'?"),
        (["{file}", "--update", "1"], "--update is one of a run directory"),
        (["{empty}"], "no trajectories there: it is no run, or one that has kept none yet"),
        (["{empty}", "--failed"], "no trajectories there"),
        (["{empty}/x"], "No such file"),
        (["{cut}"], "it is cut short"),
        ([], "are required: RUN|FILE.jsonl.zst"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(run: Path, tmp_path: Path, capsys, arguments: list[str], said: str):
    file = run / "trajectories" / "update-000001.jsonl.zst"
    cut = tmp_path / "cut.jsonl.zst"
    cut.write_bytes(file.read_bytes()[:-3])
    (tmp_path / "empty").mkdir()
    places = {"run": run, "file": file, "empty": tmp_path / "empty", "cut": cut}
    assert main(["episodes", *(a.format(**places) for a in arguments)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and said in err


def test_files_of_earlier_versions_and_of_evaluations(tmp_path: Path, capsys):
    """Their episodes belong to no update."""
    file = write(tmp_path / "old.jsonl.zst", OLD, {**OLD, "prompt_limit": True})
    assert heads(shown(capsys, file)) == [
        "== group 0, episode 0: k, t: lost, return 0, 0 turns",
        "== group 0, episode 0: k, t: lost (no room in the prompt), return 0, 0 turns",
    ]
    assert "none of 0 episodes" in shown(capsys, write(tmp_path / "none.jsonl.zst"))


HOSTILE = "\x1b[2J\x1b]0;owned\x07won\rlost \u202eevil \x9b31m \ud800 \u2028end\x00"


def test_hostile_text_is_shown_and_does_nothing(tmp_path: Path, capsys):
    """No line of a text passes for one of ours, and nothing acts on the terminal."""
    fake = f"{HOSTILE}\n-- turn 9\n== update 3"
    turn = {
        **TURN,
        "observation": fake,
        "response": fake,
        "command": fake,
        "next_observation": fake,
    }
    task = {"id": fake, "kind": fake, "instruction": fake}
    file = write(tmp_path / "x.jsonl.zst", episode(0, task=task, failure=fake, turns=[turn]))
    text = shown(capsys, file)
    assert not set(text) & set("\x1b\x07\r\u202e\x9b\u2028\x00\ud800")
    assert text.count("␛[2J␛]0;owned␇won␍lost ⟨U+202E⟩evil ⟨U+009B⟩31m ? ⟨U+2028⟩end␀") == 7
    starts = [line for line in text.splitlines() if line[:3] in ("== ", "-- ")]
    assert [line.partition(":")[0] for line in starts] == [
        "== update 1, group 0, episode 0", "-- turn 1", "-- then",
    ]  # fmt: skip
    assert main(["episodes", str(file), "--kind", "\x1b[2J"]) == 2
    assert "\x1b" not in capsys.readouterr().err


def test_long_texts_lose_their_middle_unless_asked_for(tmp_path: Path, capsys):
    text = "a" * LONG + "b" * 1_000_000
    file = write(tmp_path / "x.jsonl.zst", episode(0, turns=[{**TURN, "observation": text}]))
    short = shown(capsys, file)
    assert (
        f"{'a' * 750} … 1,000,000 characters left out, --full shows them … {'b' * 750}\n" in short
    )
    assert f"observation  {text}\n" in shown(capsys, file, "--full")


def in_terminal(file: Path, columns: int = 60, **environment: str) -> str:
    """What a terminal of that width gets."""
    code = (
        "import os, sys, shutil\nimport paw.cli\nsys.stdout.isatty = lambda: True\n"
        "sys.exit(paw.cli.main(sys.argv[1:]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "episodes", str(file)],
        env={"PATH": "", "COLUMNS": str(columns), "PYTHONPATH": ":".join(sys.path),
             "PYTHONIOENCODING": "utf-8"} | environment,
        capture_output=True, text=True, encoding="utf-8", timeout=60, check=True,
    )  # fmt: skip
    return done.stdout


def test_colours_and_width_are_a_terminals(tmp_path: Path):
    words = "word " * 40
    file = write(tmp_path / "x.jsonl.zst", episode(0, turns=[{**TURN, "observation": words}]))
    coloured, plain = in_terminal(file), in_terminal(file, NO_COLOR="1")
    assert "\x1b[36mobservation  word" in coloured and "\x1b[32mresponse " in coloured
    assert "\x1b" not in plain and "observation  word word" in plain
    body = [line for line in plain.splitlines() if "word" in line]
    assert len(body) == 5 and max(map(len, body)) <= 60
    assert all(line.startswith(" " * 13) for line in body[1:])


def test_a_reader_that_leaves_early_is_no_error(tmp_path: Path):
    """Of much and of little output: what is left in the buffer shows only at the end."""
    for number in (1, 3000):
        file = write(tmp_path / "x.jsonl.zst", *(episode(i) for i in range(number)))
        command = [sys.executable, "-m", "paw", "episodes", str(file)]
        environment = {"PATH": "", "PYTHONPATH": ":".join(sys.path)}
        with subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment
        ) as process:
            assert process.stdout is not None and process.stderr is not None
            process.stdout.close()
            assert process.stderr.read() == b""
            assert process.wait(60) == 0
