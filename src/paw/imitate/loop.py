"""`paw imitate`: warm-starts a policy by behaviour cloning.

Cross-entropy on the demonstrated actions and, with `observation_weight`, on the observations
between them. Junk actions are seen and not imitated, so that the policy meets refusals and learns
to go on. The learner is the trainer's own: each imitated token is a target with a weight.
"""

import json
import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedTokenizerBase

from paw.config.tree import Config, OptimizerConfig
from paw.envs.base import TaskSource
from paw.errors import UserError
from paw.evals.play import evaluate
from paw.imitate.demonstrations import Demonstration, expert_demonstrations, read_demonstrations
from paw.model.load import DTYPES, device_of, shape_of
from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.rollout.actor import (
    Actor,
    check_vocabulary,
    load_policy,
    make_serializer,
    on_split,
    open_source,
    wrap_policy,
)
from paw.rollout.fit import settle, usable_bytes
from paw.runs import read
from paw.runs.card import card_text
from paw.runs.console import Progress, Say
from paw.runs.facts import environment_facts
from paw.runs.files import check_writable, new_directory
from paw.runs.header import imitation_header
from paw.runs.interrupt import InterruptGuard
from paw.runs.layout import resolve_model
from paw.runs.threads import set_threads
from paw.text.dialogue import Serializer
from paw.text.tokenizer import load_tokenizer, make_tokenizer
from paw.train.checkpoint import save_policy
from paw.train.learner import Learner
from paw.train.losses import choose_losses
from paw.types import Role, SampledAction, TrainingSample


def imitate(
    config: Config,
    progress: Progress = lambda step, metrics: None,
    say: Say = lambda text: None,
    origins: Sequence[str] = (),
) -> dict[str, Any]:
    """Make demonstrations, train on them, write the policy to `imitate.output`: at the end, and at
    each evaluation on the way.

    Args:
        progress: called while demonstrations are played, and after each step.
        say: gets the header.
        origins: where values of `config` come from, for the header.

    Returns:
        What `imitate.json` in that directory says: command, commit, seed, losses, success.

    Raises:
        UserError: no expert, no successful demonstration, or an output that exists already or has
            no room for the policy.
        KeyboardInterrupt: Ctrl-C was pressed; the policy as of that step has been written.
    """
    settings = config.imitate
    output = Path(settings.output)
    if output.exists():
        raise UserError(f"imitate.output = {settings.output!r} exists already: choose another")
    check_writable(output)
    torch.manual_seed(config.run.seed)
    source, _ = open_source(config), open_evaluation(config)
    if settings.trajectories:
        demonstrations = read_demonstrations(settings.trajectories)
    else:
        demonstrations = expert_demonstrations(source, config, progress)
    room = usable_bytes(device_of(config.model.device))
    policy, tokenizer = start(config, demonstrations)
    config = settle(config, shape_of(policy.config), room)
    set_threads(config.run.threads, policy.num_parameters)
    serializer = make_serializer(config, tokenizer)
    samples = [demonstration_rows(serializer, d, config) for d in demonstrations]
    samples = [rows for rows in samples if any(any(row.target_weights) for row in rows)]
    if not samples:
        raise UserError("paw imitate: no demonstration has a valid turn to imitate")
    # Later ones are written beside the first, and take its place when they are whole.
    check_writable(output, _num_bytes(policy) * (2 if settings.eval_every else 1))
    say(imitation_header(config, policy, len(demonstrations), origins))
    report = {
        "steps": 0,
        "finished": False,
        "demonstrations": len(demonstrations),
        "parameters": policy.num_parameters,
        "evaluations": [],
        "seed": config.run.seed,
        **environment_facts(),
    }
    _train(samples, policy, tokenizer, config, report, progress)
    return report


def _train(
    samples: Sequence[list[TrainingSample]],
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    config: Config,
    report: dict[str, Any],
    progress: Progress,
) -> None:
    """Learn from the samples, evaluate, write; `report` says how far it came."""
    settings, evaluation = config.imitate, config.eval
    learner, actor = make_learner(policy, config), Actor(config, policy, tokenizer)
    with InterruptGuard("step") as interrupt:
        for step, batch in enumerate(batches(samples, config), start=1):
            statistics = learner.step(_normalised(batch), rate_share=rate_share(step - 1, config))
            nll = statistics.mean("target_nll", "target_tokens")
            metrics: dict[str, Any] = {
                "imitate/nll": nll,
                "tokens/trained": statistics.sums["tokens"],
            }
            report["steps"], last = step, step == settings.steps
            due = last or (settings.eval_every > 0 and step % settings.eval_every == 0)
            if due and not interrupt.asked:
                actor.sampler.load(policy, step)
                result = evaluate(
                    actor,
                    evaluation.split,
                    evaluation.episodes,
                    evaluation.temperature,
                    config.run.seed,
                )
                result.pop("episodes")
                report["evaluations"].append({"step": step, "nll": nll, **result})
                metrics["eval/success_rate"] = success = result["success_rate"]
                enough = settings.stop_at_success
                report["finished"] = last or (enough is not None and success >= enough)
            progress(step, metrics)
            if due or interrupt.asked:
                _write(Path(settings.output), policy, tokenizer, config, report)
            if report["finished"]:
                return
            if interrupt.asked:
                raise KeyboardInterrupt


def stopped(config: Config) -> str:
    """What to say after Ctrl-C."""
    if not (Path(config.imitate.output) / "imitate.json").is_file():
        return "stopped; nothing was kept"
    step = read.imitation(config.imitate.output).steps
    return (
        f"stopped; {config.imitate.output} holds the policy of step {step:,} of "
        f"{config.imitate.steps:,}, which is not the finished one: begin anew into another "
        f"imitate.output, or go on from it as model.path = {config.imitate.output!r}"
    )


def start(
    config: Config, demonstrations: Sequence[Demonstration]
) -> tuple[Policy, PreTrainedTokenizerBase]:
    """The policy to train: `model.path`, or a new one whose tokenizer knows the demonstrations."""
    settings = config.imitate
    if not settings.from_scratch:
        path = resolve_model(config.model.path)
        policy, tokenizer = load_policy(config, path), load_tokenizer(path)
        check_vocabulary(policy, tokenizer, config.model.path)
        return policy, tokenizer
    tokenizer = new_tokenizer(config, demonstrations)
    return new_policy(config, len(tokenizer)), tokenizer


def new_tokenizer(
    config: Config, demonstrations: Sequence[Demonstration]
) -> PreTrainedTokenizerBase:
    """A tokenizer that knows the words of the demonstrations."""
    texts = [o.text for d in demonstrations for o in d.observations]
    texts += [r for d in demonstrations for r in d.responses]
    return make_tokenizer(texts, config.imitate.phrases)


def new_policy(config: Config, vocab_size: int) -> Policy:
    """A policy with fresh weights, as [imitate] and [model] say."""
    model = new_model(config, vocab_size)
    torch.nn.Module.to(model, device_of(config.model.device), DTYPES[config.model.dtype])
    return wrap_policy(config, model)


def new_model(config: Config, vocab_size: int, device: str = "cpu") -> Any:
    """A small model as [imitate] says; on `meta` without weights."""
    settings = config.imitate
    with torch.device(device):
        return create_policy_model(
            vocab_size=vocab_size,
            hidden_size=settings.hidden_size,
            num_layers=settings.num_layers,
            num_heads=settings.num_heads,
            num_kv_heads=settings.num_kv_heads,
            intermediate_size=8 * settings.hidden_size // 3,
            max_positions=settings.max_positions,
            seed=config.run.seed,
        )


def open_evaluation(config: Config) -> TaskSource:
    """The tasks that the policy is evaluated on; a wrong split must not show after training."""
    return open_source(on_split(config, config.eval.split))


def demonstration_rows(
    serializer: Serializer, demonstration: Demonstration, config: Config
) -> list[TrainingSample]:
    """The rows of one episode (`append`: one, `window`: one a turn), with weight 1 on imitated
    action tokens and `observation_weight` on observation tokens."""
    dialogue = serializer.dialogue(demonstration.task)
    share = config.imitate.observation_weight
    ids: list[int] = []
    weights: list[float] = []
    rows = []
    action = SampledAction((), (), None, finished=False)
    turns = zip(
        demonstration.observations, demonstration.responses, demonstration.imitated, strict=False
    )
    for observation, response, imitated in turns:
        dialogue.observe(observation.text, observation.commands)
        prompt = dialogue.prompt()
        tokens = (*serializer.encode(response), serializer.format.end_of_turn)
        action = SampledAction(tokens, (), None, finished=True)
        ids += prompt.context_ids
        weights += [share if role == Role.OBSERVATION else 0.0 for role in prompt.context_roles]
        ids += tokens
        weights += [1.0 if imitated else 0.0] * len(tokens)
        dialogue.act(action, serializer.parse(response).command)
        if not serializer.append:
            rows.append(_sample(ids, weights))
            ids, weights = [], []
    if not serializer.append:
        return rows
    last = demonstration.observations[-1].text
    if share and last:
        scaffold = serializer.to_user(action)
        target = serializer.encode(last)
        ids += [*scaffold, *target]
        weights += [0.0] * len(scaffold) + [share] * len(target)
    return [_sample(ids, weights)]


def batches(
    samples: Sequence[list[TrainingSample]], config: Config
) -> Iterator[list[TrainingSample]]:
    """`imitate.steps` batches of whole episodes, over a fresh shuffle in each epoch."""
    rng, order = random.Random(config.run.seed), []
    for _ in range(config.imitate.steps):
        batch: list[TrainingSample] = []
        for _ in range(min(config.imitate.batch_episodes, len(samples))):
            if not order:
                order = list(range(len(samples)))
                rng.shuffle(order)
            batch += samples[order.pop()]
        yield batch


def make_learner(policy: Policy, config: Config) -> Learner:
    """The trainer's learner with cross-entropy on every weighted token."""
    settings = config.imitate
    optimizer = OptimizerConfig(
        learning_rate=settings.learning_rate,
        betas=(0.9, 0.98),
        max_grad_norm=settings.max_grad_norm,
        tokens_per_micro_batch=config.optimizer.tokens_per_micro_batch,
    )
    losses = choose_losses(config.algorithm, replace(config.paw, loss="ce"))
    return Learner(policy, None, losses, optimizer)


def rate_share(step: int, config: Config) -> float:
    """Share of the learning rate at a step: linear warm-up, then constant or cosine decay."""
    settings = config.imitate
    share = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.final_learning_rate is not None:
        floor = settings.final_learning_rate / settings.learning_rate
        share *= floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return share


def _sample(ids: Sequence[int], weights: Sequence[float]) -> TrainingSample:
    zeros = (0.0,) * len(ids)
    return TrainingSample(
        token_ids=tuple(ids),
        roles=(int(Role.CONTEXT),) * len(ids),
        old_logprobs=zeros,
        advantages=zeros,
        policy_weights=zeros,
        target_weights=(0.0, *weights[1:]),  # nothing precedes the first token
        base_length=len(ids),
    )


def _normalised(batch: Sequence[TrainingSample]) -> list[TrainingSample]:
    """Weights of a batch divided by their sum: a weighted mean over its tokens."""
    total = sum(sum(s.target_weights) for s in batch)
    return [replace(s, target_weights=tuple(w / total for w in s.target_weights)) for s in batch]


def _num_bytes(policy: Policy) -> int:
    """Size of the policy's weights."""
    return sum(p.numel() * p.element_size() for p in policy.model.parameters())


def _write(
    output: Path,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    config: Config,
    report: dict[str, Any],
) -> None:
    """The policy's directory, whole or not at all."""
    with new_directory(output) as directory:
        card = card_text(config, f"paw imitate, step {report['steps']}")
        save_policy(directory, policy, tokenizer, card)
        text = json.dumps(report, indent=1)
        (directory / "imitate.json").write_text(text + "\n", encoding="utf-8")
