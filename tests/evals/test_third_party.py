"""A third party's environment has the same say as a built-in one, from imitation to evaluation."""

import json
import re
from argparse import Namespace
from pathlib import Path

import lamps
import pytest
from lamps import Lamps

from paw.cli import main
from paw.commands import eval_endpoint
from paw.evals.agents import Plain
from paw.types import Task

NAME = "lamps:Lamps"
SMALL = [
    "--rollout.workers=0", "--rollout.response_format=tags", "--rollout.max_response_tokens=60",
]  # fmt: skip


@pytest.fixture(autouse=True)
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(Path(lamps.__file__).parent)


def test_it_is_asked_in_its_own_words():
    task = Task("dusk/0", "street 0", "light the lamp.")
    (message,) = Plain(Lamps.style, 2).messages(task, [], Lamps().open(task).reset())
    assert message["content"] == (
        "You look after a lamp.\nYour task is: light the lamp.\nYour current observation is: A "
        "lamp. It is dark.\nYour admissible commands are: ['On', 'Off'].\nGive one command inside "
        "<switch> </switch>."
    )


def test_its_protocol_holds_at_endpoints():
    known = Namespace(env=NAME, data_dir=None, temperature=None, configs=[])
    config = eval_endpoint._resolved(known, []).config
    assert (config.rollout.max_turns, config.eval.temperature) == (3, 0.0)
    config = eval_endpoint._resolved(known, ["--rollout.max_turns", "9"]).config
    assert (config.rollout.max_turns, config.eval.temperature) == (9, 0.0)


def test_imitated_trained_and_evaluated(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """A small new policy learns to write the one response; then an update and an evaluation."""
    policy, run = tmp_path / "policy", tmp_path / "run"
    imitate = ["imitate", "--env.name", NAME, "--imitate.from_scratch", "true", *SMALL]
    imitate += ["--eval.episodes=6", "--imitate.demonstrations=16", "--imitate.batch_episodes=4"]
    imitate += ["--imitate.steps=60", "--imitate.learning_rate=0.01", "--imitate.warmup_steps=5"]
    imitate += ["--imitate.hidden_size=32", "--imitate.num_layers=1"]
    assert main([*imitate, "--imitate.output", str(policy)]) == 0
    assert "100.0% of 6 dusk episodes" in capsys.readouterr().out  # the split to evaluate on
    train = ["train", "--env.name", NAME, "--model.path", str(policy), *SMALL]
    groups = ["--rollout.groups", "2", "--rollout.group_size", "2", "--run.updates", "1"]
    assert main([*train, *groups, "--run.directory", str(run)]) == 0
    (row,) = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    assert row["rollout/success_rate"] > 0  # <switch>On</switch> was understood
    capsys.readouterr()
    result = tmp_path / "result.json"
    assert main(["eval", str(run), "-o", str(result), *SMALL, "--temperature", "0"]) == 0
    shown = capsys.readouterr().out
    assert f"{NAME} dusk: all 6 tasks" in shown
    assert re.search(r"^ +lit +95 % interval +glow ", shown, re.M)
    assert re.search(r"^  all lamps +100\.0%", shown, re.M)
    assert re.search(r"^  average of 2 streets +100\.0% .* 0\.500$", shown, re.M)
    assert json.loads(result.read_text())["success_rate"] == 1.0
