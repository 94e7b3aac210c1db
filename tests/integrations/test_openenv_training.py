"""The other direction: our trainer on an OpenEnv server, and on what Gymnasium has registered."""

import json
import pickle
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("openenv", reason="OpenEnv is not installed: pip install .[openenv]")
pytest.importorskip("gymnasium", reason="Gymnasium is not installed: pip install .[gymnasium]")

import gymnasium
from openenv.core.env_server import Action, Environment, Observation, State, create_fastapi_app
from openenv_rooms import Rooms
from pydantic import Field

from paw import envs
from paw.cli import main
from paw.envs.check import check_environment, format_report
from paw.errors import UserError
from paw.integrations.openenv.guard import Limits
from paw.integrations.openenv.server import application, running
from paw.rollout.pool import EnvironmentPool, Failure

pytestmark = [pytest.mark.openenv, pytest.mark.filterwarnings("ignore")]


class Shout(Action):
    message: str


class Echo(Observation):
    echoed: str = ""
    legal_actions: list[str] = Field(default_factory=list)


class Hall(Environment):
    """Somebody's environment: no tasks; say the number that the seed hides."""

    SUPPORTS_CONCURRENT_SESSIONS = True

    def reset(self, seed=None, episode_id=None, **other: Any) -> Echo:
        self._hidden, self._steps = str((seed or 0) % 3), 0
        return Echo(echoed=f"Seed {seed}.", legal_actions=["0", "1", "2"])

    def step(self, action: Shout, timeout_s=None, **other: Any) -> Echo:
        self._steps += 1
        won = action.message == self._hidden
        if action.message == "crash":
            raise ValueError("the hall falls in")
        return Echo(echoed=f"{action.message}!", reward=float(won), done=won or self._steps == 4)

    @property
    def state(self) -> State:
        return State()


class Number(Action):
    move: int


class Picture(Observation):
    pixels: list[int] = Field(default_factory=list)


def serving(action=Shout, observation=Echo):
    return running(create_fastapi_app(Hall, action, observation, max_concurrent_envs=64))


def test_somebodys_environment_is_played_by_seed():
    with serving() as url:
        name = f"openenv:{url}"
        source = envs.make(name, num_tasks=5)
        assert (len(source), source.name, source.max_return) == (5, "Hall", 1.0)
        assert [t.id for t in source] == [f"train/{i}" for i in range(5)]
        assert envs.make(name, "valid")[0].id == "valid/1000000"
        env = source.open(source[2])
        first = env.reset()
        assert (first.text, first.commands) == ("Seed 2.", ("0", "1", "2"))
        result = env.step("0")
        assert (result.observation.text, result.reward, result.success) == ("0!", 0.0, None)
        result = env.step("2")
        assert (result.reward, result.terminated, result.success) == (1.0, True, True)
        env.close()
        lost = source.open(source[2])
        lost.reset()
        results = [lost.step("0") for _ in range(4)]
        assert (results[3].terminated, results[3].success) == (True, False)
        lost.close()
        report = check_environment(source, num_tasks=2)
        assert report.passed, format_report(report)


def test_a_server_of_ours_says_what_its_tasks_are():
    with running(application({"train": Rooms(), "valid": Rooms("valid")})) as url:
        source = envs.make(f"openenv:{url}", "valid")
        assert (len(source), source.max_return) == (10, 1.0)
        task = source[3]
        assert (task.id, task.kind, task.instruction) == (
            "valid/3:valid-room-3", "room", "Open door 3.",
        )  # fmt: skip
        here = Rooms("valid")
        for seed in (0, 7):
            there = pickle.loads(pickle.dumps(source)).open(task, seed).reset()
            assert there == here.open(here[3], seed).reset()
        with pytest.raises(UserError, match="no split 'test'; known: train, valid"):
            envs.make(f"openenv:{url}", "test")
        assert check_environment(source, num_tasks=2).passed


def test_environments_that_are_not_of_text_are_refused():
    with (
        serving(action=Number) as url,
        pytest.raises(UserError, match="the text of an action: there is none"),
    ):
        envs.make(f"openenv:{url}")
    with (
        serving(observation=Picture) as url,
        pytest.raises(UserError, match="the text of an observation: there is none"),
    ):
        envs.make(f"openenv:{url}")


def test_a_failure_costs_one_episode_and_a_dead_server_says_so():
    with serving() as url, EnvironmentPool(f"openenv:{url}", "train", {}, workers=2) as pool:
        source = envs.make(f"openenv:{url}")
        pool.open([(slot, source[slot], 0) for slot in range(3)])
        answers = pool.step({0: "crash", 1: "\ud800", 2: "2"})
        assert isinstance(answers[0], Failure) and "the hall falls in" in answers[0].reason
        assert (answers[1].valid, answers[1].reward) == (False, 0.0)
        assert answers[2].success is True
        pool.open([(0, source[0], 0)])
        server_is_gone = url
    with pytest.raises(UserError, match="Connection refused"):
        envs.make(f"openenv:{server_is_gone}")


def test_a_server_that_is_too_small_is_told_of(capsys):
    with running(application({"train": Rooms()}, Limits(max_sessions=1))) as url:
        source = envs.make(f"openenv:{url}")
        first, second = source.open(source[0]), source.open(source[1])
        first.reset()
        for _ in range(2):
            with pytest.raises(
                RuntimeError, match=r"all 1 sessions are taken \(CAPACITY_REACHED\)"
            ):
                second.reset()
            second = source.open(source[1])
        first.close()
    warned = capsys.readouterr().err.splitlines()
    assert len(warned) == 1 and "as many sessions as are played at once" in warned[0]


def test_a_token_is_shown(monkeypatch):
    with running(application({"train": Rooms()}, token="s3cret")) as url:
        monkeypatch.delenv("PAW_ENV_TOKEN", raising=False)
        with pytest.raises(UserError, match="HTTP 401 Unauthorized; set PAW_ENV_TOKEN"):
            envs.make(f"openenv:{url}")
        monkeypatch.setenv("PAW_ENV_TOKEN", "s3cret")
        source = envs.make(f"openenv:{url}")
        env = source.open(source[0])
        assert env.reset().text.startswith("Open door 0.")
        env.close()


SETTINGS = [
    "--rollout.groups", "2", "--rollout.group_size", "2", "--rollout.max_turns", "4",
    "--run.checkpoint_every", "1", "--eval.every", "0", "--run.threads", "1",
]  # fmt: skip


def train(directory: Path, env: str, updates: int, *more: str) -> bytes:
    """Weights of the shipped policy after some updates."""
    arguments = [
        "--env.name",
        env,
        "--run.directory",
        str(directory),
        "--run.updates",
        str(updates),
    ]
    assert main(["train", *arguments, *SETTINGS, *more]) == 0
    weights = directory / "checkpoints" / f"update-{updates:06}" / "model.safetensors"
    return weights.read_bytes()


def test_training_through_a_server_is_training_in_process(tmp_path: Path, monkeypatch):
    """The same weights to the bit, also of a run that stopped and went on."""
    with running(application({"train": envs.make("household")})) as url:
        there = f"openenv:{url}"
        here = train(tmp_path / "here", "household", 2, "--rollout.workers", "0")
        assert train(tmp_path / "there", there, 2, "--rollout.workers", "0") == here
        monkeypatch.setenv("SERVER", url)
        train(tmp_path / "again", "openenv:$SERVER", 1, "--rollout.workers", "2")
    with running(application({"train": envs.make("household")})) as url:  # at another address
        monkeypatch.setenv("SERVER", url)
        again = train(tmp_path / "again", "openenv:$SERVER", 2, "--rollout.workers", "2")
        assert again == here
        output = tmp_path / "result.json"
        asked = ["eval", str(tmp_path / "there"), "--env", f"openenv:{url}", "--episodes", "2"]
        assert main([*asked, "--split", "train", "--output", str(output)]) == 0
        source = json.loads(output.read_text())["source"]
        assert (source["name"], source["num_tasks"], source["tasks"]) == (
            "household",
            4000,
            "index",
        )


class Spell(gymnasium.Env):
    """Spell the word that the seed chooses; `size` letters."""

    observation_space = gymnasium.spaces.Text(100)

    def __init__(self, size: int = 3, characters: str = "abc") -> None:
        self.action_space = gymnasium.spaces.Text(5, charset=characters)
        self.size = size

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.word = "".join(self.np_random.choice(list("abc"), self.size))
        return f"Spell {self.word}.", {"admissible_commands": [self.word]}

    def step(self, action):
        assert action in self.action_space or " " in action
        done = action == self.word
        return "Yes." if done else "No.", float(done), done, False, {}


@pytest.fixture
def registered():
    gymnasium.register("Spell-v0", entry_point=Spell, max_episode_steps=3)
    gymnasium.register("Loose-v0", entry_point=lambda: Spell(characters=LOOSE))
    yield
    for name in ("Spell-v0", "Loose-v0"):
        del gymnasium.registry[name]


LOOSE = "".join(sorted(gymnasium.spaces.Text(1).character_set))


def test_a_text_environment_of_gymnasium(registered):
    source = envs.make("gymnasium:Spell-v0", size=4, num_tasks=10)
    first = source.open(source[0])
    word = first.reset().commands[0]
    assert len(word) == 4
    refused = first.step("dance")
    assert (refused.valid, refused.observation.commands) == (False, (word,))
    assert refused.observation.text == "A command has only these characters: abc"
    assert first.step("aaaaaa").observation.text == "A command has 1 to 5 characters."
    assert [first.step("a").reward for _ in range(2)] == [0.0, 0.0]
    last = first.step(word)
    assert (last.reward, last.success) == (1.0, True)
    lost = source.open(source[0])
    lost.reset()
    results = [lost.step("a") for _ in range(3)]
    assert (results[2].truncated, results[2].success) == (True, False)  # its own limit of steps
    report = check_environment(source, num_tasks=2)
    assert report.passed, format_report(report)


def test_default_characters_of_gymnasium_say_nothing(registered):
    source = envs.make("gymnasium:Loose-v0")
    env = source.open(source[0])
    env.reset()
    assert env.step("a b").observation.text == "No."


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("Nothing-v0", {}, "gymnasium:Nothing-v0: Environment `Nothing` doesn't exist"),
        ("no_such_module:X-v0", {}, "no_such_module"),
        ("CartPole-v1", {}, "its observations are Box, and paw plays Text alone"),
        ("Spell-v0", {"siz": 3}, "siz"),
        ("Spell-v0", {"num_tasks": 0}, "num_tasks = 0"),
        ("Spell-v0", {"split": "dev"}, "no split 'dev'; known: train, valid, test"),
    ],
)
def test_what_gymnasium_does_not_have_is_refused(registered, name, options, message):
    with pytest.raises((UserError, ImportError), match=message):
        envs.make(f"gymnasium:{name}", **options)


def test_training_on_gymnasium(tmp_path: Path, monkeypatch):
    """In worker processes, which find it by its module."""
    (tmp_path / "my_spelling.py").write_text(
        "import gymnasium\nfrom gymnasium.spaces import Text\n\n\n"
        "class Spell(gymnasium.Env):\n"
        "    observation_space, action_space = Text(100), Text(100)\n\n"
        "    def reset(self, *, seed=None, options=None):\n"
        "        super().reset(seed=seed)\n"
        "        return f'You see a mug {seed}.', {'admissible_commands': ['look']}\n\n"
        "    def step(self, action):\n"
        "        return 'You see nothing.', float('go' in action), False, False, {}\n\n\n"
        "gymnasium.register('Spell-v1', entry_point=Spell)\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    name = "gymnasium:my_spelling:Spell-v1"
    weights = train(tmp_path / "one", name, 2, "--rollout.workers", "2", "--env.max_return", "4")
    again = train(tmp_path / "two", name, 2, "--rollout.workers", "0", "--env.max_return", "4")
    assert weights == again
