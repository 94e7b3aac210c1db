"""Servers of others that answer oddly: an episode fails with its reason, or what means nothing is
left out; never the run."""

import contextlib
from typing import Any

import pytest

pytest.importorskip("openenv", reason="OpenEnv is not installed: pip install .[openenv]")

from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app
from openenv_rooms import Rooms
from pydantic import Field
from test_openenv_training import train

from paw import envs
from paw.envs.openenv import wire
from paw.envs.openenv.wire import NoAnswer
from paw.errors import UserError
from paw.integrations.openenv.server import application, running
from paw.rollout.pool import EnvironmentPool
from paw.rollout.worker import Failure, Host, Open, Step

pytestmark = [pytest.mark.openenv, pytest.mark.filterwarnings("ignore")]


class Say(Action):
    message: str = Field(max_length=20)


class See(Observation):
    text: str = ""


class Stranger(Environment):
    """Ten steps of 0.1."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, **other: Any) -> See:
        self.steps = 0
        return See(text="start")

    def step(self, action: Say, timeout_s=None, **other: Any) -> See:
        self.steps += 1
        match action.message:
            case "none":
                return See(text=None)
            case "odd":
                return See(text="x", reward=0.1, metadata={"score": "3 of 10"})
            case "rich":
                return See(text="x", reward=5.0)
        return See(text="ok", reward=0.1, done=self.steps == 10)

    @property
    def state(self) -> State:
        return State()


@contextlib.contextmanager
def serving(**options: Any):
    app: Any = create_fastapi_app(Stranger, Say, See, max_concurrent_envs=64, **options)
    with running(app) as url:
        yield url


@pytest.fixture(scope="module")
def url():
    with serving() as found:
        yield found


def begin(url: str, **options: Any) -> Host:
    source = envs.make(f"openenv:{url}", **options)
    host = Host(source)
    assert not isinstance(host.play(Open(0, source[0], 0)), Failure)
    return host


def test_only_an_action_that_is_refused_is_not_valid(url: str):
    host = begin(url)
    refused = host.play(Step(0, "x" * 21))
    assert (refused.valid, refused.reward) == (False, 0.0)
    assert refused.observation.text == "String should have at most 20 characters"
    assert host.play(Step(0, "go")).valid is True
    own = host.play(Step(0, "none"))  # its own observation is none
    assert own == Failure(
        "ServerError: Invalid message: text: Input should be a valid string (VALIDATION_ERROR)"
    )
    host.close()


def test_ten_tenths_are_one(url: str):
    host = begin(url)
    assert [host.play(Step(0, "go")).success for _ in range(10)] == [*[None] * 9, True]
    host.close()


def test_a_score_that_is_no_number_is_left_out_and_said_once(url: str, tmp_path, capsys):
    host = begin(url)
    assert [host.play(Step(0, "odd")).score for _ in range(3)] == [None] * 3
    host.close()
    assert capsys.readouterr().err.splitlines() == [
        f"paw: warning: openenv:{url}: the score of its info is no number, and is left out"
    ]
    train(tmp_path / "run", f"openenv:{url}", 1, "--rollout.workers", "0")


def test_a_return_above_the_largest_is_told_of(url: str, capsys):
    with EnvironmentPool(f"openenv:{url}", "train", {}, workers=0) as pool:
        pool.open([(0, envs.make(f"openenv:{url}")[0], 0)])
        pool.step({0: "rich"}), pool.step({0: "rich"})
    (line,) = capsys.readouterr().err.splitlines()
    assert "returned more than max_return = 1;" in line and "set env.max_return" in line


def test_what_a_run_cannot_do_with_is_refused_at_the_start(url: str):
    for value in (0, -1.0, float("nan")):
        with pytest.raises(UserError, match=f"openenv:{url}: max_return = {value}"):
            envs.make(f"openenv:{url}", max_return=value)
    assert len(envs.make(f"openenv:{url}", num_tasks=1_000_000)) == 1_000_000
    with pytest.raises(UserError, match=r"num_tasks = 1000001: 1 to 1,000,000"):
        envs.make(f"openenv:{url}", num_tasks=1_000_001)


class Odd(Rooms):
    name = "odd/Rooms-v0"
    max_return = 2.5


def test_a_server_of_ours_may_have_a_name_with_a_slash():
    with running(application({"train": Odd()})) as url:
        source = envs.make(f"openenv:{url}")
        assert (source.name, len(source), source.max_return) == ("odd-Rooms-v0", 10, 2.5)
        assert source[3].instruction == "Open door 3."


def test_tasks_that_cannot_be_asked_for_are_told_of(url: str, capsys):
    envs.make(f"openenv:{url}")  # it has none, and says so
    assert capsys.readouterr().err == ""
    with serving(env_name="ns/Game-v0") as slashed:
        assert len(envs.make(f"openenv:{slashed}")) == 1000
        envs.make(f"openenv:{slashed}")
    (line,) = capsys.readouterr().err.splitlines()
    assert "'ns/Game-v0' and has no /ns/Game-v0/splits (HTTP 404)" in line
    assert "a task is a seed there" in line


def test_a_server_that_dies_in_mid_run_is_named():
    with serving() as url:
        host = begin(url)
        source = envs.make(f"openenv:{url}")
    for job in (Step(0, "go"), Open(0, source[0], 0)):
        answer = host.play(job)
        assert isinstance(answer, Failure)
        assert answer.reason.startswith(f"NoAnswer: openenv:{url}: ")


def test_no_pings_of_ours_end_a_session(url: str):
    line = wire.Wire(url)
    assert line._socket.ping_interval is None
    line.close()
    with pytest.raises(NoAnswer, match=f"openenv:{url}/nowhere: HTTP 403|404"):
        wire.Wire(f"{url}/nowhere")
