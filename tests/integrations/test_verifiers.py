"""The taskset `paw-envs-verifiers` with the installed verifiers and a scripted endpoint."""

import asyncio
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

pytest.importorskip("verifiers.v1", reason="verifiers is not installed")
sys.path.insert(0, str(Path(__file__).parents[2] / "integrations" / "verifiers"))

import verifiers.v1 as vf
from verifiers.v1.utils.loaders import environment_class, load_environment, taskset_class

from paw.envs import Observation, StepResult, make

pytestmark = [pytest.mark.verifiers, pytest.mark.filterwarnings("ignore")]


class Endpoint:
    """An OpenAI endpoint that answers with `reply(messages)`, as one chunk of a stream."""

    def __init__(self, reply):
        class Handler(BaseHTTPRequestHandler):
            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                delta = {"role": "assistant", "content": reply(body["messages"])}
                usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
                self.send_response(200)
                self.send_header("Content-Type", "text/event-stream")
                self.end_headers()
                for choice in (
                    {"index": 0, "delta": delta, "finish_reason": None},
                    {"index": 0, "delta": {}, "finish_reason": "stop"},
                ):
                    chunk = {"id": "1", "object": "chat.completion.chunk", "created": 0}
                    chunk |= {"model": "fake", "choices": [choice], "usage": usage}
                    self.wfile.write(f"data: {json.dumps(chunk)}\n\n".encode())
                self.wfile.write(b"data: [DONE]\n\n")

            def log_message(self, *args):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        Thread(target=self.server.serve_forever, daemon=True).start()
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"


def config_of(endpoint, **taskset):
    """verifiers' configuration of the household in a subprocess, and its model."""
    taskset_config = taskset_class("paw-envs-verifiers").__orig_bases__[0].__args__[1]
    env_config = environment_class("paw-envs-verifiers").__orig_bases__[0].__args__[0]
    player = vf.AgentConfig(harness={"id": "null"}, runtime=vf.SubprocessConfig())
    config = env_config(taskset=taskset_config(id="paw-envs-verifiers", **taskset), player=player)
    client = vf.EvalClientConfig(base_url=endpoint.url)
    return config, vf.ModelContext(model="fake", client=client)


def play(endpoint, places, **taskset):
    config, context = config_of(endpoint, **taskset)
    env = load_environment(config)
    tasks = list(env.taskset)

    async def run():
        async with env.serving():
            return [await env.run_slot(env.slots(tasks[p])[0], context) for p in places]

    return asyncio.run(run())


def solution(place):
    """The expert's commands."""
    source = make("household", split="train")
    game, expert = source.open(source[place]), source.expert(source[place])
    observation, commands = game.reset(), []
    while True:
        commands.append(expert.act(observation))
        result = game.step(commands[-1])
        observation = result.observation
        if result.terminated:
            return commands


def test_two_episodes_with_their_rewards():
    """The expert's commands win 10; four refused ones nothing."""
    tasks, solved, opened = make("household", split="train"), solution(0), []

    def reply(messages):
        count = sum(m["role"] == "assistant" for m in messages)
        if not count:
            opened.append(messages[-1]["content"])
        wins = tasks[0].instruction in json.dumps(messages)
        return f"<think>so</think><action>{solved[count] if wins else 'dance'}</action>"

    turns = max(len(solved), 4)
    won, lost = play(Endpoint(reply), [0, 1], env="household", split="train", max_turns=turns)
    assert won.ok and lost.ok, [*won.errors, *lost.errors]
    (first,), (second,) = won.traces, lost.traces
    assert (first.reward, second.reward) == (10, 0)
    assert first.metrics["won"] == 1 and second.metrics["won"] == 0
    assert first.metrics["turns"] == len(solved) and second.metrics["turns"] == turns
    assert second.metrics["valid_actions"] == 0
    assert all(tasks[0].instruction in o or tasks[1].instruction in o for o in opened)
    assert "Your admissible commands are" in opened[0]


def test_a_data_set_of_tasks():
    config, _ = config_of(Endpoint(str), env="household", split="valid")
    env = load_environment(config)
    found, tasks = list(env.taskset), make("household", split="valid")
    assert [t.data.id for t in found] == [t.id for t in tasks]
    assert env.taskset.max_turns == 20  # the household's protocol


def test_an_environment_that_fails_is_no_lost_episode(monkeypatch):
    def broken(*args, **kwargs):
        raise RuntimeError("out of order")

    monkeypatch.setattr("paw.envs.household.Household.open", broken)
    (episode,) = play(Endpoint(str), [0], env="household")
    assert not episode.ok and "out of order" in episode.errors[0].message


@pytest.mark.parametrize(
    ("odd", "why"),
    [
        ({"reward": float("nan")}, "the reward is nan"),
        ({"info": {"score": "3/10"}}, "is '3/10', not a number"),
    ],
)
def test_a_reward_or_score_that_is_no_finite_number_fails_the_episode(monkeypatch, odd, why):
    game = OddGame(StepResult(Observation("x"), **odd))
    monkeypatch.setattr("paw.envs.household.Household.open", lambda *_: game)
    (episode,) = play(Endpoint(lambda messages: "<action>go</action>"), [0], env="household")
    assert not episode.ok and why in episode.errors[0].message


class OddGame:
    def __init__(self, result):
        self.result = result

    def reset(self):
        return Observation("start")

    def step(self, command):
        return self.result

    def close(self):
        pass
