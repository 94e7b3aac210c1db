"""PaW in TRL at the edges: what is no return of the task, no observation, no step of an episode."""

import logging
import re
from pathlib import Path

import pytest

pytest.importorskip("trl", reason="TRL is not installed: pip install .[trl]")

from test_trl import (
    COMMANDS,
    HOUSEHOLD,
    TOKENIZER,
    environment,
    make,
    one_breaks,
    read,
    scripted_rollout,
    short,
    vowels,
)
from trl_main import main
from trl_tiny import CommandTokenizer, tiny_model
from webshop_small import write

from paw.envs.base import Observation, StepResult
from paw.errors import UserError
from paw.integrations.trl import PawConfig, RunDirectory
from paw.integrations.trl.environment import FAILED, NOTICES, OVER
from paw.integrations.trl.settings import max_return_of
from paw.integrations.trl.turns import text_positions

pytestmark = [pytest.mark.trl, pytest.mark.filterwarnings("ignore")]


def penalty(completion_ids, **kwargs):
    """Of the format, say: the same for all, so that it moves lambda alone."""
    return [-5.0] * len(completion_ids)


def scored(returns):
    """An environment whose n-th instance returns returns[n], and plays as it does."""
    made = []

    class Scored(HOUSEHOLD[0]):
        def __init__(self):
            super().__init__()
            made.append(self)

        def get_reward(self):
            return returns[made.index(self)]

    return Scored, HOUSEHOLD[1]


def predicted(trainer):
    return [any(turn.predicted for turn in row.turns) for row in trainer.paw_update.rows]


# ---- R(tau): the task's return


@pytest.mark.parametrize(
    ("max_return", "expected"),
    [
        # R_max is the environment's 10, and so is R: 10 10 10 10 | 0 0 0 and one that failed.
        (None, [0.0, 1.0]),
        # Of what TRL adds up, 5 and -5, to 20: 1 - 5 / 20, and 1 + 5 / 20, kept at 1.
        (20.0, [0.75, 1.0]),
    ],
)
def test_lambda_reads_the_environments_reward_where_r_max_is_its_own(
    tmp_path, caplog, max_return, expected
):
    """A penalty of the format is no return of the task. The failed trajectory has that reward, so
    TRL's own loss trains it: lambda and the prediction leave it out."""
    trainer = make(
        tmp_path,
        env=scored([10.0] * 4 + [0.0] * 3 + [None]),
        rewards=[penalty],
        paw=PawConfig(max_return=max_return, select="all"),
        callbacks=[RunDirectory(tmp_path / "run")],
        max_steps=2 if max_return is None else 1,
    )
    with caplog.at_level(logging.WARNING):
        trainer.train()
    metrics = read.metrics(tmp_path / "run")[0]
    assert metrics["wm/group_weight_mean"] == pytest.approx(sum(expected) / 2)
    assert metrics["wm/selected_transitions"] == 14  # of 7 trajectories
    assert metrics["rollout/return_mean"] == pytest.approx((4 * 5 - 4 * 5) / 8)  # TRL's sum
    assert predicted(trainer) == [bool(expected[0])] * 4 + [True] * 3 + [False]
    # TRL ends all of these games by its limits; that is said once.
    cut = [r.getMessage() for r in caplog.records if "TRL cut every" in r.getMessage()]
    assert len(cut) == 1 and "max_completion_length = 600 (of a whole trajectory)" in cut[0]
    assert "max_tool_calling_iterations = 2" in cut[0]


def test_a_failed_environment_is_left_out_whatever_else_rewards_it(tmp_path):
    """One of eight breaks at its second command. With `paw.max_return` lambda reads all rewards."""
    factory, dataset = short(environment("household"))
    one_breaks(factory)
    trainer = make(
        tmp_path,
        env=(factory, dataset),
        rewards=[vowels],
        max_steps=1,
        paw=PawConfig(max_return=10.0, select="all"),
        callbacks=[RunDirectory(tmp_path / "run")],
    )
    trainer.train()
    assert predicted(trainer) == [False] + [True] * 7
    record = read.trajectories(tmp_path / "run", 1)[0]
    assert record.failure == "OSError: the server is gone"
    assert not any(t.transition_weight for t in record.turns)


def test_r_max_in_units_that_nobody_rewards_is_refused():
    class Rewards:
        max_return = 10.0

        def get_reward(self):
            return 0.0

    class Silent:
        max_return = 10.0

    assert max_return_of(PawConfig(), [Rewards], owned=True) == 10
    for factories, owned in ([Silent], False), ([Rewards, Silent], True):
        with pytest.raises(UserError, match=r"has no get_reward: set paw\.max_return"):
            max_return_of(PawConfig(), factories, owned=owned)
    assert max_return_of(PawConfig(max_return=2.0), [Silent], owned=False) == 2
    assert max_return_of(PawConfig(weight="constant"), [Silent], owned=False) == 1


# ---- o_{t+1}: what an environment said


def test_texts_of_ours_are_no_observations():
    def render(messages):
        return [ord(c) for m in messages for c in f"<T>{m['content']}</T>\n"]

    for notice in (OVER, FAILED):
        assert text_positions([{"content": notice}], render, NOTICES)[1] == ()
        ids, positions = text_positions([{"content": "a"}, {"content": notice}], render, NOTICES)
        assert [chr(ids[p]) for p in positions] == ["a"]
        assert text_positions([{"content": notice}], render)[1]  # said by somebody else's


class Answers:
    """An environment of two turns that says nothing, as after a final answer of search_qa."""

    max_return = 1.0

    def __init__(self):
        self.count = 0

    def reset(self):
        return Observation("A question.")

    def step(self, command):
        self.count += 1
        ended = self.count == 2
        return StepResult(Observation(""), float(ended), ended, False, True, ended or None, {})

    def close(self):
        pass


def answering():
    factory, dataset = short(environment("household"))

    class Source(type(factory.source)):
        def open(self, task, seed=0):
            return Answers()

    factory.source = Source()
    return factory, dataset


def test_an_environment_that_says_nothing_is_not_over():
    factory, dataset = answering()
    game = factory()
    game.reset(**dataset[0])
    assert [game.act("a"), game.act("b"), game.act("c")] == ["", OVER, OVER]


def test_what_follows_the_end_is_not_predicted(tmp_path, caplog):
    trainer = make(
        tmp_path,
        env=answering(),
        max_steps=1,
        callbacks=[RunDirectory(tmp_path / "run")],
    )
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert not any(predicted(trainer))
    assert trainer.paw_update.metrics["wm/selected_transitions"] == 0
    record = read.trajectories(tmp_path / "run", 1)[0]
    assert [t.next_observation for t in record.turns] == [None] * 3
    assert [t.reward for t in record.turns] == [0, 1, 0]
    assert record.success
    assert not any("TRL cut every" in r.getMessage() for r in caplog.records)


def test_without_anything_to_observe_it_is_refused(tmp_path):
    def blind(prompts, trainer):
        found = scripted_rollout(prompts, trainer, entropies=lambda n: [[1.0] * 10] * n)
        del found["env_mask"], found["observation_mask"]
        return found

    with pytest.raises(UserError, match="no next observation to predict: give an environment"):
        make(tmp_path, rewards=[vowels], rollout_func=None, paw=PawConfig(max_return=1.0))
    make(tmp_path, rewards=[vowels], rollout_func=None, paw=PawConfig(enabled=False))
    trainer = make(tmp_path, rewards=[vowels], rollout_func=blind, paw=PawConfig(max_return=1.0))
    with pytest.raises(UserError, match="without a field `env_mask`"):
        trainer.train()


@pytest.mark.parametrize(
    "field",
    [
        {"observation_mask": lambda n: [[0] * 4 + [1] * 2] * n},
        {"observation_mask": lambda n: [1] * n},
        {"entropies": lambda n: [[1.0] * 2] * n},
        {"entropies": lambda n: [[float("nan")] * 10] * n},
        {"entropies": lambda n: [[None] * 10] * n},
    ],
    ids=["short mask", "no mask", "short", "nan", "none"],
)
def test_fields_of_a_rollout_func_that_do_not_fit_are_refused(tmp_path, field):
    def rollout(prompts, trainer):
        return scripted_rollout(
            prompts, trainer, **{"entropies": lambda n: [[1.0] * 10] * n, **field}
        )

    trainer = make(tmp_path, rewards=[vowels], rollout_func=rollout, paw=PawConfig(max_return=1.0))
    with pytest.raises(UserError, match=f"`{next(iter(field))}` of row 0 .* 10 tokens"):
        trainer.train()


# ---- steps of an episode


def test_several_calls_in_a_message_are_one_turn(tmp_path, monkeypatch):
    """All that was played is recorded, each command where it was given; a tool that does not exist
    plays nothing."""
    once = CommandTokenizer.parse_response

    def thrice(self, response, *args, **kwargs):
        message = once(self, response, *args, **kwargs)
        unknown = {"type": "function", "function": {"name": "no_such", "arguments": {}}}
        message["tool_calls"] = [unknown, *message["tool_calls"] * 2]
        return message

    monkeypatch.setattr(CommandTokenizer, "parse_response", thrice)
    trainer = make(tmp_path, max_steps=1, callbacks=[RunDirectory(tmp_path / "run")])
    trainer.train()
    records = read.trajectories(tmp_path / "run", 1)
    for record, game in zip(records, trainer.environments, strict=True):
        commands = [COMMANDS[t.action_ids[0] % len(COMMANDS)] for t in record.turns[:2]]
        assert game._commands == [c for command in commands for c in (command, command)]
        assert [t.command for t in record.turns] == [*(f"{c}; {c}" for c in commands), ""]
        valid = [step.valid for step in game._steps]
        assert [t.valid for t in record.turns] == [all(valid[:2]), all(valid[2:]), False]
        first = game._steps[1].observation.text
        assert record.turns[0].next_observation.endswith(first)
        assert record.turns[1].commands == game._steps[1].observation.commands


# ---- the examples


def test_an_example_without_its_data_is_a_line(tmp_path, capsys):
    options = {"max_turns": 3, "max_completion_length": 2000, "commands": COMMANDS}
    for name in ("alfworld", "webshop"):
        with pytest.raises(SystemExit) as caught:
            main(name, arguments=["--smoke", "--data-dir", str(tmp_path / "none")], **options)
        assert caught.value.code == 2
        said = capsys.readouterr().err
        assert str(tmp_path / "none") in said and said.count("\n") == 1


def test_readmes_lines_give_a_game_its_room(tmp_path):
    """With a tiny model and shop in the place of its own."""
    write(tmp_path)
    page = (Path(__file__).parents[2] / "README.md").read_text()
    (code,) = re.findall(r"```python\n(from trl .*?)```", page, re.S)
    code = code.replace("data/webshop", str(tmp_path)).replace('split="train"', 'split="all"')
    code = code.replace(").train()", ", processing_class=TOKENIZER)")
    code = code.replace('PawGRPOTrainer("Qwen/Qwen3-0.6B"', "trainer = PawGRPOTrainer(tiny_model()")
    code = code.replace("GRPOConfig(", "GRPOConfig(use_cpu=True, bf16=False, report_to=[], ")
    names = {"TOKENIZER": TOKENIZER, "tiny_model": tiny_model}
    exec(code, names)
    trainer = names["trainer"]
    assert trainer.max_completion_length == 8192 and trainer.max_tool_calling_iterations == 15
    assert len(code.split("\n\n")) == 2 and len(code.splitlines()) == 7
