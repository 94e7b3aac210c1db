"""PaW in verl, on a CPU: its own loss, padding, advantages and trainer's methods; Ray, vLLM and
FSDP are scripted (`verl_fakes`)."""

import os
import subprocess
import sys
from types import SimpleNamespace

import pytest
import torch

pytest.importorskip("verl", reason="verl is not installed: see docs/integrations.md")

import ray
from tensordict import TensorDict
from test_recipes import agg_loss
from verl.experimental.agent_loop.agent_loop import _agent_loop_registry
from verl.single_controller.ray import RayClassWithInitArgs, create_colocated_worker_cls
from verl.trainer.ppo import core_algos
from verl.trainer.ppo.core_algos import compute_gae_advantage_return, get_adv_estimator_fn
from verl.trainer.ppo.padding_utils import upsample_batch_to_divisible_size
from verl.trainer.ppo.v1.trainer_base import get_trainer_cls
from verl.utils import tensordict_utils as tu
from verl.utils.config import validate_config
from verl_fakes import (
    EXAMPLES,
    TOKENIZER,
    Store,
    Workers,
    configuration,
    play,
    step,
    store_episodes,
    tiny_model,
    trainer_of,
)

import paw.objective as P
from paw.errors import UserError
from paw.integrations.verl import PawDataset
from paw.integrations.verl.loss import PawLoss, prediction_term
from paw.integrations.verl.records import RowRecord, TurnRecord
from paw.integrations.verl.settings import check_config, read_settings
from paw.integrations.verl.trainer import PawActorRolloutRefWorker
from paw.integrations.verl.update import read_update, turn_rewards
from paw.integrations.versions import VERL
from paw.rollout.actor import make_serializer
from paw.types import Role

pytestmark = [pytest.mark.verl, pytest.mark.filterwarnings("ignore")]
CONTEXTS = ("window", "append")
R_MAX = 10.0


def zero_loss(model_output, data, dp_group=None):
    return torch.zeros((), dtype=torch.float64), {}


def in_context(context, *overrides):
    """Six rows of transitions in two steps of six; or four of episodes in one step of four."""
    rows = 3 if context == "window" else 2
    size = f"actor_rollout_ref.actor.ppo_mini_batch_size={rows}"
    return configuration(f"paw.rollout.context={context}", size, *overrides)


def gradients_of(monkeypatch, config, *, order=None, **workers):
    """Of each optimizer step, and what else one step of the trainer left."""
    store = Store(monkeypatch)
    batch = store_episodes(store, config, order)
    at_work = Workers(store, tiny_model(), config, **workers)
    metrics = step(trainer_of(config, at_work), batch)
    flat = [torch.cat([g.flatten() for g in gradient]) for gradient in at_work.gradients]
    return SimpleNamespace(flat=flat, store=store, metrics=metrics, workers=at_work, batch=batch)


# ---- episodes as verl's rows


def test_a_window_is_a_row_a_turn():
    outputs = play(configuration(), 0)
    serializer = make_serializer(read_settings(configuration().paw), TOKENIZER)
    assert [TOKENIZER.decode(o.response_ids) for o in outputs] == [
        "look<|end|>",
        "dance<|end|>",
        "go to fridge 1<|end|>",
    ]
    for number, output in enumerate(outputs):
        record = output.extra_fields["paw"]
        assert output.response_mask == [1] * len(output.response_ids)
        assert output.num_turns == 6 and output.response_logprobs == [-1.0] * len(record.roles)
        assert record.first_turn == number and record.roles == (Role.ACTION,) * len(record.roles)
        assert record.turns[0].target_start is None
    texts = [o.extra_fields["paw"].turns[0] for o in outputs]
    assert texts[0].target_ids == serializer.target(texts[1].observation)[0]
    assert TOKENIZER.decode(texts[1].target_ids) == "Nothing happens."
    extra = outputs[0].extra_fields["reward_extra_info"]
    assert extra == {"acc": 0.0, "valid_actions": pytest.approx(2 / 3)}
    assert outputs[0].reward_score == pytest.approx(-0.1)  # one refused command, nothing won


def test_append_is_a_row_an_episode_with_roles():
    (output,) = play(configuration("paw.rollout.context=append"), 0)
    record, ids = output.extra_fields["paw"], output.response_ids
    assert output.response_mask == [int(role == Role.ACTION) for role in record.roles]
    assert len(record.turns) == 3 and record.turns[2].target_start is None
    for turn, following in zip(record.turns[:2], record.turns[1:], strict=True):
        span = slice(turn.target_start, turn.target_start + len(turn.target_ids))
        assert tuple(ids[span]) == turn.target_ids
        assert set(record.roles[span]) == {Role.OBSERVATION}
        assert TOKENIZER.decode(ids[span]) == following.observation
        between = record.roles[turn.end : turn.target_start]
        assert set(between) == {Role.SCAFFOLD}


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_reward_is_on_the_last_action_token(context, monkeypatch):
    """verl puts it on a row's last token; its generalized advantages skip masked tokens, so that on
    an observation's token it would be lost: returns 0 0 | 0, not 10 10 | 10."""
    store = Store(monkeypatch)
    store_episodes(store, configuration(f"paw.rollout.context={context}"))
    for row in store.rows.values():
        place = row["rm_scores"].nonzero().flatten().tolist()
        assert place == [int(row["response_mask"].nonzero().max())]
        assert not (set(place) - set(range(len(row["responses"]))))
    mask, values = torch.tensor([[1.0, 1, 0]]), torch.zeros(1, 3)
    kept, lost = torch.tensor([[0.0, 10, 0]]), torch.tensor([[0.0, 0, 10]])
    for rewards, expected in ((kept, [10, 10]), (lost, [0, 0])):
        _, returns = compute_gae_advantage_return(rewards, values, mask, 1.0, 1.0)
        assert returns[0, :2].tolist() == expected


def test_an_environment_that_fails_gives_no_rows(monkeypatch):
    class Broken:
        def reset(self):
            raise RuntimeError("out of order")

    from paw.envs.household import Household

    monkeypatch.setattr(Household, "open", lambda *args, **kwargs: Broken())
    assert play(configuration(), 0) == []


# ---- without a prediction term


def test_without_weights_it_is_verls_own_loss_bit_for_bit(monkeypatch):
    off = gradients_of(monkeypatch, configuration("paw.coefficient=0"))
    store, config = Store(monkeypatch), configuration()
    batch = store_episodes(store, config)
    plain = Workers(store, tiny_model(), config)
    plain.loss_fn = plain.plain
    step(trainer_of(configuration("paw.enabled=false"), plain), batch)
    own = [torch.cat([g.flatten() for g in gradient]) for gradient in plain.gradients]
    assert all(torch.equal(a, b) for a, b in zip(off.flat, own, strict=True))
    assert any(bool(gradient.any()) for gradient in own)
    assert not any(name.startswith("wm/") for name in off.metrics)


def test_weights_of_zero_leave_verls_loss_as_it_is():
    data = TensorDict({"paw_weights": nested([[0.0, 0.0], [0.0]])}, batch_size=[2])
    loss = torch.tensor(1.5, requires_grad=True)
    paw_loss = PawLoss(lambda **given: (loss, {}))
    data["prompts"], data["responses"] = nested([[1], [1]]), nested([[2, 3], [4]])
    tu.assign_non_tensor(data, paw_loss="cmae", paw_probability_cap=0.2, dp_size=1)
    output = {"log_probs": nested([[-1.0, -1.0, 0.0], [-1.0, 0.0]])}
    found, metrics = paw_loss(output, data)
    assert found is loss and metrics["actor/wm/loss"].values == [0.0]


def nested(rows):
    return torch.nested.nested_tensor([torch.tensor(r) for r in rows], layout=torch.jagged)


# ---- the gradient


def test_only_rows_that_predict_a_target_have_a_gradient():
    """Prompt 1, response 2 3 and a tail of 4 5 6, of which 5 and 6 are the target: its log-probs
    stand one place before it. p = e^-2, below the cap: d(1 - p) / d log p = -p, times 0.5 and 2."""
    logprobs = torch.full((6,), -2.0, requires_grad=True)
    flat = torch.nested.nested_tensor_from_jagged(logprobs, torch.tensor([0, 6]))
    data = TensorDict({"paw_weights": nested([[0.0, 0.0, 0.0, 0.5, 0.5]])}, batch_size=[1])
    data["prompts"], data["responses"] = nested([[1]]), nested([[2, 3, 4, 5, 6]])
    tu.assign_non_tensor(data, paw_loss="cmae", paw_probability_cap=0.2, dp_size=2)
    prediction_term(flat, data).backward()
    p = float(torch.tensor(-2.0).exp())
    assert logprobs.grad.tolist() == pytest.approx([0, 0, 0, -p, -p, 0])


def reference(config, store, settings):
    """The term's gradient by `paw.objective` from plain logits, a transition at a time."""
    model, serializer = tiny_model(), make_serializer(settings, TOKENIZER)
    turns = []  # context + action, target, group, return
    entropy = []
    for key in sorted(store.rows):
        row = store.rows[key]
        record = row["extra_fields"]["paw"]
        prompt, response = row["prompts"].tolist(), row["responses"].tolist()
        for turn in record["turns"]:
            read = prompt + response[: turn["end"]]
            begun = len(prompt) + turn["start"]
            with torch.no_grad():
                logits = model(torch.tensor([read])).logits[0, begun - 1 : -1]
            entropy.append(P.token_entropy(logits).mean())
            before = read + list(serializer.format.to_user)
            turns.append((before, list(turn["target_ids"]), key.split("_")[0], record["return_"]))
    groups = sorted({group for _, _, group, _ in turns})
    group = torch.tensor([groups.index(g) for _, _, g, _ in turns])
    returns = torch.tensor([r for _, _, _, r in turns], dtype=torch.float64)
    lambdas = P.group_weights(returns, group, R_MAX)  # equal turns: the mean over trajectories
    candidates = torch.ones(len(turns), dtype=torch.bool)
    selected = P.select_top_fraction(torch.stack(entropy), candidates, 0.75)
    weights = P.transition_weights(selected, group, lambdas)
    term = torch.zeros((), dtype=torch.float64)
    for (before, target, _, _), weight in zip(turns, weights.tolist(), strict=True):
        logits = model(torch.tensor([before + target])).logits[0, len(before) - 1 : -1]
        found = logits.log_softmax(-1).gather(1, torch.tensor(target)[:, None])[:, 0]
        term = term + weight / len(target) * P.clipped_mae(found, 0.2).sum()
    term.backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters()])
    return gradient, selected, lambdas


@pytest.mark.parametrize("context", CONTEXTS)
def test_the_gradient_is_that_of_the_objective(monkeypatch, context):
    """Two optimizer steps (window) count the update twice, as the policy loss does: M = 2."""
    config = in_context(context)
    found = gradients_of(monkeypatch, config, base=zero_loss)
    expected, selected, lambdas = reference(config, found.store, read_settings(config.paw))
    steps = {"window": 2, "append": 1}[context]
    assert len(found.flat) == steps and int(selected.sum()) == 9
    assert relative(sum(found.flat), steps * expected) < 1e-6
    assert found.metrics["wm/selected_transitions"] == 9
    assert found.metrics["wm/group_weight_mean"] == pytest.approx(float(lambdas.mean()))


def relative(a, b):
    return float((a - b).norm() / b.norm())


@pytest.mark.parametrize("context", CONTEXTS)
@pytest.mark.parametrize("split", [{"micro": 1}, {"micro": 3, "ranks": 2}], ids=str)
def test_micro_batches_ranks_and_order_change_nothing(monkeypatch, context, split):
    config = in_context(context, "actor_rollout_ref.actor.ppo_mini_batch_size=6")
    if context == "append":
        config = in_context(context)

    def shuffled(count):
        return torch.randperm(count, generator=torch.Generator().manual_seed(1)).tolist()

    whole = gradients_of(monkeypatch, config, micro=12)
    other = gradients_of(monkeypatch, config, order=shuffled, **split)
    assert relative(sum(other.flat), sum(whole.flat)) < 1e-6


# ---- the batch


def test_rows_have_targets_while_the_actor_learns_and_no_longer(monkeypatch):
    found = gradients_of(monkeypatch, configuration())
    rows, seen = found.store.rows, found.workers.seen
    grown = {key for key in rows if len(seen[key]["responses"]) > len(rows[key]["responses"])}
    assert len(grown) == 9  # 0.75 of 12
    for key, row in seen.items():
        length, own = len(row["responses"]), len(rows[key]["responses"])
        turn = row["extra_fields"]["paw"]["turns"][0]
        weighted = row["paw_weights"].nonzero().flatten().tolist()
        assert len(row["paw_weights"]) == length
        if key in grown:
            target = list(turn["target_ids"])
            assert row["responses"].tolist()[-len(target) :] == target
            assert weighted == list(range(length - len(target), length))
            assert TOKENIZER.decode(row["responses"][own : -len(target)]) == "<|observation|>"
        assert row["input_ids"].tolist() == row["prompts"].tolist() + row["responses"].tolist()
        assert row["position_ids"].tolist() == list(range(len(row["input_ids"])))
        for name in ("response_mask", "loss_mask", "old_log_probs", "advantages"):
            assert len(row[name]) == length and not row[name][own:].any()
            assert torch.equal(row[name][:own], rows[key][name])


def test_verls_padding_is_no_transition(monkeypatch):
    """Its rows hold what its first row says: they would be one trajectory more."""
    store, config = Store(monkeypatch), configuration()
    batch = upsample_batch_to_divisible_size(store_episodes(store, config), 18, 0)
    assert len(batch) == 18 and "paw" in store.rows[batch.keys[-1]]["extra_fields"]
    workers = Workers(store, tiny_model(), config)
    metrics = step(trainer_of(config, workers), batch)
    assert metrics["wm/selected_transitions"] == 9 and len(workers.gradients) == 3
    padding = [store.rows[k]["paw_weights"] for k in batch.keys if k.startswith("pad")]
    assert len(padding) == 6 and not any(bool(w.any()) for w in padding)


def test_a_placebo_stands_where_the_target_would(monkeypatch):
    found = gradients_of(monkeypatch, configuration("paw.target=shuffled"))
    assert found.metrics["wm/changed_target_fraction"] > 0.5
    true = {
        tuple(r["extra_fields"]["paw"]["turns"][0]["target_ids"]) for r in found.store.rows.values()
    }
    for key, row in found.workers.seen.items():
        own = len(found.store.rows[key]["responses"])
        tail = row["responses"].tolist()[own:]
        assert not tail or tuple(tail[1:]) in true


@pytest.mark.parametrize("loss", ["mae", "ce"])
def test_other_losses_go_by_the_same_names(monkeypatch, loss):
    found = gradients_of(monkeypatch, configuration(f"paw.loss={loss}"), base=zero_loss)
    assert all(bool(gradient.any()) for gradient in found.flat)


@pytest.mark.parametrize("mode", ["token-mean", "seq-mean-token-mean", "seq-mean-token-sum"])
def test_reductions_of_recipes_are_scripted_as_verl_has_them(mode):
    values, mask = torch.rand(3, 4), torch.tensor([[1.0, 1, 0, 1], [0, 0, 0, 0], [1, 0, 0, 0]])
    of_step = {"dp_size": 2, "batch_num_tokens": 7, "global_batch_size": 5}
    expected = core_algos.agg_loss(values, mask, mode, **of_step)
    assert agg_loss(values, mask, mode, **of_step).item() == pytest.approx(expected.item())


# ---- advantages


@pytest.mark.parametrize("context", CONTEXTS)
def test_with_ppo_each_turn_bears_its_own_rewards(monkeypatch, context):
    """Returns from each turn on, those of `paw.objective` at discount 1: a penalty of turn t is
    paid by turns up to t. verl would put the episode's sum behind every row. V = 0.5 throughout."""
    overrides = ("algorithm.adv_estimator=gae", "+paw.rollout.invalid_penalty=0.25")
    store, config = Store(monkeypatch), in_context(context, *overrides)
    rows = 18 if context == "window" else 8
    batch = upsample_batch_to_divisible_size(store_episodes(store, config), rows, 0)
    scores = {key: row["rm_scores"].clone() for key, row in store.rows.items()}
    for row in store.rows.values():
        row["values"] = torch.full((len(row["responses"]),), 0.5)
        row["extra_fields"]["paw"]["turns"][-1]["reward"] += 1.0  # so that no turn returns 0
    step(trainer_of(config, Workers(store, tiny_model(), config)), batch)
    found, rewards, trajectory, turn = [], [], [], []
    for key in sorted(key for key in store.rows if not key.startswith("pad")):
        row = store.rows[key]
        record = row["extra_fields"]["paw"]
        for number, one in enumerate(record["turns"], start=record["first_turn"]):
            returns = row["returns"][one["start"] : one["end"]]
            assert torch.equal(returns, returns[:1].expand_as(returns))
            found.append(float(returns[0]))
            rewards.append(one["reward"] + one["penalty"])
            trajectory.append(key.rsplit("_", 1)[0])
            turn.append(number)
    episodes = sorted(set(trajectory))
    _, expected = P.generalized_advantages(
        torch.tensor(rewards),
        torch.full((len(rewards),), 0.5),
        torch.tensor([episodes.index(one) for one in trajectory]),
        torch.tensor(turn),
        1.0,
        1.0,
    )
    assert len({round(x, 3) for x in found}) > 2
    assert found == pytest.approx(expected.tolist(), abs=1e-6)
    assert all(torch.equal(store.rows[key]["rm_scores"], scores[key]) for key in scores)


def test_rewards_of_a_row_stand_on_the_actions_that_earned_them():
    """Two rows: turns 0 and 1 (rewards 1 and 2), then turn 2 (3, and a penalty of -0.5). The first
    row's last action bears what comes later too: 2 + 2.5."""

    def record(first, *turns):
        made = [
            TurnRecord(start, end, reward, penalty, "", (), (), None, ())
            for start, end, reward, penalty in turns
        ]
        return RowRecord(first, tuple(made), 6.0, (Role.ACTION,) * turns[-1][1])

    one = record(0, (0, 2, 1.0, 0.0), (3, 5, 2.0, 0.0))
    update = read_update(["u_0_0", "u_0_1"], [one, record(2, (0, 1, 3.0, -0.5))])
    assert turn_rewards(update, [5, 1]) == [[0, 1, 0, 0, 4.5], [2.5]]


def test_gigpo_is_that_of_the_objective(monkeypatch):
    config = configuration("algorithm.adv_estimator=gigpo", "+paw.rollout.invalid_penalty=0.25")
    found = gradients_of(monkeypatch, config)
    keys = sorted(found.store.rows)
    turns = [found.store.rows[k]["extra_fields"]["paw"]["turns"][0] for k in keys]
    trajectory = torch.arange(4).repeat_interleave(3)
    group, rewards = trajectory // 2, [t["reward"] + t["penalty"] for t in turns]
    penalties = torch.tensor([t["penalty"] for t in turns], dtype=torch.float64)
    anchors = P.anchor_labels([t["observation"] for t in turns], group.tolist())
    step_advantages = P.step_advantages(
        torch.tensor(rewards, dtype=torch.float64),
        trajectory,
        torch.arange(3).repeat(4),
        group,
        torch.tensor(anchors),
        0.95,
        True,
    )
    # Nothing is won: what an episode's return gives is 0, and a turn's own penalty remains.
    usual = P.segment_mean(penalties, group, 2)[group]
    expected = penalties - usual + step_advantages
    assert expected.abs().max() > 0.1
    for key, value in zip(keys, expected.tolist(), strict=True):
        row = found.store.rows[key]
        assert row["advantages"].tolist() == pytest.approx([value] * len(row["responses"]))
    with pytest.raises(UserError, match="trainer_mode = paw"):
        get_adv_estimator_fn("gigpo")(torch.zeros(1, 1), torch.ones(1, 1))


def test_grpo_is_verls_and_counts_an_episode_once(monkeypatch):
    found = gradients_of(monkeypatch, configuration())
    rows = found.store.rows
    sessions = [f"u{g}_{s}" for g in range(2) for s in range(2)]
    scores = torch.tensor([float(rows[f"{s}_2"]["rm_scores"].sum()) for s in sessions])
    expected = P.group_relative_advantages(scores, torch.tensor([0, 0, 1, 1]))
    for session, value in zip(sessions, expected.tolist(), strict=True):
        for turn in range(3):
            assert rows[f"{session}_{turn}"]["advantages"][0] == pytest.approx(value, abs=1e-5)


def test_with_ppo_each_trajectory_is_a_group_of_its_own(monkeypatch):
    """Returns 10 and 0 in one group: lambda 0 and 1, not 0.5 for both."""
    store, config = Store(monkeypatch), configuration("algorithm.adv_estimator=gae")
    batch = store_episodes(store, config)
    for key, row in store.rows.items():
        row["extra_fields"]["paw"]["return_"] = 10.0 if key.startswith("u0_0") else 0.0
        row["values"] = torch.zeros(len(row["responses"]))
    workers = Workers(store, tiny_model(), config)
    metrics = step(trainer_of(config, workers), batch)
    assert metrics["wm/group_weight_mean"] == pytest.approx(0.75)  # of 0 1 1 1
    won = [store.rows[k]["paw_weights"] for k in batch.keys if k.startswith("u0_0")]
    assert not any(bool(w.any()) for w in won)


# ---- what verl is given


def test_what_is_registered():
    assert get_trainer_cls("paw").__name__ == "PawPPOTrainer"
    assert _agent_loop_registry["paw"]["_target_"] == "paw.integrations.verl.loop.PawAgentLoop"
    made = RayClassWithInitArgs(ray.remote(PawActorRolloutRefWorker), config=None, role="actor")
    create_colocated_worker_cls({"actor_rollout": made})  # finds verl's methods in ours


def test_the_example_is_a_configuration_of_verl(tmp_path):
    tiny_model().save_pretrained(tmp_path)
    TOKENIZER.save_pretrained(tmp_path)
    models = [f"{name}.model.path={tmp_path}" for name in ("actor_rollout_ref", "critic")]
    for estimator in ("grpo", "gae", "gigpo"):
        config = configuration(f"algorithm.adv_estimator={estimator}", *models)
        validate_config(config, use_reference_policy=False, use_critic=estimator == "gae")
        check_config(config, read_settings(config.paw))


def test_tasks_are_rows():
    data = configuration().data
    rows = PawDataset("valid", data, max_samples=2)
    assert len(rows) == 2 and rows[1]["index"] == 1 and rows[1]["split"] == "valid"
    assert rows[0]["agent_name"] == "paw" and rows[0]["data_source"] == "household/valid"
    with pytest.raises(UserError, match="split"):
        PawDataset("no such", data)


REFUSED = {
    "+paw.schedule=alternate": "schedule",
    "+paw.dedup=true": "dedup",
    "+paw.no_such=1": "no such key",
    "paw.select=most": "paw.select",
    "+paw.rollout.group_size=3": "verl has a key",
    "+paw.env.split=train": "train_files",
    "paw.env.name=null": "paw.env.name",
    "paw.env.name=no_such": "no environment",
    "actor_rollout_ref.rollout.temperature=0.7": "temperature",
    "algorithm.adv_estimator=rloo": "adv_estimator",
    "algorithm.filter_groups.enable=true": "filter_groups",
    "algorithm.rollout_correction.bypass_mode=true": "bypass_mode",
    "actor_rollout_ref.actor.loss_agg_mode=seq-mean-token-sum-norm": "loss_scale_factor",
    "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1500": "ppo_max_token_len_per_gpu",
    "distillation.enabled=true": "distillation",
    "+actor_rollout_ref.actor.fsdp_config.router_replay.mode=R2": "router_replay",
    "actor_rollout_ref.rollout.enable_rollout_routing_replay=true": "router_replay",
    "reward.reward_model.enable=true": "reward_model",
    "reward.custom_reward_function.path=own.py": "custom_reward_function",
    "+paw.algorithm.scale_by_std=false": "paw.algorithm.scale_by_std = False: has no effect",
    "paw.algorithm.discount=0.9": "paw.algorithm.discount = 0.9: has no effect",
    "paw.env.data_dir=${oc.env:PAW_NO_SUCH_VARIABLE}": "PAW_NO_SUCH_VARIABLE",
}


@pytest.mark.parametrize("override", REFUSED)
def test_what_cannot_be_done_is_refused(override):
    config = configuration(override)
    with pytest.raises(UserError, match=REFUSED[override]):
        check_config(config, read_settings(config.paw))


def test_more_is_refused():
    for overrides in (
        ("paw.rollout.context=append", "paw.target=shuffled"),
        ("algorithm.adv_estimator=gigpo", "algorithm.use_kl_in_reward=true"),
        ("algorithm.adv_estimator=gigpo", "algorithm.norm_adv_by_std_in_grpo=false"),
        ("algorithm.adv_estimator=gigpo", "algorithm.gamma=0.9"),
        ("algorithm.adv_estimator=gigpo", "algorithm.lam=0.9"),
        ("algorithm.adv_estimator=gae", "paw.algorithm.step_weight=0.5"),
        ("algorithm.adv_estimator=gae", "algorithm.gamma=0.9"),
        ("algorithm.adv_estimator=gae", "algorithm.lam=0.9", "paw.enabled=false"),
    ):
        config = configuration(*overrides)
        with pytest.raises(UserError, match=overrides[1].split("=")[0]) as caught:
            check_config(config, read_settings(config.paw))
        assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="no table"):
        read_settings(None)
    with pytest.raises(ImportError, match=r"verl==0\.9\.1"):
        VERL.check("0.8.0")


def test_what_has_an_effect_is_not_refused():
    room = "actor_rollout_ref.actor.ppo_max_token_len_per_gpu=1500"
    for overrides in (
        # verl multiplies its limit by the processes that share a row
        (room, "actor_rollout_ref.actor.ulysses_sequence_parallel_size=4"),
        (room, "actor_rollout_ref.actor.fsdp_config.ulysses_sequence_parallel_size=4"),
        ("algorithm.adv_estimator=gigpo", "paw.algorithm.discount=0.9"),
        ("algorithm.adv_estimator=gae", "algorithm.gamma=0.9", "paw.rollout.context=append"),
        ("distillation.enabled=true", "paw.coefficient=0"),
        ("paw.env.name=search_qa",),  # whose own [algorithm] matches anchors by similarity
    ):
        config = configuration(*overrides)
        check_config(config, read_settings(config.paw))


def test_a_mistake_is_a_line_before_ray_begins(tmp_path):
    """The launch script's program, with no such data."""
    command = [sys.executable, "-m", "paw.integrations.verl", "--config-path", EXAMPLES]
    command += ["--config-name", "verl_alfworld", f"hydra.run.dir={tmp_path}"]
    env = {**os.environ, "ALFWORLD_DATA": str(tmp_path / "none")}
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env=env)
    assert done.returncode == 2, done.stderr
    said = done.stderr.splitlines()[-1]
    assert said.startswith("paw: ") and str(tmp_path / "none") in said
    assert "Traceback" not in done.stderr
