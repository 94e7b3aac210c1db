"""`paw eval` of a policy: what the result holds and what is printed."""

import json
from pathlib import Path

import pytest
import zstandard

from paw.cli import main
from paw.commands.shown import print_evaluation
from paw.envs.household import Household
from train.tiny_runs import ForkServer, flags

pytestmark = pytest.mark.timeout(300)


def test_the_result_says_what_it_was_got_with(server: ForkServer, policy: Path, tmp_path: Path):
    """`--env.split` means `--split`, and the options of the environment count."""
    output = tmp_path / "result.json"
    finished = server.run(
        [
            "eval", str(policy), "--env.split", "test", "--env.level", "2", "--episodes", "3",
            "--eval.max_turns", "2", "--rollout.max_prompt_tokens", "400",
            "--rollout.max_response_tokens", "4", "--rollout.workers", "0",
            "-o", str(output),
        ]
    )  # fmt: skip
    assert finished.code == 0, finished.err
    assert "household test: the first 3 of 200 tasks, at most 2 turns" in finished.out
    assert "level 2" in finished.out and "failed" not in finished.out
    result = json.loads(output.read_text())
    assert result["source"] == Household("test", level=2).facts()
    assert (result["split"], result["num_tasks"], result["num_episodes"]) == ("test", 200, 3)
    assert (result["max_turns"], result["max_response_tokens"]) == (2, 4)
    assert (result["context"], result["validity"]) == ("window", "accepted")
    assert result["env_options"] == {"level": 2}
    assert sum(row["num_episodes"] for row in result["by_kind"].values()) == 3


@pytest.mark.parametrize(
    ("context", "limit", "share"),
    [("append", 30, "prompt_limit_fraction"), ("window", 12, "prompt_cut_fraction")],
)
def test_what_the_prompt_limit_does_is_said(
    server: ForkServer, policy: Path, tmp_path: Path, context: str, limit: int, share: str
):
    output = tmp_path / "result.json"
    command = ["eval", str(policy), "--episodes", "3", "--eval.max_turns", "3"]
    command += ["--rollout.response_format", "command", "--rollout.context", context]
    command += ["--rollout.max_response_tokens", "4", "--rollout.workers", "0", "-o", str(output)]
    finished = server.run([*command, "--rollout.max_prompt_tokens", str(limit)])
    assert finished.code == 0, finished.err
    last = finished.out.splitlines()[-1]
    assert last.startswith(f"rollout.max_prompt_tokens = {limit} ended ")
    assert last.endswith("of the prompts: raise it")
    result = json.loads(output.read_text())
    assert result[share] == 1 and f"{result['prompt_limit_fraction']:.1%} of the episodes" in last
    finished = server.run([*command, "--rollout.max_prompt_tokens", "500"])
    assert (finished.code, "max_prompt_tokens" in finished.out) == (0, False)
    assert json.loads(output.read_text())[share] == 0


def test_two_splits_are_refused(server: ForkServer, policy: Path):
    finished = server.run(["eval", str(policy), "--split", "test", "--env.split=valid"])
    assert (finished.code, finished.err) == (2, "paw: eval: --split test or --env.split valid?\n")


def test_scores_are_shown_where_they_say_more_than_success(capsys):
    """WebShop's score does; ALFWorld's is its success. 12 of 5 tasks: more than once."""
    row = {
        "num_episodes": 12, "success_rate": 0.25, "interval": (0.1, 0.5), "score_mean": 0.25,
        "turns_mean": 3.0, "valid_action_rate": 0.5, "prompt_limit_fraction": 0.0,
        "prompt_cut_fraction": 0.0,
    }  # fmt: skip
    result = row | {
        "env": "webshop", "split": "dev", "num_tasks": 5, "num_failures": 0, "failures": {},
        "max_turns": 15, "temperature": 0.4, "seed": 0, "model": "m", "by_kind": {"beauty": row},
        "source": {"name": "webshop", "num_products": 1000, "catalog_sha256": "0123456789abcdef"},
    }  # fmt: skip
    print_evaluation(result)
    out = capsys.readouterr().out
    assert "webshop dev: all 5 tasks in 12 episodes" in out
    assert "num_products 1,000, catalog_sha256 0123456789ab\n" in out
    assert "25.0%  [10.0%, 50.0%]" in out and "50.0%      12" in out and "score" not in out
    print_evaluation(result | {"score_mean": 0.6, "by_kind": {"beauty": row | {"score_mean": 0.6}}})
    out = capsys.readouterr().out
    assert "score" in out and "0.600" in out


def test_no_name_or_reason_acts_on_a_terminal(capsys):
    """An environment names its kinds, and its exceptions are the reasons."""
    row = {
        "num_episodes": 1, "success_rate": 0.0, "interval": (0.0, 0.5), "score_mean": None,
        "turns_mean": 3.0, "valid_action_rate": 0.5, "prompt_limit_fraction": 0.0,
        "prompt_cut_fraction": 0.0,
    }  # fmt: skip
    hostile = "\x1b[2Jwon\r\u202e"
    print_evaluation(row | {
        "env": "household", "split": "valid", "num_tasks": 2, "num_failures": 1, "seed": 0,
        "failures": {hostile: 1}, "max_turns": 15, "temperature": 0.4, "model": hostile,
        "by_kind": {hostile: row}, "source": {"note": hostile},
    })  # fmt: skip
    out = capsys.readouterr().out
    assert out.count("␛[2Jwon␍⟨U+202E⟩") == 4 and not set(out) & set("\x1b\r\u202e")


def test_a_checkpoint_and_its_episodes(server: ForkServer, policy: Path, tmp_path: Path):
    """The run keeps updates 2 and 4; both are found, a third is not. The episodes have the fields
    of the run's own trajectory files, and `paw imitate` would read them."""
    run, file = tmp_path / "run", tmp_path / "episodes.jsonl.zst"
    finished = server.run(["train", *flags(policy, run, run__updates=4)])
    assert finished.code == 0, finished.err
    short = ["--episodes", "3", "--eval.max_turns", "2", "--rollout.workers", "0"]
    command = ["eval", str(run), "--checkpoint", "2", "--save-trajectories", str(file), *short]
    finished = server.run(command)
    assert finished.code == 0, finished.err
    assert f"{run}/checkpoints/update-000002" in finished.out
    own = lines(run / "trajectories" / "update-000001.jsonl.zst")
    saved = lines(file)
    assert [row["group"] for row in saved] == [0, 1, 2]
    assert saved[0].keys() == own[0].keys()
    assert saved[0]["turns"][0].keys() == own[0]["turns"][0].keys()
    assert len(saved[0]["turns"]) == 2 and saved[0]["turns"][0]["advantage"] is None
    finished = server.run(["eval", str(run), "--checkpoint", "3", *short])
    assert (finished.code, finished.err) == (
        2, f"paw: {run}: no checkpoint of update 3; there: 2, 4\n",
    )  # fmt: skip


def lines(file: Path) -> list[dict]:
    with zstandard.open(file, "rt", encoding="utf-8") as text:
        return [json.loads(line) for line in text]


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (["household", "--checkpoint", "3"], "no run directory"),
        (["household", "--save-trajectories", "x.json"], "the name must end so"),
        (["--api-base", "http://127.0.0.1:1/v1", "--api-model", "m", "--env", "household",
          "--save-trajectories", "x.jsonl.zst"], "goes with RUN_OR_MODEL"),
    ],
)  # fmt: skip
def test_mistakes(capsys, arguments: list[str], part: str):
    assert main(["eval", *arguments]) == 2
    err = capsys.readouterr().err
    assert part in err and err.count("\n") == 1
