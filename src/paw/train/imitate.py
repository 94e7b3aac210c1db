"""`paw imitate`: warm-starts a policy by behaviour cloning.

Cross-entropy on the demonstrated actions and, with `observation_weight`, on the observations
between them. Junk actions are seen and not imitated, so that the policy meets refusals and learns
to go on. The learner is the trainer's own: each imitated token is a target with a weight.
"""

import json
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import zstandard
from transformers import PreTrainedTokenizerBase

from paw.envs.base import Observation, TaskSource
from paw.errors import UserError
from paw.evals.evaluate import VALIDATION
from paw.model.policy import Policy
from paw.model.small import create_policy_model
from paw.text.dialogue import Serializer
from paw.text.tokenizer import load_tokenizer, make_tokenizer
from paw.train.checkpoint import card_text, new_directory, resolve_model, save_policy
from paw.train.config import Config, OptimizerConfig
from paw.train.learner import Learner, Statistics
from paw.train.run import check_writable, environment_facts
from paw.train.setup import (
    Actor,
    check_vocabulary,
    device_of,
    load_policy,
    make_serializer,
    open_source,
)
from paw.types import Role, SampledAction, Task, TrainingSample

Progress = Callable[[int, dict[str, Any]], None]
"""Called after each step with its number and metrics."""


@dataclass(frozen=True, slots=True)
class Demonstration:
    """One episode to imitate: observation, response, observation, …"""

    task: Task
    observations: tuple[Observation, ...]
    """[turns + 1]; the last one, after the last response, may be empty"""
    responses: tuple[str, ...]
    """[turns]"""
    imitated: tuple[bool, ...]
    """[turns] False for junk"""


def imitate(config: Config, progress: Progress = lambda step, metrics: None) -> dict[str, Any]:
    """Make demonstrations, train on them, write the policy to `imitate.output`.

    Returns:
        What `imitate.json` in that directory says: command, commit, seed, losses, success.

    Raises:
        UserError: no expert, no successful demonstration, or an output that exists already.
    """
    settings = config.imitate
    output = Path(settings.output)
    if output.exists():
        raise UserError(f"imitate.output = {settings.output!r} exists already: choose another")
    check_writable(output)
    if config.run.threads:
        torch.set_num_threads(config.run.threads)
    torch.manual_seed(config.run.seed)
    source, _ = open_source(config), open_evaluation(config)
    if settings.trajectories:
        demonstrations = read_demonstrations(settings.trajectories)
    else:
        demonstrations = expert_demonstrations(source, config, progress)
    policy, tokenizer = start(config, demonstrations)
    serializer = make_serializer(config, tokenizer)
    samples = [make_rows(serializer, d, config) for d in demonstrations]
    samples = [rows for rows in samples if any(any(row.wm_weights) for row in rows)]
    if not samples:
        raise UserError("paw imitate: no demonstration has a valid turn to imitate")
    learner = make_learner(policy, config)
    actor = Actor(config, policy, tokenizer)
    facts, history = environment_facts(), []
    done = 0
    for step, batch in enumerate(batches(samples, config), start=1):
        statistics = Statistics()
        learner.step(_normalised(batch), statistics, rate=rate_at(step - 1, config))
        nll = statistics.mean("target_nll", "target_tokens")
        metrics: dict[str, Any] = {"imitate/nll": nll, "tokens/trained": statistics.sums["tokens"]}
        done = step
        last = step == settings.steps
        if last or (settings.eval_every and step % settings.eval_every == 0):
            result = actor.evaluate(
                config.eval.split, config.eval.episodes, config.eval.temperature, config.run.seed
            )
            result.pop("episodes")
            history.append({"step": step, "nll": nll, **result})
            metrics["eval/success_rate"] = result["success_rate"]
        progress(step, metrics)
        enough = settings.stop_at_success
        if enough is not None and metrics.get("eval/success_rate", -1.0) >= enough:
            break
    report = {
        "steps": done,
        "demonstrations": len(demonstrations),
        "parameters": sum(p.numel() for p in policy.model.parameters()),
        "evaluations": history,
        "seed": config.run.seed,
        **facts,
    }
    _write(output, policy, tokenizer, config, report)
    return report


def expert_demonstrations(
    source: TaskSource, config: Config, progress: Progress = lambda step, metrics: None
) -> list[Demonstration]:
    """Episodes that the environment's expert wins, over shuffled tasks, in this process."""
    settings, rng = config.imitate, random.Random(config.run.seed)
    order: list[int] = []
    demonstrations = []
    for number in range(settings.demonstrations):
        if not order:
            order = list(range(len(source)))
            rng.shuffle(order)
        task, seed = source[order.pop()], rng.randrange(2**31)
        options = {"noise": settings.noise, "junk": settings.junk} | settings.expert
        try:
            expert = source.expert(task, seed, **options)
        except NotImplementedError as error:
            raise UserError(f"paw imitate: {error}; set imitate.trajectories instead") from error
        except TypeError as error:
            raise UserError(f"imitate.expert: {error}") from error
        demonstration = _play(source, task, seed, expert, config)
        if demonstration is not None:
            demonstrations.append(demonstration)
        if number % 100 == 99:
            progress(0, {"demonstrations": len(demonstrations)})
    if not demonstrations:
        raise UserError(f"paw imitate: the expert of {source.name} won none of its episodes")
    return demonstrations


def read_demonstrations(path: str) -> list[Demonstration]:
    """The successful trajectories of a run's trajectory file."""
    try:
        with zstandard.open(path, "rt", encoding="utf-8") as file:
            rows = [json.loads(line) for line in file]
    except (OSError, ValueError, zstandard.ZstdError) as error:
        raise UserError(f"imitate.trajectories = {path!r}: cannot read it: {error}") from error
    try:
        demonstrations = _won(rows)
    except (KeyError, TypeError) as error:
        raise UserError(f"imitate.trajectories = {path!r}: not a run's trajectory file") from error
    if not demonstrations:
        raise UserError(f"imitate.trajectories = {path!r}: no successful trajectory in it")
    return demonstrations


def _won(rows: Sequence[dict[str, Any]]) -> list[Demonstration]:
    demonstrations = []
    for row in rows:
        turns = row["turns"]
        if not row["success"] or not turns:
            continue
        texts = [t["observation"] for t in turns] + [turns[-1]["next_observation"] or ""]
        demonstrations.append(
            Demonstration(
                Task(**row["task"]),
                tuple(Observation(text) for text in texts),
                tuple(t["response"] for t in turns),
                tuple(t["valid"] for t in turns),
            )
        )
    return demonstrations


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
    model = new_model(config, len(tokenizer))
    compute = None if config.model.compute_dtype == "same" else config.model.compute_dtype
    torch.nn.Module.to(model, device_of(config.model.device))
    return Policy(model, compute_dtype=compute), tokenizer


def new_tokenizer(
    config: Config, demonstrations: Sequence[Demonstration]
) -> PreTrainedTokenizerBase:
    """A tokenizer that knows the words of the demonstrations."""
    texts = [o.text for d in demonstrations for o in d.observations]
    texts += [r for d in demonstrations for r in d.responses]
    return make_tokenizer(texts, config.imitate.phrases)


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
    split = config.eval.split or VALIDATION.get(config.env.name, config.env.split)
    return open_source(replace(config, env=replace(config.env, split=split)))


def make_rows(
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
        dialogue.act(action, response)
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
    paw = replace(config.paw, loss="ce")
    return Learner(policy, None, None, optimizer, config.algorithm, paw)


def rate_at(step: int, config: Config) -> float:
    """Share of the learning rate at a step: linear warm-up, then constant or cosine decay."""
    settings = config.imitate
    share = min(1.0, (step + 1) / settings.warmup_steps) if settings.warmup_steps else 1.0
    if settings.final_learning_rate is not None:
        floor = settings.final_learning_rate / settings.learning_rate
        share *= floor + (1 - floor) * 0.5 * (1 + math.cos(math.pi * step / settings.steps))
    return share


def _play(
    source: TaskSource, task: Task, seed: int, expert: Any, config: Config
) -> Demonstration | None:
    """One expert episode; None if it is not won within `max_turns`."""
    environment = source.open(task, seed)
    observations, responses, imitated = [environment.reset()], [], []
    for _ in range(config.rollout.max_turns):
        command = expert.act(observations[-1])
        responses.append(_response(command, config))
        imitated.append(not expert.last_was_junk)
        result = environment.step(command)
        observations.append(result.observation)
        if result.terminated:
            won = bool(result.success)
            environment.close()
            turns = (tuple(observations), tuple(responses), tuple(imitated))
            return Demonstration(task, *turns) if won else None
    environment.close()
    return None


def _response(command: str, config: Config) -> str:
    if config.rollout.response_format == "command":
        return command
    body = command if config.env.name == "search_qa" else f"<action>{command}</action>"
    return f"<think></think>{body}"


def _sample(ids: Sequence[int], weights: Sequence[float]) -> TrainingSample:
    zeros = (0.0,) * len(ids)
    return TrainingSample(
        token_ids=tuple(ids),
        roles=(int(Role.CONTEXT),) * len(ids),
        old_logprobs=zeros,
        advantages=zeros,
        policy_weights=zeros,
        wm_weights=(0.0, *weights[1:]),  # nothing precedes the first token
        base_length=len(ids),
    )


def _normalised(batch: Sequence[TrainingSample]) -> list[TrainingSample]:
    """Weights of a batch divided by their sum: a weighted mean over its tokens."""
    total = sum(sum(s.wm_weights) for s in batch)
    return [replace(s, wm_weights=tuple(w / total for w in s.wm_weights)) for s in batch]


def _write(
    output: Path,
    policy: Policy,
    tokenizer: PreTrainedTokenizerBase,
    config: Config,
    report: dict[str, Any],
) -> None:
    """The policy's directory, whole or not at all."""
    with new_directory(output) as directory:
        save_policy(directory, policy, tokenizer, card_text(config))
        text = json.dumps(report, indent=1)
        (directory / "imitate.json").write_text(text + "\n", encoding="utf-8")
