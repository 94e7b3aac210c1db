"""Environments of ours behind an OpenEnv server, played by OpenEnv's own clients and by hand."""

import json
import os
import random
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("openenv", reason="OpenEnv is not installed: pip install .[openenv]")

from openenv.auto._discovery import _create_env_info_from_package
from openenv.cli._cli_utils import validate_env_structure
from openenv.cli._validation import validate_running_environment
from openenv.core import GenericEnvClient
from openenv.validation import Level, Verdict, run_validation
from openenv_rooms import RELEASE, Raw, Rooms, wait_for

from paw import envs
from paw.commands.serve_env import application_of
from paw.envs.base import StepResult, TaskSource
from paw.errors import UserError
from paw.integrations.openenv import PawAction, PawEnv, PawObservation
from paw.integrations.openenv.guard import Limits
from paw.integrations.openenv.server import application, running

pytestmark = [pytest.mark.openenv, pytest.mark.filterwarnings("ignore")]

PATH = os.pathsep.join([str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")])
PACKAGE = Path(__file__).parents[2] / "integrations" / "openenv"


@pytest.fixture(scope="module")
def rooms():
    sources = {split: Rooms(split) for split in ("train", "valid")}
    with running(application(sources)) as url:
        yield url


def get(url: str, content: dict | None = None, **headers: str):
    body = None if content is None else json.dumps(content).encode()
    headers["Content-Type"] = "application/json"
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    with opener.open(urllib.request.Request(url, body, headers), timeout=30) as answer:
        return json.loads(answer.read())


def status(url: str, content: dict | None = None, **headers: str) -> tuple[int, str]:
    with pytest.raises(urllib.error.HTTPError) as caught:
        get(url, content, **headers)
    return caught.value.code, json.loads(caught.value.read())["detail"]


def test_an_episode_as_openenv_describes_it(rooms: str):
    with GenericEnvClient(base_url=rooms).sync() as env:
        first = env.reset(seed=5, index=3)
        assert first.observation["text"].startswith("Open door 3. Seed ")
        assert (first.reward, first.done) == (None, False)
        assert first.metadata["task"] == {
            "id": "train-room-3", "kind": "room", "instruction": "Open door 3.",
            "split": "train", "index": 3, "max_return": 1.0,
        }  # fmt: skip
        refused = env.step({"command": "sing"})
        assert (refused.observation["valid"], refused.reward) == (False, 0.0)
        results = [env.step({"command": "knock"}) for _ in range(3)]
        assert [r.done for r in results] == [False, False, True]
        assert [r.reward for r in results] == [0.0, 0.0, 1.0]
        assert results[0].observation["commands"] == ["knock"]
        assert results[2].observation["success"] is True
        state = env.state()
        assert (state["step_count"], state["done"], state["index"]) == (4, True, 3)


def test_the_client_with_types(rooms: str):
    with PawEnv(base_url=rooms).sync() as env:
        assert env.reset(index=1, split="valid").observation.text.startswith("Open door 1.")
        result = env.step(PawAction(command="give up"))
        assert (result.done, result.observation.truncated, result.observation.success) == (
            True, True, False,
        )  # fmt: skip
        assert env.state().task["id"] == "valid-room-1"
        env.reset(index=0)
        extras = env.step(PawAction(command="extras")).observation.metadata
        assert extras == {"score": 0.5, "list": [1]}  # what JSON in valid Unicode can hold


def test_seed_and_index_say_which_episode(rooms: str):
    with GenericEnvClient(base_url=rooms).sync() as env:

        def text(**asked):
            return env.reset(**asked).observation["text"]

        assert text(index=2, seed=1) == text(index=2, seed=1) != text(index=2, seed=2)
        assert text(index=2) == text(index=2, seed=0)
        assert text(seed=7) == text(seed=7)  # without an index the seed draws the task too
        drawn = {env.reset().metadata["task"]["index"] for _ in range(40)}
        assert len(drawn) > 3  # 10 tasks: all 40 draws among 3 of them have a chance of 1e-19


def play(source: TaskSource, index: int, seed: int, choose) -> list:
    """An episode in process: (text, commands, reward, done, valid, success) a turn."""
    env = source.open(source[index], seed)
    observation = env.reset()
    told = [(observation.text, list(observation.commands), None, False, True, None)]
    for turn in range(25):
        result: StepResult = env.step(choose(turn, told[-1][0], told[-1][1]))
        seen, done = result.observation, result.terminated or result.truncated
        told.append(
            (seen.text, list(seen.commands), result.reward, done, result.valid, result.success)
        )
        if done:
            break
    env.close()
    return told


def turn_of(observation: dict, reward, done) -> tuple:
    o = observation
    return o["text"], o["commands"], reward, done, o["valid"], o["success"]


def play_generic(url: str, index: int, seed: int, choose) -> list:
    with GenericEnvClient(base_url=url).sync() as env:
        result = env.reset(index=index, seed=seed)
        told = [turn_of(result.observation, result.reward, result.done)]
        for turn in range(25):
            result = env.step({"command": choose(turn, told[-1][0], told[-1][1])})
            told.append(turn_of(result.observation, result.reward, result.done))
            if result.done:
                break
    return told


def play_raw(url: str, index: int, seed: int, choose) -> list:
    env = Raw(url)
    data = env.ask("reset", index=index, seed=seed)
    told = [turn_of(data["observation"], data["reward"], data["done"])]
    for turn in range(25):
        data = env.ask("step", command=choose(turn, told[-1][0], told[-1][1]))
        told.append(turn_of(data["observation"], data["reward"], data["done"]))
        if data["done"]:
            break
    env.close()
    return told


def scripted(name: str, index: int):
    """What to do is read from the observation, now and then it is nonsense."""
    rng = random.Random(f"{name} {index}")

    def choose(turn: int, text: str, commands: list[str]) -> str:
        if turn % 7 == 5:
            return ["", "dance", "\x00é\u2028 <|im_end|>", "GO TO", "x" * 5000][turn // 7 % 5]
        if not commands:
            return "look"
        return rng.choice(commands).replace("<query>", "red shoes for men")

    return choose


@pytest.mark.data
@pytest.mark.parametrize("name", ["alfworld", "webshop"])
def test_the_same_episodes_as_in_process(name, alfworld_dir: Path, shared_data: Path):
    """Texts, commands, rewards, done, valid, success; an expert wins some of them."""
    split = {"alfworld": "valid_seen", "webshop": "test"}[name]
    folder = {"alfworld": alfworld_dir, "webshop": shared_data / "webshop"}[name]
    source = envs.make(name, split=split, data_dir=str(folder))
    with running(application({split: source})) as url:
        for index in range(0, 40, 5):
            here = play(source, index, 3, scripted(name, index))
            assert play_generic(url, index, 3, scripted(name, index)) == here
            assert play_raw(url, index, 3, scripted(name, index)) == here
            expert = source.expert(source[index])

            def follow(turn, text, commands, expert=expert):
                return expert.act(envs.Observation(text, tuple(commands)))

            here = play(source, index, 0, follow)
            script = iter(commands_of(source, index, follow_again(source, index)))
            assert play_raw(url, index, 0, lambda *_, script=script: next(script)) == here


@pytest.mark.data
@pytest.mark.parametrize("name", ["alfworld", "webshop"])
def test_sessions_at_once_play_as_one_does(name, alfworld_dir, shared_data, monkeypatch):
    """Eight threads on one source; ALFWorld's cache of games, of two here, is fought over."""
    monkeypatch.setattr("paw.envs.alfworld.source.NUM_CACHED_GAMES", 2)
    split = {"alfworld": "valid_seen", "webshop": "test"}[name]
    folder = {"alfworld": alfworld_dir, "webshop": shared_data / "webshop"}[name]
    source = envs.make(name, split=split, data_dir=str(folder))
    indices = [*range(16), *range(16)]
    with running(application({split: source})) as url, ThreadPoolExecutor(8) as pool:
        there = list(pool.map(lambda i: play_raw(url, i, 1, scripted(name, i)), indices))
    assert there == [play(source, i, 1, scripted(name, i)) for i in indices]


def follow_again(source: TaskSource, index: int):
    expert = source.expert(source[index])
    return lambda turn, text, commands: expert.act(envs.Observation(text, tuple(commands)))


def commands_of(source: TaskSource, index: int, choose) -> list[str]:
    given: list[str] = []

    def noting(turn, text, commands):
        given.append(choose(turn, text, commands))
        return given[-1]

    play(source, index, 0, noting)
    return given


def test_openenvs_own_checks_pass(rooms: str):
    report = validate_running_environment(rooms)
    assert report["passed"], report
    assert report["mode"] == "simulation"


def test_the_task_api(rooms: str):
    assert get(f"{rooms}/list_environments") == ["rooms"]
    splits = get(f"{rooms}/rooms/splits")
    assert splits == [
        {"name": "train", "type": "train"}, {"name": "valid", "type": "validation"},
    ]  # fmt: skip
    assert get(f"{rooms}/rooms/num_tasks", {"split": "valid"}) == {"num_tasks": 10}
    task = get(f"{rooms}/rooms/task", {"split": "valid", "index": 9})["task"]
    assert (task["id"], task["max_return"]) == ("valid-room-9", 1.0)
    part = get(f"{rooms}/rooms/task_range", {"split": "train", "start": 8})["tasks"]
    assert [t["index"] for t in part] == [8, 9]
    assert status(f"{rooms}/rooms/task", {"split": "train", "index": 10})[0] == 400
    assert status(f"{rooms}/rooms/task", {"split": "train", "index": -1})[0] == 400
    assert status(f"{rooms}/rooms/num_tasks", {"split": "x"}) == (
        422, "no split 'x'; known: train, valid",
    )  # fmt: skip


def test_sessions_do_not_wait_for_each_other(rooms: str):
    RELEASE.clear()
    hanging, playing = Raw(rooms), Raw(rooms)
    hanging.ask("reset", index=0)
    hanging.send("step", command="hang")
    playing.ask("reset", index=1)
    assert [playing.ask("step", command="knock")["done"] for _ in range(3)] == [False, False, True]
    RELEASE.set()
    assert hanging.receive()["done"] is False
    hanging.close(), playing.close()


def test_a_token_is_asked_for_everywhere_but_at_health():
    app = application({"train": Rooms()}, token="s3cret")
    good = {"Authorization": "Bearer s3cret"}
    with running(app) as url:
        assert get(f"{url}/health") == {"status": "healthy"}
        for wrong in ({}, {"Authorization": "Bearer s3cre"}, {"Authorization": "s3cret"}):
            assert status(f"{url}/schema", **wrong)[0] == 401
            assert status(f"{url}/reset", {}, **wrong)[0] == 401
            with pytest.raises(ConnectionError, match="401"):
                GenericEnvClient(base_url=url, headers=wrong).sync().connect()
        assert "action" in get(f"{url}/schema", **good)
        with GenericEnvClient(base_url=url, headers=good).sync() as env:
            assert env.reset(index=0).done is False


def test_pages_from_elsewhere_may_not_use_it(rooms: str):
    assert status(f"{rooms}/reset", {}, Origin="http://evil.example")[0] == 403
    assert get(f"{rooms}/health", Origin=rooms) == {"status": "healthy"}


def test_more_sessions_than_allowed_are_told_so():
    app = application({"train": Rooms()}, Limits(max_sessions=2))
    with running(app) as url:
        clients = [Raw(url) for _ in range(2)]
        for client in clients:
            assert client.ask("reset", index=0)["done"] is False
        with (
            GenericEnvClient(base_url=url).sync() as third,
            pytest.raises(RuntimeError, match=r"all 2 sessions are taken.*CAPACITY_REACHED"),
        ):
            third.reset()
        assert status(f"{url}/reset", {}) == (503, "all 2 sessions are taken")
        assert "action" in get(f"{url}/schema")  # costs no session
        clients[0].close()
        wait_for(lambda: app.num_sessions == 1)
        with GenericEnvClient(base_url=url).sync() as third:
            assert third.reset().done is False
        clients[1].close()


def test_the_package_has_the_layout_of_openenv():
    assert validate_env_structure(PACKAGE) == ["Recommended directory missing: outputs/"]
    report = run_validation(PACKAGE, max_level=Level.STATIC, skip_build=True)
    assert report.verdict is Verdict.PASS


def test_autoenv_finds_the_classes_of_the_package(tmp_path: Path, monkeypatch):
    (tmp_path / "paw_env").symlink_to(PACKAGE)
    monkeypatch.syspath_prepend(str(tmp_path))
    found = _create_env_info_from_package("openenv-paw_env", "paw_env", "0.1.0")
    assert found is not None and found.env_key == "paw"
    assert found.get_client_class() is PawEnv
    assert found.get_action_class() is PawAction
    assert found.get_observation_class() is PawObservation


def test_what_a_container_serves_stands_in_the_words_of_the_command():
    app = application_of(["household", "--split", "valid,train", "--env.level=2"])
    with running(app) as url:
        client = Raw(url)
        there = client.ask("reset", index=4)["observation"]["text"]
        client.close()
    source = envs.make("household", split="valid", level=2)
    assert there == source.open(source[4]).reset().text
    with pytest.raises(UserError, match=r"no split 'tset'"):
        application_of(["household", "--split", "tset"])


@pytest.fixture
def command(tmp_path: Path):
    """`paw serve-env` as a process."""
    started = []

    def start(*arguments: str, **environ: str) -> subprocess.Popen[str]:
        process = subprocess.Popen(
            [sys.executable, "-m", "paw", "serve-env", *arguments],
            stderr=subprocess.PIPE, text=True, env=os.environ | environ, cwd=tmp_path,
        )  # fmt: skip
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.wait()
        process.stderr.close()


@pytest.mark.parametrize(
    "number", [signal.SIGTERM, pytest.param(signal.SIGINT, marks=pytest.mark.slow)]
)
def test_the_command_serves_until_it_is_told_to_stop(command, number):
    process = command("household", "--port", "0", "--split", "valid", "--env.level", "2")
    ready = process.stderr.readline()
    assert ready.startswith("serving household valid (200 tasks) at http://127.0.0.1:")
    client = Raw(ready.partition(" at ")[2].partition(";")[0])
    there = client.ask("reset", index=4)["observation"]["text"]
    source = envs.make("household", split="valid", level=2)
    assert there == source.open(source[4]).reset().text
    process.send_signal(number)
    assert process.wait(30) == 0
    assert process.stderr.read() == ""


@pytest.mark.slow
def test_a_call_that_hangs_does_not_keep_the_command_from_ending(command):
    process = command("openenv_rooms:Rooms", "--port", "0", PYTHONPATH=PATH)
    url = process.stderr.readline().partition(" at ")[2].partition(";")[0]
    client = Raw(url)
    client.ask("reset", index=0)
    client.send("step", command="hang")
    process.send_signal(signal.SIGTERM)
    assert process.wait(50) == 0  # it hangs for 60 s
    assert "Traceback" not in process.stderr.read()


def test_the_server_loads_no_torch():
    code = (
        "from paw.integrations.openenv.server import application\n"
        "from paw import envs\napplication({'train': envs.make('household')})\n"
        "import sys\nprint('torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.strip() == "False"
