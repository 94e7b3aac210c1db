"""PaW in TRL's GRPOTrainer, on a CPU with a tiny random model that plays the household."""

import gc
import os
import socket
import subprocess
import sys
from functools import partial
from importlib.metadata import version
from pathlib import Path

import pytest
import torch

pytest.importorskip("trl", reason="TRL is not installed: pip install .[trl]")
sys.path.insert(0, str(Path(__file__).parents[2] / "examples"))
sys.path.insert(0, str(Path(__file__).parents[1] / "envs"))

from alfworld_small import HEAT, write_game
from datasets import Dataset
from packaging.version import Version
from transformers import TrainerCallback
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm, Qwen2RotaryEmbedding
from trl import GRPOConfig, GRPOTrainer
from trl_main import main
from trl_tiny import tiny_model, tiny_tokenizer
from webshop_small import write

import paw.objective as P
from paw import cli
from paw.errors import UserError
from paw.integrations.trl import (
    PawConfig,
    PawGRPOTrainer,
    RunDirectory,
    environment,
)
from paw.integrations.trl.turns import Turn, text_positions, turns_of
from paw.integrations.versions import TRL
from paw.runs import read
from paw.types import Role

pytestmark = [pytest.mark.trl, pytest.mark.filterwarnings("ignore")]

COMMANDS = ("look", "inventory", "dance", "go to fridge 1", "open fridge 1", "go to shelf 1")
TOKENIZER = tiny_tokenizer(COMMANDS)
gc.freeze()  # TRL collects garbage after every training: not among what was imported


def short(env):
    """An environment whose prompts are its first observations alone: half the tokens."""
    factory, dataset = env
    asked = {"prompt": [{"role": "user", "content": ""}]}
    return factory, Dataset.from_list([{**row, **asked} for row in dataset.select(range(64))])


HOUSEHOLD = short(environment("household"))


class Keep(TrainerCallback):
    """The gradients of every optimizer step."""

    def __init__(self):
        self.gradients = []

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        self.gradients.append([p.grad.detach().clone() for p in model.parameters()])


def rms_norm(module, x):
    return module.weight * x / (x.square().mean(-1, keepdim=True) + module.variance_epsilon).sqrt()


def rotary(module, x, position_ids):
    angles = position_ids[..., None] * module.inv_freq.to(x.dtype)
    angles = torch.cat([angles, angles], dim=-1)
    return angles.cos(), angles.sin()


def opinionated_model(dtype=torch.float32):
    """Tiny, and far from uniform; in float64 so throughout, which transformers is not."""
    model = tiny_model().to(dtype)
    if dtype == torch.float64:
        for module in model.modules():
            if isinstance(module, Qwen2RMSNorm):
                module.forward = partial(rms_norm, module)
            elif isinstance(module, Qwen2RotaryEmbedding):
                module.forward = partial(rotary, module)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(4)
    return model


def make(tmp_path, cls=PawGRPOTrainer, *, env=HOUSEHOLD, rewards=None, callbacks=(), **options):
    """A trainer of two groups of four, three actions of four tokens a trajectory."""
    paw, dtype = options.pop("paw", PawConfig()), options.pop("dtype", torch.float32)
    own = {"paw": paw} if cls is PawGRPOTrainer else {}
    factory, dataset = env
    if "rollout_func" in options:
        own["rollout_func"] = options.pop("rollout_func")
    else:
        own["environment_factory"] = factory
    settings = {
        "per_device_train_batch_size": 4,
        "gradient_accumulation_steps": 2,
        "num_generations": 4,
        "max_completion_length": 600,
        "max_tool_calling_iterations": 2,
        "generation_kwargs": {"max_new_tokens": 4},
        "max_steps": 2,
        "learning_rate": 1e-3,
        "max_grad_norm": 1e9,
        "logging_steps": 1,
        "save_strategy": "no",
        "report_to": [],
        "use_cpu": True,
        "bf16": False,
        "gradient_checkpointing": False,
        "disable_tqdm": True,
        "log_level": "error",
        **options,
    }
    return cls(
        model=opinionated_model(dtype),
        args=GRPOConfig(output_dir=str(tmp_path / "trl"), **settings),
        train_dataset=dataset,
        processing_class=TOKENIZER,
        reward_funcs=rewards or [],
        callbacks=list(callbacks),
        **own,
    )


def vowels(completion_ids, **kwargs):
    """A reward that differs within a group."""
    return [sum(i % 5 for i in ids) / 1000 for ids in completion_ids]


def weights_of(trainer):
    return torch.cat([p.detach().flatten() for p in trainer.model.parameters()])


# ---- the same as TRL where there is nothing to predict


@pytest.fixture(scope="module")
def plain_weights(tmp_path_factory):
    """What TRL's own trainer makes of the policy."""
    trainer = make(tmp_path_factory.mktemp("plain"), GRPOTrainer, rewards=[vowels])
    before = weights_of(trainer)
    trainer.train()
    assert not torch.equal(weights_of(trainer), before)
    return weights_of(trainer)


@pytest.mark.parametrize("paw", [{"coefficient": 0}, {"enabled": False}], ids=str)
def test_without_the_term_it_is_grpo_trainer_bit_for_bit(tmp_path, paw, plain_weights):
    run = RunDirectory(tmp_path / "run")
    trainer = make(tmp_path, rewards=[vowels], paw=PawConfig(**paw), callbacks=[run])
    trainer.train()
    assert torch.equal(weights_of(trainer), plain_weights)
    assert len(read.metrics(tmp_path / "run")) == 2


def test_no_forward_pass_is_added(tmp_path):
    counts = []
    for cls in (GRPOTrainer, PawGRPOTrainer):
        trainer = make(tmp_path, cls, rewards=[vowels], max_steps=1)
        seen = []
        trainer.model.register_forward_hook(lambda *_, seen=seen: seen.append(1))
        trainer.train()
        counts.append(len(seen))
    assert counts[0] == counts[1] > 0


# ---- the term itself


def by_hand(update, model, paw):
    """The term of Eq. 11 from a row's tokens: what stands between `<|im_start|>tool` and
    `<|im_end|>` is predicted, the action is what stands before it."""
    begin = TOKENIZER.encode("<|im_start|>tool\n")
    end, head = TOKENIZER.encode("<|im_end|>"), TOKENIZER.encode("<|im_start|>assistant\n")
    entropy, losses, groups = [], [], []
    for r, row in enumerate(update.rows):
        ids = [*row.prompt_ids, *row.token_ids]
        logits = model(torch.tensor([ids])).logits[0]
        logprobs = logits.log_softmax(-1)[:-1].gather(1, torch.tensor(ids[1:])[:, None])[:, 0]
        action = len(row.prompt_ids)
        for i in range(action, len(ids)):
            if ids[i : i + len(begin)] != begin:
                continue
            first = i + len(begin)
            last = first + ids[first:].index(end[0])
            # TRL's suffix begins behind the end of the turn, which the policy may not have written
            stop = action + 4
            entropy.append(P.token_entropy(logits[action - 1 : stop - 1]).mean())
            losses.append(P.clipped_mae(logprobs[first - 1 : last - 1], paw.probability_cap).mean())
            groups.append(r // 4)
            action = next(
                k + len(head) for k in range(last, len(ids)) if ids[k : k + len(head)] == head
            )
    chosen = P.select_top_fraction(
        torch.stack(entropy).detach(),
        torch.ones(len(entropy), dtype=torch.bool),
        paw.selection_fraction,
    )
    lambdas = P.group_weights(
        torch.tensor(update.returns, dtype=torch.float64),
        torch.arange(8) // 4,
        HOUSEHOLD[0].max_return,
    )
    weights = P.transition_weights(chosen, torch.tensor(groups), lambdas)
    return P.weighted_sum(torch.stack(losses), paw.coefficient * weights), chosen


@pytest.mark.numerics
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
def test_gradient_is_that_of_the_objective_on_the_same_tokens(tmp_path, dtype):
    """All trajectories return 0, so the policy loss has no gradient of its own."""
    keep = Keep()
    paw = PawConfig(probability_cap=0.5)
    trainer = make(tmp_path, callbacks=[keep], max_steps=1, paw=paw, dtype=dtype)
    model = opinionated_model(dtype)
    trainer.train()
    term, chosen = by_hand(trainer.paw_update, model, paw)
    term.backward()
    selected = [t.selected for r in trainer.paw_update.rows for t in r.turns if t.target]
    assert selected == chosen.tolist()
    assert sum(selected) == 12  # of 16
    own = torch.cat([p.grad.flatten() for p in model.parameters()])
    found = torch.cat([g.flatten() for g in keep.gradients[0]])
    assert own.abs().max() > 1e-3
    tolerance = 1e-6 if dtype == torch.float32 else 1e-12
    if dtype == torch.float64 and Version(version("trl")) >= Version("1.15"):
        tolerance = 1e-8  # its own head computes log-probs in float32
    torch.testing.assert_close(found, own, rtol=1e-4, atol=tolerance)
    loss = trainer.state.log_history[0]["wm/loss"]
    assert loss == pytest.approx(term.item(), abs=1e-6)


@pytest.mark.numerics
def test_accumulation_and_shuffling_change_nothing(tmp_path):
    """The same eight trajectories in one, two and four micro-batches, shuffled each time."""
    found = []
    for rows, steps in ((8, 1), (4, 2), (2, 4)):
        keep = Keep()
        trainer = make(
            tmp_path,
            rewards=[vowels],
            callbacks=[keep],
            max_steps=1,
            per_device_train_batch_size=rows,
            gradient_accumulation_steps=steps,
            loss_type="dapo",
        )
        trainer.train()
        found.append(torch.cat([g.flatten() for g in keep.gradients[0]]))
    assert found[0].abs().max() > 1e-3
    for other in found[1:]:
        torch.testing.assert_close(other, found[0], rtol=1e-4, atol=1e-6)


@pytest.mark.numerics
def test_two_processes_learn_what_one_does(tmp_path):
    """Selection and lambda are of the whole generation batch, whoever holds its rows."""
    from trl_processes import learn

    program, file = str(Path(__file__).with_name("trl_processes.py")), tmp_path / "two.pt"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        place = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free.getsockname()[1])}
    started = [
        subprocess.Popen(
            [sys.executable, program, str(file)],
            env={**os.environ, **place, "WORLD_SIZE": "2", "RANK": rank, "LOCAL_RANK": rank},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in ("0", "1")
    ]
    one, told = learn(tmp_path)
    for process in started:
        _, said = process.communicate(timeout=300)
        assert process.returncode == 0, said
    two, told_by_two = torch.load(file)
    assert told == told_by_two
    assert told["wm/selected_transitions"] == 6
    assert one.abs().max() > 1e-3
    torch.testing.assert_close(two, one, rtol=1e-4, atol=1e-6)


def test_each_optimizer_step_of_a_generation_batch_counts_the_term_in_full(tmp_path):
    """Four micro-batches, two optimizer steps, nothing learned in between (learning rate 0): the
    mean of the two gradients is that of one step over all."""
    found = []
    for steps in (4, 2):
        keep = Keep()
        make(
            tmp_path,
            callbacks=[keep],
            learning_rate=0.0,
            max_steps=4 // steps,
            per_device_train_batch_size=2,
            gradient_accumulation_steps=steps,
            steps_per_generation=4,
        ).train()
        sums = [torch.cat([g.flatten() for g in step]) for step in keep.gradients]
        found.append(torch.stack(sums).mean(0))
    torch.testing.assert_close(found[1], found[0], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "paw",
    [
        {"loss": "mae"},
        {"loss": "ce"},
        {"select": "random"},
        {"select": "lowest"},
        {"select": "all"},
        {"entropy": "sampled"},
        {"weight": "constant", "constant": 0.5},
        {"weight": "decay"},
        {"random_sign": True},
        {"normalise": "token"},
        {"max_observation_tokens": 3},
        {"target": "shuffled"},
        {"target": "random"},
        {"target": "vocabulary"},
        {"target": "repeat_current"},
    ],
    ids=str,
)
def test_losses_controls_and_placebos_train(tmp_path, paw):
    trainer = make(tmp_path, paw=PawConfig(**paw), max_steps=1, max_tool_calling_iterations=1)
    before = weights_of(trainer)
    trainer.train()
    assert not torch.equal(weights_of(trainer), before)
    targets = [t.target for r in trainer.paw_update.rows for t in r.turns if t.selected]
    assert len(targets) == (8 if paw == {"select": "all"} else 6)
    if "max_observation_tokens" in paw:
        assert {len(t) for t in targets} == {3}


@pytest.mark.numerics
def test_placebos_are_predicted_where_the_observation_stands(tmp_path):
    """The gradient by hand: h_t a_t, the template, and the placebo in the observation's place."""
    keep = Keep()
    paw = PawConfig(target="shuffled", probability_cap=1.0)
    run = RunDirectory(tmp_path / "run")
    trainer = make(tmp_path, callbacks=[keep, run], max_steps=1, paw=paw)
    model = opinionated_model()
    trainer.train()
    term, changed = torch.zeros(()), 0
    records = read.trajectories(tmp_path / "run", 1)
    for record in records:
        ids = []
        for i, turn in enumerate(record.turns):
            ids += [*turn.context_ids, *turn.action_ids]
            if not turn.target_ids:
                continue
            after = record.turns[i + 1]
            before = ids + list(after.context_ids[: after.context_roles.index(Role.OBSERVATION)])
            whole = torch.tensor([[*before, *turn.target_ids]])
            logprobs = model(whole).logits[0, len(before) - 1 : -1].log_softmax(-1)
            logprobs = logprobs.gather(1, torch.tensor(turn.target_ids)[:, None])[:, 0]
            assert turn.target_logprobs == pytest.approx(logprobs.tolist(), abs=1e-3)
            term = term + turn.transition_weight * P.mean_absolute_error(logprobs).mean()
            changed += TOKENIZER.decode(turn.target_ids) != turn.next_observation
    assert changed > 0
    assert read.metrics(tmp_path / "run")[0]["wm/changed_target_fraction"] == changed / 12
    term.backward()
    own = torch.cat([p.grad.flatten() for p in model.parameters()])
    found = torch.cat([g.flatten() for g in keep.gradients[0]])
    torch.testing.assert_close(found, own, rtol=1e-3, atol=1e-6)


# ---- which tokens, which weights: pure


def test_turns_are_the_runs_of_the_mask():
    #      0  1  2  3  4  5  6  7  8   an observation that is read only, two turns
    mask = [0, 1, 1, 0, 0, 0, 1, 0, 1]
    ids = [9, 1, 2, 7, 5, 8, 3, 6, 4]
    turns = turns_of(mask, ids, {(7, 5, 8): (1,)})  # 7 and 8 are the template's
    assert turns == [Turn(1, 3, 6, (4,)), Turn(6, 7, 8, (7,)), Turn(8, 9, 9, ())]
    said = turns_of(mask, ids, {}, observation_mask=[1, 0, 0, 0, 1, 1, 0, 0, 0])
    assert [t.target for t in said] == [(4, 5), (), ()]


def test_text_of_tool_messages_without_the_template():
    def render(messages):
        return [ord(c) for m in messages for c in f"<T>{m['content']}</T>\n"] + [ord("A")]

    one = [{"content": "a>"}]
    ids, positions = text_positions(one, render)
    assert "".join(chr(ids[p]) for p in positions) == "a>"
    two = [{"content": "first"}, {"content": "<T>"}]
    ids, positions = text_positions(two, render)
    assert "".join(chr(ids[p]) for p in positions) == "first<T>"


# ---- a rollout_func with env_mask


def scripted_rollout(prompts, trainer, **fields):
    """Two actions of three tokens, an observation of four between them, the first the template's;
    more is learned of the action with larger entropy."""
    prompt_ids = [TOKENIZER.encode(str(p)) for p in prompts]
    mask = [1] * 3 + [0] * 4 + [1] * 3
    rows = len(prompts)
    completions = [[20 + (i + j) % 40 for j in range(10)] for i in range(rows)]
    return {
        "prompt_ids": prompt_ids,
        "completion_ids": completions,
        "logprobs": [[-1.0 - i / 10] * 10 for i in range(rows)],
        "env_mask": [mask] * rows,
        "observation_mask": [[0] * 4 + [1] * 3 + [0] * 3] * rows,
        **{name: value(rows) for name, value in fields.items()},
    }


def test_rollout_func_with_env_mask_and_entropies(tmp_path):
    """Each row has one candidate; of eight the ceil(0.75 x 8) = 6 with most entropy are chosen."""

    def rollout(prompts, trainer):
        return scripted_rollout(
            prompts, trainer, entropies=lambda n: [[float(i)] * 10 for i in range(n)]
        )

    trainer = make(
        tmp_path,
        rewards=[vowels],
        rollout_func=rollout,
        max_steps=1,
        paw=PawConfig(max_return=1.0),
    )
    trainer.train()
    rows = trainer.paw_update.rows
    assert [[t.selected for t in r.turns] for r in rows] == [[False] * 2] * 2 + [[True, False]] * 6
    assert [t.target for t in rows[0].turns] == [(4, 5, 6), ()]


def test_rollout_func_with_the_log_probs_of_its_sampler(tmp_path):
    """-q log q of q = exp(-1 - i/10) falls with i: rows 0 to 5 are chosen."""
    trainer = make(
        tmp_path,
        rewards=[vowels],
        rollout_func=scripted_rollout,
        max_steps=1,
        paw=PawConfig(max_return=1.0, entropy="sampled"),
    )
    trainer.train()
    chosen = [r.turns[0].selected for r in trainer.paw_update.rows]
    assert chosen == [True] * 6 + [False] * 2


def test_rollout_func_without_entropies_is_refused(tmp_path):
    trainer = make(
        tmp_path, rewards=[vowels], rollout_func=scripted_rollout, paw=PawConfig(max_return=1.0)
    )
    with pytest.raises(UserError, match=r"nothing shows the entropies.*`entropies`"):
        trainer.train()


def test_entropies_come_from_a_scoring_pass_that_trl_makes_anyway(tmp_path):
    """Two optimizer steps on one generation batch: TRL scores it before the first."""
    trainer = make(
        tmp_path,
        rewards=[vowels],
        rollout_func=scripted_rollout,
        steps_per_generation=4,
        per_device_train_batch_size=2,
        max_steps=1,
        paw=PawConfig(max_return=1.0),
    )
    model = opinionated_model()
    trainer.train()
    row = trainer.paw_update.rows[0]
    logits = model(torch.tensor([[*row.prompt_ids, *row.token_ids]])).logits[0]
    start = len(row.prompt_ids) - 1
    expected = P.token_entropy(logits[start : start + 3]).tolist()
    assert row.turns[0].sampled.entropies == pytest.approx(expected, abs=1e-4)


# ---- environments


def test_only_act_is_a_tool(tmp_path):
    trainer = make(tmp_path)
    assert [tool.__name__ for tool in trainer.tools] == ["act"]
    assert trainer.reward_func_names == ["household"]


def test_an_episode_of_the_factory():
    factory, dataset = HOUSEHOLD
    game = factory()
    first = game.reset(**dataset[0])
    assert game.source[0].instruction in first
    assert "Commands that can be given now: go to" in first
    assert game.act("dance") == "Nothing happens."
    assert game.get_reward() == 0.0
    expert = game.source.expert(game.source[0], 0)
    other = game.source.open(game.source[0], seed=0)
    observation = other.reset()
    game.reset(**dataset[0])
    for _ in range(50):
        command = expert.act(observation)
        result = other.step(command)
        assert game.act(command) == result.observation.text
        observation = result.observation
        if result.terminated:
            break
    assert game.get_reward() == factory.max_return
    assert game.act("look") == "The episode is over."
    assert "Your task" in game.reset(**dataset[1])
    assert game.get_reward() == 0.0


class Breaks:
    """An environment that fails at its second command."""

    max_return = 1.0

    def __init__(self, inner):
        self.inner, self.count = inner, 0

    def reset(self):
        return self.inner.reset()

    def step(self, command):
        self.count += 1
        if self.count == 2:
            raise OSError("the server is gone")
        return self.inner.step(command)

    def close(self):
        pass


def one_breaks(factory):
    """The first environment that is opened is one that `Breaks`."""
    opened = []

    class Source(type(factory.source)):
        def open(self, task, seed=0):
            opened.append(task)
            inner = super().open(task, seed)
            return Breaks(inner) if len(opened) == 1 else inner

    factory.source = Source()


def test_a_failing_environment_is_a_failed_trajectory(tmp_path):
    """One of eight: TRL leaves it out of its group, lambda does too, and nothing of it is
    predicted."""
    factory, dataset = short(environment("household"))
    one_breaks(factory)
    trainer = make(
        tmp_path,
        env=(factory, dataset),
        max_steps=1,
        callbacks=[RunDirectory(tmp_path / "run")],
    )
    trainer.train()
    records = read.trajectories(tmp_path / "run", 1)
    assert [r.failure for r in records] == ["OSError: the server is gone"] + [None] * 7
    assert not any(t.transition_weight for t in records[0].turns)
    assert read.metrics(tmp_path / "run")[0]["rollout/failures"] == 1


def test_unknown_environment_is_a_line():
    with pytest.raises(UserError, match="household"):
        environment("househould")


# ---- the run directory


def test_run_directory_is_read_by_report_and_episodes(tmp_path, capsys):
    directory = tmp_path / "run"
    trainer = make(tmp_path, callbacks=[RunDirectory(directory)])
    model = opinionated_model()
    trainer.train()
    rows = read.metrics(directory)
    assert [r["update"] for r in rows] == [1, 2]
    assert rows[0]["wm/selected_transitions"] == 12
    assert rows[0]["wm/loss"] == pytest.approx(trainer.state.log_history[0]["wm/loss"])
    first = read.trajectories(directory, 1)
    assert [(r.group, r.index) for r in first] == [(g, i) for g in range(2) for i in range(4)]
    record = first[0]
    assert [len(t.action_ids) for t in record.turns] == [4, 4, 4]
    assert record.turns[0].next_observation == record.turns[1].observation
    assert record.turns[0].context_roles[0] == Role.CONTEXT
    assert set(record.turns[1].context_roles) == {Role.OBSERVATION, Role.SCAFFOLD}
    assert record.env == "household"
    learned = [(r, i) for r in first for i, t in enumerate(r.turns) if t.target_ids]
    assert len(learned) == 12
    # What was expected of the target before the first step: a full pass over the row says the same.
    record, i = learned[-1]
    ids = [x for t in record.turns[: i + 1] for x in (*t.context_ids, *t.action_ids)]
    after = record.turns[i + 1]
    ids += after.context_ids
    logprobs = model(torch.tensor([ids])).logits[0].log_softmax(-1)
    place = len(ids) - len(after.context_ids) + after.context_roles.index(Role.OBSERVATION)
    expected = [logprobs[place + k - 1, x].item() for k, x in enumerate(record.turns[i].target_ids)]
    assert record.turns[i].target_logprobs == pytest.approx(expected, abs=2e-3)
    assert cli.main(["episodes", str(directory)]) == 0
    assert "Nothing happens." in capsys.readouterr().out
    assert cli.main(["report", str(directory), "-o", str(tmp_path / "report.html")]) == 0
    assert (tmp_path / "report.html").stat().st_size > 10_000


def test_a_second_run_does_not_overwrite_the_first(tmp_path):
    directory = tmp_path / "run"
    make(tmp_path, callbacks=[RunDirectory(directory)], max_steps=1).train()
    with pytest.raises(UserError, match="holds a run already"):
        make(tmp_path, callbacks=[RunDirectory(directory)], max_steps=1).train()


def test_rows_that_trl_masks_are_not_predicted_and_count_in_lambda(tmp_path):
    """No action ends with the end of turn, so all are truncated."""
    trainer = make(
        tmp_path,
        mask_truncated_completions=True,
        max_steps=1,
        callbacks=[RunDirectory(tmp_path / "run")],
    )
    trainer.train()
    assert trainer.paw_update.metrics["wm/selected_transitions"] == 0
    assert trainer.paw_update.metrics["wm/group_weight_mean"] == 1
    assert {r.failure for r in read.trajectories(tmp_path / "run", 1)} == {
        "TRL masks it: mask_truncated_completions"
    }


# ---- the examples, on made-up data


def test_examples_train_on_small_data(tmp_path):
    for trial in ("trial_T1", "trial_T2"):
        write_game(tmp_path / "games", f"{HEAT}/{trial}")
    options = {"max_turns": 3, "max_completion_length": 2000}
    small = ["--smoke", "--data-dir", str(tmp_path / "games"), "--output", str(tmp_path / "a")]
    main("alfworld", commands=("look", "go to fridge 1"), arguments=small, **options)
    shop = tmp_path / "shop"
    shop.mkdir()
    write(shop)
    small = ["--smoke", "--data-dir", str(shop), "--output", str(tmp_path / "w"), "--split", "all"]
    main("webshop", commands=("search[shoes]",), arguments=small, **options)
    for name, text in (("a", "fridge 1"), ("w", "Page 1")):
        turns = [t for r in read.trajectories(tmp_path / name, 2) for t in r.turns]
        assert any(t.next_observation and text in t.next_observation for t in turns)
        assert any(t.valid for t in turns)
        assert any(t.target_logprobs for t in turns)


# ---- refused


@pytest.mark.parametrize(
    ("paw", "words"),
    [
        ({"condition": "no_action"}, "paw.condition"),
        ({"schedule": "alternate"}, "paw.schedule"),
        ({"horizon": 2}, "paw.horizon"),
        ({"dedup": True}, "paw.dedup"),
        ({"loss": "mse"}, "paw.loss"),
        ({"selection_fraction": 1.5}, "paw.selection_fraction"),
        ({"weight": "matched_constant"}, "paw.match"),
        ({"max_return": 0.0}, "paw.max_return"),
    ],
    ids=str,
)
def test_what_cannot_be_done_is_refused_with_a_line(paw, words):
    with pytest.raises(UserError, match=words) as caught:
        PawConfig(**paw)
    assert "\n" not in str(caught.value)


def test_other_temperatures_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"temperature = 0\.7"):
        make(tmp_path, temperature=0.7)
    make(tmp_path, temperature=0.7, paw=PawConfig(enabled=False))


def test_other_settings_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"give a paw\.integrations\.trl\.PawConfig"):
        make(tmp_path, paw={"coefficient": 1.0})


def test_a_placebo_of_what_was_seen_before_needs_our_environment(tmp_path):
    paw = PawConfig(target="repeat_current", max_return=1.0)
    with pytest.raises(UserError, match="repeat_current"):
        make(tmp_path, rewards=[vowels], rollout_func=scripted_rollout, paw=paw)


def test_max_return_has_to_be_known(tmp_path):
    with pytest.raises(UserError, match=r"paw\.max_return is not set"):
        make(tmp_path, rewards=[vowels], rollout_func=scripted_rollout)


@pytest.mark.parametrize("found", ["0.29.1", "1.7.1", "1.15.0", "1.17.0", "2.0.0"])
def test_versions_that_were_not_tried_are_refused(found):
    with pytest.raises(ImportError, match=f"trl {found}"):
        TRL.check(found)


@pytest.mark.parametrize("found", ["1.8.0", "1.14.2", "1.16.0", "1.16.1"])
def test_versions_that_were(found):
    TRL.check(found)
