import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from fake_endpoint import FakeEndpoint, PlainExpert, react_expert

from paw.envs.household import Household
from paw.errors import UserError
from paw.evals.agents import Plain, React
from paw.evals.endpoint import Endpoint
from paw.evals.journal import Journal, journal_path
from paw.evals.remote import Player, Setup, _seed, play_all
from paw.evals.remote_result import by_trial, result_of, settings_of
from paw.rollout.pool import EnvironmentPool

SETUP = {
    "env": "household", "split": "valid", "env_options": {}, "agent": "react", "trials": 1,
    "shots": 0, "model": "small", "api_host": "127.0.0.1", "temperature": 0.4, "seed": 7,
    "max_turns": 20, "history_turns": 2, "max_response_tokens": 64, "validity": "accepted",
}  # fmt: skip


def play(fake, path=None, *, episodes=4, concurrency=4, tries=2, on_episode=None, **changes):
    """Records and the result of some household episodes, environments in this process."""
    setup = Setup(**(SETUP | changes))
    source = Household("valid")
    agent = Plain(Household.style, 2) if setup.agent == "plain" else React(Household.style)
    endpoint = Endpoint(fake.base, "small", key=None, tries=tries, backoff=0.01, timeout=5)
    journal = Journal(path, settings_of(setup, source)) if path else None
    try:
        with EnvironmentPool("household", "valid", {}, workers=0) as environments:
            player = Player(setup, source, agent, endpoint, environments)
            records = play_all(
                player, journal, episodes=episodes, concurrency=concurrency,
                on_episode=on_episode or (lambda number, record: None),
            )  # fmt: skip
    finally:
        if journal:
            journal.close()
    return records, result_of(setup, source, records, (1.0, 2.0))


def test_an_expert_behind_the_endpoint_wins():
    with FakeEndpoint(react_expert) as fake:
        records, result = play(fake, episodes=8)
    assert result["success_rate"] == 1.0
    assert result["num_failures"] == 0
    assert [r["number"] for r in records] == list(range(8))
    assert [e["task"] for e in result["episodes"]] == [t.id for t in Household("valid")[:8]]
    turns = sum(e["turns"] for e in result["episodes"])
    assert turns == len(fake.bodies)
    # 10 prompt and 5 completion tokens a request, at 1 and 2 per million
    assert result["tokens"] == {
        "num_requests": turns, "num_uncounted": 0, "prompt": 10 * turns, "completion": 5 * turns,
    }  # fmt: skip
    assert result["cost"] == pytest.approx(turns * (10 * 1 + 5 * 2) / 1e6)
    assert result["return_mean"] == Household.max_return
    assert result["valid_action_rate"] == 1.0
    for key in SETUP:
        assert key in result
    assert result["num_tasks"] == 200


def test_plain_agent_wins_with_the_prompts_of_training():
    with FakeEndpoint(PlainExpert()) as fake:
        _, result = play(fake, agent="plain", concurrency=1)
    assert result["success_rate"] == 1.0
    assert "you are now at step 3" in fake.bodies[2]["messages"][0]["content"].lower()


def test_every_request_has_a_seed_of_its_own():
    with FakeEndpoint(react_expert) as fake:
        play(fake)
        play(fake)
    seeds = [body["seed"] for body in fake.bodies]
    half = len(seeds) // 2
    assert len(set(seeds)) == half
    assert set(seeds[:half]) == set(seeds[half:])
    assert all(0 <= s < 2**31 for s in seeds)


def test_concurrency_overlaps():
    with FakeEndpoint(react_expert, delay=0.05) as fake:
        play(fake, concurrency=4)
    assert fake.most_at_once == 4


def test_one_at_a_time():
    with FakeEndpoint(react_expert, delay=0.01) as fake:
        play(fake, concurrency=1, episodes=2)
    assert fake.most_at_once == 1


def test_turn_limit_is_a_loss():
    with FakeEndpoint(lambda body: "Action: look") as fake:
        _, result = play(fake, max_turns=3, episodes=2)
    assert (result["success_rate"], result["turns_mean"]) == (0.0, 3.0)
    assert result["num_failures"] == 0


def test_malformed_and_refused_commands():
    """Turn 1 malformed, turn 2 refused by the household: `accepted` counts both, `format` one."""
    with FakeEndpoint(lambda body: "?" if len(body["messages"]) == 1 else "Action: fly") as fake:
        _, strict = play(fake, max_turns=2, episodes=1)
        _, lenient = play(fake, max_turns=2, episodes=1, validity="format")
    assert (strict["valid_action_rate"], lenient["valid_action_rate"]) == (0.0, 0.5)


def test_a_failed_episode_is_masked_and_the_run_goes_on():
    """2 tries: the first episode's first response fails for good; the other three are won."""
    with FakeEndpoint(react_expert, faults=[None, 500, 500]) as fake:
        records, result = play(fake, concurrency=1)
    assert (result["num_episodes"], result["num_failures"]) == (3, 1)
    assert result["success_rate"] == 1.0
    assert result["failures"] == {"endpoint: HTTP 500 after 2 tries": 1}
    assert result["episodes"][0]["failure"] == "endpoint: HTTP 500 after 2 tries"
    assert records[0]["tokens"]["num_requests"] == 1, "paid for all the same"


def test_a_failed_environment_is_masked():
    class Broken(EnvironmentPool):
        def step(self, commands):
            if 0 in commands:
                self._host.drop(0)
            return super().step(commands)

    setup, source = Setup(**SETUP), Household("valid")
    with FakeEndpoint(react_expert) as fake:
        endpoint = Endpoint(fake.base, "small")
        with Broken("household", "valid", {}, workers=0) as environments:
            player = Player(setup, source, React(Household.style), endpoint, environments)
            records = play_all(player, None, episodes=2, concurrency=2)
    assert records[0]["failure"].startswith("environment: KeyError")
    assert records[1]["success"]


def test_a_refusal_stops_the_run_and_keeps_what_is_finished(tmp_path):
    path = tmp_path / "journal"
    good = 0
    with FakeEndpoint(react_expert) as fake:
        play(fake, episodes=1)
        good = len(fake.bodies)
    with FakeEndpoint(react_expert, faults=[None] * good + [401]) as fake:
        with pytest.raises(UserError, match="HTTP 401"):
            play(fake, path, concurrency=1)
        assert len(fake.bodies) == good + 1
        _, result = play(fake, path, concurrency=1)
    assert result["success_rate"] == 1.0
    seeds = [body["seed"] for body in fake.bodies[good + 1 :]]
    assert not {_seed(7, 0, 0, turn) for turn in range(20)} & set(seeds)


def test_failed_episodes_are_played_again_and_stay_paid_for(tmp_path):
    path = tmp_path / "journal"
    with FakeEndpoint(react_expert, faults=[None, 500, 500]) as fake:
        play(fake, path, concurrency=1)
        records, result = play(fake, path, concurrency=1)
        served = len(fake.bodies) - 2
        play(fake, path)
        assert len(fake.bodies) - 2 == served, "nothing left to play"
    assert (result["num_episodes"], result["num_failures"]) == (4, 0)
    assert [r["number"] for r in records] == [0, 0, 1, 2, 3]
    assert result["tokens"]["num_requests"] == served
    assert result["failures"] == {}


def test_more_episodes_go_on(tmp_path):
    with FakeEndpoint(react_expert) as fake:
        first, _ = play(fake, tmp_path / "j", episodes=2)
        before = len(fake.bodies)
        both, _ = play(fake, tmp_path / "j", episodes=3)
        assert both[:2] == first
        assert {_seed(7, 2, 0, t) for t in range(20)} >= {
            body["seed"] for body in fake.bodies[before:]
        }
        few, result = play(fake, tmp_path / "j", episodes=1)
    assert few == first[:1] and result["num_episodes"] == 1


def test_past_the_end_tasks_come_again():
    with FakeEndpoint(lambda body: "Action: look") as fake:
        records, _ = play(fake, episodes=201, max_turns=1, concurrency=8)
    assert records[200]["task"] == records[0]["task"]


KILLED = """
import sys, json
from pathlib import Path
from paw.envs.household import Household
from paw.evals.agents import React
from paw.evals.endpoint import Endpoint
from paw.evals.journal import Journal
from paw.evals.remote import Player, Setup, play_all
from paw.rollout.pool import EnvironmentPool
base, path, setup, settings = json.loads(sys.argv[1])
with EnvironmentPool("household", "valid", {}, workers=0) as environments:
    endpoint = Endpoint(base, "small")
    react = React(Household.style)
    player = Player(Setup(**setup), Household("valid"), react, endpoint, environments)
    play_all(player, Journal(Path(path), settings), episodes=8, concurrency=2)
"""


def test_killed_in_the_middle(tmp_path):
    """SIGKILL after three finished episodes, a torn line behind them; then the same again."""
    path = tmp_path / "journal"
    with FakeEndpoint(react_expert, delay=0.02) as fake:
        settings = settings_of(Setup(**SETUP), Household("valid"))
        arguments = json.dumps([fake.base, str(path), SETUP, settings])
        process = subprocess.Popen([sys.executable, "-c", KILLED, arguments])
        while not (path.exists() and path.read_bytes().count(b"\n") >= 4):
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGKILL)
        process.wait()
        lines = path.read_bytes().splitlines(keepends=True)
        finished = [json.loads(line)["number"] for line in lines[1:] if line.endswith(b"\n")]
        with path.open("ab") as file:
            file.write(lines[-1][: len(lines[-1]) // 2])
        before = len(fake.bodies)
        records, result = play(fake, path, episodes=8, concurrency=2)
        asked = {body["seed"] for body in fake.bodies[before:]}
    assert 3 <= len(finished) < 8
    assert not asked & {_seed(7, n, 0, t) for n in finished for t in range(20)}
    assert [r["number"] for r in records] == list(range(8))
    assert result["success_rate"] == 1.0
    assert len([json.loads(line) for line in path.read_bytes().splitlines()]) == 1 + 8


@pytest.mark.parametrize(
    "change",
    [
        {"split": "test"}, {"agent": "plain"}, {"model": "large"}, {"temperature": 0.5},
        {"seed": 8}, {"env_options": {"level": 2}}, {"max_turns": 21}, {"shots": 1},
        {"api_host": "elsewhere"},
    ],
)  # fmt: skip
def test_changed_settings_are_refused(tmp_path, change):
    source, (key,) = Household("valid"), change
    Journal(tmp_path / "j", settings_of(Setup(**SETUP), source)).close()
    Journal(tmp_path / "j", settings_of(Setup(**SETUP), source)).close()
    with pytest.raises(UserError, match=f"begun with {key} = ") as caught:
        Journal(tmp_path / "j", settings_of(Setup(**(SETUP | change)), source))
    assert "\n" not in str(caught.value)


def test_changed_data_are_refused(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    setup = Setup(**(SETUP | {"env_options": {"data_dir": str(data)}}))
    Journal(tmp_path / "j", settings_of(setup, Household("valid"))).close()
    with pytest.raises(UserError, match="num_tasks = 200, now it is 3"):
        Journal(tmp_path / "j", settings_of(setup, Household("valid", num_tasks=3)))
    moved = Setup(**(SETUP | {"env_options": {"data_dir": str(data.rename(tmp_path / "d"))}}))
    Journal(tmp_path / "j", settings_of(moved, Household("valid"))).close()
    (tmp_path / "d" / "more").write_text("x")
    with pytest.raises(UserError, match="data_listing_sha256"):
        Journal(tmp_path / "j", settings_of(moved, Household("valid")))


def test_facts_of_the_source_are_kept():
    class Known(Household):
        def facts(self):
            return {"num_products": 1000}

    assert settings_of(Setup(**SETUP), Known("valid"))["source"] == {"num_products": 1000}


@pytest.mark.parametrize("content", [b"hello\n", b"hello", b"[1]\n", b'{"a": 1}\n', b"\x00\n"])
def test_a_foreign_file_is_no_journal_and_stays(tmp_path, content):
    path = tmp_path / "j"
    path.write_bytes(content)
    with pytest.raises(UserError, match="no journal"):
        Journal(path, {"a": 1})
    assert path.read_bytes() == content


def test_a_torn_first_line_is_begun_anew(tmp_path):
    (tmp_path / "j").write_bytes(b'{"settings": {"a"')
    Journal(tmp_path / "j", {"a": 1}).close()
    assert (tmp_path / "j").read_bytes() == b'{"settings": {"a": 1}}\n'


def test_one_process_at_a_time(tmp_path):
    with Journal(tmp_path / "j", {}), pytest.raises(UserError, match="another process"):
        Journal(tmp_path / "j", {})


def reflecting(body):
    """Fails every trial that has read no reflection; plays as the expert afterwards."""
    first = body["messages"][0]["content"]
    if first.startswith("You tried a task and failed."):
        return "<think>hm</think>Use the expert."
    if "- Use the expert." in first:
        return react_expert(body)
    return "Thought: no idea\nAction: look"


def test_reflexion_wins_the_second_trial():
    with FakeEndpoint(reflecting) as fake:
        records, result = play(fake, agent="reflexion", trials=3, episodes=2)
    assert result["success_rate"] == 1.0
    assert [e["trials"] for e in result["episodes"]] == [2, 2]
    assert [row["success_rate"] for row in result["by_trial"]] == [0.0, 1.0, 1.0]
    assert [t["reflection"] for t in records[0]["trials"]] == ["Use the expert.", None]
    assert len(records[0]["trials"][0]["turns"]) == 20
    assert result["tokens"]["num_requests"] == len(fake.bodies)
    seeds = [body["seed"] for body in fake.bodies]
    assert len(set(seeds)) == len(seeds)


def test_reflexion_gives_up_after_its_trials():
    with FakeEndpoint(lambda body: "Action: look") as fake:
        records, result = play(fake, agent="reflexion", trials=2, episodes=1, max_turns=2)
    assert result["success_rate"] == 0.0
    assert len(records[0]["trials"]) == 2
    assert len(fake.bodies) == 2 + 1 + 2, "two trials of two turns, one reflection between"


def test_by_trial_by_hand():
    """Won at trial 1, won at 2, lost, failed: 1/3 within one trial, 2/3 within two."""

    def record(*wins, failure=None):
        return {"failure": failure, "trials": [{"success": w} for w in wins]}

    rows = by_trial(
        [record(True), record(False, True), record(False, False), record(True, failure="x")], 2
    )
    assert [row["success_rate"] for row in rows] == pytest.approx([1 / 3, 2 / 3])


def test_journal_path():
    assert journal_path("a/result.json") == Path("a/result.json.journal.jsonl")
