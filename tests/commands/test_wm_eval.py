"""`paw wm-eval` and `paw noise` of tiny runs: what is written and printed, and bad input."""

import json
from pathlib import Path

import pytest

from paw.runs import read
from paw.runs.records import write_trajectories
from train.tiny_runs import ForkServer, flags, make_policy, metrics

pytestmark = pytest.mark.timeout(300)


PROMPTS = ["--rollout.response_format", "command", "--rollout.max_prompt_tokens", "400"]


@pytest.fixture(scope="module")
def runs(server: ForkServer, policy: Path, tmp_path_factory) -> dict[str, Path]:
    """By context: one update, whose next observations are scored before it."""
    folder = tmp_path_factory.mktemp("runs")
    for context in ("append", "window"):
        settings = {"run__updates": 1, "run__diagnostics_every": 1, "rollout__context": context}
        done = server.run(["train", *flags(policy, folder / context, **settings)])
        assert done.code == 0, done.err
    return {context: folder / context for context in ("append", "window")}


@pytest.fixture
def run(runs: dict[str, Path]) -> Path:
    return runs["append"]


@pytest.mark.parametrize("context", ["append", "window"])
def test_the_scores_are_those_of_training(
    server: ForkServer, policy: Path, runs: dict[str, Path], context: str, tmp_path: Path
):
    """The policy that an update starts from, asked as it played: the run's own diagnostic. What
    the update made of it is another model, asked the same."""
    run, own = runs[context], ["--rollout.context", context, *PROMPTS]
    output = tmp_path / "result.json"
    done = server.run(["wm-eval", str(policy), str(run), str(run), *own, "-o", str(output)])
    assert done.code == 0, done.err
    (row,) = metrics(run)
    result = json.loads(output.read_text())
    before, after = (result["models"][str(name)] for name in (policy, run))
    assert before["all"]["nats_per_token"] == pytest.approx(
        row["wm/next_observation_nll"], rel=1e-4
    )
    assert before["context"] == context
    assert result["env"] == "household"
    assert result["left_out"] == {str(policy): 0, str(run): 0}
    turns = [t for episode in read.trajectories(run) for t in episode.turns]
    assert result["observations"] == before["all"]["observations"] == len(turns)
    assert result["refused"] == sum(not t.valid for t in turns)
    assert after["against_first"]["difference"] == pytest.approx(
        after["all"]["nats_per_observation"] - before["all"]["nats_per_observation"]
    )
    tokens = sum(part["tokens"] for part in before["classes"].values() if part)
    assert tokens == before["all"]["tokens"]
    assert "less the first" in done.out and "another admissible command" in done.out


def test_noise_of_a_run(server: ForkServer, run: Path, tmp_path: Path):
    """With no file of trajectories the run's own; the plot is a picture."""
    output, plot = tmp_path / "noise.json", tmp_path / "noise.png"
    done = server.run(["noise", str(run), "-o", str(output), "--plot", str(plot)])
    assert done.code == 0, done.err
    result = json.loads(output.read_text())
    for loss in ("tokens", "ce", "mae", "cmae"):
        total = sum(row[f"{loss}_fraction"] for row in result["classes"].values())
        assert total == pytest.approx(1)
    assert plot.read_bytes().startswith(b"\x89PNG")
    assert "clipped MAE" in done.out and "fixed words" in done.out


def test_expert_episodes_are_kept(server: ForkServer, policy: Path, tmp_path: Path):
    """The file that is written gives the same numbers as the episodes that were played, and says
    of which environment it is; junk is refused or not as the environment said."""
    file, first, second = (tmp_path / n for n in ("a.jsonl.zst", "1.json", "2.json"))
    asked = ["--rollout.context", "append", "--rollout.response_format", "command"]
    played = ["--episodes", "3", "--save-trajectories", str(file), "--imitate.junk", "0.5"]
    done = server.run(["wm-eval", str(policy), *asked, *played, "-o", str(first)])
    assert done.code == 0, done.err
    done = server.run(["wm-eval", str(policy), str(file), *asked, "-o", str(second)])
    assert done.code == 0, done.err
    one, other = (json.loads(f.read_text()) for f in (first, second))
    assert one["models"] == other["models"] and one["texts_sha256"] == other["texts_sha256"]
    assert one["trajectories"] is None and other["trajectories"] == str(file)
    records = read.trajectories(file)
    assert {r.env for r in records} == {"household"} and len(records) == 3
    for turn in (t for r in records for t in r.turns):
        assert turn.valid == (turn.next_observation != "Nothing happens.")


def test_a_model_without_a_card(server: ForkServer, run: Path, tmp_path: Path):
    """Asked in `append` with plain commands; what it has no room for no model is asked."""
    bare = make_policy(tmp_path / "bare", card="")
    (bare / "paw.toml").unlink()
    output = tmp_path / "result.json"
    limit = ["--rollout.max_prompt_tokens", "110"]
    done = server.run(["wm-eval", str(bare), str(run), *limit, "-o", str(output)])
    assert done.code == 0, done.err
    result = json.loads(output.read_text())
    found = result["models"][str(bare)]
    assert (found["context"], found["response_format"]) == ("append", "command")
    turns = sum(len(episode.turns) for episode in read.trajectories(run))
    assert 0 < result["observations"] == turns - result["left_out"][str(bare)] < turns
    assert "left out: " in done.out and "prompts cut" not in done.out


def test_prompts_that_are_cut_are_said(server: ForkServer, run: Path):
    """A first turn always fits, if need be without its middle; the turns behind it do not."""
    done = server.run(["noise", str(run), "--rollout.max_prompt_tokens", "30"])
    assert done.code == 0, done.err
    assert "  left out: 8, by rollout.max_prompt_tokens = 30 of " in done.out
    assert "  prompts cut: 4, by" in done.out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["wm-eval", "{policy}"], "the last is a trajectory file or a run; or give --episodes"),
        (["wm-eval", "{policy}", "{policy}", "{run}"], "the same model twice"),
        (["wm-eval", "{policy}", "{policy}"], "no trajectories there"),
        (["wm-eval", "{policy}", "nowhere.jsonl.zst"], "cannot read it"),
        (["wm-eval", "{policy}", "{run}", "--env", "alfworld"], "is of household"),
        (["wm-eval", "{policy}", "{run}", "--split", "test"], "--split goes with --episodes"),
        (["wm-eval", "{policy}", "{run}", "--env.split", "test"], "--split goes with --episodes"),
        (["wm-eval", "{policy}", "{run}", "--imitate.junk", "0"], "changes nothing here"),
        (["wm-eval", "{policy}", "{run}", "--env.name", "x"], "use --env"),
        (["wm-eval", "{policy}", "{run}", "--probability-cap", "0"], "not a share"),
        (["noise", "{run}", "--rollout.max_prompt_tokens", "2"], "the chat template alone takes"),
        (["wm-eval", "{policy}", "--episodes", "1", "--save-trajectories", "x"], ".jsonl.zst"),
        (["wm-eval", "{policy}", "{run}/no/such"], "cannot read it"),
        (["noise", "{policy}"], "no run with trajectories"),
        (["noise", "{run}", "--plot", "x.gif"], "ends in .png"),
        (["noise", "{run}", "-o", "{run}"], "cannot write"),
    ],
)
def test_bad_input(server: ForkServer, policy: Path, run: Path, arguments, message):
    """One line, before anything is loaded."""
    done = server.run([word.format(policy=policy, run=run) for word in arguments])
    assert done.code == 2, done.out
    assert message in done.err and len(done.err.splitlines()) == 1, done.err


def test_trajectories_that_name_no_environment(server: ForkServer, run: Path, tmp_path: Path):
    """Files of earlier versions: the run that they lie in says it, a copy of one says nothing, and
    then the card of the model does, or `--env`."""
    file = tmp_path / "old.jsonl.zst"
    write_trajectories(file, read.trajectories(run), "")
    bare = make_policy(tmp_path / "bare", card="")
    done = server.run(["noise", str(bare), str(file)])
    assert done.code == 2 and "Give --env NAME" in done.err
    assert server.run(["noise", str(bare), str(file), "--env", "household"]).code == 0
    assert server.run(["noise", str(run), str(file)]).code == 0
    write_trajectories(read.trajectory_file(run), read.trajectories(run), "")
    assert server.run(["noise", str(bare), str(run)]).code == 0
    mixed = [*read.trajectories(file)]
    write_trajectories(file, mixed, "alfworld")
    done = server.run(["noise", str(run), str(file), "--env", "household"])
    assert done.code == 2 and "is of alfworld" in done.err
