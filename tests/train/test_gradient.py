"""One update has one gradient, however it is split, and it is the paper's.

The update of `fakes.scripted_groups` holds every odd case at once; all is float64.
"""

import copy
import random
from dataclasses import dataclass, replace

import pytest
import torch

from paw.config.tree import AlgorithmConfig, OptimizerConfig, PawConfig
from paw.model.critic import Critic
from paw.model.packing import pack
from paw.model.policy import Policy
from paw.train.batching import mini_batches
from paw.train.forward import score_actions, score_prompts
from paw.train.judge import Rules, judge
from paw.train.learner import Learner
from paw.train.losses import choose_losses
from paw.train.mismatch import against_sampler
from paw.train.prediction.target import choose_targets
from paw.train.score import Scorer, flatten, make_rows
from paw.train.serialise import serialise
from paw.types import Group, Judgement, Row, TrainingSample

from . import fakes, formula

WHOLE = 100_000
"""Tokens: all samples in one pack."""


@dataclass
class Update:
    """One update as the trainer prepares it."""

    learner: Learner
    reference: Policy | None
    rules: Rules
    rows: list[Row]
    judgement: Judgement
    samples: list[TrainingSample]
    values: list[float]

    def gradient(self, batches=None, scale: float = 1.0, tokens: int = WHOLE) -> torch.Tensor:
        """Sum of the batches' gradients, before any optimizer."""
        self.learner.limit.tokens = tokens
        for batch in batches or [self.samples]:
            self.learner.policy_gradient(batch, scale)
        return fakes.gradient(self.learner.policy.parameters())

    def critic_gradient(self, batches=None, scale: float = 1.0, tokens: int = WHOLE):
        self.learner.limit.tokens = tokens
        assert self.learner.critic is not None
        for batch in batches or [self.samples]:
            self.learner.critic_gradient(batch, scale / len(self.values))
        return fakes.gradient(self.learner.critic.parameters())


def prepare(
    algorithm: AlgorithmConfig,
    paw: PawConfig,
    append: bool,
    groups: list[Group] | None = None,
    policy: Policy | None = None,
) -> Update:
    """Judge and serialise the scripted update with the trainer's own code."""
    policy = policy or fakes.tiny_policy(0)
    reference = fakes.tiny_policy(1) if algorithm.kl_coefficient else None
    critic = None
    if algorithm.name == "ppo":
        critic = Critic.from_policy(fakes.tiny_policy(2))
        with torch.no_grad():
            critic.head.weight.copy_(torch.linspace(-1, 1, 16, dtype=torch.float64)[None])
    learner = Learner(policy, critic, choose_losses(algorithm, paw), OptimizerConfig())
    generator = torch.Generator().manual_seed(0)
    transitions, columns = flatten(groups or fakes.scripted_groups(append))
    rows = make_rows(transitions, columns, append)
    rng = random.Random(3)
    # Old values that differ from the critic's now, so that some of its clips hold.
    values = [rng.uniform(-2, 4) for _ in transitions]
    scores = fakes.scores_of(
        transitions,
        values if critic else None,
        score_actions(reference, rows, WHOLE)[0] if reference else None,
    )
    rules = Rules(algorithm, paw, formula.MAX_RETURN)
    judgement = judge(columns, scores, rules, 1, generator)
    serializer = fakes.scripted(append)
    targets = choose_targets(transitions, columns, judgement, paw, serializer, generator=generator)
    samples = serialise(rows, scores, judgement, targets)
    return Update(learner, reference, rules, rows, judgement, samples, values)


def relative(a: torch.Tensor, b: torch.Tensor) -> float:
    """Largest difference over the largest entry."""
    return float((a - b).abs().max() / b.abs().max())


def plain(policy) -> torch.nn.Module:
    """A copy of the policy's model that runs as transformers made it."""
    model = copy.deepcopy(policy.model)
    model.set_attn_implementation("sdpa")
    return model


CASES = [
    ("grpo", "cmae", "token", 0.0),
    ("grpo", "mae", "sequence", 0.1),
    ("rloo", "cmae", "sequence", 0.0),
    ("rloo", "ce", "token", 0.05),
    ("gigpo", "cmae", "token", 0.0),
    ("gigpo", "mae", "token", 0.1),
    ("ppo", "cmae", "token", 0.0),
    ("ppo", "ce", "sequence", 0.1),
]


@pytest.fixture(params=[False, True], ids=["window", "append"], scope="module")
def append(request) -> bool:
    return request.param


@pytest.fixture(params=CASES, ids=["-".join(map(str, c)) for c in CASES], scope="module")
def update(request, append) -> Update:
    name, loss, aggregation, kl = request.param
    algorithm = AlgorithmConfig(name=name, aggregation=aggregation, kl_coefficient=kl)
    return prepare(algorithm, PawConfig(loss=loss, coefficient=0.7), append)


def test_gradient_is_the_papers(update: Update, append: bool):
    learner = update.learner
    model = plain(learner.policy)
    reference = update.reference and plain(update.reference)
    rules = update.rules
    loss = formula.objective(
        fakes.scripted_groups(append), model, reference, rules.algorithm, rules.paw,
        append=append, values=update.values,
    )  # fmt: skip
    loss.backward()
    expected = fakes.gradient(list(model.parameters()))
    assert float(expected.abs().max()) > 1e-3
    assert relative(update.gradient(), expected) < 1e-12
    statistics = learner.policy_gradient(update.samples)
    fakes.gradient(learner.policy.parameters())
    total = statistics.total("policy_loss") + statistics.total("wm_loss")
    assert total == pytest.approx(loss.item(), rel=1e-12)


def test_any_split_gives_the_same_gradient(update: Update):
    whole = update.gradient()
    samples = list(update.samples)
    assert relative(update.gradient(tokens=1), whole) < 1e-12  # one row per forward
    threes = [samples[i : i + 3] for i in range(0, len(samples), 3)]
    assert relative(update.gradient(threes), whole) < 1e-12
    assert relative(update.gradient(tokens=40), whole) < 1e-12
    random.Random(1).shuffle(samples)
    assert relative(update.gradient([samples]), whole) < 1e-12


KINDS = {"all": {}, "checkpointed": {"gradient_checkpointing": True}, "lora": {"lora_rank": 2}}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "algorithm", [AlgorithmConfig(), AlgorithmConfig(name="gigpo")], ids=["grpo", "gigpo"]
)
def test_shared_beginnings_change_no_gradient(append: bool, algorithm: AlgorithmConfig, kind: str):
    """Of whole rows against beginnings computed once; 32 tokens a row in `window`, up to 47 in
    `append`."""
    if kind == "lora":
        pytest.importorskip("peft")
    policy = Policy(fakes.tiny_model(), **KINDS[kind])
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:  # starts at 0, which would leave the other factor without gradient
                parameter.fill_(0.1)
    groups = fakes.alike_groups(append)
    paw = PawConfig(weight="constant", constant=0.5)
    update = prepare(algorithm, paw, append, groups, policy)
    sums = {}
    for tokens in (120, WHOLE):
        gradients = {}
        for share in (False, True):
            policy.share_prefixes = share
            gradients[share] = update.gradient(tokens=tokens)
            statistics = update.learner.policy_gradient(update.samples)
            fakes.gradient(policy.parameters())
            sums[share, tokens] = statistics.total("computed")
        assert float(gradients[False].abs().max()) > 1e-3
        assert relative(gradients[True], gradients[False]) < 1e-12
        assert sums[True, tokens] < 0.8 * sums[False, tokens]
    assert sums[True, WHOLE] < sums[True, 120]


def test_shared_beginnings_change_no_score(append: bool):
    update = prepare(AlgorithmConfig(name="ppo"), PawConfig(), append, fakes.alike_groups(append))
    policy, critic = update.learner.policy, update.learner.critic
    assert critic is not None and critic.share_prefixes
    found = {}
    for share in (False, True):
        policy.share_prefixes = critic.share_prefixes = share
        logprobs, entropies = score_actions(policy, update.rows, 150)
        values = score_prompts(critic, update.rows, 150)
        flat = [x for row in logprobs + entropies for x in row]
        found[share] = torch.tensor(flat).double(), values, update.critic_gradient(tokens=150)
    for ours, whole in zip(found[True], found[False], strict=True):
        assert relative(ours, whole) < 1e-12


@pytest.mark.parametrize("count", [2, 5])
def test_mini_batches_sum_to_m_times_the_update(update: Update, count: int):
    batches = mini_batches(update.samples, count, torch.Generator().manual_seed(7))
    assert [len(b) > 0 for b in batches] == [True] * count
    total = update.gradient(batches, scale=count)
    assert relative(total, count * update.gradient()) < 1e-12


def test_critic_gradient_is_exact_and_splits(append: bool):
    algorithm = AlgorithmConfig(name="ppo", gae_discount=0.9, gae_lambda=0.8)
    update = prepare(algorithm, PawConfig(), append)
    critic = update.learner.critic
    assert critic is not None
    backbone, head = copy.deepcopy(critic.backbone), copy.deepcopy(critic.head)
    backbone.set_attn_implementation("sdpa")
    loss = formula.critic_objective(
        fakes.scripted_groups(append), backbone, head, algorithm,
        append=append, values=update.values,
    )  # fmt: skip
    loss.backward()
    expected = fakes.gradient([*backbone.parameters(), *head.parameters()])
    whole = update.critic_gradient()
    assert relative(whole, expected) < 1e-12
    assert relative(update.critic_gradient(tokens=1), expected) < 1e-12
    batches = mini_batches(update.samples, 3, torch.Generator().manual_seed(7))
    assert relative(update.critic_gradient(batches, scale=3), 3 * expected) < 1e-12


def test_the_scripted_update_holds_every_odd_case(append: bool):
    """Guards the tests above: they would be weaker without these."""
    algorithm, paw = AlgorithmConfig(), PawConfig()
    update = prepare(algorithm, paw, append)
    judgement = update.judgement
    transitions, columns = flatten(fakes.scripted_groups(append))
    assert len(transitions) == 17 and int(columns.candidates.sum()) == 16
    assert int(judgement.selected.sum()) == 12
    per_group = [int(judgement.selected[columns.group == g].sum()) for g in range(5)]
    assert per_group == [4, 3, 3, 2, 0]  # a group with nothing selected, still one of G = 5
    assert judgement.group_weights.tolist() == pytest.approx([2 / 3, 0, 1, 0.75, 0.75])
    lengths = {len(s.token_ids) - s.base_length for s in update.samples}
    assert 0 in lengths and len(lengths) > 2
    chosen = [t for t, s in zip(transitions, judgement.selected, strict=True) if s]
    assert {1, fakes.MAX_OBSERVATION_TOKENS} <= {len(t.next_observation_ids) for t in chosen}
    assert any(t.num_cut_tokens == 3 for t in chosen)
    assert any(not t.action.finished for t in chosen)
    # Both sides of the clip range, both signs of the advantage, both sides of rho.
    statistics = update.learner.policy_gradient(update.samples)
    count = statistics.total("action_tokens")
    assert 0.1 < statistics.total("clipped") / count < 0.5
    assert 0 < statistics.total("masked_targets") / statistics.total("target_tokens") < 0.5
    assert 0 < statistics.total("zero_advantage_tokens") < count


def test_scores_and_values_are_those_of_single_rows(append: bool):
    update = prepare(AlgorithmConfig(name="ppo"), PawConfig(), append)
    policy, critic = update.learner.policy, update.learner.critic
    assert critic is not None
    logprobs, entropies = score_actions(policy, update.rows, 30)
    values = score_prompts(critic, update.rows, 30).tolist()
    model, backbone = plain(policy), copy.deepcopy(critic.backbone)
    backbone.set_attn_implementation("sdpa")
    pool = formula.transitions_of(fakes.scripted_groups(append), append)
    for x, own, spread, value in zip(pool, logprobs, entropies, values, strict=True):
        with torch.no_grad():
            expected = formula.logprobs_of(model, x.prompt, x.t.action.token_ids)
            hidden = backbone(input_ids=torch.tensor([x.prompt])).last_hidden_state[0, -1]
            ids = torch.tensor([[*x.prompt, *x.t.action.token_ids]])
            rows_ = model(input_ids=ids).logits[0, len(x.prompt) - 1 : -1].log_softmax(-1)
        assert own == pytest.approx(expected.tolist(), rel=1e-10)
        assert spread == pytest.approx((-(rows_.exp() * rows_).sum(-1)).tolist(), rel=1e-10)
        assert value == pytest.approx(critic.head(hidden).item(), rel=1e-10)


def test_diagnosis_measures_each_term_and_changes_nothing():
    """Norms of the two terms' gradients against each term alone."""
    update, other = (prepare(AlgorithmConfig(), PawConfig(), False) for _ in range(2))
    learner = update.learner
    plain_gradient = update.gradient()
    learner.limit.tokens = other.learner.limit.tokens = 40
    statistics = learner.step(update.samples, diagnose=True)
    other.learner.step(other.samples)
    for ours, theirs in zip(
        learner.policy.parameters(), other.learner.policy.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs)
    bare = prepare(AlgorithmConfig(), PawConfig(enabled=False), False).gradient()
    assert statistics.total("policy_gradient_norm") == pytest.approx(float(bare.norm()))
    alone = plain_gradient - bare
    assert statistics.total("wm_gradient_norm") == pytest.approx(float(alone.norm()))
    assert float(alone.norm()) > 1e-3 < float(bare.norm())
    cosine = float(alone @ bare / (alone.norm() * bare.norm()))
    assert statistics.mean("gradient_cosine", "cosines") == pytest.approx(cosine, rel=1e-9)
    assert 0.01 < abs(cosine) < 0.99


@torch.no_grad()
def logprobs_at_actions(policy, rows: list[tuple[tuple[int, ...], int, int]]) -> torch.Tensor:
    """Log-probs of tokens a..b of each row, all packed."""
    packed = pack([row for row, _, _ in rows], policy.device)
    offsets = packed.boundaries
    positions = [
        offset + p for offset, (_, a, b) in zip(offsets, rows, strict=False) for p in range(a, b)
    ]
    return policy.logprobs(packed, torch.tensor(positions))[0]


def test_the_next_observation_cannot_move_action_logprobs():
    """Swapped for another of its length: equal to the bit. Appended or not: to fp32 rounding."""
    policy = fakes.tiny_policy(0, torch.float32)
    rng = random.Random(5)
    base, swapped, alone = [], [], []
    for t in flatten(fakes.scripted_groups(append=False))[0]:
        prompt, action = t.context_ids, t.action.token_ids
        span = (len(prompt), len(prompt) + len(action))
        head = (*prompt, *action, *fakes.to_user(t.action))
        other = tuple(rng.randrange(4, fakes.VOCAB) for _ in t.next_observation_ids)
        base.append(((*head, *t.next_observation_ids), *span))
        swapped.append(((*head, *other), *span))
        alone.append(((*prompt, *action), *span))
    with_target = logprobs_at_actions(policy, base)
    assert torch.equal(with_target, logprobs_at_actions(policy, swapped))
    # At most 9.6e-7 over six policies and updates: one unit in the last place of 8.
    assert float((with_target - logprobs_at_actions(policy, alone)).abs().max()) <= 1e-5


def test_importance_weights_are_those_of_the_sampler(append):
    """At ratio 1 a token's gradient is -A w min(exp(score - sampler), 1.5) grad log p, and the
    prediction has none of it. The scripted sampler is up to e^3 off, both ways."""
    cap = 1.5
    algorithm = AlgorithmConfig(old_logprobs="score", importance_cap=cap)
    policy, model = fakes.tiny_policy(0), plain(fakes.tiny_policy(0))
    transitions, columns = flatten(fakes.scripted_groups(append))
    rows = make_rows(transitions, columns, append)
    scorer = against_sampler(Scorer(policy, None, None, True, True, WHOLE), algorithm)
    scores = scorer(transitions, rows)
    for paw in (PawConfig(coefficient=0.0), PawConfig()):
        rules = Rules(algorithm, paw, formula.MAX_RETURN)
        generator = torch.Generator().manual_seed(0)
        judgement = judge(columns, scores, rules, 1, generator)
        targets = choose_targets(
            transitions, columns, judgement, paw, fakes.scripted(append), generator=generator
        )
        own, without = (
            Learner(policy, None, choose_losses(algorithm, paw), OptimizerConfig())
            for _ in range(2)
        )
        found = []
        for learner, seen in ((own, scores), (without, replace(scores, importance=None))):
            learner.policy_gradient(serialise(rows, seen, judgement, targets))
            found.append(fakes.gradient(policy.parameters()))
            policy.model.zero_grad()
        loss, plain_loss = torch.zeros(()).double(), torch.zeros(()).double()
        for i, x in enumerate(formula.transitions_of(fakes.scripted_groups(append), append)):
            logprobs = formula.logprobs_of(model, x.prompt, x.t.action.token_ids)
            for k, logprob in enumerate(logprobs):
                token = float(judgement.action_weights[i] * -judgement.advantages[i]) * logprob
                weight = (logprob.detach() - x.t.action.logprobs[k]).exp().clamp(max=cap)
                loss, plain_loss = loss + token * float(weight), plain_loss + token
        expected = []
        for one in (loss, plain_loss):
            model.zero_grad()
            one.backward(retain_graph=True)
            expected.append(fakes.gradient(model.parameters()))
        if not paw.coefficient:
            assert relative(found[0], expected[0]) < 1e-12
        # The prediction is the same with weights and without.
        assert relative(found[0] - found[1], expected[0] - expected[1]) < 1e-11
    assert {cap} < {w for action in scores.importance or [] for w in action}
